"""Layouts: what a line may differ in, and that every other byte counts."""

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrsim.fhir.validation.layouts import form_of, holes_of, layout_of, masked, same, times_in, uuids_in
from ehrsim.fhir.validation.rules import rules_of

OWN, PATIENT, VISIT = (f"0123456{number}-89ab-4def-8fed-cba987654321" for number in range(3))
LAB = {
    "resourceType": "Observation",
    "id": OWN,
    "identifier": [{"system": "urn:oid:1.2.3", "value": "1020"}],
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "4548-4"}]},
    "subject": {"reference": f"Patient/{PATIENT}"},
    "encounter": {"reference": f"Encounter/{VISIT}"},
    "effectivePeriod": {"start": "2024-02-29T09:10:11Z", "end": "2024-02-29T09:10:12.250Z"},
    "valueQuantity": {"value": 17.1, "unit": "%"},
}


def encoded(resource=LAB, **changes):
    return orjson.dumps({**resource, **changes}, option=orjson.OPT_APPEND_NEWLINE)


def laid_out(line: bytes):
    holes = holes_of(line)
    return layout_of(line, holes, form_of(line, holes, rules_of("6.1")))


def text_of(line: bytes) -> bytes:
    return masked(line, holes_of(line))


LINE = encoded()
LAYOUT = laid_out(LINE)


def fits(line: bytes) -> bool:
    """Whether a line is of the layout, and its ids and times are well formed."""
    lines = np.frombuffer(line, dtype=np.uint8)[None, :]
    return bool(same(lines, LAYOUT)[0] and uuids_in(lines, LAYOUT)[1][0] and times_in(lines, LAYOUT)[1].all())


def test_a_layout_knows_what_its_holes_are():
    assert [line.path for line in LAYOUT.form.references] == ["subject", "encounter"]
    assert [line.targets for line in LAYOUT.form.references] == [{"Patient"}, {"Encounter"}]
    assert [path for path, _, _ in LAYOUT.form.periods] == ["effectivePeriod"]
    assert LINE[LAYOUT.begins[LAYOUT.form.own] :].startswith(OWN.encode())
    assert LINE[LAYOUT.begins[LAYOUT.form.encounter] :].startswith(VISIT.encode())
    words, _ = uuids_in(np.frombuffer(LINE, dtype=np.uint8)[None, :], LAYOUT)
    assert f"{int(words[0, 0, 0]):016x}{int(words[0, 0, 1]):016x}" == OWN.replace("-", "")
    seconds, _ = times_in(np.frombuffer(LINE, dtype=np.uint8)[None, :], LAYOUT)
    assert seconds[0].tolist() == [1_709_197_811, 1_709_197_812]


def test_an_identifier_as_long_as_a_time_is_none():
    line = encoded(identifier=[{"system": "urn:oid:1.2.3", "value": "1017020930891770009"}])
    assert len(laid_out(line).form.clocks) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"id": OWN.replace("0", "f")},
        {"subject": {"reference": f"Patient/{OWN}"}},
        {"effectivePeriod": {"start": "2023-01-01T00:00:00Z", "end": "2023-01-01T00:00:00.250Z"}},
        {"valueQuantity": {"value": 99.9, "unit": "%"}},
        {"identifier": [{"system": "urn:oid:1.2.3", "value": "9999"}]},
    ],
)
def test_lines_that_differ_in_holes_are_of_the_layout(changes):
    line = encoded(**changes)
    assert fits(line)
    assert text_of(line) == text_of(LINE)
    assert rules_of("6.1").is_valid(orjson.loads(line))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"2024-02-29T09:10:11", b"2023-02-29T09:10:11"),
        (b"2024-02-29T09:10:11", b"2024-13-29T09:10:11"),
        (b"2024-02-29T09:10:11", b"2024-02-29T24:10:11"),
        (b"2024-02-29T09:10:11", b"2024-02-29 09:10:11"),
        (OWN.encode(), OWN.upper().encode()),
        (OWN.encode(), OWN.replace("4", "g").encode()),
        (b":17.1", b":07.1"),
        (b":17.1", b":1.71"),
        (b":17.1", b":1e10"),
        (b'"1020"', b'"0020"'),
        (b"Patient/", b"Persons/"),
        (b"final", b"fInal"),
    ],
)
def test_lines_that_differ_elsewhere_are_not(old, new):
    assert not fits(LINE.replace(old, new))


@given(st.integers(0, len(LINE) - 1), st.integers(0, 255))
def test_a_line_of_the_layout_is_valid_whatever_byte_is_changed(place, byte):
    line = LINE[:place] + bytes([byte]) + LINE[place + 1 :]
    if fits(line):
        resource = orjson.loads(line)
        assert rules_of("6.1").problems(resource) == []


NOTE = {
    "resourceType": "DocumentReference",
    "id": OWN,
    "status": "current",
    "type": {"text": "Note"},
    "subject": {"reference": f"Patient/{PATIENT}"},
    "content": [{"attachment": {"contentType": "text/plain", "data": "U1lOVEhFVElDIG5vdGU="}}],
}


@pytest.mark.parametrize(
    ("data", "same_layout"),
    [
        (b"U1lOVEhFVElDIG1vdGU=", True),
        (b"AAAAAAAAAAAAAAAAdGU=", True),
        (b"U1lOVEhFVElDIG5vdGUx", False),
        (b"U1lOVEhFVElDIG5vdA==", False),
        (b"U1lOVEhFVElDIG5v=GU=", False),
        (b"U1lOVEhFVEl-IG5vdGU=", False),
        (b"U1lOVEhFVElD\nG5vdGU=", False),
        (b'U1lOVEhFVElD"G5vdGU=', False),
    ],
)
def test_whole_groups_of_base64_are_a_hole(data, same_layout):
    line = encoded(NOTE)
    layout = laid_out(line)
    other = line.replace(b"U1lOVEhFVElDIG5vdGU=", data)
    assert same(np.frombuffer(other, dtype=np.uint8)[None, :], layout).tolist() == [same_layout]
    if same_layout:
        assert text_of(other) == text_of(line)
        assert rules_of("6.1").problems(orjson.loads(other)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"valueQuantity": {"value": 117.25, "unit": "%"}},
        {"valueQuantity": {"value": 0, "unit": "%"}},
        {"identifier": [{"system": "urn:oid:1.2.3", "value": "7"}]},
    ],
)
def test_a_form_holds_for_holes_of_any_length(changes):
    """The layout of a longer or shorter line, from the form of the first, is that which it has by itself."""
    line = encoded(**changes)
    assert len(line) != len(LINE)
    assert text_of(line) == text_of(LINE)
    for mine, own in zip(layout_of(line, holes_of(line), LAYOUT.form), laid_out(line), strict=True):
        np.testing.assert_equal(mine, own)
    assert rules_of("6.1").problems(orjson.loads(line)) == []


@pytest.mark.parametrize("number", [b"007", b"+7", b"7.", b".5", b"-", b"0x7"])
def test_what_is_no_number_of_json_is_no_hole(number):
    line = LINE.replace(b":17.1", b":" + number)
    assert text_of(line) != text_of(LINE)
