"""Units: common spellings become UCUM, UCUM stays as it is."""

import pytest

from ehrsim import codes
from ehrsim.codes import units


@pytest.mark.parametrize("spelling", units._UCUM_SPELLINGS)
def test_every_spelling_becomes_a_unit_that_stays(spelling):
    unit = codes.ucum(spelling)
    assert codes.ucum(f"  {spelling.upper()} ") == unit
    assert codes.looks_like_ucum(unit)
    assert codes.ucum(unit) == unit, "a UCUM code is no spelling of another unit"


@pytest.mark.parametrize(
    "unit", ["mg/dL", "mm[Hg]", "10*3/uL", "{score}", "%", "kg/m2", "mL/min/{1.73_m2}", "Cel", "[iU]/L", "mmol/L", "1"]
)
def test_ucum_is_left_as_it_is(unit):
    assert codes.ucum(unit) == unit
    assert codes.looks_like_ucum(unit)


def test_micro_may_be_either_sign():
    assert codes.ucum("\u00b5mol/L") == codes.ucum("\u03bcmol/L") == "umol/L"


@pytest.mark.parametrize("text", ["", "mm Hg", "not done", "mg per dL", "{a", "[b"])
def test_words_do_not_look_like_units(text):
    assert not codes.looks_like_ucum(text)
