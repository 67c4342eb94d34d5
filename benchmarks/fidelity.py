"""How like the real patients the simulated ones are, beside how like each other two samples of real patients are.

Reproduce: `python benchmarks/fidelity.py EVENTS` with a MEDS folder that has the splits train, tuning and held_out
(`ehrsim import SOURCE --out EVENTS --held-out 0.1`); without one, the built-in reference population. `--cohort FOLDER`
judges simulated patients that are there already. `--small` shows in minutes that the script works. It needs the extra
`evaluate`.

A model is trained on the training split and stopped by the tuning split. As many patients are simulated as are trained
on, or `--patients`. Both, the training patients (the floor: another real sample) and the simulated ones, as many of
each, are compared with the held-out patients, which no part of the model has seen. A ratio of 1 is the limit of what
can be told apart. Intervals are of patients drawn again in all three cohorts, the same held-out ones for a distance and
its floor (`ehrsim/evaluate/resampling.py`).

Compared are: patterns of codes (total variation distance and R squared on the line of identity, `patterns.py`); numbers
of a record (Wasserstein distance in interquartile ranges of the held-out patients, `numbers.py`); time to death and to
chronic diseases (area between Kaplan-Meier curves, `survival.py`); measured values, their order and their correlations
(`measurements.py`); and how well classifiers tell patients apart, by features (`two_sample.py`) and by sequence
(`sequence_test.py`). The bars are ours: what we call good enough. A table goes to standard error, all figures as one
JSON line to standard output.
"""

from __future__ import annotations

import math
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import polars as pl
import sequence_test
from measure import arguments, report, rounded, timed

import ehrsim
from ehrsim.errors import MissingExtraError
from ehrsim.evaluate import measurements, survival, two_sample
from ehrsim.evaluate.features import features, plan
from ehrsim.evaluate.numbers import numbers, wasserstein
from ehrsim.evaluate.patterns import Patterns, distances, patterns, vocabulary
from ehrsim.evaluate.resampling import DRAWS, Figure, Floats, Resamples, beside_floor, figure, resamples, subjects
from ehrsim.reference import population
from ehrsim.sampling import generate_to
from ehrsim.training import training_config

PEOPLE, SMALL_PEOPLE, SMALL_STEPS, SMALL_DRAWS = 3_000, 300, 40, 20
MOST_SEQUENCES = 3_000
"""Patients of each cohort that the network is trained on: more take long and change the AUC little."""
MOST_WORST = 3

Counted = TypeVar("Counted")
Judged = dict[str, Any]


class Cohorts(NamedTuple):
    """Events of held-out real patients, of another real sample, and of simulated patients."""

    held_out: pl.LazyFrame
    real: pl.LazyFrame
    simulated: pl.LazyFrame

    def each(self, count: Callable[[pl.LazyFrame], Counted]) -> list[Counted]:
        """What is counted in each cohort."""
        return [count(events) for events in self]


class Bar(NamedTuple):
    """What is good enough: a text, and the test of a value beside its floor."""

    text: str
    met: Callable[[float, float], bool]


TVD = Bar("<= 1.3 floor", lambda value, floor: value <= 1.3 * floor)
R2_CODES = Bar(">= 0.99 floor", lambda value, floor: value >= floor - 0.01 * abs(floor))
R2_PAIRS = Bar(">= 0.97 floor", lambda value, floor: value >= floor - 0.03 * abs(floor))
DISTRIBUTION = Bar("<= 1.5 floor", lambda value, floor: value <= 1.5 * floor)
SURVIVAL = Bar("<= floor + 0.02", lambda value, floor: value <= floor + 0.02)
CORRELATION = Bar("<= 0.05", lambda value, floor: value <= 0.05)
FEATURES_TOLD = Bar("<= 0.65", lambda value, floor: value <= 0.65)
SEQUENCES_TOLD = Bar("<= 0.75", lambda value, floor: value <= 0.75)


def some(events: pl.LazyFrame, patients: int) -> pl.LazyFrame:
    """The events of at most so many patients, chosen by a fixed draw."""
    everyone = subjects(events)
    chosen = everyone.sample(min(patients, len(everyone)), seed=1)
    return events.filter(pl.col("subject_id").is_in(chosen.implode())).collect().lazy()


def judged(found: Figure, bar: Bar) -> Judged:
    """A figure with its bar, as JSON has it."""
    shown = {
        name: value if value is None else np.vectorize(rounded)(value).tolist()
        for name, value in found._asdict().items()
    }
    return {**shown, "bar": bar.text, "ok": bool(bar.met(found.value, found.floor))}


def compare_patterns(cohorts: Cohorts, weights: Resamples) -> dict[str, Judged]:
    """Distances of codes, pairs and sequences, by kind of pattern."""
    codes = vocabulary(*cohorts)
    truth, another, model = cohorts.each(lambda events: patterns(events, codes))
    figures = {}
    for kind in Patterns._fields:
        held_out = getattr(truth, kind)
        if not len(held_out.pattern):
            continue
        found = distances(held_out, getattr(model, kind), weights.held_out, weights.simulated)
        floor = distances(held_out, getattr(another, kind), weights.held_out, weights.real)
        explained = figure(found.r_squared, floor.r_squared, bounds=(-math.inf, 1.0))
        figures[kind] = {
            "tvd": judged(figure(found.total_variation, floor.total_variation), TVD),
            "r2": judged(explained, R2_CODES if kind.startswith("code") else R2_PAIRS),
        }
    return figures


def compare_numbers(cohorts: Cohorts, weights: Resamples) -> dict[str, Judged]:
    """Wasserstein distances of the numbers of a record, with the mean of each cohort."""
    truth, another, model = cohorts.each(numbers)
    figures = {}
    for name in truth:
        triple = truth[name], another[name], model[name]
        if len(truth[name].values):
            means = [rounded(float(cohort.values.mean())) if len(cohort.values) else None for cohort in triple]
            figures[name] = {**judged(beside_floor(wasserstein, *triple, weights), DISTRIBUTION), "means": means}
    return figures


def compare_survival(cohorts: Cohorts, weights: Resamples) -> dict[str, Any]:
    """Areas between the survival curves of death and of the commonest chronic conditions.

    Told from the first visit and, where births are known, from birth: there the years before the records begin, in
    which nothing can happen, count as years without a difference.
    """
    origins = {"first_visit": False, **({"birth": True} if survival.births_known(cohorts.held_out) else {})}
    conditions, figures = survival.chronic(cohorts.held_out), {}
    for origin, from_birth in origins.items():
        tables = [survival.lives(events, from_birth=from_birth) for events in cohorts]
        horizon = survival.horizon(tables[0])
        if horizon <= 0:
            continue
        outcomes = {"death": [survival.to_death(table) for table in tables]}
        for code in conditions:
            outcomes[code] = [survival.to_first(*pair, code) for pair in zip(cohorts, tables, strict=True)]
        judge = partial(survival.integrated_errors, horizon=horizon)
        figures[origin] = {
            "years": rounded(horizon),
            "outcomes": {
                name: {
                    **judged(beside_floor(judge, *triple, weights), SURVIVAL),
                    "happened": [rounded(float(cohort.happened.mean())) for cohort in triple],
                }
                for name, triple in outcomes.items()
                if any(cohort.happened.any() for cohort in triple)
            },
        }
    return figures


def compare_measurements(cohorts: Cohorts, weights: Resamples) -> dict[str, Any]:
    """Distributions of measured values, the correlation of each with the next, and of those of a visit."""
    chosen = measurements.commonest(cohorts.held_out)
    names = chosen["code"].to_list()
    tables = cohorts.each(lambda events: measurements.values(events, chosen))
    if not names or not tables[0].height:
        return {}
    by_code = []
    for number in range(len(names)):
        triple = [measurements.by_code(table, number) for table in tables]
        found = wasserstein(triple[0], triple[2], weights.held_out, weights.simulated)
        by_code.append((found, wasserstein(triple[0], triple[1], weights.held_out, weights.real)))
    # A code that was never simulated is as far as can be, not a code to be passed over.
    spread, floor = (np.nan_to_num(np.stack(rows, axis=1), nan=np.inf) for rows in zip(*by_code, strict=True))
    compared = {"values": over_codes(spread, floor, names, DISTRIBUTION)}
    ranks = [measurements.ranked(table, tables[0]) for table in tables]
    sizes = [len(rows[0]) for rows in weights]
    groups = {"lag_one": measurements.consecutive, "same_visit": measurements.same_visit}
    for name, group in groups.items():
        truth, another, model = (group(table, size, len(names)) for table, size in zip(ranks, sizes, strict=True))
        kept = np.flatnonzero(truth.number >= measurements.LEAST_PAIRS)
        if not len(kept):
            continue
        found = measurements.correlation_gaps(truth, model, weights.held_out, weights.simulated)
        floor = measurements.correlation_gaps(truth, another, weights.held_out, weights.real)
        pairs = [
            names[key] if name == "lag_one" else " & ".join(names[i] for i in divmod(key, len(names))) for key in kept
        ]
        compared[name] = over_codes(found, floor, pairs, CORRELATION)
    return compared


def over_codes(found: Floats, floor: Floats, names: list[str], bar: Bar) -> dict[str, Any]:
    """Distances (1 + draws, codes) of codes or pairs of them: the median, and each."""
    each = {name: judged(figure(found[:, i], floor[:, i]), bar) for i, name in enumerate(names)}
    median = judged(figure(np.median(found, axis=1), np.median(floor, axis=1)), bar)
    return {"median": median, "met": sum(one["ok"] for one in each.values()), "of": len(each), "each": each}


def compare_by_features(cohorts: Cohorts) -> Judged:
    """How well trees that see features of a record tell simulated patients from held-out ones, and by what."""
    planned = plan(cohorts.held_out, cohorts.simulated)
    truth, another, model = cohorts.each(lambda events: features(events, planned))
    found, floor = two_sample.told_apart(truth, model, clues=True), two_sample.told_apart(truth, another)
    clues = [
        {name: rounded(value) if isinstance(value, float) else value for name, value in clue._asdict().items()}
        for clue in found.clues
    ]
    return {**judged_area(found.auc, floor.auc, FEATURES_TOLD), "patients": found.patients, "clues": clues}


def compare_by_sequence(cohorts: Cohorts, steps: int) -> Judged:
    """The same of networks that read visits in order, trained for `steps` at most."""
    fewer = Cohorts(*(some(events, MOST_SEQUENCES) for events in cohorts))
    codes = sequence_test.commonest(fewer.held_out, fewer.simulated)
    network, least = (
        sequence_test.told_apart(fewer.held_out, other, codes, steps=steps) for other in (fewer.simulated, fewer.real)
    )
    return judged_area(network, least, SEQUENCES_TOLD)


def judged_area(found: two_sample.Area, floor: two_sample.Area, bar: Bar) -> Judged:
    """An AUC beside that of two real samples."""
    return {
        "value": rounded(found.value),
        "interval": [rounded(end) for end in found.interval],
        "floor": rounded(floor.value),
        "floor_interval": [rounded(end) for end in floor.interval],
        "ratio": rounded(found.value / floor.value) if floor.value else None,
        "bar": bar.text,
        "ok": bar.met(found.value, floor.value),
    }


def compared(cohorts: Cohorts, draws: int, steps: int) -> dict[str, Any]:
    """All comparisons, with so many draws, and so many steps at most to train a network that tells cohorts apart."""
    weights = resamples(*(len(subjects(events)) for events in cohorts), draws=draws)
    return {
        "patterns": compare_patterns(cohorts, weights),
        "numbers": compare_numbers(cohorts, weights),
        "survival": compare_survival(cohorts, weights),
        "measurements": compare_measurements(cohorts, weights),
        "classifiers": {
            "features": compare_by_features(cohorts),
            "sequences": compare_by_sequence(cohorts, steps),
        },
    }


def lines(figures: dict[str, Any]) -> Iterator[tuple[str, Judged]]:
    """What the table shows: every figure, but of the many codes only the median and the worst."""
    for kind, pair in figures["patterns"].items():
        for name, one in pair.items():
            yield f"{name} {kind}", one
    for name, one in figures["numbers"].items():
        yield f"wasserstein {name}", one
    for origin, group in figures["survival"].items():
        for name, one in group["outcomes"].items():
            yield f"survival from {origin.replace('_', ' ')}, {name}", one
    for name, group in figures["measurements"].items():
        yield f"{name}, median ({group['met']} of {group['of']} met)", group["median"]
        worst = sorted(
            group["each"].items(), key=lambda item: -(item[1]["ratio" if name == "values" else "value"] or 0)
        )
        for code, one in worst[:MOST_WORST]:
            yield f"  {code}", one
    for name, one in figures["classifiers"].items():
        yield f"auc {name}", one


def table(figures: dict[str, Any]) -> str:
    """The figures in columns: metric, value, interval, floor, ratio, bar, ok."""
    rows = [("metric", "value", "interval", "floor", "ratio", "bar", "ok")]
    for name, one in lines(figures):
        low, high = one["interval"]
        ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
        number = (f"{one['value']:.4f}", f"{low:.4f} to {high:.4f}", f"{one['floor']:.4f}")
        rows.append((name[:50], *number, ratio, one["bar"], "yes" if one["ok"] else "NO"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    shown = [
        "  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(pair))
        for pair in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    clues = figures["classifiers"]["features"]["clues"]
    told = [f"  {c['name']}: {c['lost']:.3f} AUC, mean {c['real']:.4g} real, {c['other']:.4g} simulated" for c in clues]
    return "\n".join([*shown, "features that give simulated patients away:", *(told or ["  none"])])


def parsed() -> Namespace:
    """The arguments; ends the script where they contradict one another or scikit-learn is missing."""
    parser: ArgumentParser = arguments(__doc__)
    parser.add_argument("events", nargs="?", type=Path, help="a MEDS folder with splits")
    parser.add_argument("--model", choices=["vae", "markov"], default="vae")
    parser.add_argument("--preset", choices=["small", "base", "large"], default="base")
    parser.add_argument("--max-steps", type=int, help="stop training after so many steps")
    parser.add_argument("--patients", type=int, default=10_000, help="at most so many simulated and training patients")
    parser.add_argument("--run", type=Path, help="a run folder: of a model already trained, or to be written")
    parser.add_argument("--cohort", type=Path, help="a MEDS folder of simulated patients, instead of a model")
    parser.add_argument("--draws", type=int, default=DRAWS, help="how often patients are drawn again for intervals")
    options = parser.parse_args()
    if options.cohort and (options.run or not options.events):
        parser.error("--cohort needs EVENTS, and no --run")
    try:
        two_sample.classifier(seed=0)
    except MissingExtraError as error:
        parser.error(str(error))
    return options


def simulate(options: Namespace, events: Path, folder: Path) -> tuple[pl.LazyFrame, dict[str, float] | None]:
    """As many patients of a model as it was trained on, or `--patients`; and what training took."""
    steps = SMALL_STEPS if options.small else options.max_steps
    config = training_config(options.preset, **({"max_steps": steps} if steps else {}))
    run, seconds = options.run or folder / "run", None
    if not run.exists():
        _, seconds = timed(lambda: ehrsim.fit(events, run, model=options.model, preset=options.preset, training=config))
    size = min(len(subjects(ehrsim.read_events(events, "train"))), options.patients)
    generate_to(run, folder / "cohort", size, seed=7)
    took = seconds and {name: rounded(value) for name, value in seconds._asdict().items()}
    return ehrsim.read_events(folder / "cohort"), took


def main() -> None:
    options = parsed()
    with tempfile.TemporaryDirectory() as name:
        folder, seconds = Path(name), None
        events = options.events or folder / "events"
        if not options.events:
            ehrsim.write_events(population(SMALL_PEOPLE if options.small else PEOPLE, seed=1), folder / "all")
            ehrsim.import_events(folder / "all", events, held_out=0.1)
        if options.cohort:
            simulated = ehrsim.read_events(options.cohort)
        else:
            simulated, seconds = simulate(options, events, folder)
        real = ehrsim.read_events(events, "train")
        size = min(len(subjects(real)), len(subjects(simulated)), options.patients)
        held_out = ehrsim.read_events(events, "held_out").collect().lazy()
        cohorts = Cohorts(held_out, some(real, size), some(simulated, size))
        effort = (SMALL_DRAWS, SMALL_STEPS) if options.small else (options.draws, sequence_test.MOST_STEPS)
        figures = compared(cohorts, *effort)
    print(table(figures), file=sys.stderr)
    report(
        "fidelity",
        data=options.events.name if options.events else "reference",
        model=options.cohort.name if options.cohort else options.model,
        preset=None if options.cohort else options.preset,
        patients=cohorts.each(lambda events: len(subjects(events))),
        draws=effort[0],
        fit_seconds=seconds,
        **figures,
    )


if __name__ == "__main__":
    main()
