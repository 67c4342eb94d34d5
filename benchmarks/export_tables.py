"""How many events are exported a second to OMOP, CSV and MEDS, and how much memory that takes.

Reproduce: `python benchmarks/export_tables.py` (about ten minutes on a core; `--small` for a quick look).
`--events FOLDER` takes events that are there already, `--patients N` another number of reference patients.

The built-in reference population, as a MEDS data set, is written as OMOP CDM 5.4 tables (CSV and Parquet), as CSV
files and as MEDS. Each export runs in a process of its own, so that its peak memory (resident set) is its own;
importing the library is part of it.

Caveats: nothing is mapped to standard concepts, which adds the reading of the vocabulary files. CSV is bound by
writing: the bytes are reported.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measure import Seconds, arguments, rates, report, rounded, timed

import ehrsim
from ehrsim.reference import write_reference

PATIENTS, SMALL = 20_000, 50


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--patients", type=int, default=PATIENTS)
    parser.add_argument("--events", type=Path)
    parser.add_argument("--formats", default=",".join(_exports()))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        events = options.events or folder / "events"
        if options.events is None:
            write_reference(events, SMALL if options.small else options.patients, seed=1)
        formats = {name: _measured(name, events, folder, options.repeats) for name in options.formats.split(",")}
    report("export_tables", formats=formats)


def _exports() -> dict[str, Callable[[Path, Path], Any]]:
    return {
        "omop-csv": ehrsim.export_omop,
        "omop-parquet": partial(ehrsim.export_omop, format="parquet"),
        "csv": ehrsim.export_csv,
        "meds": ehrsim.export_meds,
    }


def _measured(name: str, events: Path, folder: Path, repeats: int) -> dict[str, Any]:
    """The rates of one export and the largest peak of its repeats."""
    runs = []
    for number in range(repeats):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            runs.append(pool.apply(_run, (name, events, folder / f"{name}-{number}")))
    counts, _, _ = runs[-1]
    peak = max(run[2] for run in runs)
    return {**rates(counts, [run[1] for run in runs]), "peak_gb": rounded(peak)}


def _run(name: str, events: Path, out: Path) -> tuple[dict[str, float], Seconds, float]:
    """What one export wrote, what it took, and the most memory the process had, in GB."""
    made, taken = timed(lambda: _exports()[name](events, out))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    unit = 1e9 if sys.platform == "darwin" else 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {"events": made.events, "patients": made.patients, "bytes": size}, taken, peak


if __name__ == "__main__":
    main()
