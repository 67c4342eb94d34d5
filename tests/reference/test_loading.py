"""The specification: complete, sourced, and refused in one line that names file and key where it is wrong."""

import msgspec
import pytest

from ehrsim.errors import EhrsimError, FormatError, InputError
from ehrsim.reference import specification, specification_schema
from ehrsim.reference.loading import load, merge, parse

CURVE = '{ ages = [0, 50], both = [1, 2], source = "CDC 2022 Table 1" }'


def family(text: str) -> specification.Family:
    return parse(f'title = "A family"\n{text}', "family.toml")


def test_the_shipped_specification_covers_many_conditions():
    whole = load()
    diagnosed = {item.code for encounter in whole.encounter for item in encounter.diagnoses}
    assert len(diagnosed) >= 25
    with_incidence = {item.on for item in whole.encounter if item.diagnoses}
    assert len(with_incidence) >= 25
    assert len(whole.measurement) >= 30
    assert len(whole.vaccine) >= 10


def sources(value: object, path: str = ""):
    """Every struct with figures in the specification, with its source."""
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield from sources(item, f"{path}[{position}]")
    elif isinstance(value, msgspec.Struct):
        if "source" in value.__struct_fields__:
            yield path, value.source
        for field in value.__struct_fields__:
            yield from sources(getattr(value, field), f"{path}.{field}")


def test_every_figure_has_a_source():
    found = list(sources(load()))
    assert len(found) > 500
    vague = [
        path
        for path, source in found
        if not any(c.isdigit() for c in source) and not source.startswith(("assumption:", "By definition:"))
    ]
    assert vague == []
    unexplained = [path for path, source in found if source.startswith("assumption:") and len(source) < 25]
    assert unexplained == []


def test_curves_are_monotone_in_age_and_of_one_length():
    def curves(value):
        if isinstance(value, specification.AgeCurve):
            yield value
        elif isinstance(value, list):
            for item in value:
                yield from curves(item)
        elif isinstance(value, msgspec.Struct):
            for field in value.__struct_fields__:
                yield from curves(getattr(value, field))

    found = list(curves(load()))
    assert len(found) > 200
    for curve in found:
        assert curve.ages == sorted(set(curve.ages)), curve
        assert bool(curve.both) != bool(curve.male and curve.female), curve
        for values in (curve.male, curve.female, curve.both):
            assert len(values) in (0, len(curve.ages)), curve
            assert all(value >= 0 for value in values), curve


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[transition]\n", "family.toml is not TOML"),
        ("nonsense = 1", "nonsense"),
        ("[[transition]]\nname = 'a'\ntitle = 'A'", "rate"),
        (f"[[transition]]\nname = 'a'\ntitle = 'A'\nrates = {CURVE}", "rate"),
        ("[[transition]]\nname = 'a'\ntitle = 'A'\nrate = { ages = [0], both = [1] }", "source"),
        ("[[transition]]\nname = 'a'\ntitle = 'A'\nrate = { ages = [0], both = [1], source = '' }", "source"),
        ("[[attribute]]\nname = 'a'\nshare = 1.5\nsource = 'CDC 2022 Table 1'", "share"),
        ("[[trait]]\nname = 3", "name"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(text, said):
    with pytest.raises(FormatError) as caught:
        family(text)
    assert "family.toml" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


TRANSITION = f"[[transition]]\nname = 'a'\ntitle = 'A'\nsets = 'a'\nrate = {CURVE}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TRANSITION + TRANSITION, "transition `a` is defined twice"),
        (TRANSITION + "requires = ['b']", "`b`"),
        (TRANSITION + "excludes = ['b']", "`b`"),
        (TRANSITION + "factors = [{ covariate = 'b', ratio = 2.0, source = 'CDC 2022 Table 1' }]", "`b`"),
        (TRANSITION + "[[encounter]]\non = 'b'\nsource = 'CDC 2022 Table 1'", "`b`"),
        (TRANSITION + "[[encounter]]\non = 'a'\npanels = ['b']\nsource = 'CDC 2022 Table 1'", "`b`"),
        (TRANSITION.replace("[0, 50]", "[50, 0]"), "a"),
        (TRANSITION.replace("[1, 2]", "[1, 2, 3]"), "a"),
        (TRANSITION.replace("[1, 2]", "[1, -2]"), "a"),
        (TRANSITION.replace("[1, 2]", "[1, nan]"), "a"),
    ],
)
def test_names_and_curves_are_checked(text, said):
    with pytest.raises(InputError) as caught:
        merge([family(text)])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_code_has_one_display():
    one, other = (family(f"[codes]\n'ICD10CM//A00' = '{display}'") for display in ("Cholera", "Flu"))
    with pytest.raises(EhrsimError, match="two displays"):
        merge([one, other])


def test_the_schema_describes_a_file():
    schema = specification_schema()
    assert schema["$ref"].endswith("Family")
    assert "transition" in schema["$defs"]["Family"]["properties"]
