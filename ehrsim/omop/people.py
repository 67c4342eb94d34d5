"""The tables with one row a person: person, death and observation_period."""

from __future__ import annotations

import polars as pl

from ehrsim.importers import people
from ehrsim.omop import concepts
from ehrsim.omop.codebook import SOURCE_VALUE_LENGTH
from ehrsim.omop.concepts import ALGORITHM, DEPRECATED, EHR, NO_CONCEPT

UNKNOWN_YEAR = 0
"""Year of birth of a person whose birth no event tells: the column may not be empty."""

_FACTS = (
    ("gender", concepts.GENDERS, people.GENDERS),
    ("race", concepts.RACES, people.RACES),
    ("ethnicity", concepts.ETHNICITIES, people.ETHNICITIES),
)
"""Facts about people with the concepts of their codes, and the words that stand for codes."""


def persons(rows: pl.DataFrame) -> pl.DataFrame:
    """The person table of some subjects."""
    kept = rows.filter(pl.col("lost").is_null())
    frame = rows.select("subject_id").unique(maintain_order=True)
    births = kept.filter(pl.col("kind") == "birth").select("subject_id", birth_datetime="time")
    frame = frame.join(births, on="subject_id", how="left", maintain_order="left")
    for name, known, words in _FACTS:
        facts = kept.filter(pl.col("kind") == name)
        facts = facts.select("subject_id", pl.col("part").alias(name), local="source_concept_id")
        frame = frame.join(facts, on="subject_id", how="left", maintain_order="left")
        frame = frame.with_columns(_concept_columns(name, known, words)).drop("local")
    born = pl.col("birth_datetime")
    return frame.with_columns(
        person_id="subject_id",
        person_source_value=pl.col("subject_id").cast(pl.String),
        year_of_birth=born.dt.year().fill_null(UNKNOWN_YEAR),
        month_of_birth=born.dt.month(),
        day_of_birth=born.dt.day(),
    )


def _concept_columns(name: str, known: dict[str, int], words: dict[str, str]) -> list[pl.Expr]:
    """The three columns of a demographic fact; a concept that is no longer standard is a source concept only.

    What is none of the well-known facts has a local concept.
    """
    standard = {code: concept for code, concept in known.items() if concept not in DEPRECATED}
    value = people.word_codes(pl.col(name), words)
    source = value.replace_strict(known, default=None, return_dtype=pl.Int32)
    return [
        value.replace_strict(standard, default=NO_CONCEPT, return_dtype=pl.Int32)
        .fill_null(NO_CONCEPT)
        .alias(f"{name}_concept_id"),
        pl.coalesce(source, "local", NO_CONCEPT).alias(f"{name}_source_concept_id"),
        pl.col(name).str.slice(0, SOURCE_VALUE_LENGTH).alias(f"{name}_source_value"),
    ]


def deaths(rows: pl.DataFrame) -> pl.DataFrame:
    """The death table of some subjects."""
    return rows.filter((pl.col("kind") == "death") & pl.col("lost").is_null()).select(
        person_id="subject_id",
        death_date=pl.col("time").dt.date(),
        death_datetime="time",
        death_type_concept_id=pl.lit(EHR),
        cause_concept_id=pl.lit(NO_CONCEPT),
    )


def observation_periods(rows: pl.DataFrame) -> pl.DataFrame:
    """One period a person: from the first event after the birth to the end of follow-up, else to the last event."""
    spans = rows.select("subject_id", "began", "ended").unique("subject_id", keep="first", maintain_order=True)
    return spans.drop_nulls("began").select(
        observation_period_id="subject_id",
        person_id="subject_id",
        observation_period_start_date=pl.col("began").dt.date(),
        observation_period_end_date=pl.col("ended").dt.date(),
        period_type_concept_id=pl.lit(ALGORITHM),
    )
