"""Whether simulated patients are as good a likeness of every group: who is there, what they have, and what it is worth.

Groups are by sex, age, race and ethnicity, and where these meet (`demographics.py`). Since many are tested at once,
some would differ by chance alone: p-values are corrected (`representation.py`), by Holm's method where one false alarm
is too many, by Benjamini and Hochberg's where a share of them may be false.

| part | of a group | beside it |
|---|---|---|
| representation | log disparity of its share | that of the training patients, or a target |
| prevalence | mean difference of the shares with each code | another real sample |
| survival | area between survival curves | another real sample |
| utility | what training on simulated patients costs | what it costs all patients |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
from scipy import sparse, stats

from ehrsim import codes
from ehrsim.evaluate import survival
from ehrsim.evaluate.demographics import Group, attributes, groups
from ehrsim.evaluate.predictions import auroc, expected_less_observed, true_positive_rate
from ehrsim.evaluate.prevalence import kind_of
from ehrsim.evaluate.representation import (
    SIGNIFICANT,
    WIDTH,
    Interval,
    Representation,
    benjamini_hochberg,
    representation,
)
from ehrsim.evaluate.resampling import DRAWS, Figure, Floats, beside_floor, block_of, interval, resamples, subjects
from ehrsim.evaluate.utility import LEAST_IN_GROUP, Scored, differences, draws_of, enough, within

MOST_CODES, MOST_SHOWN, MOST_OUTCOMES = 100, 20, 3


class GroupGap(msgspec.Struct, frozen=True):
    """How far simulated patients of a group are from held-out ones of it, beside training patients of it."""

    attribute: str
    group: str
    name: str
    patients: tuple[int, int, int]
    """held-out, training and simulated patients of the group"""
    figure: Figure
    corrected_p: float
    """of being no farther than training patients are, by Benjamini and Hochberg's method over all groups"""
    flagged: bool


class CodeGap(msgspec.Struct, frozen=True):
    """A code that simulated patients of a group have more or less often than training patients of it."""

    attribute: str
    group: str
    code: str
    real: float
    simulated: float
    corrected_p: float
    """by Benjamini and Hochberg's method over all groups and codes"""


class UtilityGap(msgspec.Struct, frozen=True):
    """What training on simulated instead of real patients costs a group, less what it costs all."""

    attribute: str
    group: str
    task: str
    learner: str
    patients: int
    positives: int
    auroc_difference: float
    """simulated less real, in the group"""
    gap: float
    """that less the same of all patients: negative where the group loses more"""
    gap_interval: Interval
    """of tested patients drawn again"""
    training_error: float
    """the standard error of gaps of the task from chance in training, told by models of halves of the real patients"""
    corrected_p: float
    """of no loss, from both, by Benjamini and Hochberg's method over all rows"""
    flagged: bool
    """whether the group loses significantly more"""
    true_positive_rate: float
    """of the model trained on simulated patients, which calls as many of all patients as have the outcome"""
    true_positive_rate_difference: float
    """less that of the model trained on real ones: the change of equal opportunity (Hardt, Price and Srebro 2016)"""
    true_positive_rate_interval: Interval
    calibration_difference: float
    """mean risk less share with the outcome, of the model trained on simulated less of that trained on real patients"""
    calibration_interval: Interval


class Fairness(msgspec.Struct, frozen=True):
    """All parts; empty where nothing is known of any group."""

    representation: list[Representation]
    prevalence: list[GroupGap]
    codes: list[CodeGap]
    """the most significant"""
    codes_compared: int
    survival: list[GroupGap]
    utility: list[UtilityGap]
    absent: list[str]
    """groups of held-out and training patients that have too few simulated patients to be compared"""


class Cohorts(NamedTuple):
    """Events of held-out real patients, of training patients, and of simulated ones."""

    held_out: pl.LazyFrame
    training: pl.LazyFrame
    simulated: pl.LazyFrame


def fairness(
    cohorts: Cohorts,
    scored: Sequence[Scored] = (),
    *,
    intersections: bool = True,
    draws: int = DRAWS,
    seed: int = 0,
) -> Fairness:
    """All parts for three cohorts, and for the `scores` of models tested on the held-out one if given."""
    people = [attributes(events) for events in cohorts]
    shared, absent = _shared(people, intersections=intersections)
    prevalences, gaps, number = _prevalence(cohorts, shared, draws, seed)
    return Fairness(
        representation(people[2], people[1], intersections=intersections),
        prevalences,
        gaps[:MOST_SHOWN],
        number,
        _survival(cohorts, shared, draws, seed),
        utility_gaps(scored, cohorts.held_out, intersections=intersections, draws=draws, seed=seed),
        absent,
    )


def _shared(people: Sequence[pl.DataFrame], *, intersections: bool) -> tuple[list[list[Group]], list[str]]:
    """The groups that all cohorts have enough patients of, thrice each, and the names of those only simulated lack."""
    by_cohort = [
        {(one.attribute, one.name): one for one in groups(each, intersections=intersections, least=LEAST_IN_GROUP)}
        for each in people
    ]
    found, absent = [], []
    for key in by_cohort[0]:
        if key in by_cohort[1] and key in by_cohort[2]:
            found.append([cohort[key] for cohort in by_cohort])
        elif key in by_cohort[1]:
            absent.append(f"{key[0]}: {key[1]}")
    return found, absent


def _prevalence(
    cohorts: Cohorts, shared: Sequence[Sequence[Group]], draws: int, seed: int
) -> tuple[list[GroupGap], list[CodeGap], int]:
    """Gaps over the commonest codes of training patients, by group; and the codes that are significantly off."""
    told = _common(cohorts.training)
    matrices = [_having(events, told) for events in cohorts]
    figures, rows = [], []
    for trio in shared:
        parts = [matrix[one.member] for matrix, one in zip(matrices, trio, strict=True)]
        sizes = [part.shape[0] for part in parts]
        weights = resamples(*sizes, draws=draws, seed=seed)
        figures.append(beside_floor(_apart, parts[0], parts[1], parts[2], weights))
        counts = [np.asarray(part.sum(axis=0)).ravel() for part in parts[1:]]
        rows.append((trio[0], told, *counts, *sizes[1:]))
    return _gaps(shared, ["prevalence"] * len(shared), figures), *_code_gaps(rows)


def _common(training: pl.LazyFrame) -> list[str]:
    """The codes that most training patients have, but for what does not change."""
    counted = training.filter(pl.col("time").is_not_null()).group_by("code").agg(pl.col("subject_id").n_unique())
    found = counted.sort(["subject_id", "code"], descending=[True, False]).collect()["code"]
    plain = ~kind_of(found).is_in(["birth", "death", "visit_start", "visit_end"]) & (found != codes.OBSERVATION_END)
    return found.filter(plain).head(MOST_CODES).to_list()


def _having(events: pl.LazyFrame, told: Sequence[str]) -> sparse.csr_matrix:
    """(patients, codes) 1 where the patient has the code."""
    place = pl.LazyFrame({"code": told}, schema={"code": pl.String}).with_row_index("place")
    pairs = events.select("subject_id", "code").join(place, on="code").select("subject_id", "place").unique().collect()
    everyone = subjects(events)
    row = everyone.search_sorted(pairs["subject_id"]).to_numpy()
    shape = (len(everyone), len(told))
    return sparse.csr_matrix((np.ones(pairs.height), (row, pairs["place"].to_numpy())), shape)


def _apart(real: sparse.csr_matrix, other: sparse.csr_matrix, real_weights: Floats, weights: Floats) -> Floats:
    """(rows,) the mean over codes of the absolute difference of shares of patients, by row of weights of blocks."""
    shares = []
    for matrix, blocks in ((real, real_weights), (other, weights)):
        weight = blocks[:, block_of(np.arange(matrix.shape[0]))]
        shares.append(np.asarray(weight @ matrix) / weight.sum(axis=1, keepdims=True))
    found: Floats = np.abs(shares[0] - shares[1]).mean(axis=1)
    return found


def _code_gaps(rows: Sequence[tuple[Group, list[str], Floats, Floats, int, int]]) -> tuple[list[CodeGap], int]:
    """The codes whose shares differ significantly, the most significant first; and how many were tested."""
    tested = []
    for group, told, real, simulated, n, m in rows:
        pooled = (real + simulated) / (n + m)
        error = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(error > 0, np.abs(real / n - simulated / m) / error, 0.0)
        tested += [(group, *one) for one in zip(told, real / n, simulated / m, 2 * stats.norm.sf(z), strict=True)]
    corrected = benjamini_hochberg(np.array([one[4] for one in tested], np.float64))
    found = [
        CodeGap(group.attribute, group.name, code, float(real), float(simulated), float(p))
        for (group, code, real, simulated, _), p in zip(tested, corrected, strict=True)
        if p < SIGNIFICANT
    ]
    return sorted(found, key=lambda gap: (gap.corrected_p, -abs(gap.real - gap.simulated))), len(tested)


def _survival(cohorts: Cohorts, shared: Sequence[Sequence[Group]], draws: int, seed: int) -> list[GroupGap]:
    """Areas between survival curves of death and the commonest chronic conditions, by group."""
    tables = [survival.lives(events, from_birth=False) for events in cohorts]
    outcomes = {"death": [survival.to_death(table) for table in tables]}
    for code in survival.chronic(cohorts.training)[: MOST_OUTCOMES - 1]:
        outcomes[code] = [survival.to_first(*pair, code) for pair in zip(cohorts, tables, strict=True)]
    figures, names, trios = [], [], []
    for trio in shared:
        horizon = survival.horizon(tables[0].filter(pl.Series(trio[0].member)))
        weights = resamples(*(int(one.member.sum()) for one in trio), draws=draws, seed=seed)
        for name, whole in outcomes.items():
            parts = [
                survival.FollowUp(one.time[group.member], one.happened[group.member])
                for one, group in zip(whole, trio, strict=True)
            ]
            if horizon <= 0 or not any(part.happened.any() for part in parts):
                continue

            def distance(*given: object, years: float = horizon) -> Floats:
                return survival.integrated_errors(*given, horizon=years)  # type: ignore[arg-type]

            figures.append(beside_floor(distance, parts[0], parts[1], parts[2], weights))
            names.append(f"survival, {name}")
            trios.append(trio)
    return _gaps(trios, names, figures)


def _gaps(trios: Sequence[Sequence[Group]], names: Sequence[str], figures: Sequence[Figure]) -> list[GroupGap]:
    """Distances of groups with the chance that they are no more than those of training patients."""
    p = np.array([_one_sided(one.difference, one.difference_interval) for one in figures], np.float64)
    return [
        GroupGap(
            trio[0].attribute,
            trio[0].name,
            name,
            tuple(int(one.member.sum()) for one in trio),  # type: ignore[arg-type]
            figure,
            float(corrected),
            bool(corrected < SIGNIFICANT),
        )
        for trio, name, figure, corrected in zip(trios, names, figures, benjamini_hochberg(p), strict=True)
    ]


def _one_sided(value: float, ends: Interval) -> float:
    """The chance of so high a value where there is none, taken as normal with the spread of its 95 % interval."""
    error = (ends[1] - ends[0]) / (2 * WIDTH)
    if not math.isfinite(value) or not error > 0:
        return 1.0
    return float(stats.norm.sf(value / error))


def utility_gaps(
    scored: Sequence[Scored],
    held_out: pl.LazyFrame,
    *,
    intersections: bool = True,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[UtilityGap]:
    """What training on simulated patients costs every group of held-out patients, by task and kind of model."""
    everyone, weights = draws_of(held_out, draws=draws, seed=seed)
    rows = []
    for one in scored:
        own = weights[:, everyone.search_sorted(one.asked["subject_id"]).to_numpy()]
        whole = differences(one, auroc, own)[2]
        share = float(one.outcome.mean())
        thresholds = [float(np.quantile(risk, 1 - share)) for risk in (one.synthetic, one.real)]
        for group in groups(attributes(held_out, one.asked), intersections=intersections, least=LEAST_IN_GROUP):
            part, weight = within(one, group.member), own[:, group.member]
            if enough(part):
                rows.append((one, group, part, whole, weight, thresholds))
    told = [_utility_gap(*row) for row in rows]
    training = _training_errors(rows)
    p = np.array([_loss_chance(one, training[one.task]) for one in told], np.float64)
    return [
        msgspec.structs.replace(
            one, training_error=training[one.task], corrected_p=float(corrected), flagged=bool(corrected < SIGNIFICANT)
        )
        for one, corrected in zip(told, benjamini_hochberg(p), strict=True)
    ]


def _training_errors(rows: Sequence[tuple[Scored, Group, Scored, Floats, Floats, Sequence[float]]]) -> dict[str, float]:
    """By task, the standard error of a gap from chance in training, which intervals of tested patients do not hold.

    Two models of half the patients each are twice as far apart, in terms of variance, as two of all. The mean square of
    their gaps over all groups and kinds of model, halved, is that variance, with some of tested patients in it.
    """
    squares: dict[str, list[float]] = {}
    for one, _, part, *_ in rows:
        sides = [
            [float(auroc(risk, each.outcome, np.ones((1, len(each.outcome))))[0]) for risk in each.halves]
            for each in (part, one)
        ]
        (first, second), (whole, other) = sides
        squares.setdefault(one.task.name, []).append(((first - second) - (whole - other)) ** 2)
    return {task: math.sqrt(float(np.mean(found)) / 2) for task, found in squares.items()}


def _loss_chance(one: UtilityGap, training: float) -> float:
    """The chance of so great a loss where there is none, from the errors of tested patients and of training."""
    tested = (one.gap_interval[1] - one.gap_interval[0]) / (2 * WIDTH)
    error = math.hypot(tested, training)
    return float(stats.norm.sf(-one.gap / error)) if error > 0 and math.isfinite(one.gap) else 1.0


def _utility_gap(
    one: Scored, group: Group, part: Scored, whole: Floats, weights: Floats, thresholds: Sequence[float]
) -> UtilityGap:
    difference = differences(part, auroc, weights)[2]
    gap = difference - whole
    called = [
        true_positive_rate(threshold)(risk, part.outcome, weights)
        for risk, threshold in zip((part.synthetic, part.real), thresholds, strict=True)
    ]
    found = called[0] - called[1]
    calibration = differences(part, expected_less_observed, weights)[2]
    return UtilityGap(
        group.attribute,
        group.name,
        one.task.name,
        one.learner,
        len(part.outcome),
        int(part.outcome.sum()),
        float(difference[0]),
        float(gap[0]),
        interval(gap),
        math.nan,
        math.nan,
        flagged=False,
        true_positive_rate=float(called[0][0]),
        true_positive_rate_difference=float(found[0]),
        true_positive_rate_interval=interval(found),
        calibration_difference=float(calibration[0]),
        calibration_interval=interval(calibration),
    )
