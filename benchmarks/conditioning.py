"""Cohorts on conditions: that all are kept, by how many of the records drawn, and that all else is right.

Reproduce: `python benchmarks/conditioning.py` with the built-in reference population: women who are 40 to 60 years old
at the end of their record, with type 2 diabetes and without chronic kidney disease. `--run RUN` takes a run that was
trained on it already. `--small` shows in minutes that the script works (with women of any age and disease).

The cohort is exactly as large as asked for. The prevalence of all codes that are not part of the conditions is compared
with that of people of the reference population who keep the conditions and were never trained on, beside another such
sample (the floor): total variation distance and R squared of codes by patient, as `fidelity.py` has them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from measure import arguments, report, rounded, timed

import ehrsim
from ehrsim import codes, runs
from ehrsim.evaluate.patterns import distances, patterns, vocabulary
from ehrsim.evaluate.resampling import figure, resamples
from ehrsim.reference import population
from ehrsim.runs import Run
from ehrsim.sampling import Conditions, generated_blocks
from ehrsim.training import training_config

PEOPLE, SMALL_PEOPLE = 4_000, 300
SMALL_STEPS = 30
AT_ONCE, SMALL_AT_ONCE = 5_000, 300
DRAWS = 200

CONDITIONS = Conditions(sex="female", age=(40, 60), required=("ICD10CM//E11*",), excluded=("ICD10CM//N18*",))
SMALL_CONDITIONS = Conditions(sex="female", excluded=("ICD10CM//N18*",))


def patients(conditions: Conditions, number: int, at_once: int) -> Iterator[pl.DataFrame]:
    """Those of the reference population, none of them trained on, who keep the conditions: `number`, in parts."""
    found, seed = 0, 1000
    while found < number:
        everyone = population(at_once, seed=seed).lazy().collect()
        kept = everyone.filter(pl.col("subject_id").is_in(keeping(everyone, conditions)[: number - found].implode()))
        found += kept["subject_id"].n_unique()
        yield kept.with_columns(subject_id=pl.col("subject_id") + seed * (at_once + 1))
        seed += 1


def keeping(events: pl.DataFrame, conditions: Conditions) -> pl.Series:
    """The subjects who keep the conditions, read from the events without the sampler's help."""

    def having(pattern: str) -> pl.Expr:
        return pl.col("code").str.starts_with(pattern.removesuffix("*")).any()

    birth = pl.col("time").filter(pl.col("code") == codes.BIRTH).first()
    facts = events.group_by("subject_id", maintain_order=True).agg(
        (pl.col("code") == f"GENDER//{conditions.sex}").any().alias("sex"),
        # In whole days, as records are drawn.
        ((pl.col("time").max().dt.date() - birth.dt.date()).dt.total_days() / 365.25).alias("age"),
        *(having(code).alias(f"with {code}") for code in conditions.required),
        *(~having(code).alias(f"without {code}") for code in conditions.excluded),
    )
    low, high = conditions.age or (-1, 200)
    kept = facts.filter(
        pl.col("age").is_between(low, high, closed="left"),
        pl.all_horizontal(pl.exclude("subject_id", "age")),
    )
    return kept["subject_id"]


def compared(
    held_out: pl.DataFrame, real: pl.DataFrame, simulated: pl.DataFrame, conditions: Conditions
) -> dict[str, Any]:
    """Distances of the codes that are not part of the conditions."""
    stems = [code.removesuffix("*") for code in (*conditions.required, *conditions.excluded)]
    plain = pl.col("code").str.replace(r"^[a-z_]+//", "")
    others = [
        part.lazy().filter(~pl.any_horizontal(plain.str.starts_with(stem) for stem in stems))
        for part in (held_out, real, simulated)
    ]
    weights = resamples(
        *(part.select(pl.col("subject_id").n_unique()).collect().item() for part in others), draws=DRAWS
    )
    known = vocabulary(*others)
    truth, another, model = (patterns(part, known).code_by_patient for part in others)
    found = distances(truth, model, weights.held_out, weights.simulated)
    floor = distances(truth, another, weights.held_out, weights.real)
    figures = {
        "tvd": figure(found.total_variation, floor.total_variation),
        "r2": figure(found.r_squared, floor.r_squared, bounds=(-np.inf, 1.0)),
    }
    return {name: {key: _rounded(part) for key, part in found._asdict().items()} for name, found in figures.items()}


def _rounded(part: Any) -> Any:
    return part if part is None else np.vectorize(rounded)(part).tolist()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--run", type=Path, help="a run that was trained on the reference population")
    parser.add_argument("--patients", type=int, default=1_000, help="size of the cohort")
    parser.add_argument("--real", type=int, default=1_000, help="size of each sample compared, at most the cohort's")
    options = parser.parse_args()
    conditions = SMALL_CONDITIONS if options.small else CONDITIONS
    number = min(options.patients, 50) if options.small else options.patients
    with tempfile.TemporaryDirectory() as folder:
        if options.run is None:
            source = Path(folder) / "events"
            ehrsim.write_events(population(SMALL_PEOPLE if options.small else PEOPLE, seed=1), source)
            preset = "small" if options.small else "base"
            config = training_config(preset, max_steps=SMALL_STEPS if options.small else None)
            run: Run = ehrsim.fit(source, preset=preset, training=config)
        else:
            run = runs.load(options.run)
        blocks, taken = timed(lambda: list(generated_blocks(run, 0, number, seed=1, conditions=conditions)))
        simulated, drawn = pl.concat([frame for frame, _ in blocks]), blocks[-1][1]
        each = min(number, options.real)
        real = pl.concat(patients(conditions, 2 * each, SMALL_AT_ONCE if options.small else AT_ONCE))
        everyone = real["subject_id"].unique(maintain_order=True)
        first = real.filter(pl.col("subject_id").is_in(everyone[:each].implode()))
        second = real.filter(pl.col("subject_id").is_in(everyone[each:].implode()))
        report(
            "conditioning",
            asked=number,
            patients=simulated["subject_id"].n_unique(),
            keeping_all=len(keeping(simulated, conditions)),
            acceptance=rounded(drawn.patients / drawn.attempts),
            cpu_seconds=rounded(taken.cpu),
            others=compared(first, second, simulated.filter(pl.col("subject_id") <= each), conditions),
        )


if __name__ == "__main__":
    main()
