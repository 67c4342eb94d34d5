"""What is told of a patient to a classifier: age, sex, visits, gaps, codes and values, as a row of numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from ehrsim import codes
from ehrsim.evaluate import measurements
from ehrsim.evaluate.numbers import numbers
from ehrsim.evaluate.prevalence import kind_of
from ehrsim.evaluate.records import records, visit_codes, years
from ehrsim.evaluate.resampling import Floats, subjects

MOST_CODES, MOST_VALUES = 100, 20
_TOLD_APART = (codes.BIRTH, codes.DEATH, codes.OBSERVATION_END)
_QUANTILES = (0.1, 0.5, 0.9)


class Features(NamedTuple):
    """Patients by features."""

    names: list[str]
    matrix: Floats
    """(patients, features) NaN where something is not known, as the age of a patient without a birth"""


class Plan(NamedTuple):
    """Which codes and values are told, so that every cohort has the same features."""

    codes: list[str]
    kinds: list[str]
    values: pl.DataFrame


def plan(*cohorts: pl.LazyFrame) -> Plan:
    """The codes that most patients of some cohorts have, all kinds, and the values that are measured most.

    Both cohorts that are compared should be named: a code that only one of them has is a feature too.
    """
    common = ["subject_id", "time", "code", "numeric_value", "unit"]
    events = pl.concat(
        [frame.select(common).with_columns(cohort=pl.lit(number)) for number, frame in enumerate(cohorts)]
    ).filter(~pl.col("code").is_in(_TOLD_APART))
    carriers = pl.struct("cohort", "subject_id").n_unique()
    counted = events.group_by("code").agg(carriers=carriers).sort(["carriers", "code"], descending=[True, False])
    found = counted.collect()["code"]
    kinds = sorted(set(kind_of(found)) - {"gender"})
    told = found.filter(kind_of(found) != "gender").head(MOST_CODES).to_list()
    return Plan(told, kinds, measurements.commonest(events, MOST_VALUES))


def features(events: pl.LazyFrame, plan: Plan) -> Features:
    """The features of every patient of a cohort, in the order of `subjects`.

    A code's count stands for its presence too: a tree finds "at least one" by itself.
    """
    everyone = pl.DataFrame({"subject_id": subjects(events)})
    tables = [life(events), _rhythm(events), _kinds(events, plan), _counts(events, plan), _values(events, plan)]
    joined = everyone
    for table in tables:
        joined = joined.join(table, on="subject_id", how="left", maintain_order="left")
    counted = [name for name in joined.columns if name.startswith(("count of ", "events of kind "))]
    whole = joined.with_columns(pl.col(counted).fill_null(0)).drop("subject_id")
    matrix = whole.select(pl.all().cast(pl.Float64).fill_null(np.nan)).to_numpy()
    return Features(whole.columns, np.ascontiguousarray(matrix))


def life(events: pl.LazyFrame) -> pl.DataFrame:
    """Sex, death, the number of visits, and the ages at the first and the last event after birth."""
    time = pl.col("time").filter(pl.col("code") != codes.BIRTH)
    born = pl.col("time").filter(pl.col("code") == codes.BIRTH).min()
    ages = events.group_by("subject_id").agg(
        (years(time.min() - born)).alias("age at start"),
        (years(time.max() - born)).alias("age at end"),
        years(time.max() - time.min()).alias("years of record"),
    )
    sex = pl.col("sex").replace_strict({"female": 0.0, "male": 1.0}, default=None, return_dtype=pl.Float64)
    told = records(events).select("subject_id", sex.alias("male"), pl.col("died"), pl.col("visits"))
    return told.join(ages.collect(), on="subject_id", how="left", maintain_order="left")


def _rhythm(events: pl.LazyFrame) -> pl.DataFrame:
    """Mean, deviation and quantiles of the gaps between visits, of codes a visit, of days of stay and times in them."""
    told = {
        "log_gap": "gap (log days)",
        "codes_per_visit": "codes a visit",
        "days_of_stay": "days of stay",
        "log_hours_into_stay": "time in a stay (log hours)",
        "log_hours_to_same_code": "time to the same code in a stay (log hours)",
    }
    everyone, found = subjects(events), numbers(events)
    tables = pl.DataFrame({"subject_id": everyone})
    for key, name in told.items():
        value = pl.col("value")
        rows = pl.DataFrame({"subject_id": everyone.gather(found[key].patient), "value": found[key].values})
        table = rows.group_by("subject_id").agg(
            value.mean().alias(f"{name}, mean"),
            value.std().alias(f"{name}, deviation"),
            *(value.quantile(q, "linear").alias(f"{name}, quantile {q}") for q in _QUANTILES),
        )
        tables = tables.join(table, on="subject_id", how="left", maintain_order="left")
    return tables


def _kinds(events: pl.LazyFrame, plan: Plan) -> pl.DataFrame:
    """How many events of each kind of code."""
    names = events.select(pl.col("code").unique()).collect()["code"]
    kinds = pl.DataFrame({"code": names}).with_columns(kind_of(names)).lazy()
    counts = [(pl.col("kind") == kind).sum().alias(f"events of kind {kind}") for kind in plan.kinds]
    told = events.filter(~pl.col("code").is_in(_TOLD_APART))
    return told.join(kinds, on="code").group_by("subject_id").agg(counts).collect()


def _counts(events: pl.LazyFrame, plan: Plan) -> pl.DataFrame:
    """How many events of each code of the plan, and how many distinct codes in visits."""
    counts = [(pl.col("code") == code).sum().alias(f"count of {code}") for code in plan.codes]
    told = events.filter(pl.col("code").is_in(plan.codes)).group_by("subject_id").agg(counts)
    distinct = visit_codes(events).group_by("subject_id").agg(pl.col("code").n_unique().alias("distinct codes"))
    return distinct.join(told, on="subject_id", how="full", coalesce=True).collect()


def _values(events: pl.LazyFrame, plan: Plan) -> pl.DataFrame:
    """The last value, the mean and the deviation of each measurement of the plan."""
    everyone = subjects(events)
    rows = measurements.values(events, plan.values)
    table = pl.DataFrame({"subject_id": everyone})
    for number, code in enumerate(plan.values["code"]):
        value = pl.col("value")
        own = rows.filter(pl.col("number") == number).group_by("patient", maintain_order=True)
        found = own.agg(
            value.last().alias(f"last {code}"),
            value.mean().alias(f"mean {code}"),
            value.std().alias(f"deviation {code}"),
        )
        found = found.with_columns(subject_id=everyone.gather(found["patient"])).drop("patient")
        table = table.join(found, on="subject_id", how="left", maintain_order="left")
    return table
