"""How many FHIR resources are exported a second.

Reproduce: `python benchmarks/export.py` (about a minute on 2 cores; `--small` for a quick look).

The built-in reference population, as a MEDS data set, is written as FHIR R4 by `ehrsim.export_fhir`: reading Parquet,
building every resource, and writing one NDJSON file a resource type.

Caveats: nothing is validated (`validate="none"`), which users should leave on for data they hand on. The mix of
resources decides: observations are small, patients and care plans are not; the mix is reported.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from measure import arguments, rates, report, timed

import ehrsim
from ehrsim.reference import population

PATIENTS, SMALL, WARM_UP = 1_000, 50, 5


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--format", choices=["ndjson", "transaction", "collection"], default="ndjson")
    options = parser.parse_args()
    patients = SMALL if options.small else PATIENTS
    with tempfile.TemporaryDirectory() as folder:
        events, few, out = (Path(folder) / name for name in ("events", "few", "fhir"))
        ehrsim.write_events(population(patients, seed=1), events)
        ehrsim.write_events(population(WARM_UP, seed=1), few)

        def export(source: Path) -> dict[str, int]:
            made = ehrsim.export_fhir(source, out, format=options.format, validate="none", overwrite=True)
            return dict(made.resources)

        export(few)
        runs = [timed(lambda: export(events)) for _ in range(options.repeats)]
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    resources = runs[-1][0]
    counts = {"resources": sum(resources.values()), "patients": patients, "bytes": size}
    mix = dict(sorted(resources.items()))
    report("export", format=options.format, mix=mix, **rates(counts, [taken for _, taken in runs]))


if __name__ == "__main__":
    main()
