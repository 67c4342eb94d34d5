"""Whether studies of simulated patients find what studies of the real ones find: effects of an exposure on an outcome.

Each effect is estimated twice over, adjusted for age and sex: in the real training patients and in several draws of
simulated ones, whose estimates are combined by rules made for synthetic data. An interval from one draw, taken for a
real one, is too narrow: it leaves out what the generator does not know (Decruyenaere et al. 2024, UAI).

| kind | patients | outcome |
|---|---|---|
| odds ratio | all | ever having a code, by ever having another: logistic regression, age at the end |
| hazard ratio | without the outcome at a moment drawn by hash | time from it: Cox regression, age then |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit

from ehrsim import codes
from ehrsim.evaluate.records import years
from ehrsim.evaluate.resampling import COVERAGE, Floats, subjects
from ehrsim.evaluate.survival import FollowUp, chronic
from ehrsim.evaluate.tasks import after_history, calendar, drawn
from ehrsim.events import mixed

DRAWS, MOST_EFFECTS, LEAST_BOTH = 10, 8, 10
"""Of simulated patients; effects; and real patients with exposure and outcome that an effect needs."""
_STEPS, _CLOSE, _FARTHEST = 30, 1e-8, 15.0
Interval = tuple[float, float]
Derivatives = Callable[[Floats], tuple[Floats, Floats]]
"""From coefficients to the gradient of the log likelihood and the information."""


class Effect(msgspec.Struct, frozen=True):
    """The effect of an exposure on an outcome: both codes, `MEDS_DEATH` for death."""

    kind: Literal["odds ratio", "hazard ratio"]
    exposure: str
    outcome: str

    @property
    def name(self) -> str:
        """What it is, in words."""
        return f"{self.kind} of {self.outcome} by {self.exposure}"


class Estimate(NamedTuple):
    """The logarithm of a ratio and its variance; NaN where the data do not give one."""

    value: float
    variance: float
    patients: int
    both: int
    """exposed patients with the outcome"""


class Combined(NamedTuple):
    """An estimate of several draws: its variance, and the degrees of freedom of Student's distribution."""

    value: float
    variance: float
    degrees: float

    @property
    def interval(self) -> Interval:
        """Of 95 %."""
        width = float(stats.t.ppf((1 + COVERAGE) / 2, self.degrees)) * math.sqrt(self.variance)
        return self.value - width, self.value + width


class Replicated(msgspec.Struct, frozen=True):
    """An effect in real and in simulated patients, as logarithms of ratios; intervals are of 95 %."""

    effect: Effect
    patients: int
    both: int
    """real exposed patients with the outcome"""
    real: float
    real_interval: Interval
    held_out: float
    """in held-out real patients: what another real sample says"""
    held_out_interval: Interval
    draws: int
    """of simulated patients in which the effect could be estimated"""
    synthetic: float
    synthetic_interval: Interval
    """by `combine_plug_in`, the rule for a generator whose parameters are estimated once"""
    posterior_interval: Interval
    """by `combine_posterior`, the rule for draws with parameters drawn anew each"""
    overlap: float
    """of the intervals of simulated and real patients"""
    floor_overlap: float
    """of those of held-out and real patients"""
    same_sign: bool
    same_significance: bool
    """whether both intervals leave out nought on the same side, or neither does"""
    inside: bool
    """whether the real interval holds the simulated estimate"""
    errors_off: float
    """simulated less real estimate, in standard errors of the real one"""


class Unreplicated(msgspec.Struct, frozen=True):
    """An effect that could not be estimated, and why."""

    effect: Effect
    reason: str


class Replication(msgspec.Struct, frozen=True):
    """All effects, and the shares of them that are alike."""

    effects: list[Replicated]
    skipped: list[Unreplicated]
    mean_overlap: float
    mean_floor_overlap: float
    same_sign: float
    same_significance: float
    inside: float


def subsets(events: pl.LazyFrame, number: int = DRAWS, *, seed: int = 0) -> list[pl.LazyFrame]:
    """A cohort in so many parts of distinct patients, by a hash of each: draws, where one cohort was simulated."""
    everyone = subjects(events)
    order = np.argsort(mixed(everyone ^ (seed + 2)), kind="stable")
    parts = (everyone.gather(np.sort(order[start::number])) for start in range(number))
    return [events.filter(pl.col("subject_id").is_in(part.implode())).collect().lazy() for part in parts]


def effects(training: pl.LazyFrame, *, most: int = MOST_EFFECTS) -> list[Effect]:
    """The effects of the commonest chronic conditions on each other and on death, with most exposed outcomes first.

    As many odds ratios as hazard ratios, of `LEAST_BOTH` exposed patients with the outcome at least.
    """
    conditions = chronic(training)
    found = []
    for kind in ("odds ratio", "hazard ratio"):
        outcomes = conditions if kind == "odds ratio" else [codes.DEATH, *conditions]
        candidates = [
            Effect(kind, exposure, outcome)
            for exposure in conditions
            for outcome in outcomes
            # An odds ratio is the same either way round, but for the adjustment.
            if (exposure < outcome if kind == "odds ratio" else exposure != outcome)
        ]
        sizes = _sizes(training, candidates) if candidates else []
        ranked = sorted(zip(sizes, candidates, strict=True), key=lambda pair: (-pair[0], pair[1].name))
        found += [effect for both, effect in ranked if both >= LEAST_BOTH][: most // 2]
    return found


def replicate(
    training: pl.LazyFrame, held_out: pl.LazyFrame, draws: Sequence[pl.LazyFrame], chosen: Sequence[Effect]
) -> Replication:
    """Estimate every effect in real patients, in held-out ones and in every draw of simulated ones, and compare.

    Draws are simulated cohorts of the same generator, or `subsets` of one: ten or more for intervals to hold.
    """
    real, other, *simulated = (estimates(events, chosen) for events in (training, held_out, *draws))
    found, skipped = [], []
    for number, effect in enumerate(chosen):
        usable = [one[number] for one in simulated if math.isfinite(one[number].value)]
        if not math.isfinite(real[number].value):
            skipped.append(Unreplicated(effect, "the real patients do not give an estimate"))
        elif len(usable) < 2:
            skipped.append(Unreplicated(effect, f"{len(usable)} of {len(draws)} draws give an estimate, 2 are needed"))
        else:
            found.append(_replicated(effect, real[number], other[number], usable))
    means = [
        float(np.mean([getattr(one, name) for one in found])) if found else math.nan
        for name in ("overlap", "floor_overlap", "same_sign", "same_significance", "inside")
    ]
    return Replication(found, skipped, *means)


def _replicated(effect: Effect, real: Estimate, held_out: Estimate, draws: list[Estimate]) -> Replicated:
    values, variances = (np.array([getattr(one, name) for one in draws]) for name in ("value", "variance"))
    size = float(np.mean([one.patients for one in draws]))
    combined = combine_plug_in(values, variances, size, real.patients)
    posterior = combine_posterior(values, variances, size, real.patients)
    own, others = interval(real), interval(held_out)
    return Replicated(
        effect,
        real.patients,
        real.both,
        real.value,
        own,
        held_out.value,
        others,
        len(draws),
        combined.value,
        combined.interval,
        posterior.interval,
        overlap(own, combined.interval),
        overlap(own, others),
        same_sign=(combined.value > 0) == (real.value > 0),
        same_significance=_side(combined.interval) == _side(own),
        inside=own[0] <= combined.value <= own[1],
        errors_off=(combined.value - real.value) / math.sqrt(real.variance),
    )


def combine_plug_in(values: Floats, variances: Floats, synthetic: float, real: float) -> Combined:
    """Combine draws of a generator whose parameters were estimated once, from `real` patients.

    The variance is u (k / n + 1 / m): u the mean variance of the m draws, k the patients of each, n the real ones
    (Raab, Nowok and Dibben 2016, Journal of Privacy and Confidentiality 7:67). The first part is what the real
    patients leave open, the second what drawing adds. It holds for one draw, too, and takes the generator to be right.
    """
    mean = float(np.mean(variances))
    return Combined(float(np.mean(values)), mean * (synthetic / real + 1 / len(values)), math.inf)


def combine_posterior(values: Floats, variances: Floats, synthetic: float, real: float) -> Combined:
    """Combine fully synthetic draws, each of a generator whose parameters were drawn from their posterior.

    The variance is (1 + 1 / m) b - u, b that between the draws and u the mean within, with
    (m - 1) (1 - u / ((1 + 1 / m) b))^2 degrees of freedom (Raghunathan, Reiter and Rubin 2003, Journal of Official
    Statistics 19:1). Where that is not above nought, it is u k / n (Reiter 2002, JOS 18:531). It needs two draws.
    """
    m = len(values)
    between, within = (1 + 1 / m) * float(np.var(values, ddof=1)), float(np.mean(variances))
    variance = between - within
    if variance <= 0:
        return Combined(float(np.mean(values)), within * synthetic / real, math.inf)
    return Combined(float(np.mean(values)), variance, max((m - 1) * (1 - within / between) ** 2, 1.0))


def interval(one: Estimate) -> Interval:
    """The 95 % interval of an estimate of real patients."""
    width = float(stats.norm.ppf((1 + COVERAGE) / 2)) * math.sqrt(one.variance)
    return one.value - width, one.value + width


def overlap(first: Interval, second: Interval) -> float:
    """The mean share of either interval that lies in the other (Karr et al. 2006, The American Statistician 60:224).

    1 for the same interval, nought for intervals that do not meet.
    """
    common = min(first[1], second[1]) - max(first[0], second[0])
    if not common > 0:
        return 0.0
    return (common / (first[1] - first[0]) + common / (second[1] - second[0])) / 2


def _side(ends: Interval) -> int:
    return 1 if ends[0] > 0 else -1 if ends[1] < 0 else 0


class _Facts(NamedTuple):
    """What estimates need of a cohort: when things first happened to each patient, in order."""

    people: pl.DataFrame
    """subject_id, born, male, first, end, death, and one column a code with its first time"""
    moments: pl.DataFrame
    """subject_id, moment, of those who are followed afterwards"""


def _facts(events: pl.LazyFrame, wanted: Sequence[str]) -> _Facts:
    when, code, time = calendar(events), pl.col("code"), pl.col("time")
    people = events.group_by("subject_id").agg(
        born=time.filter(code == codes.BIRTH).min(),
        male=code.filter(code.str.starts_with("GENDER//"))
        .min()
        .replace_strict({"GENDER//female": 0.0, "GENDER//male": 1.0}, default=None, return_dtype=pl.Float64),
        **{one: time.filter(code == one).min() for one in wanted if one != codes.DEATH},
    )
    told = people.collect().join(when.lives, on="subject_id").with_columns(pl.col("death").alias(codes.DEATH))
    open_ = after_history(when).filter(pl.col("end") > pl.col("moment"))
    return _Facts(told.sort("subject_id"), drawn(open_.select("subject_id", "moment"), "moment of an effect"))


class _Study(NamedTuple):
    """A table to estimate from: exposure, then age in decades and sex, each about its mean."""

    design: Floats
    follow_up: FollowUp


def _study(facts: _Facts, effect: Effect) -> _Study:
    exposed, came = pl.col(effect.exposure), pl.col(effect.outcome)
    if effect.kind == "odds ratio":
        table = facts.people.with_columns(at="end", exposed=exposed.is_not_null(), time=1.0)
    else:
        table = facts.people.join(facts.moments, on="subject_id").filter(came.is_null() | (came >= pl.col("moment")))
        until = years(pl.coalesce(came, "end") - pl.col("moment"))
        table = table.with_columns(at="moment", exposed=(exposed < pl.col("moment")).fill_null(False), time=until)
    age = years(pl.col("at") - pl.col("born")) / 10
    rows = table.select(
        exposed=pl.col("exposed").cast(pl.Float64), age=age, male="male", time="time", came=came.is_not_null()
    )
    known = [name for name in ("age", "male") if rows[name].null_count() < rows.height / 2]
    rows = rows.drop_nulls(known)
    design = rows.select("exposed", *known).to_numpy()
    design[:, 1:] -= design[:, 1:].mean(axis=0) if len(design) else 0.0
    return _Study(design, FollowUp(rows["time"].to_numpy(), rows["came"].to_numpy()))


def estimates(events: pl.LazyFrame, chosen: Sequence[Effect]) -> list[Estimate]:
    """The estimate of each effect in a table of events. Age and sex are left out where most patients lack them."""
    facts = _facts(events, sorted({code for effect in chosen for code in (effect.exposure, effect.outcome)}))
    return [_estimate(effect, _study(facts, effect)) for effect in chosen]


def _sizes(events: pl.LazyFrame, chosen: Sequence[Effect]) -> list[int]:
    """How many exposed patients have the outcome, by effect."""
    facts = _facts(events, sorted({code for effect in chosen for code in (effect.exposure, effect.outcome)}))
    studies = [_study(facts, effect) for effect in chosen]
    return [int(study.follow_up.happened[study.design[:, 0] > 0].sum()) for study in studies]


def _estimate(effect: Effect, study: _Study) -> Estimate:
    design, (time, happened) = study.design, study.follow_up
    exposed = design[:, 0] > 0
    both = int(happened[exposed].sum())
    # All four kinds of patients must be there: an estimate without one of them runs off to infinity.
    counts = [both, happened[~exposed].sum(), (~happened[exposed]).sum(), (~happened[~exposed]).sum()]
    if min(counts) == 0:
        return Estimate(math.nan, math.nan, len(design), both)
    varied = np.flatnonzero(np.ptp(design, axis=0) > 0)
    if effect.kind == "odds ratio":
        found, variance = logistic_regression(np.column_stack([design[:, varied], np.ones(len(design))]), happened)
    else:
        found, variance = cox_regression(design[:, varied], FollowUp(time, happened))
    return Estimate(float(found[0]), float(variance[0, 0]), len(design), both)


def logistic_regression(design: Floats, outcome: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Coefficients (columns,) of greatest likelihood and their covariance, by Newton's method; NaN without."""

    def derivatives(beta: Floats) -> tuple[Floats, Floats]:
        expected = expit(design @ beta)
        return design.T @ (outcome - expected), (design * (expected * (1 - expected))[:, None]).T @ design

    return _maximised(derivatives, design.shape[1])


def cox_regression(design: Floats, follow_up: FollowUp) -> tuple[Floats, Floats]:
    """Log hazard ratios (columns,) of greatest partial likelihood and their covariance (Cox 1972, JRSS B 34:187).

    Ties as Efron (1977, JASA 72:557): of d outcomes at a time, the l-th is compared with those followed, less l / d of
    those who have it then. NaN where there is no maximum.
    """
    order = np.argsort(follow_up.time, kind="stable")
    x, time, happened = design[order], follow_up.time[order], follow_up.happened[order]
    times, begin = np.unique(time, return_index=True)
    group = np.searchsorted(times, time)
    tied = np.bincount(group[happened], minlength=len(times))
    at = np.repeat(np.arange(len(times)), tied)
    before = (np.arange(len(at)) - np.repeat(np.cumsum(tied) - tied, tied)) / np.maximum(tied[at], 1)

    def sums(values: Floats) -> Floats:
        followed = np.cumsum(values[::-1], axis=0)[::-1][begin]
        having = np.zeros_like(followed)
        np.add.at(having, group[happened], values[happened])
        share = before.reshape(-1, *[1] * (values.ndim - 1))
        compared: Floats = followed[at] - share * having[at]
        return compared

    def derivatives(beta: Floats) -> tuple[Floats, Floats]:
        hazard = np.exp(np.clip(x @ beta, -50, 50))
        s0, s1 = sums(hazard), sums(hazard[:, None] * x)
        s2 = sums(hazard[:, None, None] * x[:, :, None] * x[:, None, :])
        mean = s1 / s0[:, None]
        spread = s2 / s0[:, None, None] - mean[:, :, None] * mean[:, None, :]
        return x[happened].sum(axis=0) - mean.sum(axis=0), spread.sum(axis=0)

    return _maximised(derivatives, design.shape[1])


def _maximised(derivatives: Derivatives, columns: int) -> tuple[Floats, Floats]:
    """Where a likelihood is greatest, from nought by Newton's method, and the inverse of the information there."""
    beta = np.zeros(columns)
    nothing = np.full(columns, np.nan), np.full((columns, columns), np.nan)
    for _ in range(_STEPS):
        gradient, information = derivatives(beta)
        try:
            step = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError:
            return nothing
        beta = beta + step * min(1.0, 2.0 / max(float(np.abs(step).max()), _CLOSE))
        if np.abs(beta).max() > _FARTHEST:
            return nothing
        if np.abs(step).max() < _CLOSE:
            covariance = np.asarray(np.linalg.inv(derivatives(beta)[1]), np.float64)
            return beta, covariance
    return nothing
