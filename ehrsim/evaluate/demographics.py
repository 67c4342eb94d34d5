"""Subgroups of patients: by sex, age, race and ethnicity, and where these meet."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ehrsim import codes
from ehrsim.evaluate.records import years

AGES = (18, 40, 65, 80)
"""Ages at which a band of ages begins; the first begins at birth."""
ATTRIBUTES = ("sex", "age", "race and ethnicity")
_HISPANIC = (2135, 2185)
"""Numbers of the codes of Hispanic or Latino ethnicities in the CDC's Race and Ethnicity code set: 2135-2 and below."""


class Group(NamedTuple):
    """Patients who share one attribute or more."""

    attribute: str
    name: str
    member: NDArray[np.bool_]
    """(patients,)"""


def attributes(events: pl.LazyFrame, asked: pl.DataFrame | None = None) -> pl.DataFrame:
    """A row a patient, in order: subject_id and the `ATTRIBUTES` as text, null where not known.

    The age is that at the moment of a table of subject_id and `moment`, or at the last event. Who has a Hispanic or
    Latino ethnicity counts as such, whatever the race: the combined question of the US Census Bureau.
    """
    code, time = pl.col("code"), pl.col("time")

    def told(kind: str) -> pl.Expr:
        return code.filter(code.str.starts_with(f"{kind}//")).min().str.strip_prefix(f"{kind}//")

    people = (
        events.group_by("subject_id")
        .agg(
            born=time.filter(code == codes.BIRTH).min(),
            last=time.max(),
            sex=told("GENDER"),
            race=told("RACE"),
            ethnicity=told("ETHNICITY"),
        )
        .sort("subject_id")
        .collect()
    )
    if asked is not None:
        moments = asked.select("subject_id", last="moment")
        people = moments.join(people.drop("last"), on="subject_id", how="left", maintain_order="left")
    number = pl.col("ethnicity").str.extract(r"^(\d{4})-\d$", 1).cast(pl.Int64)
    hispanic = number.is_between(*_HISPANIC, closed="left") | pl.col("race").str.to_lowercase().str.contains("hispanic")
    race = pl.col("race").replace(codes.RACES)
    band = age_band(years(pl.col("last") - pl.col("born")))
    group = pl.when(hispanic.fill_null(False)).then(pl.lit(codes.ETHNICITIES["2135-2"])).otherwise(race)
    return people.select("subject_id", "sex", band.alias("age"), group.alias("race and ethnicity"))


def age_band(age: pl.Expr) -> pl.Expr:
    """The band of an age in years, null where it is not known."""
    bounds = [0, *AGES]
    names = [f"{low} to {high - 1}" for low, high in itertools.pairwise(bounds)] + [f"{bounds[-1]} and older"]
    reached = sum(((age >= start).cast(pl.Int64) for start in AGES), start=pl.lit(0))
    return reached.replace_strict(dict(enumerate(names)), return_dtype=pl.String)


def groups(people: pl.DataFrame, *, intersections: bool = True, least: int = 1) -> list[Group]:
    """The groups of a table of `attributes` with at least so many patients, by attribute and name.

    With `intersections`, those of every pair of attributes and of all three follow.
    """
    found = []
    for size in (1, 2, 3) if intersections else (1,):
        for chosen in itertools.combinations(ATTRIBUTES, size):
            label = pl.concat_str([pl.col(one) for one in chosen], separator=", ")
            names = people.select(label.alias("name"))["name"]
            for name in names.drop_nulls().unique().sort():
                member = (names == name).fill_null(False).to_numpy()
                if member.sum() >= least:
                    found.append(Group(" × ".join(chosen), name, member))
    return found
