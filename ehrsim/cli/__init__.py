"""The command line: names, arguments and help here, the work in the library.

Nothing heavy is imported before a command runs, so that `--help` is quick. Exit codes: 0 success, 1 a failed check,
2 bad input or usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from cyclopts import App, CycloptsError

from ehrsim.cli import commands, demo, evaluate, export
from ehrsim.errors import EhrsimError

app = App(
    name="ehrsim",
    help="Learn how patients' records unfold, and simulate patients who never existed, as events and as FHIR.",
    version=lambda: version("ehrsim"),
    help_format="plaintext",
)
EXAMPLES = {
    "demo": "ehrsim demo --patients 20 --people 300 --max-steps 30 --out demo",
    "reference": "ehrsim reference -n 500 --seed 1 --out population",
    "import": "ehrsim import population --out events --held-out 0.1",
    "inspect": "ehrsim inspect events",
    "fit": "ehrsim fit events --model markov --max-steps 60 --out run",
    "generate": "ehrsim generate run -n 50 --seed 7 --sex female --age 18:90 --out cohort",
    "export": "ehrsim export cohort --to fhir --out fhir",
    "upload": "ehrsim upload fhir --server http://127.0.0.1:8080/fhir",
    "evaluate": "ehrsim evaluate --real events --synthetic cohort --out report",
    "schemas": "ehrsim schemas written",
}
"""An example of each command, shown in its help; each works on what those before it wrote, `upload` with a server."""
MORE_EXAMPLES = {
    "export": (
        "ehrsim export cohort --format ips --out summaries",
        "ehrsim export cohort --to cds-hooks --hooks patient-view,order-sign --out requests",
        "ehrsim export cohort --to omop --format parquet --out omop",
    ),
}
"""Further examples of a command, shown and working like its first one."""

_COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo.demo,
    "reference": commands.reference,
    "import": commands.import_,
    "inspect": commands.inspect,
    "fit": commands.fit,
    "generate": commands.generate,
    "export": export.export,
    "upload": commands.upload,
    "evaluate": evaluate.evaluate,
    "schemas": commands.schemas,
}
for _order, (_name, _command) in enumerate(_COMMANDS.items()):
    _epilogue = "\n\n".join(f"Example: {example}" for example in (EXAMPLES[_name], *MORE_EXAMPLES.get(_name, ())))
    app.command(_command, name=_name, sort_key=_order, help_epilogue=_epilogue)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (that of the process by default) and return its exit code."""
    _set_up_jax()
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _fail(f"{' '.join(str(error).split())} (hint: see --help)", 2)
    except EhrsimError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone; nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 2)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing half-written is left", 130)
    return 0


def main() -> None:
    """Entry point of the `ehrsim` command."""
    sys.exit(run())


def _fail(message: str, code: int) -> int:
    print(f"ehrsim: {message}", file=sys.stderr)
    return code


def _set_up_jax() -> None:
    """Keep compiled programs between runs, and keep the compiler's log off the terminal, unless the user says else."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ehrsim" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
