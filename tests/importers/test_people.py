import polars as pl
import pytest

from ehrsim import codes
from ehrsim.importers import people


@pytest.mark.parametrize(
    ("word", "known", "code"),
    [
        ("White", people.RACES, "2106-3"),
        ("BLACK/AFRICAN AMERICAN", people.RACES, "2054-5"),
        ("Martian", people.RACES, "Martian"),
        ("UNABLE TO OBTAIN", people.RACES, None),
        ("F", people.GENDERS, "female"),
        (" widowed ", people.MARITAL_STATUSES, "W"),
        ("?", people.LANGUAGES, None),
        (None, people.LANGUAGES, None),
    ],
)
def test_words_become_codes(word, known, code):
    frame = pl.DataFrame({"word": [word]}, schema={"word": pl.String})
    assert frame.select(people.word_codes(pl.col("word"), known)).to_series().to_list() == [code]


def test_codes_are_of_the_value_sets():
    assert set(people.RACES.values()) == set(codes.RACES)
    assert set(people.ETHNICITIES.values()) == set(codes.ETHNICITIES)


def test_static_events_have_no_time():
    rows = pl.DataFrame({"subject_id": [1, 2], "word": ["m", None]})
    assert people.static(rows, "GENDER", pl.col("word")).rows() == [(1, None, "GENDER//m")]
