"""Clinical rules: who breaks them, and who does not."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ehrsim import events
from ehrsim.errors import InputError
from ehrsim.evaluate import rules

BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"


def table(*rows: tuple) -> pl.LazyFrame:
    """Rows of subject, code, year, and the year of the end."""
    frame = pl.DataFrame(
        [
            {
                "subject_id": subject,
                "code": code,
                "time": None if year is None else datetime(year, 1, 1),
                "end_time": None if not end else datetime(end[0], 1, 1),
            }
            for subject, code, year, *end in rows
        ],
        infer_schema_length=None,
    )
    return events.sort(events.conform(frame).lazy())


MEN_AND_WOMEN = [(1, "GENDER//male", None), (2, "GENDER//female", None), (3, "GENDER//male", None)]
CASES = {
    "pregnancy-in-men": [(1, "REASON//ICD10CM//O80", 2000), (2, "ICD10CM//O80", 2000), (3, "ICD10CM//I10", 2000)],
    "organs-of-men-in-women": [(2, "ICD10CM//C61", 2000), (1, "ICD10CM//C61", 2000)],
    "pregnancy-at-an-impossible-age": [
        (1, BIRTH, 1995), (1, "ICD10CM//Z34.90", 2000), (2, BIRTH, 1970), (2, "ICD10CM//Z34.90", 2000),
    ],
    "insulin-without-diabetes": [
        (1, "RxNorm//1", 2000), (2, "RxNorm//1", 2000), (2, "ICD10CM//E11.9", 2010), (3, "RxNorm//2", 2000),
    ],
    "event-after-death": [(1, DEATH, 2000), (1, "ICD10CM//I10", 2001), (2, DEATH, 2000), (2, "ICD10CM//I10", 2000)],
    "event-before-birth": [(1, BIRTH, 2000), (1, "ICD10CM//I10", 1999), (2, BIRTH, 2000), (2, "ICD10CM//I10", 2000)],
    "end-before-start": [(1, "ICD10CM//I10", 2000, 1999), (2, "ICD10CM//I10", 2000, 2000)],
    "older-than-anybody": [(1, BIRTH, 1850), (1, "ICD10CM//I10", 2000), (2, BIRTH, 1900), (2, "ICD10CM//I10", 2000)],
}  # fmt: skip
DESCRIBED = {"RxNorm//1": "Insulin lispro 100 UNT/ML", "RxNorm//2": "Glucose 5 %"}


@pytest.mark.parametrize("name", list(CASES))
def test_the_first_patient_breaks_the_rule_and_the_others_do_not(name: str) -> None:
    cohort = table(*MEN_AND_WOMEN, *CASES[name])
    rule = next(rule for rule in rules.load() if rule.name == name)
    codes = cohort.select(pl.col("code").unique().sort()).collect()["code"]
    found = rules.broken(cohort, rule, rules.meanings(codes, DESCRIBED))
    assert found.everyone.tolist() == [1, 1, 1]
    breaking = 1 if name == "organs-of-men-in-women" else 0
    assert found.patients.tolist() == [float(place == breaking) for place in range(3)]
    assert rules.share(found, np.array([[1.0, 1, 1], [0, 0, 1]])).tolist() == pytest.approx([1 / 3, 0])


def test_words_are_whole_words() -> None:
    known = rules.meanings(pl.Series(["A//1", "A//2"]), {"A//1": "Prediabetes", "A//2": "Type 2 diabetes mellitus"})
    assert rules.found(known, [], ["diabetes"]) == ["A//2"]


def test_people_of_the_reference_population_break_no_rule_of_sex() -> None:
    from ehrsim.reference import population

    cohort = population(300, seed=3).lazy()
    codes = cohort.select(pl.col("code").unique().sort()).collect()["code"]
    known = rules.meanings(codes, {})
    of_sex = [rule for rule in rules.load() if rule.sex]
    broken = {rule.name: rules.broken(cohort, rule, known).patients.sum() for rule in of_sex}
    assert len(of_sex) == 3
    assert not any(broken.values()), broken


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rule]]\nname = 'a'\nsays = 'b'\nsex = 'other'\ncodes = ['A//1']", "sex"),
        ("[[rule]]\nname = 'a'\nsays = 'b'\n", "rule a needs either `when`"),
        ("[[rule]]\nname = 'a'\nsays = 'b'\nfrom = 3\nwhen = 'too-old'", "from"),
        ("rule = ", "is no file of clinical rules"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as refused:
        rules.load(path)
    assert "rules.toml" in str(refused.value)
