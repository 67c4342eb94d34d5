"""The reference population as a table: valid, the same for any way of asking for it, plausible in what it measures."""

import math

import polars as pl
import pytest

from ehrsim import codes, events, reference
from ehrsim.errors import UsageError
from ehrsim.reference.loading import load
from ehrsim.reference.measurements import named


def test_the_table_is_valid(people):
    assert events.validate(people.lazy()) == []
    assert people["subject_id"].unique(maintain_order=True).to_list() == list(range(1, 401))
    assert people.drop("description").equals(events.sort(people.drop("description").lazy()).collect())
    assert people.filter(pl.col("description").is_null()).is_empty(), "every code has a display"


def test_a_person_depends_on_seed_and_number_alone(people):
    some = reference.population(30, seed=2, first=170)
    assert some.equals(people.filter(pl.col("subject_id").is_between(171, 200)))
    assert reference.population(40, seed=2).equals(people.filter(pl.col("subject_id") <= 40))
    assert not reference.population(40, seed=3).equals(people.filter(pl.col("subject_id") <= 40))


@pytest.mark.parametrize("size", [7, 60, 1000])
def test_blocks_hold_the_same_people(size, people):
    blocks = list(reference.blocks(60, seed=2, size=size))
    assert [block["subject_id"].n_unique() for block in blocks] == [min(size, 60 - i) for i in range(0, 60, size)]
    assert pl.concat(blocks).equals(people.filter(pl.col("subject_id") <= 60))


@pytest.mark.parametrize("arguments", [{"n": -1}, {"n": 3, "first": -1}, {"n": 3, "size": 0}])
def test_numbers_out_of_range_are_refused(arguments):
    with pytest.raises(UsageError):
        list(reference.blocks(**arguments))


def test_nobody_at_all():
    nobody = reference.population(0)
    assert nobody.is_empty()
    assert nobody.schema == reference.population(2).schema


def test_visits_do_not_overlap(people):
    """Visits of one person follow each other; only a stay that began in the emergency department begins inside one."""
    bounds = (
        people.filter(pl.col("visit_id").is_not_null())
        .group_by("subject_id", "visit_id")
        .agg(
            pl.col("time").filter(pl.col("code").str.starts_with("VISIT_START//")).first().alias("start"),
            pl.col("time").filter(pl.col("code").str.starts_with("VISIT_END//")).first().alias("end"),
            pl.col("time").min().alias("first"),
            pl.col("time").max().alias("last"),
            pl.col("code").str.starts_with("VISIT_START//").sum().alias("starts"),
        )
        .sort("subject_id", "start")
    )
    assert (bounds["starts"] == 1).all()
    assert bounds.filter((pl.col("first") < pl.col("start")) | (pl.col("last") > pl.col("end"))).is_empty()
    later = bounds.with_columns(pl.col("end").shift().over("subject_id").alias("before"))
    assert later.filter(pl.col("start") < pl.col("before")).is_empty()
    numbered = bounds.with_columns(pl.int_range(1, pl.len() + 1).over("subject_id").alias("number"))
    assert (numbered["number"] == numbered["visit_id"]).all()


def test_nothing_comes_before_birth_or_after_death(people):
    """To the minute: `events.validate` compares days."""
    birth = pl.col("time").filter(pl.col("code") == codes.BIRTH).first().over("subject_id")
    death = pl.col("time").filter(pl.col("code") == codes.DEATH).first().over("subject_id")
    assert people.filter(pl.col("time") < birth).is_empty()
    assert people.filter((pl.col("time") > death) | (pl.col("end_time") > death)).is_empty()


def test_everyone_has_the_facts_of_a_person(people):
    statics = people.filter(pl.col("time").is_null())
    for kind in ("GENDER", "RACE", "ETHNICITY", "LANGUAGE", "MARITAL"):
        assert statics.filter(pl.col("code").str.starts_with(f"{kind}//")).height == 400, kind
    assert people.filter(pl.col("code") == codes.BIRTH).height == 400
    assert people.filter(pl.col("time").dt.date() > reference.REFERENCE_DATE).is_empty()
    assert people.filter(pl.col("time").dt.year() < 1900).is_empty()


def test_measurements_lie_within_their_bounds_and_have_their_units(people):
    for item in load().measurement:
        measured = people.filter(pl.col("code") == codes.join("observation", *item.code.split("//")))
        assert not measured.is_empty() or item.name in ("psa", "ferritin", "nt_probnp", "troponin"), item.name
        assert measured["unit"].eq(item.unit).all()
        values = measured["numeric_value"]
        assert values.is_null().sum() == 0
        low, high = (
            math.nextafter(bound, side) for bound, side in zip(item.bounds, (-math.inf, math.inf), strict=True)
        )
        assert values.cast(pl.Float64).round(6).is_between(low, high).all(), item.name


def at_measurement(people: pl.DataFrame, name: str, condition: str) -> tuple[pl.Series, pl.Series]:
    """Values of a measurement in adults since a condition was first written down, and in those who never had it."""
    first = people.filter(pl.col("code") == condition).group_by("subject_id").agg(pl.col("time").min().alias("since"))
    births = people.filter(pl.col("code") == codes.BIRTH).select("subject_id", birth="time")
    code = codes.join("observation", *named(name).code.split("//"))
    values = (
        people.filter(pl.col("code") == code).join(first, on="subject_id", how="left").join(births, on="subject_id")
    )
    adult = values.filter((pl.col("time") - pl.col("birth")).dt.total_days() > 18 * 365.25)
    having = adult.filter(pl.col("time") >= pl.col("since"))["numeric_value"]
    return having, adult.filter(pl.col("since").is_null())["numeric_value"]


def test_measurements_tell_of_disease(people):
    for name, condition, least in (
        ("hba1c", "E11.9", 0.8),
        ("glucose", "E11.9", 20.0),
        ("systolic", "I10", 5.0),
        ("bmi", "E66.9", 3.0),
    ):
        having, free = at_measurement(people, name, codes.join("condition", "ICD10CM", condition))
        assert len(having) > 50
        assert having.mean() - free.mean() > least, name


@pytest.mark.slow
def test_filtration_falls_with_the_stage_of_kidney_disease():
    large = reference.population(3000, seed=5)
    diagnosed = [f"N18.{stage}" for stage in ("30", "4", "6")]
    levels = [at_measurement(large, "egfr", codes.join("condition", "ICD10CM", code))[0] for code in diagnosed]
    free = at_measurement(large, "egfr", codes.join("condition", "ICD10CM", "N18.30"))[1]
    means = [free.mean(), *(level.mean() for level in levels)]
    assert all(len(level) > 20 for level in levels)
    assert means == sorted(means, reverse=True), means
    assert means[0] > 75
    assert 30 <= means[1] < 60
    assert means[3] < 25


def test_creatinine_and_filtration_agree(people):
    """Creatinine is CKD-EPI 2021 solved for it: written out here the usual way round."""
    births = people.filter(pl.col("code") == codes.BIRTH).select("subject_id", birth="time")
    sex = people.filter(pl.col("code").str.starts_with("GENDER//")).select(
        "subject_id", female=pl.col("code").str.ends_with("female")
    )
    measured = [
        people.filter(pl.col("code") == codes.join("observation", *named(name).code.split("//"))).select(
            "subject_id", "time", pl.col("numeric_value").cast(pl.Float64).alias(name)
        )
        for name in ("egfr", "creatinine")
    ]
    both = (
        measured[0]
        .join(measured[1], on=["subject_id", "time"])
        .join(births, on="subject_id")
        .join(sex, on="subject_id")
    )
    age = (pl.col("time") - pl.col("birth")).dt.total_days() / 365.25
    ratio = pl.col("creatinine") / pl.when("female").then(0.7).otherwise(0.9)
    alpha = pl.when("female").then(-0.241).otherwise(-0.302)
    expected = (
        142.0
        * pl.min_horizontal(ratio, 1.0).pow(alpha)
        * pl.max_horizontal(ratio, 1.0).pow(-1.2)
        * pl.lit(0.9938).pow(age)
        * pl.when("female").then(1.012).otherwise(1.0)
    )
    adults = both.filter((age >= 18) & pl.col("egfr").is_between(20, 110)).with_columns(expected.alias("expected"))
    assert adults.height > 300
    assert ((adults["egfr"] - adults["expected"]).abs() / adults["expected"]).quantile(0.95) < 0.06
