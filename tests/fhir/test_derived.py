"""What follows from events in FHIR beside the resources that tell them."""

from base64 import b64decode
from datetime import datetime, timedelta

import orjson
import polars as pl
import pytest

from ehrsim import codes, events
from ehrsim.errors import UsageError
from ehrsim.fhir import export_fhir
from ehrsim.fhir.indications import asked_for, uses
from ehrsim.fhir.shapes import coded
from ehrsim.fhir.specimens import MATERIALS, material_of
from ehrsim.fhir.writers import ON_REQUEST, SHARED_TYPES, TYPES

FIRST = datetime(2019, 5, 6, 9, 30)
STAY = datetime(2020, 1, 2, 3, 4)
LATER = datetime(2021, 2, 3, 10)
NAMES = {
    "LOINC//4548-4": "Hemoglobin A1c/Hemoglobin.total in Blood",
    "LOINC//2160-0": "Creatinine [Mass/volume] in Serum or Plasma",
    "LOINC//2951-2": "Sodium [Moles/volume] in Serum or Plasma",
    "RxNorm//314076": "lisinopril 10 MG Oral Tablet",
    "RxNorm//855332": "warfarin sodium 5 MG Oral Tablet",
    "ICD10CM//I10": "Essential (primary) hypertension",
}


def _row(time, code, value=None, unit=None, visit=None, text=None):
    return {
        "subject_id": 1,
        "time": time,
        "code": code,
        "numeric_value": value,
        "unit": unit,
        "visit_id": visit,
        "text_value": text,
        "description": NAMES.get(code),
    }


@pytest.fixture(scope="module")
def record() -> pl.DataFrame:
    hour = timedelta(hours=1)
    rows = [
        _row(datetime(1950, 2, 3), "MEDS_BIRTH"),
        _row(None, "GENDER//female"),
        _row(FIRST, "VISIT_START//AMB", visit=1),
        _row(FIRST, "ICD10CM//I10", visit=1),
        _row(FIRST, "ICD10CM//E11.9", visit=1),
        _row(FIRST, "ICD10CM//Z82.49", visit=1),
        _row(FIRST, "LOINC//4548-4", 8.1, "%", visit=1),
        _row(FIRST, "LOINC//2160-0", 1.1, "mg/dL", visit=1),
        _row(FIRST, "LOINC//2951-2", 130.0, "mmol/L", visit=1),
        _row(FIRST, "LOINC//44261-6", 12.0, "{score}", visit=1),
        _row(FIRST, "RxNorm//314076", visit=1),
        _row(FIRST, "CAREPLAN//SNOMED//735984001", visit=1),
        _row(FIRST + hour / 2, "VISIT_END//AMB", visit=1),
        _row(STAY, "VISIT_START//IMP", visit=2),
        _row(STAY, "ICD10CM//I48.0", visit=2),
        _row(STAY + hour, "PANEL//LOINC//51990-0", visit=2),
        _row(STAY + hour, "LOINC//2160-0", 0.9, "mg/dL", visit=2),
        _row(STAY + hour, "LOINC//2951-2", 140.0, "mmol/L", visit=2),
        _row(STAY + 2 * hour, "RxNorm//855332", visit=2),
        _row(STAY + 3 * hour, "RxNorm//855332", visit=2, text="cancelled"),
        _row(STAY + 30 * hour, "VISIT_END//IMP", visit=2),
        _row(LATER, "VISIT_START//EMER", visit=3),
        _row(LATER, "ICD10CM//T45.515A", visit=3),
        _row(LATER, "ICD10CM//Z95.0", visit=3),
        _row(LATER, "LOINC//2160-0", 88.0, "umol/L", visit=3),
    ]
    frame = pl.DataFrame(rows, schema={**events.SCHEMA, "description": pl.String()}, infer_schema_length=None)
    return events.sort(frame.lazy()).collect()


def _by_type(folder):
    found = {}
    for path in sorted(folder.glob("*.ndjson")):
        found[path.name.split(".")[0]] = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    return found


@pytest.fixture(scope="module")
def made(record, tmp_path_factory):
    out = tmp_path_factory.mktemp("derived") / "out"
    export_fhir(record, out, include=ON_REQUEST, validate="full")
    return _by_type(out)


def _code(concept):
    return concept["coding"][0]["code"]


def _of(made, kind, code):
    return [one for one in made[kind] if _code(one["code"]) == code]


def _id(reference):
    return reference["reference"].partition("/")[2]


def test_every_type_is_written(made):
    never = {"Immunization", "AllergyIntolerance", "Procedure"}
    assert made.keys() == set(TYPES) - never


def test_a_value_is_judged_by_the_range_of_its_unit_and_sex(made):
    first, usual, other_unit = _of(made, "Observation", "2160-0")
    assert [one["appliesTo"][0]["coding"][0]["code"] for one in first["referenceRange"]] == ["female", "male"]
    assert _code(first["interpretation"][0]) == "N", "1.1 is the upper bound of women"
    assert _code(usual["interpretation"][0]) == "N"
    assert not {"interpretation", "referenceRange"} & other_unit.keys()
    (sugar,) = _of(made, "Observation", "4548-4")
    assert _code(sugar["interpretation"][0]) == "H"
    low, normal = _of(made, "Observation", "2951-2")
    assert [_code(one["interpretation"][0]) for one in (low, normal)] == ["L", "N"]


def test_tests_of_one_moment_share_the_specimen_of_their_material(made):
    specimens = {one["id"]: _code(one["type"]) for one in made["Specimen"]}
    assert len(specimens) == 4
    tested = [one for one in made["Observation"] if "specimen" in one]
    pairs = {(one["effectiveDateTime"], specimens[_id(one["specimen"])], _id(one["specimen"])) for one in tested}
    assert len(tested) == 6
    assert len(pairs) == len({pair[:2] for pair in pairs}) == 4
    assert {code for _, code, _ in pairs} == {"119364003", "119297000"}
    (report,) = made["DiagnosticReport"]
    assert [specimens[_id(one)] for one in report["specimen"]] == ["119364003"]


def test_a_panel_is_ordered_as_itself_and_tests_without_one_together(made):
    orders = {one["id"]: one for one in made["ServiceRequest"]}
    assert sorted(_code(one["code"]) for one in orders.values()) == ["26436-6", "26436-6", "51990-0"]
    (report,) = made["DiagnosticReport"]
    assert _code(orders[_id(report["basedOn"][0])]["code"]) == "51990-0"
    early = [one for one in made["Observation"] if one["effectiveDateTime"] < "2020" and "basedOn" in one]
    (first,) = {_id(one["basedOn"][0]) for one in early}
    assert len(early) == 3
    assert orders[first]["authoredOn"] == "2019-05-06T09:30:00Z"


def test_an_order_names_its_reason_route_and_category(made):
    conditions = {one["id"]: _code(one["code"]) for one in made["Condition"]}
    (pressure,) = [one for one in made["MedicationRequest"] if _code(one["medicationCodeableConcept"]) == "314076"]
    assert [conditions[_id(one)] for one in pressure["reasonReference"]] == ["I10"]
    assert _code(pressure["dosageInstruction"][0]["route"]) == "26643006"
    assert _code(pressure["category"][0]) == "outpatient"
    warfarin = [one for one in made["MedicationRequest"] if one is not pressure]
    assert {conditions[_id(one["reasonReference"][0])] for one in warfarin} == {"I48.0"}
    assert {_code(one["category"][0]) for one in warfarin} == {"inpatient"}


def test_drugs_are_dispensed_or_given_but_not_when_withdrawn(made):
    (dispensed,), (given,) = made["MedicationDispense"], made["MedicationAdministration"]
    orders = {one["id"]: one for one in made["MedicationRequest"]}
    drugs = {one["id"]: _code(one["code"]) for one in made["Medication"]}
    assert sorted(drugs.values()) == ["314076", "855332"]
    assert drugs[_id(dispensed["medicationReference"])] == "314076"
    assert dispensed["whenHandedOver"] == "2019-05-06T09:30:00Z"
    assert drugs[_id(given["medicationReference"])] == "855332"
    assert orders[_id(given["request"])]["status"] == "active"


def test_goals_follow_from_conditions_and_a_plan_has_them_and_the_team(made):
    conditions = {one["id"]: _code(one["code"]) for one in made["Condition"]}
    goals = {one["id"]: conditions[_id(one["addresses"][0])] for one in made["Goal"]}
    assert sorted(goals.values()) == ["E11.9", "I10"]
    (plan,), (team,) = made["CarePlan"], made["CareTeam"]
    assert {_id(one) for one in plan["goal"]} == goals.keys()
    assert _id(plan["careTeam"][0]) == team["id"]


def test_codes_imply_implants_adverse_events_and_family_histories(made):
    (device,), (event,), (history,) = made["Device"], made["AdverseEvent"], made["FamilyMemberHistory"]
    conditions = {one["id"]: _code(one["code"]) for one in made["Condition"]}
    assert _code(device["type"]) == "14106009"
    assert conditions[_id(event["resultingCondition"][0])] == "T45.515A"
    assert _code(history["condition"][0]["code"]) == "Z82.49"


def test_a_score_is_derived_from_an_answered_questionnaire(made):
    (score,), (response,) = _of(made, "Observation", "44261-6"), made["QuestionnaireResponse"]
    assert _id(score["derivedFrom"][0]) == response["id"]
    assert response["item"][0]["answer"] == [{"valueDecimal": 12}]
    assert response["questionnaire"] == "http://loinc.org/q/44249-1"


def test_a_note_tells_its_visit_and_says_first_that_it_is_synthetic(made):
    visits = {one["id"]: one["class"]["code"] for one in made["Encounter"]}
    notes = {visits[_id(one["context"]["encounter"][0])]: one for one in made["DocumentReference"]}
    assert notes.keys() == {"AMB", "IMP", "EMER"}
    text = b64decode(notes["AMB"]["content"][0]["attachment"]["data"]).decode()
    assert text.startswith("SYNTHETIC")
    assert "Diagnosis: Essential (primary) hypertension\n" in text
    assert "Observed: Hemoglobin A1c/Hemoglobin.total in Blood: 8.1 %\n" in text
    assert text.index("Diagnosis") < text.index("Medication ordered") < text.index("Observed")
    assert _code(notes["IMP"]["type"]) == "18842-5"


def test_planned_visits_had_an_appointment_and_finished_ones_a_claim(made):
    visits = {one["id"]: one for one in made["Encounter"]}
    (appointment,) = made["Appointment"]
    booked = [one for one in visits.values() if "appointment" in one]
    assert [(one["class"]["code"], _id(one["appointment"][0])) for one in booked] == [("AMB", appointment["id"])]
    claims = {one["id"]: one for one in made["Claim"]}
    billed = sorted(visits[_id(one["item"][0]["encounter"][0])]["class"]["code"] for one in claims.values())
    assert billed == ["AMB", "IMP"]
    assert {_id(one["claim"]) for one in made["ExplanationOfBenefit"]} == claims.keys()
    (coverage,) = made["Coverage"]
    assert {_id(one["insurance"][0]["coverage"]) for one in claims.values()} == {coverage["id"]}


def test_lists_hold_each_code_once(made):
    lengths = {one["title"]: len(one["entry"]) for one in made["List"]}
    assert lengths == {"Problem list - Reported": 6, "History of Medication use Narrative": 2}


def test_what_no_event_tells_is_tagged_as_derived(made):
    told = {"Patient", "Encounter", "Condition", "MedicationRequest", "Observation", "DiagnosticReport", "CarePlan"}
    for kind, resources in made.items():
        tags = {tag["code"] for one in resources for tag in one["meta"]["tag"]}
        plain = kind in told or kind in SHARED_TYPES or kind == "Provenance"
        assert tags == ({"synthetic"} if plain else {"synthetic", codes.DERIVED}), kind


@pytest.mark.parametrize("left_out", sorted(set(TYPES) - set(SHARED_TYPES) - {"Patient", "Provenance"}))
def test_nothing_refers_to_a_type_that_is_left_out(record, left_out, tmp_path):
    report = export_fhir(record, tmp_path / "out", include=set(ON_REQUEST) - {left_out}, exclude=[left_out])
    assert left_out not in report.resources
    told = {
        "Encounter": 5,
        "Condition": 6,
        "MedicationRequest": 3,
        "Observation": 7,
        "DiagnosticReport": 1,
        "CarePlan": 1,
    }
    assert sum(one.count for one in report.not_carried.values()) == told.get(left_out, 0)
    whole = b"".join(path.read_bytes() for path in (tmp_path / "out").glob("*.ndjson"))
    assert f'"{left_out}/'.encode() not in whole


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"include": ["Claims"]}, "unknown type of resource `Claims`"),
        ({"exclude": ["Patient"]}, "`Patient` cannot be left out"),
        ({"include": ["Claim"], "exclude": ["Claim"]}, "both included and excluded"),
    ],
)
def test_types_that_make_no_sense_are_refused(record, options, problem, tmp_path):
    with pytest.raises(UsageError, match=problem):
        export_fhir(record, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_derived_ids_do_not_depend_on_the_order_of_events(record, made, tmp_path):
    export_fhir(record.sample(fraction=1, shuffle=True, seed=3), tmp_path / "out", include=ON_REQUEST)
    again = _by_type(tmp_path / "out")
    assert {kind: {one["id"] for one in of} for kind, of in again.items()} == {
        kind: {one["id"] for one in of} for kind, of in made.items()
    }


@pytest.mark.parametrize(
    ("drug", "condition", "expected"),
    [
        (("RxNorm//860975", "metformin 500 MG Oral Tablet"), ("ICD10CM//E11.9", "x"), True),
        (("RxNorm//860975", "metformin 500 MG Oral Tablet"), ("ICD10CM//I10", "x"), False),
        (("RxNorm//314076", "lisinopril 10 MG Oral Tablet"), ("SNOMED//38341003", "Hypertension"), True),
        (("RxNorm//1", "unheard-of 1 MG"), ("SNOMED//38341003", "Hypertension"), False),
    ],
)
def test_drugs_are_for_what_they_are_given_for(drug, condition, expected):
    assert bool(uses(coded(*drug)) & asked_for(coded(*condition))) is expected


@pytest.mark.parametrize(
    ("code", "name", "expected"),
    [
        ("LOINC//2160-0", "Creat", "Serum specimen"),
        ("LOINC//5811-5", "Specific gravity of Urine by Test strip", "Urine specimen"),
        ("LOINC//6075-6", "Cladosporium herbarum IgE Ab in Serum", "Serum specimen"),
        ("LOINC//8867-4", "Heart rate", None),
        ("LOINC//0-0", "Something else", None),
    ],
)
def test_a_name_tells_what_a_test_is_done_on(code, name, expected):
    number = material_of(coded(code, name))
    assert (None if number < 0 else MATERIALS[number].display) == expected
