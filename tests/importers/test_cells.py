from datetime import date, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrsim import events
from ehrsim.importers import cells
from ehrsim.importers.report import ImportReport


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2001-02-03", datetime(2001, 2, 3)),
        ("2001-02-03 04:05:06", datetime(2001, 2, 3, 4, 5, 6)),
        ("2001-02-03 04:05", datetime(2001, 2, 3, 4, 5)),
        ("2001-02-03T04:05:06Z", datetime(2001, 2, 3, 4, 5, 6)),
        ("2001-02-03T04:05:06.25+05:30", datetime(2001, 2, 3, 4, 5, 6, 250_000)),
        ("2001-02-03 04:05:06.000001", datetime(2001, 2, 3, 4, 5, 6, 1)),
        ("20010203", datetime(2001, 2, 3)),
        ("9999-12-31", datetime(9999, 12, 31)),
        ("2001-02-29", None),
        ("0000-01-01", None),
        ("2001", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_times_take_the_wall_clock(text, moment):
    mixed = pl.Series([text, "1999-01-01", "1999-01-01T00:00:00Z"], dtype=pl.String)
    assert cells.convert(mixed, "time")[0] == moment


def test_times_of_typed_columns():
    assert cells.times(pl.Series([date(2001, 2, 3)]))[0] == datetime(2001, 2, 3)
    zoned = pl.Series([datetime(2001, 2, 3, 4)]).dt.replace_time_zone("Asia/Kolkata")
    assert cells.times(zoned)[0] == datetime(2001, 2, 3, 4)
    assert cells.times(pl.Series([20010203]))[0] == datetime(2001, 2, 3)
    assert cells.times(pl.Series(["03/02/2001 5 PM".replace("5", "5:00")]), "%d/%m/%Y %I:%M %p")[0].hour == 17


@given(st.lists(st.one_of(st.none(), st.integers(-5, 10**19).map(str), st.text(min_size=1, max_size=8)), max_size=30))
def test_identifiers_are_the_stable_ids(names):
    series = pl.Series(names, dtype=pl.String)
    assert cells.identifiers(series).to_list() == events.stable_id(series).to_list()


def test_identifiers_of_numbers_do_not_depend_on_their_type():
    assert cells.identifiers(pl.Series([7, 8])).to_list() == [7, 8]
    assert cells.identifiers(pl.Series([7.0, 8.0])).to_list() == [7, 8]


def test_integers():
    texts = pl.Series(["1", "2.0", "2.5", "x", "-3", None, "9007199254740993"])
    assert cells.integers(texts).to_list() == [1, 2, None, None, -3, None, 9007199254740993]
    assert cells.integers(pl.Series([1.0, 2.5, float("nan"), float("inf")])).to_list() == [1, None, None, None]


@pytest.mark.parametrize("cell_type", ["integer", "number"])
def test_a_time_or_truth_is_no_number(cell_type):
    for column in (pl.Series([datetime(2001, 2, 3)]), pl.Series([date(2001, 2, 3)]), pl.Series([True])):
        assert cells.convert(column, cell_type).to_list() == [None]


def test_typed_counts_what_it_leaves_out_and_takes_off():
    report = ImportReport("source", "table")
    frame = pl.DataFrame({"id": ["1", "x", None, "4"], "value": ["1.5", "2", "3", "high"]})
    typed = cells.typed(frame, {"id": "integer", "value": "number"}, report, "labs", required=("id",))
    assert typed.rows() == [(1, 1.5), (4, None)]
    assert {reason: count.count for reason, count in report.skipped.items()} == {
        "labs: id is not a whole number": 1,
        "labs: no id": 1,
    }
    assert report.changed["labs: value is not a number, removed"].example == "`high`"
