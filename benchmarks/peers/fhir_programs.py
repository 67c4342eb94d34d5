"""Programs that write FHIR, and how each is called: those of `export_peers.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
EXPORTED, SIMULATED = "ehrsim, validate fast", "ehrsim, reference simulated and exported"
"""What rows are held against: those that simulate as well against the second, the others against the first."""
EHRSIM = "from ehrsim.cli import main; main()"
SIMULATE_AND_EXPORT = """
import sys, ehrsim
from ehrsim.reference import write_reference
people, out = int(sys.argv[1]), sys.argv[2]
write_reference(out + "-events", people, seed=1)
ehrsim.export_fhir(out + "-events", out, validate="fast")
"""


class Job(NamedTuple):
    """What a program is asked for: the Python to run it with, how many patients, events there are, and where to."""

    python: Path
    patients: int
    events: Path
    out: Path


class Program(NamedTuple):
    """A program that writes FHIR: what its records are, its command, how many patients are few and many for it."""

    records: str
    command: Callable[[Job], list[str]]
    few: int
    many: int
    requirements: str = ""


def _ehrsim(validate: str) -> Callable[[Job], list[str]]:
    def command(job: Job) -> list[str]:
        return [str(job.python), "-c", EHRSIM, "export", str(job.events), "--out", str(job.out), "--validate", validate]

    return command


def _tool(name: str, options: str) -> Callable[[Job], list[str]]:
    """A command line that an environment holds; N stands for the number of patients, OUT for the folder."""

    def command(job: Job) -> list[str]:
        told = {"N": str(job.patients), "OUT": str(job.out)}
        return [str(job.python.with_name(name)), *(told.get(option, option) for option in options.split())]

    return command


def _syntha(visits: int) -> Callable[[Job], list[str]]:
    script = str(HERE / "syntha_ehr.py")
    told = ("--visits", str(visits))
    return lambda job: [str(job.python), script, "--patients", str(job.patients), *told, "--out", str(job.out)]


def _simulated(job: Job) -> list[str]:
    return [str(job.python), "-c", SIMULATE_AND_EXPORT, str(job.patients), str(job.out)]


CAREBUNDLE = "generate --profile mixed --sex mixed --count N --seed 7 --out OUT --format"
CLINOSIM = "simulate -p N -s 7 --country US --end 2026-01-01 --format fhir -o OUT"
TIETAI = "-p N -s 7 -r 20260101 --threads 1 -o OUT"
GIVEN, LIVES, VISIT = "events of reference patients", "rules, whole lives", "rules, one visit"
PROGRAMS = {
    "ehrsim, validate none": Program(GIVEN, _ehrsim("none"), 5, 500),
    EXPORTED: Program(GIVEN, _ehrsim("fast"), 5, 500),
    SIMULATED: Program(LIVES, _simulated, 5, 500),
    "carebundle 0.5.0, ndjson": Program(VISIT, _tool("carebundle", f"{CAREBUNDLE} ndjson"), 5, 500, "carebundle"),
    "carebundle 0.5.0, bundles": Program(VISIT, _tool("carebundle", f"{CAREBUNDLE} bundle"), 5, 500, "carebundle"),
    "syntha-ehr 0.5.10, one visit": Program("learned (copula), one visit", _syntha(1), 5, 1_000, "syntha-ehr"),
    "syntha-ehr 0.5.10, four visits": Program("learned (copula), first visit varied", _syntha(4), 5, 500, "syntha-ehr"),
    "clinosim 0.6.5": Program("rules, one year", _tool("clinosim", CLINOSIM), 10, 150, "clinosim"),
    "tietai-synthea 1.5.0": Program(LIVES, _tool("synthea", TIETAI), 1, 8, "tietai-synthea"),
}
