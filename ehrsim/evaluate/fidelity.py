"""Fidelity: whether what simulated patients have, when they have it, and what goes with what is as in real ones.

Each function judges one side of it and returns its metrics; all compare with held-out patients.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import polars as pl

from ehrsim.evaluate import lifts, measurements, rules, subgroups, survival, two_sample
from ehrsim.evaluate.cohorts import Cohorts, Weights, descriptions, some
from ehrsim.evaluate.features import features, plan
from ehrsim.evaluate.numbers import numbers, wasserstein
from ehrsim.evaluate.patterns import Counts, Distances, Patterns, distances, patterns, vocabulary
from ehrsim.evaluate.report import Metric, Section, measured, shown
from ehrsim.evaluate.resampling import Distance, Floats
from ehrsim.evaluate.transitions import transitions

MOST_TOLD_APART = 1_500
"""Patients of each cohort that classifiers see: more take long and change the AUC little."""
MOST_MARGINAL = 750
"""Of marginals, which give themselves away at once, classifiers see fewer."""
MOST_WORST, MOST_IN_MAP = 20, 16
_EXPLAINED = (-math.inf, 1.0)
_PATTERNS = {
    "code_by_visit": "Codes, by visit",
    "code_by_patient": "Codes, by patient",
    "pair_by_visit": "Pairs of codes in a visit, by visit",
    "pair_by_patient": "Pairs of codes in a visit, by patient",
    "sequence_by_visit": "Code to code at the next visit, by visit",
    "sequence_by_patient": "Code to code at the next visit, by patient",
}
_NUMBERS = {
    "visits_per_patient": "Visits a patient",
    "codes_per_visit": "Codes a visit",
    "log_gap": "Time from visit to visit (log days)",
    "days_of_stay": "Length of stay (days)",
    "log_hours_into_stay": "Time of codes in a stay (log hours)",
    "log_hours_to_same_code": "Time to the same code in a stay (log hours)",
    "age_at_event": "Age at each event",
    "age_at_end": "Age at the last event",
}
Counted = TypeVar("Counted")


class Compared(NamedTuple):
    """A distance of simulated patients, of real ones and of marginals, by row of weights."""

    found: Floats
    floor: Floats
    ceiling: Floats


def section(cohorts: Cohorts, weights: Weights, seed: int = 0) -> Section:
    """Judge the fidelity of simulated patients."""
    codes = vocabulary(*cohorts)
    described = descriptions(*cohorts[:3])
    counted = cohorts.each(lambda events: patterns(events, codes))
    metrics = [
        *of_patterns(counted, weights),
        *of_lifts(cohorts, weights, codes, described),
        *of_numbers(cohorts, weights),
        *of_survival(cohorts, weights, described),
        *of_measurements(cohorts, weights, described),
        *of_subgroups(cohorts, weights, codes),
        *of_rules(cohorts, weights, described),
        *of_classifiers(cohorts, codes, described, seed),
    ]
    details = {"pairs": together(cohorts, counted, codes, described)}
    return Section(name="fidelity", title="Fidelity", metrics=metrics, details=details)


def compare(distance: Distance[Counted], counted: list[Counted], weights: Weights) -> Compared:
    """A distance from held-out patients of each other cohort; they are in the order of `Cohorts`."""
    truth, real, simulated, marginal = counted
    return Compared(
        distance(truth, simulated, weights.held_out, weights.simulated),
        distance(truth, real, weights.held_out, weights.real),
        distance(truth, marginal, weights.held_out[:1], weights.marginal),
    )


def of_patterns(counted: list[Patterns], weights: Weights) -> list[Metric]:
    """Codes, pairs and sequences: total variation distance and R squared by HALO's definitions (`patterns.py`)."""
    metrics = []
    for kind, title in _PATTERNS.items():
        own = [getattr(one, kind) for one in counted]
        if not len(own[0].pattern):
            continue
        found: list[Distances] = list(compare(distances, own, weights))  # type: ignore[arg-type]
        apart = [one.total_variation for one in found]
        explained = [one.r_squared for one in found]
        group = "Codes and pairs of codes"
        details = {"patterns": len(own[0].pattern)}
        metrics += [
            measured(f"{kind}/total_variation", group, f"{title}: total variation", *apart, details=details),
            measured(f"{kind}/r_squared", group, f"{title}: R²", *explained, best="high", bounds=_EXPLAINED),
        ]
    return metrics


def together(cohorts: Cohorts, counted: list[Patterns], codes: pl.Series, described: dict[str, str]) -> dict[str, Any]:
    """How much more or less simulated patients have two codes in a visit, or one at the visit after the other.

    Of the commonest codes; shares of patients, simulated less held-out.
    """
    chosen = lifts.commonest(cohorts.held_out, codes, MOST_IN_MAP)
    size = len(codes)
    place = np.searchsorted(codes.to_numpy(), np.array(chosen, dtype=object)) if chosen else np.zeros(0, np.int64)
    kinds = {"same_visit": "pair_by_patient", "next_visit": "sequence_by_patient"}
    found: dict[str, Any] = {"codes": [described.get(code, code) for code in chosen]}
    for name, kind in kinds.items():
        first, second = np.meshgrid(place, place, indexing="ij")
        if name == "same_visit":
            first, second = np.minimum(first, second), np.maximum(first, second)
        truth, model = (_of_pairs(getattr(one, kind), first * size + second) for one in (counted[0], counted[2]))
        found[name] = [[shown(value) for value in row] for row in (model - truth).tolist()]
    return found


def _of_pairs(counts: Counts, wanted: np.ndarray) -> np.ndarray:
    """The share of each wanted pattern, nought of one that is not shown."""
    if not len(counts.pattern):
        return np.zeros(wanted.shape)
    place = np.minimum(np.searchsorted(counts.pattern, wanted), len(counts.pattern) - 1)
    return np.where(counts.pattern[place] == wanted, counts.shares()[place], 0.0)


def of_lifts(cohorts: Cohorts, weights: Weights, codes: pl.Series, described: dict[str, str]) -> list[Metric]:
    """What comes within a year of what (`lifts.py`)."""
    chosen = lifts.commonest(cohorts.held_out, codes)
    counted = cohorts.each(lambda events: lifts.followed(events, codes, chosen))
    kept = lifts.compared(counted[0])
    if not len(kept):
        return []
    truth, _, model, _ = (lifts.log_lifts(one, np.ones((1, len(one.visits))))[0, kept] for one in counted)
    names = [described.get(code, code) for code in chosen]
    worst = [
        {
            "pair": f"{names[kept[i] // len(chosen)]} → {names[kept[i] % len(chosen)]}",
            "real": shown(math.exp(truth[i])),
            "simulated": shown(math.exp(model[i])),
        }
        for i in np.argsort(-np.abs(truth - model), kind="stable")[:MOST_WORST]
    ]
    compared = compare(lifts.lift_gaps, counted, weights)
    title = "Lift of a code within a year of another: mean difference of logarithms"
    details = {"pairs": len(kept), "worst": worst}
    return [measured("lift_within_a_year", "Codes and pairs of codes", title, *compared, details=details)]


def of_numbers(cohorts: Cohorts, weights: Weights) -> list[Metric]:
    """The numbers of a record (`numbers.py`): Wasserstein distances in interquartile ranges."""
    counted = cohorts.each(numbers)
    metrics = []
    for name, title in _NUMBERS.items():
        own = [one[name] for one in counted]
        if len(own[0].values):
            means = [shown(float(one.values.mean())) if len(one.values) else None for one in own]
            details = {"means": dict(zip(Cohorts._fields, means, strict=True))}
            compared = compare(wasserstein, own, weights)
            metrics.append(measured(f"number/{name}", "Visits, times and ages", title, *compared, details=details))
    return metrics


def of_survival(cohorts: Cohorts, weights: Weights, described: dict[str, str]) -> list[Metric]:
    """Areas between the survival curves of death and of the commonest chronic conditions (`survival.py`).

    Told from the first visit and, where births are known, from birth: there the years before the records begin, in
    which nothing can happen, count as years without a difference.
    """
    origins = {"first_visit": False, **({"birth": True} if survival.births_known(cohorts.held_out) else {})}
    conditions, metrics = survival.chronic(cohorts.held_out), []
    for origin, from_birth in origins.items():
        tables = cohorts.each(partial(survival.lives, from_birth=from_birth))
        horizon = survival.horizon(tables[0])
        if horizon <= 0:
            continue
        outcomes = {"death": [survival.to_death(table) for table in tables]}
        for code in conditions:
            outcomes[code] = [survival.to_first(*pair, code) for pair in zip(cohorts, tables, strict=True)]
        judge = partial(survival.integrated_errors, horizon=horizon)
        for name, counted in outcomes.items():
            if any(one.happened.any() for one in counted[:3]):
                happened = [shown(float(one.happened.mean())) for one in counted]
                details = {"years": shown(horizon), "happened": dict(zip(Cohorts._fields, happened, strict=True))}
                what = "Death" if name == "death" else described.get(name, name)
                title = f"{what}, from {origin.replace('_', ' ')}: area between survival curves"
                compared = compare(judge, counted, weights)
                metrics.append(measured(f"survival/{origin}/{name}", "Survival", title, *compared, details=details))
    return metrics


def of_measurements(cohorts: Cohorts, weights: Weights, described: dict[str, str]) -> list[Metric]:
    """Measured values (`measurements.py`): each, its change over the years, the next of it, and others of the visit."""
    chosen = measurements.commonest(cohorts.held_out)
    names = [described.get(code, code) for code in chosen["code"]]
    tables = cohorts.each(lambda events: measurements.values(events, chosen))
    if not names or not tables[0].height:
        return []
    group = "Measured values"
    changes = [measurements.trends(table) for table in tables]
    titles = {"values": "Each value", "trends": "Change of a value in a patient, a year"}
    metrics = []
    for (name, title), rows in zip(titles.items(), (tables, changes), strict=True):
        samples = [[measurements.by_code(one, number) for one in rows] for number in range(len(names))]
        kept = [number for number, one in enumerate(samples) if len(one[0].patient) >= measurements.LEAST_PAIRS]
        if kept:
            found = [compare(wasserstein, samples[number], weights) for number in kept]
            metrics.append(_over_codes(name, group, title, found, [names[number] for number in kept]))
    ranks = [measurements.ranked(table, tables[0]) for table in tables]
    titles = {"lag_one": "A value and the next: correlation", "same_visit": "Two values of a visit: correlation"}
    for name, count_pairs in (("lag_one", measurements.consecutive), ("same_visit", measurements.same_visit)):
        patients = [_patients(cohort) for cohort in cohorts]
        pairs = [count_pairs(table, size, len(names)) for table, size in zip(ranks, patients, strict=True)]
        kept = np.flatnonzero(pairs[0].number >= measurements.LEAST_PAIRS).tolist()
        if kept:
            gaps = compare(measurements.correlation_gaps, pairs, weights)
            found = [Compared(*(rows[:, place] for rows in gaps)) for place in range(len(kept))]
            labels = names if name == "lag_one" else [f"{a} & {b}" for a in names for b in names]
            metrics.append(_over_codes(name, group, titles[name], found, [labels[key] for key in kept]))
    return metrics


def _patients(events: pl.LazyFrame) -> int:
    return int(events.select(pl.col("subject_id").n_unique()).collect().item())


def _over_codes(name: str, group: str, title: str, found: list[Compared], names: list[str]) -> Metric:
    """The median over codes, or pairs of them, with the worst of them."""
    # A code that was never simulated is as far as can be, not a code to be passed over.
    stacked = Compared(*(np.nan_to_num(np.stack(rows, axis=1), nan=np.inf) for rows in zip(*found, strict=True)))
    values, floors = stacked.found[0], stacked.floor[0]
    worst = [
        {"name": names[i], "value": shown(values[i]), "floor": shown(floors[i])}
        for i in np.argsort(-(values - floors), kind="stable")[:MOST_WORST]
    ]
    medians = [np.median(rows, axis=1) for rows in stacked]
    return measured(name, group, f"{title}, median", *medians, details={"of": len(names), "worst": worst})


def of_subgroups(cohorts: Cohorts, weights: Weights, codes: pl.Series) -> list[Metric]:
    """How common codes of visits are within each sex, band of ages and race, and who is there (`subgroups.py`)."""
    counted = cohorts.each(lambda events: subgroups.members(events, codes))
    labels = sorted({label for one in counted for label in subgroups.combinations(one)})
    group = "Subgroups"
    mixed: list[Distances] = list(
        compare(distances, [subgroups.composition(one, labels) for one in counted], weights)  # type: ignore[arg-type]
    )
    title = "Patients by sex, age and race together: total variation"
    metrics = [measured("subgroup/composition", group, title, *(one.total_variation for one in mixed))]
    for trait, label in subgroups.known(counted[0]):
        own = [subgroups.of(one, trait, label) for one in counted]
        found: list[Distances] = list(compare(distances, own, weights))  # type: ignore[arg-type]
        shares = [
            shown(float(one.occasions.sum() / max(cohort.labels.height, 1)))
            for one, cohort in zip(own, counted, strict=True)
        ]
        title = f"Codes of patients, {trait} {label}: total variation"
        details = {"trait": trait, "label": label, "share": dict(zip(Cohorts._fields, shares, strict=True))}
        rows = [one.total_variation for one in found]
        metrics.append(measured(f"subgroup/{trait}={label}", group, title, *rows, details=details))
    return metrics


def of_rules(cohorts: Cohorts, weights: Weights, described: dict[str, str]) -> list[Metric]:
    """Patients who break a clinical rule (`rules.py`): beside the share of other real ones, not of held-out ones."""
    code = pl.concat([events.select("code").unique() for events in cohorts]).unique().sort("code").collect()["code"]
    known = rules.meanings(code, described)
    metrics = []
    for rule in rules.load():
        if not rule.when and not rules.found(known, rule.codes, rule.words, rule.kinds):
            continue
        shares = [
            rules.share(rules.broken(events, rule, known), rows)
            for events, rows in zip(cohorts[1:], weights[1:], strict=True)
        ]
        floor, found, ceiling = shares
        metrics.append(measured(f"rule/{rule.name}", "Clinical rules", rule.says, found, floor, ceiling))
    return metrics


def of_classifiers(cohorts: Cohorts, codes: pl.Series, described: dict[str, str], seed: int) -> list[Metric]:
    """How well gradient-boosted trees tell simulated patients from held-out ones, and by what (`two_sample.py`)."""
    sizes = (MOST_TOLD_APART, MOST_TOLD_APART, MOST_TOLD_APART, MOST_MARGINAL)
    fewer = Cohorts(*(some(events, size, seed) for events, size in zip(cohorts, sizes, strict=True)))
    # Marginals are compared by what the others show: they have no code of their own.
    planned = plan(fewer.held_out, fewer.simulated)
    told = {
        "features": ("features of a record", fewer.each(lambda events: features(events, planned))),
        "transitions": ("what follows what", transitions(list(fewer), codes, described)),
    }
    metrics = []
    for name, (by, counted) in told.items():
        truth, real, simulated, marginal = counted
        areas = [
            two_sample.told_apart(truth, other, seed=seed, clues=other is simulated)
            for other in (simulated, real, marginal)
        ]
        found = areas[0]
        clues = [
            {"name": _in_words(clue.name, described), **{key: shown(getattr(clue, key)) for key in _CLUE}}
            for clue in found.clues
        ]
        metrics.append(_area(f"told_apart/{name}", f"Told from real patients by {by}: AUC", areas, clues))
    return metrics


_CLUE = ("lost", "real", "other")


def _in_words(feature: str, described: dict[str, str]) -> str:
    """The name of a feature, with what its code means."""
    kind, _, code = feature.rpartition(" ")
    return f"{kind} {described[code]}" if code in described else feature


def _area(name: str, title: str, areas: Iterable[two_sample.Told], clues: list[dict[str, Any]]) -> Metric:
    """An AUC beside those of real patients and of marginals."""
    found, floor, ceiling = areas
    low, high = (one.auc.value for one in (floor, ceiling))
    apart = high - low > floor.auc.interval[1] - floor.auc.interval[0]
    return Metric(
        name=name,
        group="Told apart by a classifier",
        title=title,
        best="low",
        value=shown(found.auc.value),
        interval=found.auc.interval,
        floor=shown(low),
        ceiling=shown(high),
        ratio=shown(found.auc.value / low) if low else None,
        excess=shown(found.auc.value - low),
        score=shown((high - found.auc.value) / (high - low)) if apart else None,
        details={"patients": found.patients, "floor_interval": list(floor.auc.interval), "clues": clues},
    )
