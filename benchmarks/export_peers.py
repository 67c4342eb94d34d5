"""How many FHIR resources and megabytes a CPU second makes: ehrsim beside what else Python offers, in one run.

Reproduce: `python benchmarks/export_peers.py --work FOLDER` (some ten minutes on a core; a package index for the first
run; 2 GB of disk). Without `--work`, whatever needs an environment of its own is left out; `--small` shows quickly that
the script works. A table goes to standard error, all figures as one JSON line to standard output.

Three kinds of rows:

- ehrsim's export of the built-in reference population to NDJSON, and the same with simulating the patients first;
- resources of that export, some thousand of every type, read in as dicts: through the models of fhir.resources
  (validated and dumped), and as dicts, filled anew or not, dumped by orjson and by json. Each type is timed by itself,
  and rates are for the mix of types of the export;
- other packages that simulate patients as FHIR, pinned in `peers/requirements/`, each in an environment of its own.

Whole programs are run once to warm the file cache, then in turns for few patients and for many. CPU seconds are those
of the process and its children as the kernel tells them, with one thread each. A rate counts everything from starting
Python; one "beyond the start" is what the further patients took. Resources are counted by reading what was written.

Caveats: the first kind exports events that are there, the second makes nothing up, the third simulates as well. Mix and
size of resources differ: rates by bytes are of JSON without white space, so that indenting earns nothing. Dicts that
are dumped again and again are in the processor's cache, and nothing is written.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from measure import arguments, report, rounded

import ehrsim
from ehrsim.reference import write_reference

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from environments import NoEnvironmentError, python_for
from fhir_programs import EXPORTED, GIVEN, PROGRAMS, SIMULATED, Job, Program

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")} | {"POLARS_MAX_THREADS": "1"}
SHORTEST = 0.1
"""CPU seconds that a measurement within this process takes at least."""
Figures = dict[str, Any]


class FailedError(RuntimeError):
    """A program ended with an error, or wrote no FHIR; the text is one line and says why."""


class Written(NamedTuple):
    """What is in a folder of FHIR; `compact` are the bytes of its resources without white space."""

    resources: int
    patients: int
    bytes: int
    compact: int


def parsed() -> Namespace:
    """The arguments; ends the script where a program is unknown."""
    parser = arguments(__doc__)
    parser.add_argument("--work", type=Path, help="a folder for the environments of peers, kept for the next run")
    known = sorted({program.requirements for program in PROGRAMS.values()} - {""})
    parser.add_argument("--peers", default=",".join(known), help="names with commas between; default: %(default)s")
    parser.add_argument("--sample", type=int, default=1_000, help="resources of every type, at most")
    parser.add_argument("--seconds", type=float, default=30, help="CPU seconds after which a program is not run again")
    options = parser.parse_args()
    options.peers = [name for name in options.peers.split(",") if name]
    if unknown := [name for name in options.peers if name not in known]:
        parser.error(f"unknown peer `{unknown[0]}`: known are {', '.join(known)}")
    if options.small:
        options.sample = 20
    return options


# Whole programs ------------------------------------------------------------------------------------------------------


def cpu_seconds(command: list[str], scratch: Path, apart: bool) -> float:
    """Run a program to its end; CPU seconds of it and of its children. `apart` keeps it from our packages."""
    told = {**os.environ, **ONE_THREAD}
    if apart:
        told.pop("PYTHONPATH", None)
    said = scratch / "said"
    with said.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=told, cwd=scratch if apart else None)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
        raise FailedError(f"ended with {process.returncode}: {lines[-1].strip()[:200] if lines else 'it says nothing'}")
    return usage.ru_utime + usage.ru_stime


def documents(folder: Path) -> Iterator[tuple[Path, Any]]:
    """Every JSON document below a folder, of `.json` files and of lines of `.ndjson` files."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".json":
            yield path, orjson.loads(path.read_bytes())
        elif path.suffix == ".ndjson":
            with path.open("rb") as lines:
                yield from ((path, orjson.loads(line)) for line in lines if line.strip())


def written(folder: Path) -> Written:
    """Count the resources below a folder, those in bundles one by one; what is no FHIR counts for nothing."""
    resources = patients = compact = 0
    files = set()
    for path, document in documents(folder):
        kind = document.get("resourceType") if isinstance(document, dict) else None
        if kind is None:
            continue
        files.add(path)
        entries = document.get("entry", []) if kind == "Bundle" else [{"resource": document}]
        found = [entry["resource"] for entry in entries if "resource" in entry]
        resources += len(found)
        patients += sum(resource["resourceType"] == "Patient" for resource in found)
        compact += sum(len(orjson.dumps(resource)) + 1 for resource in found)
    if not resources:
        raise FailedError("it wrote no FHIR")
    return Written(resources, patients, sum(path.stat().st_size for path in files), compact)


class Course:
    """The runs of one program for few patients and for many: CPU seconds, what it wrote, or why it failed."""

    def __init__(self, program: Program, scratch: Path, small: bool) -> None:
        self.program, self.scratch = program, scratch
        self.sizes = (program.few, 2 * program.few if small else program.many)
        self.python = Path(sys.executable)
        self.seconds: dict[int, list[float]] = defaultdict(list)
        self.written: dict[int, Written] = {}
        self.failed = ""

    def attempt(self, work: Callable[[], Any]) -> None:
        """Do some of the course unless it failed before; what goes wrong is kept as one line."""
        try:
            if not self.failed:
                work()
        except (NoEnvironmentError, FailedError, OSError, orjson.JSONDecodeError) as error:
            self.failed = str(error)

    def begin(self, work: Path | None) -> None:
        """Make the environment, and run once without timing so that files are in the cache."""
        if self.program.requirements:
            if not work:
                raise FailedError("needs an environment of its own: name a folder with --work")
            self.python = python_for(self.program.requirements, work.resolve() / "environments")
        self.run(self.program.few)

    def go_on(self) -> None:
        """One run for few patients and one for many."""
        for patients in self.sizes:
            self.seconds[patients].append(self.run(patients))

    def run(self, patients: int) -> float:
        """Run the program; CPU seconds. What it wrote is counted the first time."""
        out = self.scratch / "out"
        job = Job(self.python, patients, self.scratch / f"events-{patients}", out)
        try:
            taken = cpu_seconds(self.program.command(job), self.scratch, apart=bool(self.program.requirements))
            if patients not in self.written:
                self.written[patients] = written(out)
        finally:
            for folder in (out, out.with_name("out-events")):
                shutil.rmtree(folder, ignore_errors=True)
        return taken

    def figures(self) -> Figures:
        """Rates of the median run, with and without the start."""
        few, many = (self.written[size] for size in self.sizes)
        start, cpu = (statistics.median(self.seconds[size]) for size in self.sizes)
        return {
            "records": self.program.records,
            "patients": many.patients,
            "resources": many.resources,
            "bytes_as_written": many.bytes,
            "bytes_per_resource": rounded(many.compact / many.resources),
            "runs": len(self.seconds[self.sizes[1]]),
            "cpu_seconds": [round(taken, 3) for taken in self.seconds[self.sizes[1]]],
            "start_cpu_seconds": [round(taken, 3) for taken in self.seconds[self.sizes[0]]],
            "resources_per_cpu_second": rounded(many.resources / cpu),
            "mb_per_cpu_second": rounded(many.compact / 1e6 / cpu),
            **_beyond_the_start(few, many, cpu - start),
        }


def _beyond_the_start(few: Written, many: Written, cpu: float) -> Figures:
    """Rates of what many patients took beyond few ones; none where noise hides it."""
    seen = cpu > 0.05 and many.resources > few.resources
    return {
        "resources_per_cpu_second_beyond_the_start": rounded((many.resources - few.resources) / cpu) if seen else None,
        "mb_per_cpu_second_beyond_the_start": rounded((many.compact - few.compact) / 1e6 / cpu) if seen else None,
    }


def run_programs(options: Namespace, scratch: Path) -> dict[str, Figures]:
    """The figures of every program, or one line of why it has none."""
    chosen = {name: one for name, one in PROGRAMS.items() if one.requirements in ("", *options.peers)}
    courses = {name: Course(program, scratch, options.small) for name, program in chosen.items()}
    for course in courses.values():
        course.attempt(lambda course=course: course.begin(options.work))
    for _ in range(options.repeats):
        for course in courses.values():
            if sum(map(sum, course.seconds.values())) < options.seconds:
                course.attempt(course.go_on)
    return {name: {"failed": one.failed} if one.failed else one.figures() for name, one in courses.items()}


# The same resources by other ways ------------------------------------------------------------------------------------


def sampled(folder: Path, most: int) -> tuple[dict[str, list[Figures]], Counter[str]]:
    """Resources of every type of an NDJSON export, evenly from all of it, and how many it has."""
    counts: Counter[str] = Counter()
    chosen = {}
    for path in sorted(folder.glob("*.ndjson")):
        with path.open("rb") as lines:
            counts[path.stem] = sum(1 for _ in lines)
        every = -(-counts[path.stem] // most)
        with path.open("rb") as lines:
            chosen[path.stem] = [orjson.loads(line) for at, line in enumerate(lines) if at % every == 0]
    return chosen, counts


def anew(part: Any) -> Any:
    """A part of a resource, with every dict and list in it filled anew: what any builder of dicts does at least."""
    if type(part) is dict:
        return {name: anew(value) for name, value in part.items()}
    return [anew(value) for value in part] if type(part) is list else part


def through_models(kind: str) -> Callable[[Figures], bytes]:
    """Validate a resource by the R4B model of its type and dump it."""
    from fhir.resources.R4B import get_fhir_model_class

    model = get_fhir_model_class(kind)
    return lambda resource: model.model_validate(resource).model_dump_json().encode()


def _by_json(resource: Figures) -> bytes:
    return json.dumps(resource, separators=(",", ":"), ensure_ascii=False).encode()


WAYS: dict[str, Callable[[str], Callable[[Figures], bytes]]] = {
    "fhir.resources R4B, validated and dumped": through_models,
    "dicts filled, dumped by json": lambda _: lambda resource: _by_json(anew(resource)),
    "dicts filled, dumped by orjson": lambda _: lambda resource: orjson.dumps(anew(resource)),
    "dicts that are there, dumped by orjson": lambda _: orjson.dumps,
}


def seconds_each(work: Callable[[Figures], bytes], resources: list[Figures]) -> float:
    """CPU seconds a resource."""
    passes, begun = 0, time.process_time()
    while (taken := time.process_time() - begun) < SHORTEST or not passes:
        for resource in resources:
            work(resource)
        passes += 1
    return taken / passes / len(resources)


def _mean_size(work: Callable[[Figures], bytes], resources: list[Figures]) -> float:
    return statistics.mean(len(work(resource)) + 1 for resource in resources)


def run_ways(samples: dict[str, list[Figures]], counts: Counter[str], repeats: int) -> dict[str, Figures]:
    """Rates of every way for the mix of `counts`, from the CPU seconds that a resource of each type takes."""
    number = sum(counts.values())
    works = {name: {kind: way(kind) for kind in samples} for name, way in WAYS.items()}
    size = {
        name: sum(counts[kind] * _mean_size(work[kind], some) for kind, some in samples.items())
        for name, work in works.items()
    }
    measured: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for name, work in works.items():
            measured[name].append(sum(counts[kind] * seconds_each(work[kind], samples[kind]) for kind in samples))
    made = {}
    for name, seconds in measured.items():
        cpu = statistics.median(seconds)
        made[name] = {
            "records": f"{sum(map(len, samples.values())):,} resources of {len(samples)} types",
            "resources": number,
            "bytes_per_resource": rounded(size[name] / number),
            "runs": repeats,
            "cpu_seconds": [round(taken, 3) for taken in seconds],
            "resources_per_cpu_second": rounded(number / cpu),
            "mb_per_cpu_second": rounded(size[name] / 1e6 / cpu),
        }
    return made


# The table -----------------------------------------------------------------------------------------------------------


def with_ratios(found: dict[str, Figures]) -> dict[str, Figures]:
    """How many times as many resources and bytes as each row ehrsim makes a CPU second, from the same on."""
    for name, figures in found.items():
        simulates = name in PROGRAMS and PROGRAMS[name].records != GIVEN
        base = found[SIMULATED if simulates else EXPORTED]
        if "failed" not in figures and "failed" not in base:
            for unit in ("resources", "mb"):
                figures[f"ehrsim_is_times_by_{unit}"] = rounded(_best(base, unit) / _best(figures, unit))
    return found


def _best(figures: Figures, unit: str) -> float:
    """The rate beyond the start where there is one."""
    rate = f"{unit}_per_cpu_second"
    return figures.get(f"{rate}_beyond_the_start") or figures[rate]


def table(found: dict[str, Figures]) -> str:
    """One row a way to FHIR; below, what failed."""
    head = [
        "",
        "records",
        "runs",
        "bytes each",
        "resources/s",
        "beyond start",
        "MB/s",
        "beyond start",
        "by resources",
        "by MB",
    ]
    keys = ["records", "runs", "bytes_per_resource", "resources_per_cpu_second"]
    keys += ["resources_per_cpu_second_beyond_the_start", "mb_per_cpu_second", "mb_per_cpu_second_beyond_the_start"]
    keys += ["ehrsim_is_times_by_resources", "ehrsim_is_times_by_mb"]
    whole = {name: figures for name, figures in found.items() if "failed" not in figures}
    rows = [head, *([name, *(_shown(figures.get(key)) for key in keys)] for name, figures in whole.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([*map(str.ljust, row[:2], widths), *map(str.rjust, row[2:], widths[2:])]) for row in rows]
    lines.append(f"Seconds are CPU seconds. The last columns say how many times as fast `{EXPORTED}` is,")
    lines.append(f"or `{SIMULATED}` for rows that simulate as well.")
    failures = (f"{name}: {figures['failed']}" for name, figures in found.items() if "failed" in figures)
    return "\n".join([*lines, *failures])


def _shown(value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def main() -> None:
    options = parsed()
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        scratch = Path(folder)
        program = PROGRAMS[EXPORTED]
        many = 2 * program.few if options.small else program.many
        for patients in (program.few, many):
            write_reference(scratch / f"events-{patients}", patients, seed=1)
        ehrsim.export_fhir(scratch / f"events-{many}", scratch / "sample", validate="none")
        samples, counts = sampled(scratch / "sample", options.sample)
        shutil.rmtree(scratch / "sample")
        found = run_programs(options, scratch) | run_ways(samples, counts, options.repeats)
    print(table(with_ratios(found)), file=sys.stderr)
    report("export_peers", rows=found, mix=dict(counts))


if __name__ == "__main__":
    main()
