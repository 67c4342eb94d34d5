"""Holds exports of many patients against judges that know nothing of ehrsim, by samples that cover every shape.

Reproduce: `python benchmarks/fhir_judges.py [EVENTS ...]` (minutes a data set; `--small` for a quick look).

Each event table (a MEDS folder; without any, the built-in reference population) is exported as NDJSON with all types of
resources, and every resource is held against the rules of ehrsim itself (`validate="fast"`). Then one resource of every
shape is picked: resources are of one shape if they have the same elements, profiles, codes, units and statuses; they
differ in ids, references, times, numbers and words. The sample is held against

* fhir.resources (its R4B classes, which are those of R4 for these types),
* fhirkit-rs (`pip install fhirkit-rs`; left out where it is not installed), and
* any command of `--judge`, which gets the path of the sample as its last argument and fails by its exit code.

`--samples FOLDER` keeps the samples. `--us-core` is the version of US Core. The result names the errors of each judge.

Caveats: a word or number can be wrong in one resource of a shape and right in the one that was picked; the rules of
ehrsim, which see all of them, hold their forms.
"""

from __future__ import annotations

import importlib
import shlex
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import polars as pl
from measure import arguments, report, timed

import ehrsim
from ehrsim.fhir.inspection import fhir_files, open_lines
from ehrsim.fhir.validation.layouts import holes_of, masked
from ehrsim.fhir.writers import ON_REQUEST
from ehrsim.reference import population

SMALL = 20
DECISIVE = frozenset(
    """resourceType url system code unit profile status intent use type kind mode comparator gender scoring language
    contentType rank severity criticality actuality clinicalStatus""".split()  # noqa: SIM905
)
"""Elements whose content a judge may hold against a rule; of others only the type counts."""
SHOWN = 5


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("events", nargs="*", type=Path, help="event tables; the reference population without any")
    parser.add_argument("--patients", type=int, default=2_000, help="the first so many of each, by subject id")
    parser.add_argument("--us-core", default="6.1", choices=["6.1", "8.0"])
    parser.add_argument("--judge", action="append", default=[], help="a command that judges the file it is given last")
    parser.add_argument("--samples", type=Path, help="a folder to keep the samples in")
    options = parser.parse_args()
    patients = SMALL if options.small else options.patients
    with tempfile.TemporaryDirectory() as folder:
        kept = options.samples or Path(folder) / "samples"
        kept.mkdir(parents=True, exist_ok=True)
        tables = {path.name: path for path in options.events} or {"reference": reference(patients, Path(folder))}
        sets = {
            name: judged(few(path, patients, Path(folder)), Path(folder) / "out", kept / f"{name}.ndjson", options)
            for name, path in tables.items()
        }
    report("fhir_judges", us_core=options.us_core, sets=sets)


def reference(patients: int, folder: Path) -> Path:
    """The built-in population, written as events."""
    ehrsim.write_events(population(patients, seed=1), folder / "reference")
    return folder / "reference"


def few(path: Path, patients: int, folder: Path) -> Path:
    """The first patients of an event table, as one of their own."""
    table = ehrsim.read_events(path)
    chosen = table.select("subject_id").unique().sort("subject_id").head(patients).collect()["subject_id"]
    ehrsim.write_events(
        table.filter(pl.col("subject_id").is_in(chosen.implode())).collect(), folder / "few", overwrite=True
    )
    return folder / "few"


def judged(events: Path, out: Path, sample: Path, options: Any) -> dict[str, Any]:
    """Export a table, pick its sample, and ask every judge."""
    made, taken = timed(
        lambda: ehrsim.export_fhir(events, out, include=ON_REQUEST, us_core=options.us_core, overwrite=True)
    )
    picked = list(one_of_each(out))
    sample.write_bytes(b"".join(line for _, line in picked))
    resources = [orjson.loads(line) for _, line in picked]
    judges = {"fhir.resources": by_fhir_resources(resources), "fhirkit-rs": by_fhirkit([line for _, line in picked])}
    judges |= {command: by_command(command, sample) for command in options.judge}
    return {
        "patients": made.patients,
        "resources": sum(made.resources.values()),
        "valid_by_own_rules": sum(made.validated.values()),
        "cpu_seconds": round(taken.cpu, 1),
        "shapes": len(picked),
        "shapes_by_type": dict(sorted(Counter(one["resourceType"] for one in resources).items())),
        "judges": judges,
    }


def one_of_each(folder: Path) -> Iterator[tuple[int, bytes]]:
    """One line of every shape of a folder of NDJSON, the first that comes, with a number of its shape."""
    layouts, shapes = set[int](), set[int]()
    for file in fhir_files(folder):
        with open_lines(file) as lines:
            for line in lines:
                # Lines of one layout differ in ids, times and numbers only, so they are of one shape.
                layout = hash(masked(line, holes_of(line)))
                if layout in layouts:
                    continue
                layouts.add(layout)
                shape = hash(shape_of(orjson.loads(line)))
                if shape not in shapes:
                    shapes.add(shape)
                    yield shape, line


def shape_of(value: Any, path: str = "") -> frozenset[tuple[str, str]]:
    """The elements of a resource, each with its content where that is decisive, else with the type of it."""
    if isinstance(value, dict):
        parts = [shape_of(member, f"{path}.{name}") for name, member in value.items()]
        return frozenset().union(*parts)
    if isinstance(value, list):
        return frozenset().union(*(shape_of(member, path) for member in value))
    name = path.rpartition(".")[2]
    # A text with the parts of a date has as many as its precision.
    told = str(value) if name in DECISIVE else type(value).__name__ + (str(len(value)) if _is_time(value) else "")
    return frozenset([(path, told)])


def _is_time(value: Any) -> bool:
    return isinstance(value, str) and 10 <= len(value) <= 30 and value[4:5] == "-" and value[7:8] == "-"


def by_fhir_resources(resources: list[Any]) -> dict[str, Any]:
    """Errors of the classes of fhir.resources."""
    from pydantic import ValidationError

    errors = list[str]()
    for resource in resources:
        kind = resource["resourceType"]
        model = getattr(importlib.import_module(f"fhir.resources.R4B.{kind.lower()}"), kind)
        try:
            model.model_validate(resource)
        except ValidationError as error:
            errors += [f"{kind}/{resource['id']}: {one['loc']}: {one['msg']}" for one in error.errors()]
    return {"errors": len(errors), "first": errors[:SHOWN]}


def by_fhirkit(lines: list[bytes]) -> dict[str, Any]:
    """Errors of fhirkit-rs; none of its warnings."""
    try:
        fhirkit = importlib.import_module("fhirkit")
    except ImportError:
        return {"skipped": "fhirkit-rs is not installed"}
    found = [(line, str(issue)) for line in lines for issue in fhirkit.validate(line)]
    errors = [f"{line[:90].decode()}: {issue}" for line, issue in found if issue.startswith(("error", "fatal"))]
    return {"errors": len(errors), "first": errors[:SHOWN]}


def by_command(command: str, sample: Path) -> dict[str, Any]:
    """What a command says: its last line, and its first ones where it fails."""
    done = subprocess.run([*shlex.split(command), str(sample)], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines() or done.stderr.splitlines() or [""]
    return {"exit_code": done.returncode, "last": lines[-1], "first": lines[:SHOWN] if done.returncode else []}


if __name__ == "__main__":
    main()
