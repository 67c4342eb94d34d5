"""Parents: every step is broader, and every code ends in the chapter that the tabular lists put it in."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrsim import codes
from ehrsim.codes import hierarchy


@pytest.mark.parametrize(
    ("code", "ancestors"),
    [
        ("ICD10CM//A00", ["ICD10CM//A00-B99"]),
        ("ICD10CM//S72.001A", ["S72.001", "S72.00", "S72.0", "S72", "S00-T88"]),
        ("ICD10CM//O9A.111", ["O9A.11", "O9A.1", "O9A", "O00-O9A"]),
        ("ICD10CM//E1122", ["E112", "E11", "E00-E89"]),
        ("ICD10CM//D49.9", ["D49", "C00-D49"]),
        ("ICD10CM//D50.0", ["D50", "D50-D89"]),
        ("ICD10CM//H59.8", ["H59", "H00-H59"]),
        ("ICD10CM//H60.0", ["H60", "H60-H95"]),
        ("ICD10CM//U07.1", ["U07", "U00-U85"]),
        ("ICD9CM//E880.9", ["E880", "E000-E999"]),
        ("ICD9CM//V45.81", ["V45.8", "V45", "V01-V91"]),
        ("ICD9CM//428", ["390-459"]),
        ("PROCEDURE//ICD9CM//250.0", ["250", "240-279"]),
        ("ICD10CM//E00-E89", []),
        ("SNOMED//44054006", []),
        ("ICD10CM//", []),
        ("ICD10CM//E", []),
        ("MEDS_BIRTH", []),
    ],
)
def test_parents_go_up_to_the_chapter(code, ancestors):
    found = codes.parents(code)
    assert [parent.rpartition("//")[2] for parent in found] == [parent.rpartition("//")[2] for parent in ancestors]
    kind, system, _ = codes.parse(code)
    assert all(codes.parse(parent)[:2] == (kind, system) for parent in found)


@given(st.from_regex(r"[A-Z][0-9][0-9A]\.[0-9A-Z]{1,4}", fullmatch=True))
def test_the_parents_of_a_parent_are_the_rest_of_the_parents(value):
    chain = codes.parents(f"ICD10CM//{value}")
    for position, parent in enumerate(chain):
        assert codes.parents(parent) == chain[position + 1 :]
        if "-" not in parent:
            assert f"ICD10CM//{value}".startswith(parent)


@pytest.mark.parametrize("chapters", [hierarchy._ICD10_CHAPTERS, hierarchy._ICD9_CHAPTERS])
def test_chapters_do_not_overlap(chapters):
    ranges = sorted((first, last) for first, last, _ in chapters)
    assert all(first <= last for first, last in ranges)
    for (_, last), (first, _) in pairwise(ranges):
        assert last < first or len(last) != len(first)


def test_chapters_have_titles_and_nothing_else_has():
    assert codes.chapter_title("ICD10CM//E00-E89") == "Endocrine, nutritional and metabolic diseases"
    assert codes.chapter_title("ICD9CM//390-459") == "Diseases of the circulatory system"
    assert codes.chapter_title("ICD10CM//E11") is None
    assert codes.chapter_title("LOINC//1-2") is None
