"""Definitions of quality measures: the built-in ones, and files that do not fit."""

import pytest

from ehrsim.errors import FormatError, InputError
from ehrsim.fhir.syntax import is_well_formed
from ehrsim.quality import load_measures
from ehrsim.quality.definitions import parse

GOOD = """
[codes]
sugar = ["LOINC//4548-4"]
[[measure]]
name = "sugar"
title = "Sugar"
description = "Sugar is measured."
improvement = "increase"
kind = "process"
ages = [0, 150]
numerator = [{ codes = "sugar", months = 12 }]
"""


def test_built_in_measures_name_codes_that_their_systems_can_have():
    library = load_measures()
    assert len(library.measure) >= 6
    used = {criterion.codes for measure in library.measure for criterion in measure.criteria()}
    assert used == set(library.codes)
    for values in library.codes.values():
        for value in values:
            *_, system, code = value.split("//")
            assert value.endswith("*") or is_well_formed(system, code), value


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("ages = [0, 150]", "ages = [65, 18]", r"ages are \[65, 18\], expected the lower one first"),
        ("ages = [0, 150]", "", r"missing required field `ages` - at `\$.measure\[0\]`"),
        ('codes = "sugar"', 'codes = "suger"', "codes `suger` are nowhere listed"),
        ("months = 12", "months = 0", r">= 1 - at `\$.measure\[0\].numerator\[0\].months`"),
        ("months = 12", "month = 12", "unknown field `month`"),
        ("months = 12", 'latest = { unit = "%" }', "has no bound"),
        ("months = 12", "or_none = true", "or_none of `sugar` goes with latest only"),
        ("LOINC//4548-4", "LONIC//4548-4", "codes.sugar: `LONIC//4548-4` is of no known code system"),
        ("LOINC//4548-4", "*", "codes.sugar has an empty code"),
        ('improvement = "increase"', 'improvement = "up"', "Invalid enum value 'up'"),
        ("[codes]", "[codes", "is not TOML"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_the_key(old, new, problem):
    assert old in GOOD
    with pytest.raises(FormatError, match=problem) as caught:
        parse(GOOD.replace(old, new), "mine.toml")
    assert str(caught.value).startswith("mine.toml")


def test_a_measure_given_twice_is_refused():
    with pytest.raises(FormatError, match="measure sugar is defined twice"):
        parse(GOOD + GOOD[GOOD.index("[[measure]]") :], "mine.toml")


def test_files_are_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert [measure.name for measure in load_measures(path).measure] == ["sugar"]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match="is not UTF-8"):
        load_measures(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_measures(tmp_path / "absent.toml")
