"""Every mapping, in every form that an event of it can have, held against fhir.resources."""

import itertools

import orjson
import pytest

from ehrsim.fhir import profiles
from ehrsim.fhir.fragments import Fragment, Labels, concept, fragment
from ehrsim.fhir.reference_ranges import HIGH, RANGES, reference_range
from ehrsim.fhir.resources import MAPPINGS, Event, blood_pressure
from ehrsim.fhir.shapes import CODED, ENDED, IN_VISIT, NUMERIC, TEXT, TIMED, Shapes, may_hold_answer, pressure_shape
from ehrsim.fhir.validation.in_full import problems_in_full
from ehrsim.fhir.validation.rules import rules_of

LABELS = Labels("urn:uuid:01234567-89ab-8def-8fed-cba987654321")
UUID = "01234567-89ab-8def-8fed-cba987654321"
ID, START, END, TEXT_VALUE = (
    fragment(text) for text in (UUID, "2015-03-04T10:20:30Z", "2015-03-06T10:20:30.250000Z", "some <text>")
)
SUBJECT, VISIT, PRACTITIONER = (
    fragment({"reference": f"{name}/{UUID}"}) for name in ("Patient", "Encounter", "Practitioner")
)
ANSWER = fragment(concept("http://snomed.info/sct", "266919005", "Never smoked tobacco"))
CODES = {
    "condition": ["ICD10CM//E11.9", "SNOMED//44054006", "ICD9CM//250.00", "DIAGNOSIS//x"],
    "procedure": ["PROCEDURE//SNOMED//80146002", "ICD10PCS//0DTJ4ZZ"],
    "medication": ["RxNorm//860975", "DRUG//metformin"],
    "immunization": ["CVX//140", "IMMUNIZATION//NDC//0001-0002-03"],
    "allergy": ["ALLERGY//SNOMED//256277009"],
    "observation": [
        *(f"LOINC//{code}" for code in (*profiles.VITAL_SIGNS, "8480-6", "72166-2", "44261-6", "4548-4")),
        "OBSERVATION//SNOMED//413077008",
        "plain",
    ],
    "panel": ["PANEL//LOINC//58410-2", "PANEL//LOINC//85354-9", "PANEL//X//y"],
    "care_plan": ["CAREPLAN//SNOMED//386257007"],
}


ORDER, RESULT, AIM, REASON, SPECIMEN, RESPONSE, TEAM = (
    fragment({"reference": f"{name}/{UUID}"})
    for name in (
        *("ServiceRequest", "Observation", "Goal", "Condition", "Specimen", "QuestionnaireResponse", "CareTeam"),
    )
)
JUDGED = {"interpretation": HIGH, "referenceRange": reference_range(RANGES["2085-9"])}
BEYOND = {
    "medication": ("on-hold", PRACTITIONER, [{"text": "Outpatient"}], REASON),
    "observation": (PRACTITIONER, ORDER, SPECIMEN, JUDGED, RESPONSE),
    "panel": (RESULT, ORDER, SPECIMEN, PRACTITIONER),
    "care_plan": (AIM, TEAM),
}
"""What resources of a kind have beyond their event."""


def _resource(kind: str, code: str, unit: str | None, form: int):
    shapes = Shapes(LABELS)
    shape = shapes.shape(shapes.code_number(code, "a <display>"), shapes.unit_number(unit), form)
    assert shape.code.kind == kind
    answered = form & CODED and may_hold_answer(shape.code)
    event = Event(
        ID,
        shape,
        SUBJECT,
        VISIT if form & IN_VISIT else None,
        START if form & TIMED else None,
        END if form & ENDED else None,
        Fragment("7.25") if form & NUMERIC else None,
        TEXT_VALUE if form & (CODED | TEXT) and not answered else None,
        ANSWER if answered else None,
    )
    beyond = BEYOND.get(kind, ())
    if kind == "medication" and not form & TEXT:
        beyond = (None, *beyond[1:])
    return orjson.loads(orjson.dumps(MAPPINGS[kind].build(event, *beyond)))


def test_every_mapping_is_tested():
    assert CODES.keys() == MAPPINGS.keys()


@pytest.mark.parametrize(("kind", "code"), [(kind, code) for kind, several in CODES.items() for code in several])
def test_every_form_of_every_mapping_is_valid(kind, code):
    units = (None, "mg/dL", "/min", "%", "odd unit") if kind in ("observation", "medication") else (None,)
    values = (0, NUMERIC, TEXT, CODED) if kind in ("observation", "allergy") else (0, NUMERIC, TEXT)
    combinations = itertools.product((0, TIMED), (0, ENDED), (0, IN_VISIT), (*values, NUMERIC | TEXT), units)
    for timed, ended, visit, value, unit in combinations:
        resource = _resource(kind, code, unit, timed | ended | visit | value)
        assert resource["resourceType"] == MAPPINGS[kind].resource_type
        assert _problems(resource) == []


@pytest.mark.parametrize(
    ("code", "unit", "form", "profile"),
    [
        ("LOINC//8867-4", "/min", NUMERIC | TIMED, "us-core-heart-rate"),
        ("LOINC//8867-4", "{beats}/min", NUMERIC | TIMED, "us-core-heart-rate"),
        ("LOINC//8867-4", "/min", NUMERIC, None),
        ("LOINC//8867-4", "/s", NUMERIC | TIMED, None),
        ("LOINC//8867-4", "/min", NUMERIC | TIMED | ENDED, None),
        ("LOINC//8867-4", None, TEXT | TIMED, "us-core-heart-rate"),
        ("LOINC//8867-4", None, TIMED, "us-core-heart-rate"),
        ("LOINC//59408-5", "%", NUMERIC | TIMED, "us-core-pulse-oximetry"),
        ("LOINC//8331-1", "Cel", NUMERIC | TIMED, "us-core-body-temperature"),
        ("LOINC//3141-9", "kg", NUMERIC | TIMED, "us-core-body-weight"),
        ("LOINC//3141-9", "mg/dL", NUMERIC | TIMED, None),
        ("LOINC//72166-2", None, CODED | TIMED, "us-core-smokingstatus"),
        ("LOINC//72166-2", None, TEXT | TIMED, None),
        ("LOINC//44261-6", "{score}", NUMERIC | TIMED, "us-core-observation-screening-assessment"),
        ("LOINC//4548-4", "%", NUMERIC, "us-core-observation-lab"),
        ("LOINC//8480-6", "kPa", NUMERIC | TIMED, None),
        ("plain", "%", NUMERIC | TIMED, None),
    ],
)
def test_observations_claim_the_profile_that_they_meet(code, unit, form, profile):
    claimed = _resource("observation", code, unit, form)["meta"].get("profile", [])
    assert [url.rsplit("/", 1)[1] for url in claimed] == ([profile] if profile else [])


@pytest.mark.parametrize("special", sorted(profiles.GENERAL_CODE))
def test_a_special_vital_sign_has_the_code_of_its_profile_beside_its_own(special):
    """HL7's validator holds oral temperatures and the like to the profile of the general code."""
    general = profiles.GENERAL_CODE[special]
    resource = _resource("observation", f"LOINC//{special}", profiles.VITAL_SIGNS[general].units[0], NUMERIC | TIMED)
    assert [coding["code"] for coding in resource["code"]["coding"]] == [special, general]
    assert resource["category"][0]["coding"][0]["code"] == "vital-signs"
    assert "valueQuantity" in resource


def test_a_care_plan_names_its_category_like_us_core():
    category = _resource("care_plan", "CAREPLAN//SNOMED//386257007", None, TIMED)["category"][0]
    assert category["coding"][0]["display"] == "Assessment and Plan of Treatment"


def test_a_unit_is_a_code_only_where_it_is_ucum():
    coded = _resource("observation", "LOINC//4548-4", "mg/dL", NUMERIC)["valueQuantity"]
    assert coded == {"value": 7.25, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"}
    assert _resource("observation", "LOINC//4548-4", "odd unit", NUMERIC)["valueQuantity"] == {
        "value": 7.25,
        "unit": "odd unit",
    }


def test_a_value_that_the_profile_of_a_vital_sign_forbids_stands_in_a_component():
    resource = _resource("observation", "LOINC//29463-7", "[stone_av]", NUMERIC | TIMED)
    assert "valueQuantity" not in resource
    assert resource["component"][0]["valueQuantity"] == {"value": 7.25, "unit": "[stone_av]"}
    resource = _resource("observation", "LOINC//29463-7", None, TEXT | TIMED)
    assert not resource.keys() & {"valueString", "component"}
    assert (resource["dataAbsentReason"]["coding"][0]["code"], resource["note"]) == (
        "unknown",
        [{"text": "some <text>"}],
    )


def test_status_follows_from_the_end():
    assert _resource("condition", "SNOMED//44054006", None, TIMED)["clinicalStatus"]["coding"][0]["code"] == "active"
    ended = _resource("condition", "SNOMED//44054006", None, TIMED | ENDED)
    assert ended["clinicalStatus"]["coding"][0]["code"] == "resolved"
    assert _resource("medication", "RxNorm//860975", None, ENDED)["status"] == "completed"
    assert _resource("procedure", "ICD10PCS//0DTJ4ZZ", None, 0)["status"] == "unknown"
    assert _resource("panel", "PANEL//X//y", None, 0)["status"] == "unknown"


@pytest.mark.parametrize("pressures", [(120, 80), (None, 80), (120, None)])
def test_a_blood_pressure_has_two_components(pressures):
    event = Event(ID, pressure_shape(LABELS), SUBJECT, VISIT, START, None, None, None, None)
    resource = orjson.loads(orjson.dumps(blood_pressure(event, *pressures, PRACTITIONER)))
    assert _problems(resource) == []
    found = [part.get("valueQuantity", {}).get("value") for part in resource["component"]]
    assert tuple(found) == pressures
    assert [part["code"]["coding"][0]["code"] for part in resource["component"]] == ["8480-6", "8462-4"]
    assert all(("valueQuantity" in part) != ("dataAbsentReason" in part) for part in resource["component"])


def _problems(resource):
    rules = rules_of("6.1")
    return rules.problems(resource) or problems_in_full(resource, rules)
