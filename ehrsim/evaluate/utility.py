"""What simulated patients are good for: models trained on them and tested on real patients (TSTR).

The same model is trained on real patients (TRTR) and both are tested on the same held-out patients, whom neither has
seen. What is told is the difference, with its interval over held-out patients, drawn again together with all they
have in every task. Beside it stands the *floor*: how far two models are apart that are trained on either half of the
real training patients, which two real samples of half the size leave. It says what chance there is in training, which
the interval, of tested patients only, does not hold. A generator that knows only how common each code is has an AUROC
of 0.5.

Whose patients are more, has the better models. As many of each are taken here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
from scipy import sparse

from ehrsim.evaluate import predictors
from ehrsim.evaluate.demographics import attributes, groups
from ehrsim.evaluate.learners import LEARNERS, Examples, Learner, learned
from ehrsim.evaluate.predictions import BY_GROUP, MEASURES, Measure, Outcomes
from ehrsim.evaluate.resampling import DRAWS, NOT_NEGATIVE, Floats, Indices, interval, subjects
from ehrsim.evaluate.tasks import Calendar, Chosen, Skipped, Task, calendar, choose, examples
from ehrsim.events import mixed

FRACTIONS = (0.05, 0.1, 0.25, 0.5, 1.0)
AUGMENTED = ("auroc", "auprc", "brier")
LEAST_IN_GROUP, LEAST_WITH_OUTCOME = 30, 5
"""Held-out patients of a subgroup, and those with and without the outcome among them, for it to be told."""
Interval = tuple[float, float]


class Cohort(NamedTuple):
    """A table of events, and what is known of its patients and when."""

    events: pl.LazyFrame
    known: predictors.Known
    when: Calendar


class Scored(NamedTuple):
    """The risks that models of one kind give the held-out patients of a task."""

    task: Task
    learner: str
    asked: pl.DataFrame
    """subject_id, moment, label of the held-out patients"""
    sizes: list[list[int]]
    """patients and those with the outcome: trained on real, trained on simulated, held out"""
    synthetic: Floats
    """(patients,) by the model trained on simulated patients"""
    real: Floats
    """(patients,) by the one trained on real patients"""
    halves: Floats
    """(2, patients) by those trained on either half of the real patients"""

    @property
    def outcome(self) -> Outcomes:
        """(patients,) whether it came."""
        return self.asked["label"].to_numpy()


class Compared(msgspec.Struct, frozen=True):
    """A measure of both models on the same patients; intervals are of 95 %."""

    measure: str
    value: float
    """trained on simulated patients"""
    interval: Interval
    reference: float
    """trained on real patients"""
    reference_interval: Interval
    difference: float
    """value less reference"""
    difference_interval: Interval
    floor: float
    """the absolute difference of two models trained on either half of the real patients"""
    floor_interval: Interval


class GroupUtility(msgspec.Struct, frozen=True):
    """Both models on the held-out patients of a subgroup."""

    attribute: str
    group: str
    patients: int
    positives: int
    figures: list[Compared]


class Size(msgspec.Struct, frozen=True):
    """How many patients are asked, and how many of them have the outcome."""

    patients: int
    positives: int


class TaskUtility(msgspec.Struct, frozen=True):
    """What models of one kind make of a task."""

    task: Task
    learner: str
    real: Size
    synthetic: Size
    held_out: Size
    figures: list[Compared]
    groups: list[GroupUtility]


class Summary(msgspec.Struct, frozen=True):
    """The mean difference over all tasks of a kind of model; its interval draws patients, not tasks."""

    learner: str
    measure: str
    tasks: int
    difference: float
    difference_interval: Interval
    floor: float
    floor_interval: Interval


class Utility(msgspec.Struct, frozen=True):
    """Training on simulated patients beside training on real ones."""

    tasks: list[TaskUtility]
    skipped: list[Skipped]
    summary: list[Summary]


class Augmented(msgspec.Struct, frozen=True):
    """A model of some real patients alone, and of these with the simulated ones; intervals are of 95 %."""

    task: str
    learner: str
    measure: str
    fraction: float
    """of the real training patients"""
    real_patients: int
    synthetic_patients: int
    alone: float
    resampled: float
    """with real patients drawn again instead of simulated ones: what mere numbers do"""
    augmented: float
    gain: float
    """augmented less alone"""
    gain_interval: Interval
    gain_over_resampled: float
    gain_over_resampled_interval: Interval


def cohort(events: pl.LazyFrame, plan: predictors.Plan) -> Cohort:
    """What is known of the patients of a table of events, and when."""
    return Cohort(events, predictors.known(events, plan), calendar(events))


def asked_of(cohort: Cohort, task: Task, *, seed: int = 0) -> pl.DataFrame:
    """The patients of a cohort who are asked a task: subject_id, moment, label."""
    return examples(cohort.events, cohort.when, task, seed=seed)


def told_of(cohort: Cohort, asked: pl.DataFrame, plan: predictors.Plan) -> Examples:
    """What is known of the patients asked, and what came of it."""
    return Examples(
        asked["subject_id"].to_numpy(),
        asked["label"].to_numpy(),
        predictors.features(cohort.known, asked, plan).matrix,
        predictors.sequences(cohort.known, asked, plan),
    )


def few(events: pl.LazyFrame, most: int, *, seed: int = 0) -> pl.LazyFrame:
    """The events of at most so many patients, chosen by a hash of each and the seed; collected."""
    everyone = subjects(events)
    chosen = everyone.gather(np.argsort(mixed(everyone ^ seed), kind="stable")[:most])
    return events.filter(pl.col("subject_id").is_in(chosen.implode())).collect().lazy()


def scores(
    training: pl.LazyFrame,
    synthetic: pl.LazyFrame,
    held_out: pl.LazyFrame,
    *,
    learners: Mapping[str, Learner] = LEARNERS,
    chosen: Chosen | None = None,
    seed: int = 0,
) -> tuple[list[Scored], list[Skipped]]:
    """Train every learner on both, for every task, and give the held-out patients their risks.

    Tasks are those `chosen`, or found in the training patients. A task that no simulated patient has the outcome of is
    not skipped: all get the same risk, and the AUROC is 0.5. Raises `MissingExtraError` without scikit-learn.
    """
    most = min(len(subjects(training)), len(subjects(synthetic)))
    training, synthetic = few(training, most, seed=seed), few(synthetic, most, seed=seed)
    chosen = choose(training, held_out, seed=seed) if chosen is None else chosen
    plan = predictors.plan(training)
    cohorts = [cohort(events, plan) for events in (training, synthetic, held_out)]
    found = []
    for task in chosen.tasks:
        asked = [asked_of(one, task, seed=seed) for one in cohorts]
        real, simulated, tested = (told_of(one, table, plan) for one, table in zip(cohorts, asked, strict=True))
        sizes = [[len(part.outcome), int(part.outcome.sum())] for part in (real, simulated, tested)]
        order = np.argsort(mixed(pl.Series(real.subject) ^ (seed + 1)), kind="stable")
        halves = [real.of(np.sort(order[side::2])) for side in (0, 1)]
        for name, learner in learners.items():
            risks = [learned(learner, part, seed)(tested) for part in (simulated, real, *halves)]
            found.append(Scored(task, name, asked[2], sizes, risks[0], risks[1], np.stack(risks[2:])))
    return found, chosen.skipped


def draws_of(held_out: pl.LazyFrame, *, draws: int = DRAWS, seed: int = 0) -> tuple[pl.Series, Floats]:
    """The held-out patients and (1 + draws, patients) how often each counts: once, then as often as drawn."""
    everyone = subjects(held_out)
    rng = np.random.Generator(np.random.Philox(key=[seed, 2**32]))
    size = len(everyone)
    return everyone, np.vstack([np.ones(size), rng.multinomial(size, np.full(size, 1 / size), draws)])


def utility(
    scored: Sequence[Scored],
    held_out: pl.LazyFrame,
    *,
    skipped: Iterable[Skipped] = (),
    intersections: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> Utility:
    """The measures of all models, overall and by subgroup, and the mean over tasks of each kind of model."""
    everyone, weights = draws_of(held_out, draws=draws, seed=seed)
    tasks = []
    told: dict[tuple[str, str], list[tuple[Floats, Floats]]] = {}
    for one in scored:
        own = weights[:, everyone.search_sorted(one.asked["subject_id"]).to_numpy()]
        figures = []
        for name, measure in MEASURES.items():
            pair = differences(one, measure, own)
            told.setdefault((one.learner, name), []).append((pair[2], pair[3]))
            figures.append(compared(name, *pair))
        people = attributes(held_out, one.asked)
        by_group = []
        for group in groups(people, intersections=intersections, least=LEAST_IN_GROUP):
            part = within(one, group.member)
            if enough(part):
                each = [compared(name, *differences(part, MEASURES[name], own[:, group.member])) for name in BY_GROUP]
                positives = int(part.outcome.sum())
                by_group.append(GroupUtility(group.attribute, group.name, len(part.outcome), positives, each))
        real, simulated, tested = (Size(*size) for size in one.sizes)
        tasks.append(TaskUtility(one.task, one.learner, real, simulated, tested, figures, by_group))
    summary = [_summary(learner, name, pairs) for (learner, name), pairs in told.items()]
    return Utility(tasks, list(skipped), summary)


def _summary(learner: str, measure: str, pairs: Sequence[tuple[Floats, Floats]]) -> Summary:
    gaps, floors = (np.mean(parts, axis=0) for parts in zip(*pairs, strict=True))
    ends = interval(gaps), interval(floors, NOT_NEGATIVE)
    return Summary(learner, measure, len(pairs), float(gaps[0]), ends[0], float(floors[0]), ends[1])


def within(one: Scored, member: Outcomes) -> Scored:
    """The scores of some of the patients."""
    return one._replace(
        asked=one.asked.filter(pl.Series(member)),
        synthetic=one.synthetic[member],
        real=one.real[member],
        halves=one.halves[:, member],
    )


def enough(one: Scored) -> bool:
    """Whether there are enough patients with and without the outcome to tell of them."""
    return min(int(one.outcome.sum()), int((~one.outcome).sum())) >= LEAST_WITH_OUTCOME


def differences(one: Scored, measure: Measure, weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """(rows,) each: the measure of both models, their difference, and the absolute one of those of halves."""
    risks = (one.synthetic, one.real, *one.halves)
    value, reference, first, second = (measure(risk, one.outcome, weights) for risk in risks)
    return value, reference, value - reference, np.abs(first - second)


def compared(name: str, value: Floats, reference: Floats, difference: Floats, floor: Floats) -> Compared:
    """A measure of both models from (1 + draws,) of each, the first as it is."""
    return Compared(
        name,
        float(value[0]),
        interval(value),
        float(reference[0]),
        interval(reference),
        float(difference[0]),
        interval(difference),
        float(floor[0]),
        interval(floor, NOT_NEGATIVE),
    )


def augmentation(
    training: pl.LazyFrame,
    synthetic: pl.LazyFrame,
    held_out: pl.LazyFrame,
    tasks: Sequence[Task],
    learners: Mapping[str, Learner],
    *,
    fractions: Sequence[float] = FRACTIONS,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Augmented]:
    """Models of a part of the real patients, with and without the simulated ones, tested on held-out patients.

    The smaller parts are within the larger ones. A gain at a small part shows what simulated patients would bring to
    those who have few of their own; it is honest only if the generator was trained on no more than these: to say that
    of a part, give patients of a generator that was trained on it.
    """
    plan = predictors.plan(training)
    cohorts = [cohort(events, plan) for events in (training, synthetic, held_out)]
    everyone, weights = draws_of(held_out, draws=draws, seed=seed)
    found = []
    for task in tasks:
        asked = [asked_of(one, task, seed=seed) for one in cohorts]
        real, simulated, tested = (told_of(one, table, plan) for one, table in zip(cohorts, asked, strict=True))
        own = weights[:, everyone.search_sorted(asked[2]["subject_id"]).to_numpy()]
        order = np.argsort(mixed(pl.Series(real.subject) ^ (seed + 1)), kind="stable")
        for fraction in fractions:
            part = real.of(order[: max(1, round(fraction * len(order)))])
            filled = part.of(_drawn_from(len(part.outcome), len(simulated.outcome), seed))
            for name, learner in learners.items():
                arms = (part, joined(part, filled), joined(part, simulated))
                risks = [learned(learner, arm, seed)(tested) for arm in arms]
                size = len(part.outcome), len(simulated.outcome)
                found += [
                    _augmented(task, name, measure, fraction, size, risks, tested.outcome, own) for measure in AUGMENTED
                ]
    return found


def _drawn_from(size: int, number: int, seed: int) -> Indices:
    rng = np.random.Generator(np.random.Philox(key=[seed, 2**33]))
    return rng.integers(0, size, number)


def _augmented(
    task: Task,
    learner: str,
    measure: str,
    fraction: float,
    sizes: tuple[int, int],
    risks: list[Floats],
    outcome: Outcomes,
    weights: Floats,
) -> Augmented:
    alone, resampled, augmented = (MEASURES[measure](risk, outcome, weights) for risk in risks)
    gain, over = augmented - alone, augmented - resampled
    return Augmented(
        task.name,
        learner,
        measure,
        fraction,
        *sizes,
        alone=float(alone[0]),
        resampled=float(resampled[0]),
        augmented=float(augmented[0]),
        gain=float(gain[0]),
        gain_interval=interval(gain),
        gain_over_resampled=float(over[0]),
        gain_over_resampled_interval=interval(over),
    )


def joined(first: Examples, second: Examples) -> Examples:
    """The patients of two tables of examples, one after the other."""
    one, other = first.sequences, second.sequences
    begin, last = one.visits.shape[0], one.visits.shape[0] + other.visits.shape[0] - 1
    kept = np.where(one.rows == begin - 1, last, one.rows)  # the empty visit is the last of the joined ones
    sequences = one._replace(
        visits=sparse.vstack([one.visits, other.visits], format="csr"),
        numbers=np.vstack([one.numbers, other.numbers]),
        rows=np.vstack([kept, other.rows + begin]),
        static=np.vstack([one.static, other.static]),
    )
    return Examples(
        np.concatenate([first.subject, second.subject]),
        np.concatenate([first.outcome, second.outcome]),
        np.vstack([first.features, second.features]),
        sequences,
    )
