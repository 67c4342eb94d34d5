"""How much memory an export takes, by the number of patients: it is to be the same however many there are.

Reproduce: `python benchmarks/export_memory.py` (some ten minutes, ten gigabytes of disk; `--small` for a quick look).

Patients of the built-in reference population, with few of their visits, are written as many times over as it takes, as
a MEDS data set in shards, and exported as FHIR NDJSON by the command line in a process of its own, whose largest
resident memory the kernel tells (Linux). `--validate fast` holds the resources against the rules of FHIR as well.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl
from measure import arguments, report, rounded

import ehrsim
from ehrsim.reference import population

COUNTS, SMALL = (20_000, 100_000), (200, 400)
SHARD, SMALL_SHARD = 2_000, 100
EVERY = 30
"""One visit in so many is kept."""


def write_events(patients: int, shard: int, folder: Path) -> None:
    """So many patients in shards: the patients of the first one again and again, with other numbers."""
    visit = pl.col("visit_id")
    first = population(shard, seed=1).filter(visit.is_null() | (visit % EVERY == 1))
    ehrsim.write_events(first, folder)
    for one in sorted((folder / "data").rglob("*.parquet")):
        for number in range(1, patients // shard):
            again = pl.read_parquet(one).with_columns(pl.col("subject_id") + number * shard)
            again.write_parquet(one.with_name(f"{one.stem}-{number:04d}.parquet"))


EXPORT = """
import json, resource, sys
from ehrsim.cli import main
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(json.dumps({"cpu_s": used.ru_utime + used.ru_stime, "peak_mb": peak / 1024}))
"""
"""The largest memory that `getrusage` tells would be that of the process that started this one, where it is larger."""


def measured(events: Path, out: Path, validate: str) -> dict[str, float]:
    """Seconds of CPU and largest resident memory of an export, in a process of its own."""
    command = ["export", str(events), "--out", str(out), "--validate", validate]
    done = subprocess.run([sys.executable, "-c", EXPORT, *command], stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {name: rounded(value) for name, value in figures.items()}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--validate", choices=["none", "fast", "full"], default="none")
    options = parser.parse_args()
    counts, shard = (SMALL, SMALL_SHARD) if options.small else (COUNTS, SHARD)
    figures = []
    for patients in counts:
        with tempfile.TemporaryDirectory() as folder:
            events, out = Path(folder) / "events", Path(folder) / "fhir"
            write_events(patients, shard, events)
            found = measured(events, out, options.validate)
            size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
            figures.append({"patients": patients, "gigabytes": rounded(size / 1e9), **found})
            print(figures[-1], file=sys.stderr)
            shutil.rmtree(out)
    report("export_memory", validate=options.validate, figures=figures)


if __name__ == "__main__":
    main()
