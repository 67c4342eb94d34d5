"""What is known of patients before a moment of each: a row of features, and the visits so far.

An event is known from its time on; one that is dated back, as a condition of years ago that a visit asks about, from
the start of that visit on. What is known at the moment or later cannot be seen here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from ehrsim import codes
from ehrsim.evaluate import measurements
from ehrsim.evaluate.features import Features
from ehrsim.evaluate.prevalence import kind_of
from ehrsim.evaluate.records import DAYS_PER_YEAR, VISIT_MARKS, visit_events, years
from ehrsim.evaluate.resampling import Floats, Indices
from ehrsim.evaluate.tasks import INPATIENT, YEAR
from ehrsim.sequences import Sequences

MOST_CODES, MOST_READ, MOST_VALUES, MOST_VISITS = 100, 256, 20, 32
"""Codes counted in features, codes and values read by a network, and visits: the last before the moment."""
LEAST_SHARE = 0.01
"""Of training patients, that a race or ethnicity must have to be told."""
QUARTER = 91
EMERGENCY = frozenset(("EMER", "EMERGENCY"))
_UNTOLD = (codes.BIRTH, codes.DEATH, codes.OBSERVATION_END)
_STATIC_KINDS = ("gender", "race", "ethnicity")


class Plan(NamedTuple):
    """What is told of patients, from the training patients, so that every cohort has the same features."""

    codes: list[str]
    """the most common of visits, the most common first"""
    values: pl.DataFrame
    """code, unit, mean, deviation of what is measured most"""
    groups: list[str]
    """codes of races and ethnicities"""


class Known(NamedTuple):
    """What becomes known of the patients of a cohort, and when."""

    events: pl.DataFrame
    """subject_id, known, visit, code and number (places in the plan, null if not in it), value: in order"""
    visits: pl.DataFrame
    """visit, subject_id, start, hospital, emergency: in order"""
    people: pl.DataFrame
    """subject_id, born, male, and whether of each group of the plan"""


def plan(training: pl.LazyFrame) -> Plan:
    """What to tell of patients: codes that most training patients have in visits, and what is measured most."""
    timed = training.filter(pl.col("time").is_not_null() & ~pl.col("code").is_in(_UNTOLD))
    carriers = pl.col("subject_id").n_unique()
    counted = timed.filter(~pl.col("code").str.contains(VISIT_MARKS)).group_by("code").agg(carriers=carriers)
    common = counted.sort(["carriers", "code"], descending=[True, False]).collect()
    common = common.filter(~kind_of(common["code"]).is_in(_STATIC_KINDS))
    chosen = measurements.commonest(training, MOST_VALUES).select("code", "unit")
    value = pl.col("numeric_value").cast(pl.Float64)
    spread = (
        timed.filter(value.is_finite())
        .group_by("code", "unit")
        .agg(mean=value.clip(value.quantile(0.01), value.quantile(0.99)).mean(), deviation=value.std())
    )
    values = chosen.join(spread.collect(), on=["code", "unit"], nulls_equal=True, how="left", maintain_order="left")
    total = training.select(carriers).collect().item()
    groups = training.filter(pl.col("code").str.contains("^(RACE|ETHNICITY)//")).group_by("code").agg(carriers=carriers)
    told = groups.filter(pl.col("carriers") >= LEAST_SHARE * total).select("code").sort("code").collect()
    return Plan(common["code"].head(MOST_READ).to_list(), values, told["code"].to_list())


def known(events: pl.LazyFrame, plan: Plan) -> Known:
    """What becomes known of every patient of a table of events, told by a plan."""
    opening = pl.col("code").str.starts_with("VISIT_START//")
    start = pl.col("time").filter(opening).min().over("subject_id", "visit_id")
    told = pl.when(pl.col("visit_id").is_not_null()).then(pl.max_horizontal("time", start)).otherwise("time")
    within = visit_events(events.with_columns(known=told))
    key = ["subject_id", "visit_id", "day"]
    kind = pl.col("code").str.extract("^VISIT_START//([^/]+)", 1)
    visits = (
        within.group_by(key)
        .agg(
            start=pl.col("known").min(),
            hospital=kind.is_in(INPATIENT).any().fill_null(False),
            emergency=kind.is_in(EMERGENCY).any().fill_null(False),
        )
        .sort("subject_id", "start", "visit_id", "day")
        .with_row_index("visit")
    )
    code = pl.LazyFrame({"code": plan.codes}, schema={"code": pl.String}).with_row_index("place")
    number = plan.values.lazy().select("code", "unit").with_row_index("number")
    rows = (
        within.with_row_index("row")
        .join(code, on="code", how="left")
        .join(number, on=["code", "unit"], how="left", nulls_equal=True)
        .filter(pl.col("place").is_not_null() | pl.col("number").is_not_null())
        .join(visits.select(*key, "visit"), on=key, nulls_equal=True)
        .sort("subject_id", "known", "row")
        .select("subject_id", "known", "visit", "place", "number", value=pl.col("numeric_value").cast(pl.Float64))
    )
    own = pl.col("code")
    people = events.group_by("subject_id").agg(
        born=pl.col("time").filter(own == codes.BIRTH).min(),
        male=own.filter(own.str.starts_with("GENDER//"))
        .min()
        .replace_strict({"GENDER//female": 0.0, "GENDER//male": 1.0}, default=None, return_dtype=pl.Float64),
        **{group: (own == group).any().cast(pl.Float64) for group in plan.groups},
    )
    return Known(*pl.collect_all([rows, visits.drop("visit_id", "day"), people.sort("subject_id")]))


def features(known: Known, asked: pl.DataFrame, plan: Plan) -> Features:
    """A row of features for each patient of a table of subject_id and moment; NaN where something is not known.

    Counts are logarithms of one more. Freshness is exp(-years) since the last time, and nought if there was none.
    """
    asked = asked.select("subject_id", "moment").with_row_index("asked")
    parts = [
        _person(known, asked, plan),
        _rhythm(known, asked),
        _codes(known, asked, plan),
        _values(known, asked, plan),
    ]
    return Features([name for part in parts for name in part.names], np.hstack([part.matrix for part in parts]))


def _person(known: Known, asked: pl.DataFrame, plan: Plan) -> Features:
    told = asked.join(known.people, on="subject_id", how="left", maintain_order="left").select(
        age=years(pl.col("moment") - pl.col("born")), male="male", **{group: pl.col(group) for group in plan.groups}
    )
    return Features(told.columns, told.select(pl.all().fill_null(np.nan)).to_numpy().reshape(asked.height, -1))


def _rhythm(known: Known, asked: pl.DataFrame) -> Features:
    """How long the record is, and the visits in it, stays in hospital and emergencies."""
    seen = asked.join(known.visits, on="subject_id").filter(pl.col("start") < pl.col("moment"))
    since = years(pl.col("moment") - pl.col("start"))
    told: dict[str, pl.Expr] = {"years of record": since.max()}
    for name, which in (("visits", pl.lit(True)), ("stays in hospital", "hospital"), ("emergencies", "emergency")):
        chosen = since.filter(which)
        told[f"{name}, freshness"] = (-chosen.min()).exp()
        for window, days in (("a quarter", QUARTER), ("a year", YEAR), ("ever", None)):
            within = chosen if days is None else chosen.filter(chosen < days / DAYS_PER_YEAR)
            told[f"{name}, {window}"] = within.len().cast(pl.Float64).log1p()
    found = seen.group_by("asked").agg(**told)
    joined = asked.select("asked").join(found, on="asked", how="left", maintain_order="left").drop("asked")
    return Features(joined.columns, joined.select(pl.all().fill_null(0.0)).to_numpy())


def _codes(known: Known, asked: pl.DataFrame, plan: Plan) -> Features:
    """How often each code of the plan came within a year and ever, and how fresh it is."""
    told = plan.codes[:MOST_CODES]
    since = years(pl.col("moment") - pl.col("known"))
    counted = (
        _before(known, asked)
        .filter(pl.col("place") < len(told))
        .group_by("asked", "place")
        .agg(
            (since < YEAR / DAYS_PER_YEAR).sum().cast(pl.Float64).log1p().alias("a year"),
            pl.len().cast(pl.Float64).log1p().alias("ever"),
            (-since.min()).exp().alias("freshness"),
        )
    )
    kinds = ["a year", "ever", "freshness"]
    matrix = np.zeros((asked.height, len(told), len(kinds)))
    matrix[counted["asked"].to_numpy(), counted["place"].to_numpy()] = counted.select(kinds).to_numpy()
    return Features([f"{code}, {kind}" for code in told for kind in kinds], matrix.reshape(asked.height, -1))


def _values(known: Known, asked: pl.DataFrame, plan: Plan) -> Features:
    """The last value of each measurement, by how much it differs from the mean of those before, and its freshness."""
    value = pl.col("value")
    found = (
        _before(known, asked)
        .filter(pl.col("number").is_not_null() & value.is_finite())
        .group_by("asked", "number", maintain_order=True)
        .agg(
            value.last().alias("last"),
            (value.last() - value.head(pl.len() - 1).mean()).alias("change"),
            (-years(pl.col("moment") - pl.col("known")).min()).exp().alias("freshness"),
        )
    )
    kinds = ["last", "change", "freshness"]
    matrix = np.full((asked.height, plan.values.height, len(kinds)), np.nan)
    matrix[:, :, 2] = 0.0
    given = found.select(pl.col(kinds).fill_null(np.nan)).to_numpy()
    matrix[found["asked"].to_numpy(), found["number"].to_numpy()] = given
    names = [f"{code}, {kind}" for code in plan.values["code"] for kind in kinds]
    return Features(names, matrix.reshape(asked.height, -1))


def _before(known: Known, asked: pl.DataFrame) -> pl.DataFrame:
    """What is known before the moment of each patient, in order."""
    joined = known.events.join(asked, on="subject_id", maintain_order="left")
    return joined.filter(pl.col("known") < pl.col("moment"))


def sequences(known: Known, asked: pl.DataFrame, plan: Plan) -> Sequences:
    """The last `MOST_VISITS` visits before the moment of each patient of a table of subject_id and moment.

    A visit holds its codes and, in columns after these, its values in deviations from the mean of training patients.
    """
    asked = asked.select("subject_id", "moment").with_row_index("asked")
    seen = _before(known, asked)
    pairs = seen.select("asked", "visit").unique().sort("asked", "visit")
    pairs = pairs.filter(pl.int_range(pl.len()).reverse().over("asked") < MOST_VISITS).with_row_index("row")
    inside = seen.join(pairs, on=["asked", "visit"], maintain_order="left")
    height = pairs.height + 1
    hot = inside.filter(pl.col("place").is_not_null()).select("row", "place").unique()
    matrices = [_sparse(hot["row"], hot["place"], np.ones(hot.height), (height, len(plan.codes)))]
    scaled = (pl.col("value") - pl.col("mean")) / pl.col("deviation").clip(lower_bound=1e-6)
    measured = (
        inside.filter(pl.col("number").is_not_null() & pl.col("value").is_finite())
        .join(plan.values.with_row_index("number").select("number", "mean", "deviation"), on="number")
        .group_by("row", "number")
        .agg(value=scaled.last().clip(-4, 4))
    )
    shape = (height, plan.values.height)
    matrices.append(_sparse(measured["row"], measured["number"], measured["value"].to_numpy(), shape))
    visits = sparse.hstack(matrices, format="csr").astype(np.float32)
    numbers = np.vstack([_moments(known, asked, pairs, hot), np.zeros(5)]).astype(np.float32)
    return Sequences(visits, numbers, _rows(pairs, asked.height), _static(known, asked, plan))


def _sparse(row: pl.Series, column: pl.Series, data: Floats, shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix((data, (row.to_numpy(), column.to_numpy())), shape)


def _rows(pairs: pl.DataFrame, patients: int) -> Indices:
    """(patients, MOST_VISITS) the rows of each patient's visits, filled up with the empty one."""
    owner = pairs["asked"].to_numpy()
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    rows = np.full((patients, MOST_VISITS), len(owner), np.int64)
    rows[owner, place] = np.arange(len(owner))
    return rows


def _moments(known: Known, asked: pl.DataFrame, pairs: pl.DataFrame, hot: pl.DataFrame) -> Floats:
    """(visits, 5) gap since the visit before, time to the moment, age and whether it is known, number of codes."""
    size = hot.group_by("row").agg(codes=pl.len())
    told = (
        pairs.join(known.visits.select("visit", "start"), on="visit", how="left", maintain_order="left")
        .join(asked, on="asked", how="left", maintain_order="left")
        .join(known.people.select("subject_id", "born"), on="subject_id", how="left", maintain_order="left")
        .join(size, on="row", how="left", maintain_order="left")
    )
    day = DAYS_PER_YEAR
    gap = years(pl.col("start") - pl.col("start").shift(1).over("asked")).clip(0.0) * day
    age = years(pl.col("start") - pl.col("born"))
    return told.select(
        gap.log1p().fill_null(0.0) / 4,
        left=(years(pl.col("moment") - pl.col("start")).clip(0.0) * day).log1p() / 6,
        age=age.fill_null(0.0) / 50,
        known=age.is_not_null().cast(pl.Float64),
        codes=pl.col("codes").fill_null(0).cast(pl.Float64).log1p(),
    ).to_numpy()


def _static(known: Known, asked: pl.DataFrame, plan: Plan) -> NDArray[np.float32]:
    """(patients, statics) age and sex, each with whether it is known, and the groups."""
    matrix = _person(known, asked, plan).matrix
    matrix[:, 0] /= 50
    given = np.isfinite(matrix[:, :2])
    return np.hstack([np.nan_to_num(matrix), given]).astype(np.float32)
