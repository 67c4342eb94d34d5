"""Whether a model recovers true hazards: how soon what the reference population makes follow a cause follows it.

Reproduce: `python benchmarks/hazards.py --cohort FOLDER` with patients simulated by a run that was trained on the
reference population, or `--run RUN` to simulate `--patients` of them. `--small` shows in minutes that the script works.

Causes and outcomes are those of the specification: every transition that needs a state, or whose hazard a state
multiplies. Of each pair that shows in records (a diagnosis or a drug for both), the incidence of the outcome after the
cause is compared with that of people of the reference population whom the model never saw, so many that their chance
hardly counts; the 20 pairs with most events are told, with the ratio of both rates and its 95 % interval.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from measure import arguments, report, rounded

import ehrsim
from ehrsim.evaluate.incidence import Incidence, after, rate_ratio
from ehrsim.evaluate.survival import FollowUp, lives, to_first
from ehrsim.reference import population
from ehrsim.reference.loading import load
from ehrsim.reference.specification import Family
from ehrsim.sampling import generate_to
from ehrsim.training import training_config

TRUTH, SMALL_TRUTH = 20_000, 400
"""People of the reference population to know the truth from."""
SIMULATED, SMALL_PEOPLE, SMALL_STEPS = 10_000, 300, 30
PAIRS = 20
WITHIN = 0.1
"""Of the true rate."""


class Pair(NamedTuple):
    """A cause and an outcome, each shown by any of some codes."""

    cause: str
    outcome: str
    cause_codes: tuple[str, ...]
    outcome_codes: tuple[str, ...]


def pairs(family: Family) -> Iterator[Pair]:
    """The pairs of the specification whose cause and outcome show in records, by other codes; those alike but once."""
    shown = dict.fromkeys([item.name for item in family.transition], ())
    for encounter in family.encounter:
        shown[encounter.on] = (*shown[encounter.on], *(diagnosis.code for diagnosis in encounter.diagnoses))
    drugs = {item.state: tuple(product.code for product in item.products) for item in family.treatment}
    shown = {
        item.name: tuple(sorted({*shown[item.name], *drugs.get(item.sets or "", ())})) for item in family.transition
    }
    of_state: dict[str, set[str]] = {}
    for item in family.transition:
        for state in ([item.sets] if item.sets else []) + item.also_sets:
            of_state.setdefault(state, set()).update(shown[item.name])
    # What a person has without knowing shows once it is diagnosed.
    of_state |= {
        hidden: codes
        for state, codes in of_state.items()
        if (hidden := state.removeprefix("diagnosed_")) != state and not of_state.get(hidden)
    }
    told = set()
    for item in family.transition:
        for state in dict.fromkeys([*item.requires, *(factor.covariate for factor in item.factors)]):
            causes = tuple(sorted(of_state.get(state, ())))
            outcomes = shown[item.name]
            if causes and outcomes and not set(causes) & set(outcomes) and (causes, outcomes) not in told:
                told.add((causes, outcomes))
                yield Pair(state, item.name, causes, outcomes)


def incidences(events: pl.LazyFrame, chosen: list[Pair]) -> list[Incidence]:
    """The incidence of each outcome after its cause, in records from the first visit on."""
    table = lives(events, from_birth=False)
    known: dict[tuple[str, ...], FollowUp] = {}
    for pair in chosen:
        for codes in (pair.cause_codes, pair.outcome_codes):
            if codes not in known:
                known[codes] = to_first(events, table, *codes)
    return [after(known[pair.cause_codes], known[pair.outcome_codes]) for pair in chosen]


def simulated(options: Namespace, folder: Path) -> pl.LazyFrame:
    """The patients of `--cohort`, or those of a run."""
    if options.cohort:
        return ehrsim.read_events(options.cohort)
    run = options.run
    if not run:
        run = folder / "run"
        training = training_config("small", max_steps=SMALL_STEPS) if options.small else training_config("base")
        people = SMALL_PEOPLE if options.small else 2_000
        preset = "small" if options.small else "base"
        ehrsim.fit(population(people, seed=1), run, preset=preset, training=training)
    generate_to(run, folder / "cohort", SMALL_PEOPLE if options.small else options.patients, seed=7)
    return ehrsim.read_events(folder / "cohort")


def compared(model: pl.LazyFrame, truth: pl.LazyFrame) -> list[dict[str, Any]]:
    """The pairs with most events in truth, those first that have most."""
    every = list(pairs(load()))
    true = incidences(truth, every)
    order = sorted(range(len(every)), key=lambda index: (-true[index].happened, index))[:PAIRS]
    rows = []
    for index, found in zip(order, incidences(model, [every[index] for index in order]), strict=True):
        ratio, low, high = rate_ratio(found, true[index])
        rows.append(
            {
                "cause": every[index].cause,
                "outcome": every[index].outcome,
                "true_rate": rounded(true[index].rate),
                "rate": rounded(found.rate),
                "ratio": rounded(ratio),
                "interval": [rounded(low), rounded(high)],
                "events": [true[index].happened, found.happened],
                "within": bool(abs(ratio - 1) <= WITHIN),
            }
        )
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--run", type=Path, help="a run that was trained on the reference population")
    parser.add_argument("--cohort", type=Path, help="patients that are simulated already, as a MEDS folder")
    parser.add_argument("--patients", type=int, default=SIMULATED, help="how many to simulate")
    parser.add_argument("--people", type=int, default=TRUTH, help="how many to know the truth from")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        truth = population(SMALL_TRUTH if options.small else options.people, seed=1_001).lazy()
        rows = compared(simulated(options, Path(name)), truth)
    print(f"{'cause':28s} {'outcome':34s} {'true rate':>9s} {'rate':>9s}  ratio  interval", file=sys.stderr)
    for row in rows:
        ends = " to ".join(str(end) for end in row["interval"])
        told = f"{row['cause']:28s} {row['outcome']:34s} {row['true_rate']:9} {row['rate']:9}  {row['ratio']}  {ends}"
        print(told, "yes" if row["within"] else "NO", file=sys.stderr)
    report("hazards", within=sum(row["within"] for row in rows), of=len(rows), rows=rows)


if __name__ == "__main__":
    main()
