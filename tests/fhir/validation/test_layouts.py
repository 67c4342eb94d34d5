"""Layouts: what a line may differ in, and that every other byte counts."""

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrsim.fhir.validation.layouts import layout_of, masked, same, times_in, uuids_in
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


LINE = encoded()
LAYOUT = layout_of(LINE, rules_of("6.1"))


def fits(line: bytes) -> bool:
    """Whether a line is of the layout, and its ids and times are well formed."""
    lines = np.frombuffer(line, dtype=np.uint8)[None, :]
    return bool(same(lines, LAYOUT)[0] and uuids_in(lines, LAYOUT)[1][0] and times_in(lines, LAYOUT)[1].all())


def test_a_layout_knows_what_its_holes_are():
    assert [line.path for line in LAYOUT.references] == ["subject", "encounter"]
    assert [line.targets for line in LAYOUT.references] == [{"Patient"}, {"Encounter"}]
    assert [path for path, _, _ in LAYOUT.periods] == ["effectivePeriod"]
    assert LINE[LAYOUT.own :].startswith(OWN.encode())
    assert LINE[LAYOUT.encounter :].startswith(VISIT.encode())
    words, _ = uuids_in(np.frombuffer(LINE, dtype=np.uint8)[None, :], LAYOUT)
    assert f"{int(words[0, 0, 0]):016x}{int(words[0, 0, 1]):016x}" == OWN.replace("-", "")
    seconds, _ = times_in(np.frombuffer(LINE, dtype=np.uint8)[None, :], LAYOUT)
    assert seconds[0].tolist() == [1_709_197_811, 1_709_197_812]


def test_an_identifier_as_long_as_a_time_is_none():
    line = encoded(identifier=[{"system": "urn:oid:1.2.3", "value": "1017020930891770009"}])
    assert len(layout_of(line, rules_of("6.1")).clocks) == 2


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
    assert masked(line) == masked(LINE)
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
    layout = layout_of(line, rules_of("6.1"))
    other = line.replace(b"U1lOVEhFVElDIG5vdGU=", data)
    assert same(np.frombuffer(other, dtype=np.uint8)[None, :], layout).tolist() == [same_layout]
    if same_layout:
        assert masked(other) == masked(line)
        assert rules_of("6.1").problems(orjson.loads(other)) == []
