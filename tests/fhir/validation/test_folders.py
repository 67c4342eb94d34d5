"""The verb `validate_fhir` and the command that uses it: where in which file what is wrong."""

import gzip
import sys

import orjson
import pytest

from ehrsim.cli.inspection import describe
from ehrsim.errors import FormatError, GateError, MissingExtraError, UsageError
from ehrsim.fhir import validate_fhir
from ehrsim.fhir.validation.times import out_of_order, span

PATIENT = {"resourceType": "Patient", "id": "p", "birthDate": "1980-05-01"}
VISIT = {
    "resourceType": "Encounter",
    "id": "e",
    "status": "finished",
    "class": {"code": "AMB"},
    "subject": {"reference": "Patient/p"},
    "period": {"start": "2020-01-01T09:00:00Z", "end": "2020-01-01T10:00:00Z"},
}


def write(path, *resources):
    lines = b"".join(orjson.dumps(one) + b"\n" for one in resources)
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


def test_a_good_folder_has_no_errors(tmp_path):
    write(tmp_path / "Patient.ndjson", PATIENT)
    write(tmp_path / "Encounter.ndjson.gz", VISIT)
    report = validate_fhir(tmp_path)
    assert (report.ok, report.resources, report.files) == (True, {"Encounter": 1, "Patient": 1}, 2)
    assert report.lines() == ["validated 2 resources in 2 files (US Core 6.1, fast)", "no errors"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"status": "done"},
            "Encounter/e: status: found `done`, expected a code of http://hl7.org/fhir/ValueSet/encounter-status",
        ),
        ({"class": None}, "Encounter/e: class: found null, expected object"),
        ({"colour": "red"}, "Encounter/e: resource: found colour, expected no such element"),
        (
            {"subject": {"reference": "Patient/q"}},
            "subject: found `Patient/q`, expected a reference to a resource that is",
        ),
        ({"subject": {"reference": "Device/p"}}, "subject.reference: found `Device/p`"),
        ({"period": {"start": "2020-01-02", "end": "2020-01-01"}}, "expected a start not after the end (per-1)"),
        ({"period": {"start": "2020-02-30"}}, "period.start: found `2020-02-30`, expected a day of the calendar"),
        (
            {"period": {"start": "1970-01-01"}},
            "period.start: found `1970-01-01`, expected a time after the patient's birth",
        ),
        ({"id": "p", "resourceType": "Patient"}, "id"),
    ],
)
def test_an_error_says_where_what_and_what_was_expected(tmp_path, changes, line):
    write(tmp_path / "Patient.ndjson", PATIENT)
    write(tmp_path / "Encounter.ndjson", VISIT, {**VISIT, "id": "f", **changes} if "id" not in changes else PATIENT)
    report = validate_fhir(tmp_path)
    lines = [one for one in report.lines() if one.startswith("error: ")]
    assert any(line.replace("Encounter/e", "Encounter/f") in one for one in lines), lines
    assert all(one.startswith(("error: Encounter.ndjson 2: ", "error: Patient.ndjson 1: ")) for one in lines)


def test_what_is_no_json_is_an_error_and_the_rest_is_read(tmp_path):
    (tmp_path / "Patient.ndjson").write_bytes(b'{"resourceType":\n[]\n' + orjson.dumps(PATIENT))
    report = validate_fhir(tmp_path)
    assert [(finding.line, finding.resource) for finding in report.findings] == [(1, "?"), (2, "?")]
    assert report.resources == {"Patient": 1}


def test_a_bundle_is_a_world_of_its_own(tmp_path):
    entries = [
        {"fullUrl": "urn:uuid:1", "resource": {**PATIENT, "id": None} | {"id": "1"}},
        {"fullUrl": "urn:uuid:2", "resource": {**VISIT, "subject": {"reference": "urn:uuid:1"}}},
        {"fullUrl": "urn:uuid:3", "resource": {**VISIT, "id": "g", "subject": {"reference": "urn:uuid:9"}}},
        {"fullUrl": "urn:uuid:4", "resource": {**VISIT, "id": "h", "subject": {"reference": "urn:uuid:2"}}},
    ]
    file = tmp_path / "one.json"
    file.write_bytes(orjson.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}))
    found = [(finding.line, finding.path, finding.found) for finding in validate_fhir(file).findings]
    assert found == [(3, "subject", "`urn:uuid:9`"), (4, "subject", "`urn:uuid:2 (Encounter)`")]


def test_types_without_rules_are_named(tmp_path):
    write(tmp_path / "a.ndjson", {"resourceType": "Slot", "id": "s"}, {"resourceType": "Sloth", "id": "s"})
    report = validate_fhir(tmp_path)
    assert report.other == {"Slot": 1, "Sloth": 1}
    assert [finding.resource for finding in report.findings] == ["Sloth/s"]


def test_full_needs_its_engine(tmp_path, monkeypatch):
    from ehrsim.fhir.validation import in_full

    in_full._expression.cache_clear()
    monkeypatch.setitem(sys.modules, "fhirpathpy", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ehrsim\[validate\]'"):
        validate_fhir(write(tmp_path / "a.ndjson", VISIT, PATIENT), "full")


def test_full_finds_more(tmp_path):
    pytest.importorskip("fhirpathpy")
    code = {"coding": [{"system": "http://loinc.org", "code": "4548-5"}]}
    odd = {
        "resourceType": "Observation",
        "status": "final",
        "code": code,
        "valueQuantity": {"value": 1, "code": "mmHg", "system": "http://unitsofmeasure.org"},
    }
    age = {
        "resourceType": "Condition",
        "subject": {"reference": "Patient/p"},
        "onsetAge": {"value": -1, "code": "a", "system": "http://unitsofmeasure.org"},
    }
    file = write(tmp_path / "a.ndjson", odd, age, PATIENT)
    assert validate_fhir(file, "fast").ok
    found = {(finding.path, finding.expected.partition(":")[0]) for finding in validate_fhir(file, "full").findings}
    assert found == {
        ("code.coding[0]", "a code of http"),
        ("valueQuantity.code", "a unit of UCUM"),
        ("onsetAge", "age-1"),
    }


def test_the_command_prints_errors_and_fails(tmp_path, capsys):
    write(tmp_path / "Patient.ndjson", PATIENT)
    assert describe(tmp_path, "fast")[-1] == "no errors"
    write(tmp_path / "Patient.ndjson", {**PATIENT, "gender": "f"})
    with pytest.raises(GateError, match="is not valid FHIR: 1 errors"):
        describe(tmp_path, "fast")
    assert "Patient.ndjson 1: Patient/p: gender: found `f`" in capsys.readouterr().out


def test_unknown_words_and_empty_folders_are_told(tmp_path):
    with pytest.raises(UsageError, match="unknown extent `quick`"):
        validate_fhir(tmp_path, "quick")
    with pytest.raises(FormatError, match=r"holds no \.ndjson"):
        validate_fhir(tmp_path)


@pytest.mark.parametrize(
    ("start", "end", "wrong"),
    [
        ("2020", "2020", False),
        ("2020-01-02", "2020-01-01", True),
        ("2020-01-01T10:00:00+02:00", "2020-01-01T09:00:00Z", False),
        ("2020-01-01T10:00:00+02:00", "2020-01-01T07:59:59Z", True),
        ("2020-01-01T10:00:00Z", "2020-01-01", False),
        ("2020-01-03T10:00:00Z", "2020-01-01", True),
        ("2020", "2019-12-31", True),
    ],
)
def test_periods(start, end, wrong):
    assert out_of_order(start, end) is wrong


@pytest.mark.parametrize("text", ["2020-02-30", "2020-13", "2020-01-01T10:00:00", "soon", "2020-01-01T25:00:00Z"])
def test_what_is_no_time(text):
    assert span(text) is None
