"""How many patients and events are generated to Parquet a second, for records of about 10 visits of 10 codes.

Reproduce: `python benchmarks/generate.py` (minutes on 2 cores, mostly training; `--small` for a quick look).

A model is trained on reference patients cut to their last 10 visits; then `generate_to` loads it, draws patients, and
writes them as a MEDS data set. What the simulated records amount to in the mean is reported beside the rates: the
model, not this script, decides how long they are. JAX compiles in a first, small call, reported as `compile`.

Caveats: a rate of patients means nothing without visits a patient and codes a visit. More slots use the caches and
vector units better, up to a point. With several processes each compiles for itself, which is not left out: measure one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from measure import arguments, rates, report, rounded, timed

import ehrsim
from ehrsim.evaluate.records import codes_per_visit, records
from ehrsim.reference import population
from ehrsim.sampling import generate_to
from ehrsim.training import training_config

PEOPLE, STEPS, PATIENTS = 2_000, 400, 20_000
SMALL_PEOPLE, SMALL_STEPS, SMALL_PATIENTS = 200, 80, 300
VISITS = 10


def last_visits(events: pl.DataFrame, number: int) -> pl.DataFrame:
    """The events of the last `number` visits of each patient, with birth, death and static facts."""
    recency = pl.col("visit_id").rank("dense", descending=True).over("subject_id")
    return events.filter(pl.col("visit_id").is_null() | (recency <= number))


def content(events: pl.LazyFrame) -> dict[str, float]:
    """Means of a cohort: visits a patient, distinct codes a visit, events a patient."""
    codes, patients = codes_per_visit(events), records(events)
    return {
        "visits_per_patient": rounded(float(np.mean(patients["visits"].to_numpy()))),
        "codes_per_visit": rounded(float(np.average(codes["codes"], weights=codes["visits"]))),
        "events_per_patient": rounded(events.select(pl.len()).collect().item() / patients.height),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=["vae", "gan", "markov"], default="vae")
    parser.add_argument("--slots", type=int, default=256, help="patients drawn side by side")
    parser.add_argument("--patients", type=int, help="how many patients a repeat draws")
    options = parser.parse_args()
    people, steps, patients = (
        (SMALL_PEOPLE, SMALL_STEPS, SMALL_PATIENTS) if options.small else (PEOPLE, STEPS, PATIENTS)
    )
    patients = options.patients or patients
    with tempfile.TemporaryDirectory() as folder:
        events, run, out = (Path(folder) / name for name in ("events", "run", "cohort"))
        ehrsim.write_events(last_visits(population(people, seed=1), VISITS), events)
        ehrsim.fit(events, run, model=options.model, training=training_config("small", max_steps=steps, raking=0))

        def draw(number: int) -> None:
            generate_to(run, out, number, seed=7, slots=options.slots, overwrite=True)

        _, compiling = timed(lambda: draw(options.slots))
        seconds = [timed(lambda: draw(patients))[1] for _ in range(options.repeats)]
        drawn = ehrsim.read_events(out)
        counts = {"patients": patients, "events": drawn.select(pl.len()).collect().item()}
        report(
            "generate",
            model=options.model,
            slots=options.slots,
            compile={name: rounded(value) for name, value in compiling._asdict().items()},
            simulated=content(drawn),
            trained_on=content(ehrsim.read_events(events)),
            **rates(counts, seconds),
        )


if __name__ == "__main__":
    main()
