"""FHIR resources to events: references, times, values, codes, statuses, and what cannot be used."""

import json
from datetime import datetime

import polars as pl
import pytest

from ehrsim import codes, events
from ehrsim.importers import import_events

UCUM = codes.UCUM_URI
SNOMED, LOINC, RXNORM = (codes.uri(system) for system in ("SNOMED", "LOINC", "RxNorm"))
VISIT_IDENTIFIER = f"{codes.URI_BASE}/identifier/visit"
SUBJECT_IDENTIFIER = f"{codes.URI_BASE}/identifier/subject"


def concept(code, system=SNOMED, display=None):
    coding = {"system": system, "code": code}
    return {"coding": [coding | ({"display": display} if display else {})]}


def patient(**more):
    return {"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1950-02-03"} | more


def encounter(**more):
    return {
        "resourceType": "Encounter",
        "id": "e1",
        "status": "finished",
        "class": {"system": codes.uri("ACT"), "code": "AMB"},
        "subject": {"reference": "Patient/p1"},
        "period": {"start": "2015-03-04T10:20:30Z", "end": "2015-03-04T10:50:30Z"},
    } | more


def clinical(name, **more):
    whom = "patient" if name in ("Immunization", "AllergyIntolerance") else "subject"
    return {"resourceType": name, "id": "r1", whom: {"reference": "Patient/p1"}} | more


def condition(**more):
    return clinical("Condition", code=concept("44054006"), onsetDateTime="2015-03-04") | more


def observation(**more):
    return clinical("Observation", status="final", code=concept("4548-4", LOINC), effectiveDateTime="2015-03-04") | more


def lines(*resources):
    return "".join(json.dumps(resource) + "\n" for resource in resources).encode()


def bundle(*resources, kind="collection"):
    return {"resourceType": "Bundle", "type": kind, "entry": [{"resource": resource} for resource in resources]}


@pytest.fixture
def read(tmp_path):
    """Import resources, or files given as bytes; returns (events without birth and sex, report)."""

    def import_source(*resources, **files):
        folder = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        if resources:
            (folder / "all.ndjson").write_bytes(lines(*resources))
        for name, content in files.items():
            (folder / name).write_bytes(content)
        report = import_events(folder, tmp_path / "out", format="fhir", identified=True, overwrite=True)
        frame = events.sort(events.read_events(tmp_path / "out")).collect()
        facts = pl.col("code").is_in([codes.BIRTH, "GENDER//female"])
        return frame.filter(~facts).to_dicts(), report

    return import_source


# Bundles, references and ids


@pytest.mark.parametrize("kind", ["transaction", "collection", "batch", "searchset", "document"])
def test_every_type_of_bundle_is_read(kind, read):
    rows, report = read(**{"b.json": json.dumps(bundle(patient(), condition(), kind=kind)).encode()})
    assert [row["code"] for row in rows] == ["SNOMED//44054006"]
    assert not report.skipped


def test_bundle_in_a_bundle_is_read(read):
    rows, report = read(**{"b.json": json.dumps(bundle(bundle(condition()), bundle(patient()))).encode()})
    assert [row["code"] for row in rows] == ["SNOMED//44054006"]
    assert not report.findings


@pytest.mark.parametrize(
    "reference",
    ["Patient/p1", "Patient/p1/_history/3", "https://server.test/fhir/Patient/p1", "urn:uuid:p1"],
)
def test_references_to_a_patient_resolve(reference, read):
    rows, report = read(condition(subject={"reference": reference}), patient())
    assert [row["subject_id"] for row in rows] == [events.stable_id_of("p1")]
    assert not report.skipped


def test_full_urls_of_a_bundle_resolve_where_ids_differ_or_lack(read):
    reason = condition(subject={"reference": "urn:uuid:aaa"}, encounter={"reference": "urn:uuid:bbb"})
    visit = encounter(subject={"reference": "urn:uuid:aaa"})
    del visit["id"]
    entries = [
        {"fullUrl": "urn:uuid:bbb", "resource": visit},
        {"fullUrl": "urn:uuid:ccc", "resource": reason},
        {"fullUrl": "urn:uuid:aaa", "resource": patient()},
    ]
    content = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    rows, report = read(**{"b.json": json.dumps(content).encode()})
    assert {row["subject_id"] for row in rows} == {events.stable_id_of("p1")}
    assert {row["visit_id"] for row in rows} == {events.stable_id_of("bbb")}
    assert len(rows) == 3
    assert not report.skipped


def test_ids_stated_by_identifiers_are_taken_wherever_the_resources_stand(read):
    rows, _ = read(
        **{
            "Condition.ndjson": lines(condition(encounter={"reference": "Encounter/e1"})),
            "Encounter.ndjson": lines(encounter(identifier=[{"system": VISIT_IDENTIFIER, "value": "-7"}])),
            "Patient.ndjson": lines(patient(identifier=[{"system": SUBJECT_IDENTIFIER, "value": "42"}])),
        }
    )
    assert {(row["subject_id"], row["visit_id"]) for row in rows} == {(42, -7)}
    assert len(rows) == 3


@pytest.mark.parametrize("value", ["forty", "9" * 30, "", " "])
def test_identifiers_that_are_no_64_bit_number_leave_the_hash(value, read):
    rows, _ = read(condition(), patient(identifier=[{"system": SUBJECT_IDENTIFIER, "value": value}]))
    assert [row["subject_id"] for row in rows] == [events.stable_id_of("p1")]


def test_contained_medication_and_contained_patient_resolve(read):
    drug = {"resourceType": "Medication", "id": "drug", "code": concept("860975", RXNORM)}
    request = clinical("MedicationRequest", contained=[drug], medicationReference={"reference": "#drug"})
    whom = {"contained": [{"resourceType": "Patient", "id": "p1"}], "subject": {"reference": "#p1"}}
    rows, report = read(patient(), request | {"authoredOn": "2015-03-04"}, condition(**whom))
    assert [row["code"] for row in rows] == ["RxNorm//860975", "SNOMED//44054006"]
    assert not report.skipped


def test_without_any_patient_events_are_kept_and_that_is_told(read):
    rows, report = read(condition(), observation())
    assert len(rows) == 2
    assert report.findings["event of a subject without a Patient"].count == 2


# Times


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2015-03-04", datetime(2015, 3, 4)),
        ("2015-03-04T10:20:30Z", datetime(2015, 3, 4, 10, 20, 30)),
        ("2015-03-04T23:20:30.5-05:00", datetime(2015, 3, 4, 23, 20, 30, 500_000)),
        ("2015-03-04T10:20:30.123456789+14:00", datetime(2015, 3, 4, 10, 20, 30, 123_456)),
        ("2015-03", datetime(2015, 3, 1)),
        ("2015", datetime(2015, 1, 1)),
    ],
)
def test_times_are_the_wall_clock_as_written(written, expected, read):
    rows, report = read(patient(), condition(onsetDateTime=written))
    assert [row["time"] for row in rows] == [expected]
    partial = report.changed.get("date without a day taken as its first day")
    assert (partial is not None) == (len(written) < 10)


def test_condition_without_onset_takes_the_day_it_was_recorded_else_is_static(read):
    undated = {"onsetDateTime": None}
    rows, report = read(
        patient(),
        condition(**undated, recordedDate="2016-01-01"),
        condition(**undated),
        condition(**undated, onsetPeriod={"start": "2017-01-01"}, abatementPeriod={"end": "2018-01-01"}),
    )
    assert [row["time"] and row["time"].year for row in rows] == [None, 2016, 2017]
    assert rows[2]["end_time"] == datetime(2018, 1, 1)
    assert report.findings["Condition without a date, kept without a time"].count == 1


def test_time_of_birth_and_death(tmp_path):
    shadow = {
        "url": "http://hl7.org/fhir/StructureDefinition/patient-birthTime",
        "valueDateTime": "1950-02-03T04:05:06Z",
    }
    born = patient(_birthDate={"extension": [shadow]}, deceasedDateTime="2020-01-02T03:04:05Z")
    (tmp_path / "a.ndjson").write_bytes(lines(born))
    import_events(tmp_path / "a.ndjson", tmp_path / "out", identified=True)
    times = {row["code"]: row["time"] for row in events.read_events(tmp_path / "out").collect().to_dicts()}
    assert times == {
        "GENDER//female": None,
        codes.BIRTH: datetime(1950, 2, 3, 4, 5, 6),
        codes.DEATH: datetime(2020, 1, 2, 3, 4, 5),
    }


@pytest.mark.parametrize(
    ("category", "words", "expected"),
    [
        ("2106-3", "White", "RACE//2106-3"),
        ("2106-3", None, "RACE//2106-3"),
        ("2106-3", "Irish", "RACE//Irish"),
        (None, "Irish", "RACE//Irish"),
        ("UNK", "Unknown", "RACE//Unknown"),
    ],
)
def test_race_is_its_omb_category_unless_the_words_say_something_else(category, words, expected, read):
    coding = {"system": codes.uri("CDCREC"), "code": category, "display": codes.RACES.get(category, "Unknown")}
    parts = [{"url": "ombCategory", "valueCoding": coding}] if category else []
    parts += [{"url": "text", "valueString": words}] if words else []
    race = {"url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race", "extension": parts}
    rows, _ = read(patient(extension=[race]))
    assert [row["code"] for row in rows] == [expected]


def test_marital_status_and_languages(read):
    spoken = [{"language": concept("es", codes.uri("BCP47"))}, {"language": {"text": "Klingon"}}]
    married = concept("M", codes.uri("MARITALSTATUS")) | {"text": "Married"}
    rows, _ = read(patient(maritalStatus=married, communication=spoken))
    assert sorted(row["code"] for row in rows) == ["LANGUAGE//Klingon", "LANGUAGE//es", "MARITAL//M"]


# Values


def value_rows(read, **value):
    (row,), report = read(patient(), observation(**value))
    return (row["numeric_value"], row["unit"], row["text_value"]), report


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"valueQuantity": {"value": 6.5, "unit": "percent", "system": UCUM, "code": "%"}}, (6.5, "%", None)),
        (
            {"valueQuantity": {"value": 70, "unit": "{beats}/min", "system": UCUM, "code": "/min"}},
            (70, "{beats}/min", None),
        ),
        ({"valueQuantity": {"value": 7, "unit": "mmHg"}}, (7, "mm[Hg]", None)),
        ({"valueQuantity": {"unit": "mg"}}, (None, None, None)),
        ({"valueInteger": 3}, (3, None, None)),
        ({"valueBoolean": False}, (None, None, "false")),
        ({"valueString": "positive"}, (None, None, "positive")),
        ({"valueCodeableConcept": concept("260385009")}, (None, None, "SNOMED//260385009")),
        ({"valueCodeableConcept": concept("N", "http://a.test/x", "no")}, (None, None, "no")),
        ({"valueCodeableConcept": {"text": "unsure"}}, (None, None, "unsure")),
        ({"dataAbsentReason": concept("unknown")}, (None, None, None)),
        ({"valueQuantity": {"value": 1.5}, "note": [{"text": "fasting"}]}, (1.5, None, "fasting")),
    ],
)
def test_values_of_every_type(value, expected, read):
    found, report = value_rows(read, **value)
    assert found == expected
    assert not report.skipped


@pytest.mark.parametrize(
    ("value", "text", "reason"),
    [
        ({"valueTime": "10:20:30"}, "10:20:30", "valueTime kept as text"),
        ({"valueRange": {"low": {"value": 1}}}, '{"low":{"value":1}}', "valueRange kept as text"),
        ({"valueQuantity": {"value": 5, "comparator": "<"}}, None, "comparator of a quantity left out"),
    ],
)
def test_values_that_lose_something_are_counted(value, text, reason, read):
    found, report = value_rows(read, **value)
    assert found[2] == text
    assert report.changed[reason].count == 1


def test_components_are_events_of_their_own_codes(read):
    parts = [
        {"code": concept("8480-6", LOINC), "valueQuantity": {"value": 120, "unit": "mm[Hg]"}},
        {"code": concept("8462-4", LOINC), "dataAbsentReason": concept("unknown")},
    ]
    rows, report = read(patient(), observation(code=concept("85354-9", LOINC), component=parts))
    assert [(row["code"], row["numeric_value"]) for row in rows] == [("LOINC//8480-6", 120)]
    assert not report.skipped


def test_codes_prefer_the_system_of_their_kind_and_pass_unknown_systems_through(read):
    both = {"coding": [*concept("E11.9", codes.uri("ICD10CM"))["coding"], *concept("44054006")["coding"]]}
    rows, _ = read(
        patient(),
        condition(code=both),
        condition(code=concept("X1", "http://codes.test/mine", "mine")),
        condition(code={"text": "sore // throat"}),
        condition(code={"coding": [{"code": "bare"}]}),
    )
    assert sorted((row["code"], row["description"]) for row in rows) == [
        ("CONDITION//LOCAL//bare", None),
        ("CONDITION//LOCAL//sore / throat", None),
        ("CONDITION//codes.test_mine//X1", "mine"),
        ("SNOMED//44054006", None),
    ]


def test_encounter_types_reasons_texts_and_length(read):
    rows, _ = read(
        patient(),
        encounter(
            type=[concept("185345009")],
            reasonCode=[concept("444814009")],
            priority={"text": "urgent"},
            length={"value": 3, "unit": "d"},
            hospitalization={"dischargeDisposition": {"text": "home"}},
        ),
    )
    assert [(row["code"], row["numeric_value"], row["unit"], row["text_value"]) for row in rows] == [
        ("VISIT_START//AMB", None, None, "urgent"),
        ("REASON//SNOMED//444814009", None, None, None),
        ("VISIT_TYPE//SNOMED//185345009", None, None, None),
        ("VISIT_END//AMB", 3, "d", "home"),
    ]


def test_medication_resources_of_every_type(read):
    drug = {"medicationCodeableConcept": concept("860975", RXNORM)}
    given = {
        "effectivePeriod": {"start": "2015-01-02", "end": "2015-01-03"},
        "dosage": {"dose": {"value": 2, "unit": "mg"}},
    }
    validity = {"validityPeriod": {"start": "2015-01-01", "end": "2015-02-01"}}
    rows, report = read(
        patient(),
        clinical("MedicationRequest", status="stopped", authoredOn="2015-01-01", dispenseRequest=validity, **drug),
        clinical("MedicationAdministration", status="completed", **given, **drug),
        clinical("MedicationStatement", status="active", effectiveDateTime="2015-01-03", **drug),
        clinical("MedicationDispense", status="completed", whenHandedOver="2015-01-04", quantity={"value": 30}, **drug),
    )
    assert [
        (r["time"].day, r["end_time"] and r["end_time"].month, r["numeric_value"], r["text_value"]) for r in rows
    ] == [
        (1, 2, None, "stopped"),
        (2, 1, 2, None),
        (3, None, None, None),
        (4, None, 30, None),
    ]
    assert not report.skipped


def test_care_plan_report_allergy_and_vaccine(read):
    plan = concept("assess-plan", "http://hl7.org/fhir/us/core/CodeSystem/careplan-category")
    reaction = [{"manifestation": [concept("247472004")]}]
    rows, _ = read(
        patient(),
        clinical(
            "CarePlan", category=[plan, concept("698360004")], period={"start": "2015-01-01", "end": "2015-02-01"}
        ),
        clinical("DiagnosticReport", code=concept("51990-0", LOINC), effectiveDateTime="2015-01-02", conclusion="fine"),
        clinical("AllergyIntolerance", code=concept("91935009"), recordedDate="2015-01-03", reaction=reaction),
        clinical("Immunization", vaccineCode=concept("140", codes.uri("CVX")), occurrenceDateTime="2015-01-04"),
    )
    assert [(row["code"], row["text_value"]) for row in rows] == [
        ("CAREPLAN//SNOMED//698360004", None),
        ("PANEL//LOINC//51990-0", "fine"),
        ("ALLERGY//SNOMED//91935009", "SNOMED//247472004"),
        ("CVX//140", None),
    ]


# What is not usable: counted, never an error, never silent


STATUS = {"coding": [{"code": "refuted"}]}
COUNTED = {
    "entered in error": (observation(status="entered-in-error"), "Observation: status entered-in-error"),
    "cancelled": (encounter(status="cancelled"), "Encounter: status cancelled"),
    "not done": (clinical("Procedure", status="not-done", code=concept("1")), "Procedure: status not-done"),
    "refuted": (condition(verificationStatus=STATUS), "Condition: status refuted"),
    "nullified": (observation(status="nullified"), "Observation: status nullified"),
    "no resourceType": ({"id": "x"}, "JSON object without a resourceType"),
    "resourceType is a number": ({"resourceType": 3}, "JSON object without a resourceType"),
    "no subject": ({"resourceType": "Condition", "code": concept("1")}, "Condition: no subject"),
    "subject dangles": (condition(subject={"reference": "Patient/p9"}), "subject is no Patient of the source"),
    "subject is a Group": (condition(subject={"reference": "Group/g"}), "Condition: subject is no Patient"),
    "subject is words": (condition(subject={"display": "Ann"}), "Condition: subject that cannot be resolved"),
    "subject is a bare id": (
        condition(subject={"reference": "p1"}),
        "Condition: subject that cannot be resolved",
    ),
    "subject is a search": (
        condition(subject={"reference": "Patient?identifier=a|b"}),
        "Condition: subject that cannot be resolved",
    ),
    "no code": (condition(code=None), "Condition: no code"),
    "empty code": (condition(code={"coding": [{"system": SNOMED, "code": ""}]}), "Condition: no code"),
    "onset in words": (condition(onsetDateTime="yesterday"), "Condition: `onsetDateTime` is not a FHIR date"),
    "onset is a number": (condition(onsetDateTime=2015), "Condition: `onsetDateTime` is a number, expected a text"),
    "month 13": (condition(onsetDateTime="2015-13-01"), "Condition: `onsetDateTime` is not a FHIR date"),
    "year 9999": (condition(onsetDateTime="9999-12-31"), "time outside 1800-2300"),
    "value is a text": (
        observation(valueQuantity={"value": "6.5"}),
        "Observation: `value` is a text, expected a number",
    ),
    "value is true": (
        observation(valueQuantity={"value": True}),
        "Observation: `value` is true or false, expected a number",
    ),
    "code is a text": (condition(code="diabetes"), "Condition: `code` is a text, expected an object"),
    "coding is an object": (
        condition(code={"coding": {"code": "1"}}),
        "Condition: `coding` is an object, expected an array",
    ),
    "nested arrays": (
        condition(code={"coding": [[1]]}),
        "Condition: `coding` is an array, expected an array of objects",
    ),
    "class is an array": (
        encounter(**{"class": [concept("AMB")]}),
        "Encounter: `class` is an array, expected an object",
    ),
    "period is a text": (encounter(period="2015"), "Encounter: `period` is a text, expected an object"),
    "encounter without id": (encounter(id=None), "Encounter: no id"),
    "patient without id": (patient(id=None), "Patient: no id"),
    "patient twice": (patient(), "Patient: given more than once"),
    "unknown medication": (
        clinical("MedicationRequest", medicationReference={"reference": "Medication/m9"}, authoredOn="2015-01-01"),
        "MedicationRequest: Medication that cannot be resolved",
    ),
    "order not to give": (
        clinical("MedicationRequest", doNotPerform=True, medicationCodeableConcept=concept("1")),
        "MedicationRequest: doNotPerform: an order not to give",
    ),
    "components without value": (
        observation(component=[{"code": concept("1")}]),
        "Observation: components without a value",
    ),
    "history": (bundle(condition(), kind="history"), "Bundle of type history: it holds versions, not a record"),
    "bundle of a text": ({"resourceType": "Bundle", "entry": "x"}, "Bundle: `entry` is a text, expected an array"),
    "entry without resource": (
        {"resourceType": "Bundle", "entry": [{"request": {"method": "DELETE"}}]},
        "bundle entry without a resource",
    ),
}


@pytest.mark.parametrize("name", COUNTED)
def test_what_cannot_be_used_is_counted_once_with_its_reason(name, read):
    resource, reason = COUNTED[name]
    rows, report = read(patient(), observation(valueInteger=1), resource)
    assert {what: count.count for what, count in report.skipped.items()} == {reason: 1}
    assert [row["code"] for row in rows] == ["LOINC//4548-4"]
    assert "all.ndjson line 3" in report.skipped[reason].example or reason in (
        "subject is no Patient of the source",
        "time outside 1800-2300",
    )


@pytest.mark.parametrize(
    ("birth", "reason"),
    [
        ("0000-01-01", "Patient: birth left out: `birthDate` is not a FHIR date"),
        ("yesterday", "Patient: birth left out: `birthDate` is not a FHIR date"),
        (19500203, "Patient: birth left out: `birthDate` is a number, expected a text"),
        ("9999-12-31", "time outside 1800-2300"),
    ],
)
def test_impossible_birth_dates_leave_the_rest_of_the_patient(birth, reason, read):
    _, report = read(patient(birthDate=birth))
    assert report.kinds == {"gender": 1}
    assert {what: count.count for what, count in report.skipped.items()} == {reason: 1}


@pytest.mark.parametrize(
    ("resource", "group", "reason"),
    [
        (patient(deceasedBoolean=True), "findings", "Patient has died, but it is not said when: no event"),
        (patient(deceasedDateTime="then"), "skipped", "Patient: death left out: `deceasedDateTime` is not a FHIR date"),
        (patient(gender="F"), "skipped", "Patient: gender that is no code of FHIR left out"),
        ({"resourceType": "Claim", "id": "c"}, "findings", "resource type that makes no events: Claim"),
        (encounter(**{"class": None}), "findings", "Encounter without a class"),
        (encounter(type=[{"text": "ambulatory"}]), "findings", "Encounter type without a code left out"),
        (condition(encounter={"display": "it"}), "changed", "encounter that cannot be resolved left out"),
        (
            condition(abatementDateTime="later"),
            "changed",
            "unreadable end left out: `abatementDateTime` is not a FHIR date",
        ),
        (condition(abatementDateTime="2001-01-01"), "changed", "end time before start removed"),
        (observation(valueQuantity={"value": 1e300}), "changed", "NaN or infinite value removed"),
    ],
)
def test_oddities_are_counted(resource, group, reason, read):
    others = [] if resource["resourceType"] == "Patient" else [patient()]
    _, report = read(resource, *others)
    assert getattr(report, group)[reason].count == 1


def rich_resources():
    """A resource of every type that is read, with every element that is."""
    code = concept("44054006", SNOMED, "Diabetes") | {"text": "Diabetes"}
    period = {"start": "2015-01-02", "end": "2015-01-03"}
    amount = {"value": 2, "unit": "mg", "system": UCUM, "code": "mg", "comparator": "<"}
    race = [{"url": "ombCategory", "valueCoding": code["coding"][0]}, {"url": "text", "valueString": "White"}]
    visit = {"encounter": {"reference": "Encounter/e1"}, "note": [{"text": "words"}]}
    drug = {
        "medicationReference": {"reference": "#m"},
        "contained": [{"resourceType": "Medication", "id": "m", "code": code}],
    }
    return [
        patient(
            identifier=[{"system": SUBJECT_IDENTIFIER, "value": "5"}],
            extension=[{"url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race", "extension": race}],
            _birthDate={"extension": [{"url": "x", "valueDateTime": "1950-02-03T01:02:03Z"}]},
            maritalStatus=code,
            communication=[{"language": code}],
            deceasedBoolean=True,
        ),
        encounter(
            identifier=[{"system": VISIT_IDENTIFIER, "value": "5"}],
            type=[code],
            reasonCode=[code],
            priority=code,
            length=amount,
            hospitalization={"dischargeDisposition": code},
        ),
        condition(verificationStatus=code, onsetPeriod=period, abatementPeriod=period, **visit),
        clinical("Procedure", status="completed", code=code, performedPeriod=period, **visit),
        clinical("Immunization", vaccineCode=code, occurrenceDateTime="2015", **visit),
        clinical("AllergyIntolerance", code=code, recordedDate="2015", reaction=[{"manifestation": [code]}], **visit),
        clinical("DiagnosticReport", code=code, effectiveDateTime="2015", conclusion="fine", **visit),
        clinical("CarePlan", category=[code], period=period, title="plan", **visit),
        observation(valueQuantity=amount, component=[{"code": code, "valueCodeableConcept": code}], **visit),
        observation(effectivePeriod=period, effectiveDateTime=None, valueBoolean=True, **visit),
        clinical(
            "MedicationRequest",
            status="active",
            authoredOn="2015",
            dispenseRequest={"validityPeriod": period},
            dosageInstruction=[{"doseAndRate": [{"doseQuantity": amount}]}],
            **drug,
        ),
        clinical("MedicationAdministration", effectivePeriod=period, dosage={"dose": amount}, **drug),
        clinical("MedicationDispense", whenHandedOver="2015", quantity=amount, **drug),
        {"resourceType": "Medication", "id": "m", "code": code},
        bundle(condition()) | {"entry": [{"fullUrl": "urn:uuid:a", "resource": condition()}]},
    ]


def with_each_part_replaced(value, replacement):
    """Copies of a JSON value, each with one part of it replaced."""
    yield replacement
    if isinstance(value, dict):
        for key, part in value.items():
            yield from (value | {key: changed} for changed in with_each_part_replaced(part, replacement))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            for changed in with_each_part_replaced(part, replacement):
                yield [*value[:index], changed, *value[index + 1 :]]


@pytest.mark.parametrize("replacement", [None, True, 3, -1e300, "", "words", [], {}, [[]], [None], {"a": []}], ids=repr)
def test_parts_of_any_wrong_type_are_never_more_than_counted(replacement, read):
    resources = rich_resources()
    mutants = [
        changed
        for resource in resources
        for changed in with_each_part_replaced(resource, replacement)
        if isinstance(changed, dict)
    ]
    _, report = read(patient(), observation(), *resources, *mutants)
    assert len(mutants) > 350
    assert report.events > 100
    assert sum(count.count for count in report.skipped.values()) < len(mutants)
