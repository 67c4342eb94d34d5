"""Lines made from columns, beside the same resources made one by one."""

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrsim.fhir import columns
from ehrsim.fhir.columns import Among, Each, Templates, distinct_numbers, gathered, grouped, lines, quoted, referring

TEXTS = st.lists(st.none() | st.text(max_size=6), max_size=40)
NUMBERS = st.lists(st.integers(0, 9), max_size=60)


def build(kind, text, note, seen):
    """A resource whose members, and their order, depend on what is there; one argument stands in it twice."""
    resource = {"kind": kind}
    if text is not None:
        resource["text"] = text
    if note is not None:
        resource = {"note": [{"text": note}], **resource, "again": note}
    return resource | {"seen": seen}


@given(TEXTS, st.data())
def test_lines_are_what_the_builder_makes_one_by_one(texts, data):
    """Whatever the texts are: quotes, backslashes and characters that mark holes are escaped in JSON."""
    count = len(texts)
    kinds = ["one", {"two": "\x000\x00"}, None]
    number = np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)), dtype=np.int64)
    notes = data.draw(st.lists(st.none() | st.text(max_size=3), min_size=count, max_size=count))
    written = [
        pl.Series([None if one is None else orjson.dumps(one).decode() for one in some], dtype=pl.String)
        for some in (texts, notes)
    ]
    ids = pl.Series([f"{place:04d}" for place in range(count)], dtype=pl.String)
    arguments = [Among(number, kinds), *map(Each, written), referring("Type/", ids)]
    made = [line for some in lines(build, arguments, Templates()).chunks() for line in some.to_list()]
    rows = zip(number.tolist(), texts, notes, ids.to_list(), strict=True)
    one_by_one = [build(kinds[kind], text, note, {"reference": f"Type/{uuid}"}) for kind, text, note, uuid in rows]
    assert made == [orjson.dumps(resource).decode() for resource in one_by_one]


def test_chunks_are_the_lines_in_order(monkeypatch):
    monkeypatch.setattr(columns, "CHUNK", 7)
    texts = pl.Series([None if place % 3 else f"{place}" for place in range(50)], dtype=pl.String)
    made = lines(
        lambda one, other: {"a": one, "b": other} if one else {"b": other},
        [quoted(texts), Each(texts.fill_null("0"))],
        Templates(),
    )
    chunks = list(made.chunks())
    assert [len(chunk) for chunk in chunks] == [7] * 7 + [1]
    read = [orjson.loads(line) for chunk in chunks for line in chunk.to_list()]
    assert read == [{"b": 0} if place % 3 else {"a": f"{place}", "b": place} for place in range(50)]


def test_a_template_has_one_number_in_all_batches():
    templates = Templates()

    def numbers(texts):
        return lines(lambda one: {"a": one}, [Each(pl.Series(texts, dtype=pl.String))], templates).numbers.tolist()

    first = numbers(["1", None, "2"])
    assert first[0] == first[2] != first[1]
    assert numbers([None, "7"]) == [first[1], first[0]]


@given(NUMBERS)
def test_numbers_are_told_apart_as_numpy_does(numbers):
    array = np.array(numbers, dtype=np.int64)
    for size in (10, columns._LARGEST_LOOKUP + 1):
        distinct, index = distinct_numbers(array, size)
        assert distinct.tolist() == sorted(set(numbers))
        assert distinct[index].tolist() == numbers


@given(NUMBERS)
def test_groups_are_in_the_order_of_their_first(numbers):
    first, group = grouped(np.array(numbers, dtype=np.int64), 10)
    distinct = list(dict.fromkeys(numbers))
    assert [numbers[place] for place in first] == distinct
    assert group.tolist() == [distinct.index(number) for number in numbers]


def test_rows_that_are_not_there_are_null():
    texts = pl.Series(["a", "b"])
    assert gathered(texts, np.array([1, -1, 0])).to_list() == ["b", None, "a"]
    assert gathered(texts, np.array([-1, -1])).to_list() == [None, None]
    assert gathered(pl.Series([], dtype=pl.String), np.array([-1])).to_list() == [None]


def test_a_hole_is_filled_with_texts_only():
    made = lines(
        lambda one: {"a": one}, [Among(np.zeros(2, dtype=np.int64), [orjson.Fragment("\x000\x00")])], Templates()
    )
    with pytest.raises(TypeError, match="column 0"):
        list(made.chunks())
