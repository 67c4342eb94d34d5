"""How many events are imported a second, by format.

Reproduce: `python benchmarks/import_events.py` (about 2 minutes on 2 cores; `--small` for a quick look).

The source is the built-in reference population, written as MEDS Parquet and as FHIR NDJSON, so that anyone can run it.
Counted are the events that come out of `ehrsim.import_events`: reading, canonical codes and units, grouping by subject
through spill files, sorting, splitting and writing Parquet.

Caveats: the file cache is warm, since the source has just been written. The FHIR is ehrsim's own, without the long
narratives and extensions of some servers. A FHIR resource may hold several events or none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measure import arguments, rates, report, timed

import ehrsim
from ehrsim.reference import population

PATIENTS, SMALL = 1_000, 50


def as_meds(folder: Path, patients: int) -> Path:
    """The reference population as a MEDS folder."""
    source = folder / "meds"
    if not source.exists():
        ehrsim.write_events(population(patients, seed=1), source)
    return source


def as_fhir(folder: Path, patients: int) -> Path:
    """The same as FHIR NDJSON."""
    source = folder / "fhir"
    ehrsim.export_fhir(as_meds(folder, patients), source, format="ndjson", validate="none")
    return source


SOURCES: dict[str, Callable[[Path, int], Path]] = {"meds": as_meds, "fhir": as_fhir}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--formats", nargs="+", choices=list(SOURCES), default=list(SOURCES))
    options = parser.parse_args()
    patients = SMALL if options.small else PATIENTS
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.formats:
            source = SOURCES[name](Path(folder), patients)
            size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
            imported = partial(
                ehrsim.import_events, source, Path(folder) / "imported", format=name, identified=True, overwrite=True
            )
            runs = [timed(imported) for _ in range(options.repeats)]
            counts = {"events": runs[-1][0].events, "bytes": size}
            figures[name] = rates(counts, [taken for _, taken in runs])
    report("import_events", patients=patients, formats=figures)


if __name__ == "__main__":
    main()
