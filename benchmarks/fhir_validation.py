"""How many FHIR resources are validated a second: while they are exported, and in files.

Reproduce: `python benchmarks/fhir_validation.py` (some minutes on 2 cores; `--small` for a quick look).

The built-in reference population is exported as NDJSON with each extent of `validate`, and the export is then held
against the rules by `validate_fhir`. `fast` holds every byte against the compiled schema and every reference against
what it leads to; `full` adds the invariants on the first resource of every shape and on a sample (in an export), or on
every resource (of files; measured on fewer patients). With `--corpus FOLDER`, a folder of a good bundle and copies with
one defect each (`good.json`, `mutants/`, `manifest.json`), it counts the defects that are caught.

Caveats: the first lines of each shape cost most, so small exports are slower a resource; the first use of `full` reads
the classes of fhir.resources and parses the invariants, which takes seconds. The mix of resources decides.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import orjson
from measure import arguments, rates, report, timed

import ehrsim
from ehrsim.reference import population

PATIENTS, SMALL, FEW = 1_000, 40, 3


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--corpus", type=Path, help="a folder of mutants, to count those that are caught")
    options = parser.parse_args()
    patients = SMALL if options.small else PATIENTS
    with tempfile.TemporaryDirectory() as folder:
        events, few = Path(folder) / "events", Path(folder) / "few"
        ehrsim.write_events(population(patients, seed=1), events)
        ehrsim.write_events(population(FEW, seed=1), few)
        exports = {
            extent: exported(events, Path(folder), extent, options.repeats) for extent in ("none", "fast", "full")
        }
        files = {
            "fast": inspected(Path(folder) / "fhir-fast", "fast", options.repeats),
            "full": full_files(few, Path(folder)),
        }
    caught = defects(options.corpus) if options.corpus else {}
    report("fhir_validation", patients=patients, export=exports, files=files, caught=caught)


def exported(events: Path, folder: Path, extent: Any, repeats: int) -> dict[str, Any]:
    out = folder / f"fhir-{extent}"
    runs = [timed(lambda: ehrsim.export_fhir(events, out, validate=extent, overwrite=True)) for _ in range(repeats)]
    made = runs[-1][0]
    figures = rates({"resources": sum(made.resources.values())}, [taken for _, taken in runs])
    return {**figures, "in_full": made.in_full}


def inspected(out: Path, extent: Any, repeats: int) -> dict[str, Any]:
    runs = [timed(lambda: ehrsim.validate_fhir(out, extent)) for _ in range(repeats)]
    found = runs[-1][0]
    return {**rates({"resources": sum(found.resources.values())}, [taken for _, taken in runs]), "errors": found.found}


def full_files(few: Path, folder: Path) -> dict[str, Any]:
    ehrsim.export_fhir(few, folder / "few-fhir", validate="none")
    return inspected(folder / "few-fhir", "full", 1)


def defects(corpus: Path) -> dict[str, str]:
    """How many mutants have an error, by extent and version of US Core, and the errors of the good bundle."""
    mutants = [mutant["id"] for mutant in orjson.loads((corpus / "manifest.json").read_bytes())]
    counts = {}
    for version in ("6.1", "8.0"):
        for extent in ("fast", "full"):
            reports = [ehrsim.validate_fhir(corpus / "mutants" / f"{name}.json", extent, version) for name in mutants]
            good = ehrsim.validate_fhir(corpus / "good.json", extent, version).found
            caught = sum(not one.ok for one in reports)
            counts[f"US Core {version}, {extent}"] = f"{caught} of {len(mutants)}, {good} errors on the good bundle"
    return counts


if __name__ == "__main__":
    main()
