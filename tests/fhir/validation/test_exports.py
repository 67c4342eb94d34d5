"""Exports that are wrong are refused, whatever is wrong with them; here defects are built into them."""

import re
from datetime import datetime

import orjson
import polars as pl
import pytest

from ehrsim import codes, events, reference
from ehrsim.errors import GateError
from ehrsim.fhir import export_fhir, patients, validate_fhir
from ehrsim.fhir.report import ExportReport
from ehrsim.fhir.resources import MAPPINGS, Mapping
from ehrsim.fhir.validation import Validator

NOBODY = "00000000-0000-4000-8000-000000000000"
ALL_FORMATS = [
    {"format": "ndjson"},
    {"format": "ndjson", "shard": 200, "compressed": True},
    {"format": "transaction", "entries": 20},
    {"format": "batch"},
    {"format": "collection"},
]


@pytest.fixture(scope="module")
def cohort():
    return reference.population(12, seed=3)


@pytest.mark.parametrize("options", ALL_FORMATS)
def test_what_passes_the_gate_is_valid_as_a_folder(cohort, tmp_path, options):
    made = export_fhir(cohort, tmp_path / "fhir", validate="fast", **options)
    report = validate_fhir(tmp_path / "fhir", "fast")
    assert report.ok, report.lines()
    assert {kind: count for kind, count in report.resources.items() if kind != "Bundle"} == made.resources
    if options["format"] != "collection":  # where what patients share is in every bundle
        assert made.validated == made.resources


def test_validation_does_not_change_what_is_written(cohort, tmp_path):
    for extent in ("none", "fast"):
        export_fhir(cohort, tmp_path / extent, validate=extent)
    for file in (tmp_path / "none").iterdir():
        assert file.read_bytes() == (tmp_path / "fast" / file.name).read_bytes()


def changed(**members):
    """A defect: members of every Condition but the first are others; None takes one away."""
    build, made = MAPPINGS["condition"].build, []

    def broken(event):
        made.append(event)
        resource = build(event)
        if len(made) > 1:
            resource |= members
        return {name: value for name, value in resource.items() if value is not None}

    return Mapping("Condition", broken)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"subject": None}, "expected `subject`"),
        ({"clinicalStatus": None, "code": {"text": 5}}, "code.text: found 5, expected string"),
        (
            {"subject": {"reference": f"Patient/{NOBODY}"}},
            f"subject: found {NOBODY}, expected a Patient of this export",
        ),
        ({"encounter": {"reference": f"Encounter/{NOBODY}"}}, f"encounter: found {NOBODY}, expected a Encounter"),
        ({"subject": {"reference": f"Device/{NOBODY}"}}, "subject.reference: found `Device/"),
        ({"subject": {"reference": "Patient/1"}}, "subject: found Patient/1, expected a reference by UUID"),
        ({"onsetDateTime": "2021-02-30T10:00:00Z"}, "found 2021-02-30T10:00:00, expected a time of the calendar"),
        ({"recordedDate": "2021-02-30"}, "recordedDate: found `2021-02-30`, expected a day of the calendar"),
        ({"id": NOBODY}, f"id: found {NOBODY}, expected one that no other resource has"),
        (
            {
                "onsetDateTime": None,
                "onsetPeriod": {"start": "2021-03-02T10:00:00Z", "end": "2021-03-02T09:59:59Z"},
            },
            "onsetPeriod: found 2021-03-02T10:00:00 to 2021-03-02T09:59:59, expected a start not after the end",
        ),
        ({"resourceType": "Procedure"}, "resourceType: found"),
        ({"category": [{"text": "none"}]}, "category: found"),
    ],
)
def test_a_defect_is_refused_and_nothing_is_written(cohort, tmp_path, monkeypatch, members, expected):
    monkeypatch.setitem(MAPPINGS, "condition", changed(**members))
    with pytest.raises(GateError, match=re.escape(expected)):
        export_fhir(cohort, tmp_path / "fhir", validate="fast")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"gender": "woman"}, "gender: found `woman`"),
        ({"birthDate": "1980-02-31"}, "birthDate: found `1980-02-31`, expected a day of the calendar"),
        (
            {"managingOrganization": {"reference": f"Organization/{NOBODY}"}},
            f"managingOrganization: found {NOBODY}, expected a Organization of this export",
        ),
        ({"managingOrganization": {"reference": f"Location/{NOBODY}"}}, "managingOrganization.reference: found"),
        ({"managingOrganization": {"reference": "Organization/1"}}, "expected a reference by UUID"),
        ({"id": NOBODY}, f"id: found {NOBODY}, expected one that no other resource has"),
        ({"resourceType": "Person"}, "resourceType: found `Person`, expected Patient"),
    ],
)
def test_a_defect_of_a_patient_is_refused(cohort, tmp_path, monkeypatch, members, expected):
    """People are held against the rules one by one: each has words of its own."""
    build = patients.patient
    monkeypatch.setattr(patients, "patient", lambda *arguments, **more: build(*arguments, **more) | members)
    with pytest.raises(GateError, match=re.escape(expected)):
        export_fhir(cohort, tmp_path / "fhir", validate="fast")
    assert not list(tmp_path.iterdir())


def test_a_reference_to_another_patient_is_refused(cohort, tmp_path, monkeypatch):
    export_fhir(cohort, tmp_path / "good", validate="none")
    first = orjson.loads((tmp_path / "good" / "Patient.ndjson").read_bytes().splitlines()[0])["id"]
    monkeypatch.setitem(MAPPINGS, "condition", changed(subject={"reference": f"Patient/{first}"}))
    with pytest.raises(GateError, match="of this patient"):
        export_fhir(cohort, tmp_path / "fhir", validate="fast")


def test_only_full_knows_a_code_that_cannot_be_one(cohort, tmp_path, monkeypatch):
    pytest.importorskip("fhirpathpy")
    code = {"coding": [{"system": "http://snomed.info/sct", "code": "44054007"}]}
    monkeypatch.setitem(
        MAPPINGS, "condition", Mapping("Condition", lambda event: MAPPINGS_CONDITION(event) | {"code": code})
    )
    export_fhir(cohort, tmp_path / "fast", validate="fast")
    with pytest.raises(GateError, match=r"code\.coding\[0\]: found `44054007`, expected a code of http://snomed"):
        export_fhir(cohort, tmp_path / "full", validate="full")


MAPPINGS_CONDITION = MAPPINGS["condition"].build


def test_times_that_are_unlikely_are_counted(tmp_path):
    rows = [
        (1, datetime(1980, 1, 1), codes.BIRTH, None, None),
        (1, None, "GENDER//female", None, None),
        (1, datetime(1970, 1, 1), "ICD10CM//I10", None, None),
        (1, datetime(2001, 1, 1, 9), "VISIT_START//AMB", 1, None),
        (1, datetime(2001, 1, 1, 10), "VISIT_END//AMB", 1, None),
        (1, datetime(2001, 1, 2), "LOINC//4548-4", 1, 7.0),
        (1, datetime(2010, 1, 1), codes.DEATH, None, None),
        (1, datetime(2011, 1, 1), "ICD10CM//I10", None, None),
    ]
    frame = pl.DataFrame(rows, schema=["subject_id", "time", "code", "visit_id", "numeric_value"], orient="row")
    table = events.sort(events.conform(frame).lazy()).collect()
    report = export_fhir(table, tmp_path / "fhir", validate="fast")
    # The test has an order with two times beside its own.
    assert report.unlikely == {"times before birth": 1, "times after death": 1, "times outside the encounter": 3}
    assert report.lines()[-1].startswith("unlikely, as in the events: ")
    found = validate_fhir(tmp_path / "fhir", "fast")
    assert [finding.expected for finding in found.findings] == ["a time after the patient's birth"]
    assert found.unusual == {"times after death": 1, "times outside the encounter": 1}


@pytest.mark.parametrize(
    ("bundle", "expected"),
    [
        (
            {"type": "transaction", "entry": [{"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Patient"}}]},
            "bdl-3",
        ),
        (
            {"type": "collection", "entry": [{"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Patient"}}] * 2},
            "bdl-7",
        ),
        ({"type": "heap"}, "bundle-type"),
    ],
)
def test_a_wrong_bundle_is_refused(bundle, expected):
    with pytest.raises(GateError, match=expected):
        Validator("fast", ExportReport("collection")).check_bundle({"resourceType": "Bundle", **bundle}, [])


def test_an_altered_resource_is_held_against_the_rules_again():
    validator = Validator("fast", ExportReport("transaction"))
    line = orjson.dumps({"resourceType": "Provenance", "id": NOBODY})
    with pytest.raises(GateError, match="expected `target`"):
        validator.check_bundle({"resourceType": "Bundle", "type": "collection", "entry": []} | {"entry": ENTRY}, [line])


ENTRY = [{"fullUrl": f"urn:uuid:{NOBODY}", "resource": {"resourceType": "Provenance"}}]
