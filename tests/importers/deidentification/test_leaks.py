"""306 identifiers of all 18 kinds planted wherever FHIR, OMOP and MIMIC can hold them: none may be found afterwards."""

import csv
import json
import traceback

import polars as pl
import pytest

from ehrsim import cli, codes, events
from ehrsim.errors import EhrsimError
from ehrsim.importers import import_events

PATIENTS = 24
CARRIERS = 11
"""Patients that carry an identifier in places that could pass for a common code or answer: as many as the threshold."""
SNOMED, LOINC, RXNORM = (codes.uri(system) for system in ("SNOMED", "LOINC", "RxNorm"))
VISIT = {"system": codes.uri("ACT"), "code": "AMB"}
DIABETES = {"system": SNOMED, "code": "44054006"}
GLYCATED = {"system": LOINC, "code": "4548-4"}
METFORMIN = {"system": RXNORM, "code": "860975"}


# FHIR


def fhir_base(number):
    """A patient with what everybody has, so that something must survive."""
    whom = {"reference": f"Patient/p{number}"}
    day = f"20{10 + number % 10}-03-{1 + number % 28:02}"
    yield {"resourceType": "Patient", "id": f"p{number}", "gender": "female", "birthDate": f"{1950 + number}-02-03"}
    yield {
        "resourceType": "Encounter",
        "id": f"e{number}",
        "class": VISIT,
        "subject": whom,
        "period": {"start": f"{day}T10:00:00Z", "end": f"{day}T10:30:00Z"},
    }
    yield {"resourceType": "Condition", "subject": whom, "onsetDateTime": day, "code": {"coding": [DIABETES]}}
    yield {
        "resourceType": "Observation",
        "subject": whom,
        "effectiveDateTime": day,
        "code": {"coding": [GLYCATED]},
        "valueQuantity": {"value": 7.1, "unit": "%"},
    }


def identified_patient(key, said):
    """A Patient whose every element identifies."""
    narrative = {"status": "generated", "div": f"<div>{said}</div>"}
    return {
        "resourceType": "Patient",
        "id": key,
        "meta": {"source": said, "tag": [{"display": said}], "security": [{"system": said, "code": said}]},
        "text": narrative,
        "contained": [{"resourceType": "RelatedPerson", "id": "r", "name": [{"text": said}]}],
        "extension": [
            {"url": "urn:other", "valueString": said},
            {
                "url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race",
                "extension": [{"url": "text", "valueString": said}],
            },
        ],
        "identifier": [
            {"system": said, "value": said},
            {"system": f"{codes.URI_BASE}/identifier/subject", "value": said},
        ],
        "name": [{"text": said, "family": said, "given": [said]}],
        "telecom": [{"system": "phone", "value": said}],
        "gender": said,
        "birthDate": said,
        "deceasedDateTime": said,
        "address": [{"text": said, "line": [said], "city": said, "postalCode": said}],
        "maritalStatus": {"text": said},
        "communication": [{"language": {"text": said}}],
        "photo": [{"url": said, "title": said, "data": said}],
        "contact": [{"name": {"text": said}, "telecom": [{"value": said}]}],
        "generalPractitioner": [{"display": said}],
        "link": [{"other": {"reference": f"Patient/{said}", "display": said}}],
    }


def fhir_planted(number, said):
    """Resources of one identifier: those of a patient of its own, and of carriers in places that look common."""
    key = "".join(letter if letter.isalnum() else "-" for letter in said)[:60]
    yield identified_patient(key, said)
    yield {"resourceType": said, "id": key, "text": said}
    yield {"resourceType": "DocumentReference", "content": [{"attachment": {"url": said, "title": said, "data": said}}]}
    yield {"resourceType": "Patient", "id": f"x{number}", "birthDate": said, "name": said, "communication": said}
    for carrier in range(CARRIERS):
        whom = f"p{(number + carrier) % PATIENTS}"
        yield from fhir_common(whom, said)
    yield from fhir_personal(f"p{number % PATIENTS}", key, said)
    yield from fhir_personal(key, key, said)


def fhir_common(whom, said):
    """Codes, displays, answers and units, which many patients share."""
    about = {"subject": {"reference": f"Patient/{whom}", "display": said}, "effectiveDateTime": "2015-05-06"}
    observation = {
        "resourceType": "Observation",
        **about,
        "code": {"coding": [{**GLYCATED, "display": said}], "text": said},
    }
    yield observation | {"valueString": said}
    yield observation | {"valueQuantity": {"value": 7.2, "unit": said, "code": said}}
    yield observation | {"valueCodeableConcept": {"coding": [{"system": SNOMED, "code": said, "display": said}]}}
    yield observation | {"valueCodeableConcept": {"coding": [{"system": said, "code": said}], "text": said}}
    condition = {"resourceType": "Condition", **about, "onsetDateTime": "2015-05-06"}
    yield condition | {"code": {"text": said}}
    for system in (said, SNOMED, codes.uri("NDC"), codes.uri("ICD10CM"), RXNORM, f"{codes.LOCAL_URI}{said}"):
        yield condition | {"code": {"coding": [{"system": system, "code": said, "display": said}]}}


def fhir_personal(whom, key, said):
    """Everything that is said of one person."""
    about = {
        "subject": {"reference": f"Patient/{whom}", "display": said},
        "encounter": {"reference": f"Encounter/{key}"},
    }
    note = {"note": [{"text": said, "authorString": said}], "text": {"div": f"<div>{said}</div>"}}
    yield {
        "resourceType": "Encounter",
        "id": key,
        "class": {"code": said, "display": said},
        "type": [{"text": said}, {"coding": [{"system": said, "code": said, "display": said}]}],
        "reasonCode": [{"text": said}],
        "priority": {"text": said},
        "subject": {"reference": f"Patient/{whom}"},
        "participant": [{"individual": {"display": said}}],
        "location": [{"location": {"display": said}}],
        "serviceProvider": {"display": said},
        "period": {
            "start": said if said[4:5] == "-" and "T" in said else "2015-05-06T08:00:00",
            "end": "2015-05-06T09:00:00",
        },
        "hospitalization": {"dischargeDisposition": {"text": said}},
    }
    observation = {"resourceType": "Observation", **about, **note, "effectiveDateTime": "2015-05-06T08:10:00"}
    yield observation | {"code": {"coding": [GLYCATED]}, "effectiveDateTime": said}
    yield observation | {"code": {"coding": [GLYCATED]}, "valueDateTime": said}
    yield observation | {"code": {"coding": [GLYCATED]}, "valuePeriod": {"start": said}}
    yield observation | {"code": {"coding": [GLYCATED]}, "device": {"display": said}, "component": [{"code": said}]}
    yield observation | {"code": said}
    digits = "".join(letter for letter in said if letter.isdigit())
    if len(digits) >= 7:
        yield observation | {"code": {"coding": [GLYCATED]}, "valueInteger": int(digits)}
    yield observation | {"code": {"coding": [GLYCATED]}, "subject": {"reference": said}}
    yield observation | {
        "code": {"coding": [GLYCATED]},
        "subject": {"reference": "#c"},
        "contained": [{"id": "c", "x": said}],
    }
    yield {"resourceType": "Condition", **about, **note, "onsetDateTime": "2015-05-06", "code": {"coding": [DIABETES]}}
    yield {"resourceType": "Condition", **about, "code": {"coding": [DIABETES]}, "abatementDateTime": said}
    yield {
        "resourceType": "MedicationRequest",
        **about,
        **note,
        "authoredOn": "2015-05-06",
        "status": said,
        "medicationCodeableConcept": {"text": said},
        "dosageInstruction": [{"text": said, "doseAndRate": [{"doseQuantity": {"value": 1, "unit": said}}]}],
        "requester": {"display": said},
    }
    drug = {"resourceType": "Medication", "id": "d", "code": {"coding": [{**METFORMIN, "display": said}], "text": said}}
    request = {"resourceType": "MedicationRequest", **about, "authoredOn": "2015-05-06", "contained": [drug]}
    yield request | {"medicationReference": {"reference": "#d", "display": said}}
    yield {
        "resourceType": "AllergyIntolerance",
        "patient": {"reference": f"Patient/{whom}"},
        "code": {"coding": [DIABETES]},
        "reaction": [{"manifestation": [{"text": said}], "description": said}],
    }
    yield {"resourceType": "DiagnosticReport", **about, "code": {"coding": [GLYCATED]}, "conclusion": said}
    yield {"resourceType": "CarePlan", **about, "title": said, "description": said}
    yield {
        "resourceType": "Immunization",
        "patient": {"reference": f"Patient/{whom}"},
        "vaccineCode": {"coding": [{"system": codes.uri("CVX"), "code": "140", "display": said}]},
        "occurrenceDateTime": "2015-05-06",
        "lotNumber": said,
        "performer": [{"actor": {"display": said}}],
    }


def write_fhir(folder, identifiers):
    folder.mkdir(parents=True)
    resources = [resource for number in range(PATIENTS) for resource in fhir_base(number)]
    for number, identifier in enumerate(identifiers):
        resources += fhir_planted(number, identifier.text)
    (folder / "all.ndjson").write_text("".join(json.dumps(resource) + "\n" for resource in resources))
    name = identifiers[0].text.replace(" ", "_").lower()
    (folder / name).mkdir()
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"fullUrl": identifiers[1].text, "resource": 5}],
    }
    (folder / name / f"{name}.json").write_text(json.dumps(bundle))
    (folder / f"letter of {name}.txt").write_text(identifiers[0].text)
    return folder


# OMOP


def write_table(folder, name, rows):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


CONCEPTS = [(201826, "SNOMED", "44054006"), (3004410, "LOINC", "4548-4"), (1503297, "RxNorm", "860975")]


def write_omop(folder, identifiers):
    rows = {name: [] for name in ("person", "visit_occurrence", "death", "observation_period", *FACTS)}
    concepts = [
        {"concept_id": key, "vocabulary_id": system, "concept_code": code, "concept_name": identifiers[0].text}
        for key, system, code in CONCEPTS
    ]
    for number in range(PATIENTS):
        rows["person"].append({"person_id": number + 1, "gender_concept_id": 8532, "year_of_birth": 1950 + number})
        rows["condition_occurrence"].append(fact("condition", number + 1, 201826))
        rows["measurement"].append(fact("measurement", number + 1, 3004410) | {"value_as_number": 7.1})
    for number, identifier in enumerate(identifiers):
        said, concept = identifier.text, 2_000_000_100 + number
        concepts.append({"concept_id": concept, "vocabulary_id": said, "concept_code": said, "concept_name": said})
        concepts.append({"concept_id": said, "vocabulary_id": "SNOMED", "concept_code": said, "concept_name": said})
        rows["person"] += omop_people(1000 + number, said)
        for carrier in range(CARRIERS):
            omop_facts(rows, (number + carrier) % PATIENTS + 1, concept, said)
        omop_facts(rows, 1000 + number, concept, said)
        omop_malformed(rows, number % PATIENTS + 1, concept, said)
    for name, table in rows.items():
        write_table(folder, name, table)
    write_table(folder, "concept", concepts)
    for name in ("note", "note_nlp", "provider", "location", "care_site"):
        write_table(folder, name, [{"text": identifier.text} for identifier in identifiers])
    (folder / f"{identifiers[0].text.replace(' ', '_')}.csv").write_text("a,b\n1,2\n")
    return folder


FACTS = (
    "condition_occurrence",
    "procedure_occurrence",
    "drug_exposure",
    "device_exposure",
    "measurement",
    "observation",
)


def fact(domain, person, concept, day="2015-05-06"):
    start = {"drug": "drug_exposure_start", "device": "device_exposure_start", "condition": "condition_start"}.get(
        domain, domain
    )
    return {"person_id": person, f"{domain}_concept_id": concept, f"{start}_date": day, f"{start}_datetime": ""}


def omop_people(person, said):
    facts = {f"{name}_source_value": said for name in ("person", "gender", "race", "ethnicity")}
    yield {"person_id": person, "year_of_birth": 1960, "birth_datetime": said, **facts, "location_id": said}
    yield {"person_id": said, "year_of_birth": said, **facts}
    yield {"person_id": person, "year_of_birth": 1961}


def omop_facts(rows, person, concept, said):
    """Rows of every table that hold an identifier in every column of text."""
    digits = "".join(letter for letter in said if letter.isdigit())
    for name, domain in zip(
        FACTS, ("condition", "procedure", "drug", "device", "measurement", "observation"), strict=True
    ):
        known = {"condition": 201826, "measurement": 3004410, "drug": 1503297}.get(domain, 201826)
        texts = {f"{domain}_source_value": said, "provider_id": said, "visit_occurrence_id": 7}
        if domain in ("measurement", "observation"):
            texts |= {"value_as_string": said, "value_source_value": said, "unit_source_value": said}
            texts |= {"qualifier_source_value": said, "value_as_number": digits if len(digits) >= 7 else ""}
            texts |= {"value_as_concept_id": concept, "unit_concept_id": concept}
        texts |= {
            "condition": {"condition_status_source_value": said},
            "procedure": {"modifier_source_value": said},
        }.get(domain, {})
        texts |= {"sig": said, "lot_number": said, "unique_device_id": said, "stop_reason": said}
        rows[name] += [fact(domain, person, which) | texts for which in (known, 0, concept)]

    visit = {
        "visit_occurrence_id": person,
        "person_id": person,
        "visit_concept_id": 9202,
        "visit_start_date": "2015-05-06",
    }
    rows["visit_occurrence"] += [
        visit | {"visit_source_value": said, "discharged_to_source_value": said, "admitted_from_source_value": said},
        visit | {"visit_concept_id": concept, "visit_end_date": "2015-05-07", "discharged_to_source_value": said},
    ]


def omop_malformed(rows, person, concept, said):
    """Rows of every table that an identifier makes unusable."""
    for name, domain in zip(
        FACTS, ("condition", "procedure", "drug", "device", "measurement", "observation"), strict=True
    ):
        known = 201826
        rows[name] += [fact(domain, person, known, said), fact(domain, said, known), fact(domain, person, said)]
        exact = {key: said for key in fact(domain, person, known) if key.endswith("_datetime")}
        rows[name].append(fact(domain, person, known) | exact)
    visit = {"person_id": person, "visit_concept_id": 9202, "visit_end_date": said}
    rows["visit_occurrence"] += [
        visit | {"visit_start_date": said, "visit_occurrence_id": 5},
        visit | {"visit_start_date": "2015-05-06", "visit_occurrence_id": said},
    ]
    rows["death"].append(
        {"person_id": person, "death_date": said, "cause_concept_id": concept, "cause_source_value": said}
    )
    rows["observation_period"].append({"person_id": person, "observation_period_end_date": said})


# MIMIC


def write_mimic(folder, identifiers):
    tables = {name: [] for name in ("patients", "admissions", *MIMIC_EVENTS, *MIMIC_LABELS)}
    for number in range(PATIENTS):
        mimic_person(tables, number + 1, 10_000 + number)
    for number, identifier in enumerate(identifiers):
        said = identifier.text
        mimic_person(tables, 1000 + number, 90_000 + number, said)
        for carrier in range(CARRIERS):
            person = (number + carrier) % PATIENTS + 1
            mimic_events(tables, person, 9_999 + person, said)
        mimic_events(tables, 1000 + number, 90_000 + number, said)
        mimic_malformed(tables, number % PATIENTS + 1, 10_000 + number % PATIENTS, said)
        for name, (key, label) in MIMIC_LABELS.items():
            tables[name].append({**dict.fromkeys(key, said), label: said, "category": said})
    tables["d_labitems"].append({"itemid": 50902, "label": identifiers[0].text})
    for name, rows in tables.items():
        write_table(folder / ("icu" if name in ICU else "hosp"), name, rows)
    write_table(folder / "hosp", "transfers", [{"careunit": identifier.text} for identifier in identifiers])
    write_table(folder / "hosp", identifiers[0].text.replace(" ", "_"), [{"a": identifiers[0].text}])
    return folder


MIMIC_LABELS = {
    "d_labitems": (["itemid"], "label"),
    "d_items": (["itemid"], "label"),
    "d_icd_diagnoses": (["icd_code", "icd_version"], "long_title"),
    "d_icd_procedures": (["icd_code", "icd_version"], "long_title"),
    "d_hcpcs": (["code"], "short_description"),
}
ICU = ("icustays", "chartevents", "outputevents", "datetimeevents", "inputevents", "procedureevents", "d_items")
MIMIC_EVENTS = {
    "labevents": (
        {"charttime": "2150-05-06 07:00:00", "itemid": 50902},
        ("value", "valuenum", "valueuom", "comments", "flag"),
    ),
    "chartevents": ({"charttime": "2150-05-06 07:00:00", "itemid": 220045}, ("value", "valuenum", "valueuom")),
    "outputevents": ({"charttime": "2150-05-06 07:00:00", "itemid": 226559}, ("value", "valueuom")),
    "datetimeevents": ({"charttime": "2150-05-06 07:00:00", "itemid": 224183}, ("value",)),
    "inputevents": ({"starttime": "2150-05-06 07:00:00", "itemid": 223258}, ("endtime", "amount", "amountuom")),
    "procedureevents": ({"starttime": "2150-05-06 07:00:00", "itemid": 225792}, ("endtime", "location")),
    "icustays": ({"intime": "2150-05-06 07:00:00"}, ("first_careunit", "outtime", "last_careunit")),
    "prescriptions": (
        {"starttime": "2150-05-06 07:00:00"},
        ("drug", "ndc", "dose_val_rx", "dose_unit_rx", "stoptime", "formulary_drug_cd"),
    ),
    "omr": ({"chartdate": "2150-05-06"}, ("result_name", "result_value")),
    "hcpcsevents": ({"chartdate": "2150-05-06"}, ("hcpcs_cd", "short_description")),
    "diagnoses_icd": ({"icd_version": 10}, ("icd_code",)),
    "procedures_icd": ({"chartdate": "2150-05-06", "icd_version": 10}, ("icd_code",)),
    "microbiologyevents": (
        {
            "chartdate": "2150-05-06",
            "test_itemid": 90201,
            "micro_specimen_id": 1,
            "org_itemid": 80002,
            "ab_itemid": 90004,
        },
        ("test_name", "spec_type_desc", "org_name", "ab_name", "interpretation", "comments", "dilution_value"),
    ),
}
"""Usable values of each table, and the columns that hold texts."""


def mimic_person(tables, person, admission, said=""):
    tables["patients"].append(
        {"subject_id": person, "gender": said or "F", "anchor_age": 60, "anchor_year": 2150, "dod": said}
    )
    texts = (
        "admission_type",
        "admission_location",
        "discharge_location",
        "insurance",
        "language",
        "marital_status",
        "race",
    )
    whom = {
        "subject_id": person,
        "hadm_id": admission,
        "admittime": "2150-05-06 07:00:00",
        "dischtime": "2150-05-08 07:00:00",
    }
    tables["admissions"].append(
        whom | dict.fromkeys(texts, said) | {"deathtime": said, "edregtime": said, "edouttime": said}
    )
    if said:
        tables["patients"].append({"subject_id": said, "gender": said, "anchor_age": said, "anchor_year": said})
        tables["admissions"].append(whom | {"hadm_id": said})
        tables["admissions"].append(whom | {"hadm_id": 5, "admittime": said})
    else:
        tables["diagnoses_icd"].append(
            {"subject_id": person, "hadm_id": admission, "icd_code": "E119", "icd_version": 10}
        )
        lab = {"charttime": "2150-05-06 07:00:00", "itemid": 50902, "valuenum": 101, "valueuom": "mEq/L"}
        tables["labevents"].append({"subject_id": person, "hadm_id": admission} | lab)


def mimic_events(tables, person, admission, said):
    """Rows of every table with the identifier in each column of text."""
    for name, (usual, texts) in MIMIC_EVENTS.items():
        whom = {"subject_id": person, "hadm_id": admission} | usual
        tables[name].append(whom | dict.fromkeys(texts, said))
        tables[name] += [whom | {text: said} for text in texts]


def mimic_malformed(tables, person, admission, said):
    """Rows of every table with the identifier where something else should stand."""
    for name, (usual, _) in MIMIC_EVENTS.items():
        whom = {"subject_id": person, "hadm_id": admission} | usual
        tables[name] += [whom | {key: said} for key in whom]


# The bar


WRITERS = {"fhir": write_fhir, "omop": write_omop, "mimic": write_mimic}
SURVIVORS = {
    "fhir": {"SNOMED//44054006", "LOINC//4548-4", "GENDER//female", "VISIT_START//AMB"},
    "omop": {"SNOMED//44054006", "LOINC//4548-4", "GENDER//female", "RxNorm//860975"},
    "mimic": {"ICD10CM//E11.9", "MIMIC_LAB//50902", "GENDER//female", "VISIT_START//IMP"},
}


def all_in(format, identifiers, folder, search, capfd):
    """Plant, import over the command line, and search all that is left and said; returns (events, what was found)."""
    source, out = WRITERS[format](folder / "in", identifiers), folder / "out" / "events"
    arguments = ["import", str(source), "--from", format, "--out", str(out), "--seed", "1"]
    assert cli.run(arguments) == 0, capfd.readouterr().err
    found = search(folder / "out", *capfd.readouterr()).find(identifiers)
    return events.read_events(out).collect(), found


@pytest.mark.parametrize("format", WRITERS)
def test_no_identifier_survives_an_import(format, identifiers, tmp_path, search, capfd):
    assert len(identifiers) >= 300
    assert len({identifier.kind for identifier in identifiers}) == 18
    frame, found = all_in(format, identifiers, tmp_path, search, capfd)
    assert found == []
    assert set(frame["code"].unique()) >= SURVIVORS[format]
    assert frame["subject_id"].n_unique() >= PATIENTS


@pytest.mark.slow
@pytest.mark.parametrize("format", WRITERS)
@pytest.mark.parametrize("seed", range(101, 105))
def test_none_of_many_identifiers_survives(format, seed, more_identifiers, tmp_path, search, capfd):
    _, found = all_in(format, more_identifiers(seed, 60), tmp_path, search, capfd)
    assert found == []


@pytest.mark.parametrize("format", WRITERS)
def test_the_search_finds_identifiers_where_nothing_is_taken_out(format, more_identifiers, tmp_path, search, capfd):
    """The control: sources of the same make, imported as they are, leak identifiers of every kind, and it is seen."""
    identifiers = more_identifiers(8, 2)
    source = WRITERS[format](tmp_path / "in", identifiers)
    assert cli.run(["import", str(source), "--from", format, "--out", str(tmp_path / "out" / "e"), "--identified"]) == 0
    found = search(tmp_path / "out", *capfd.readouterr()).find(identifiers)
    assert len({kind for kind, _, _ in found}) == 18
    assert any(place.startswith("said") for _, _, place in found)


# Errors


def broken_sources(folder, format, said):
    """Sources that cannot be read, each with an identifier where the message may look: (name, path) pairs."""
    name = said.replace("/", "_").replace(" ", "_")
    line = json.dumps({"resourceType": "Patient", "id": said})
    files = {
        "fhir": {
            "not JSON": f"{line}\n{{{said}}}\n",
            "an array": json.dumps([said]),
            "empty": "",
            "no usable event": json.dumps({"resourceType": "Patient", "id": "p", "gender": said}) + "\n",
            "not UTF-8": line.encode() + b"\n\xff" + said.encode(),
            "not gzip": said,
        },
        "omop": {
            "no column": f"{said},{said}x\n1,2\n",
            "a column twice": f"person_id,{said},{said}\n1,2,3\n",
            "too many cells": f"person_id,year_of_birth\n1,1950\n2,1951,{said},{said}\n",
            "an open quote": f'person_id,year_of_birth\n1,"{said}\n',
            "binary": b"\0" + said.encode(),
            "nobody": f"person_id,year_of_birth\n{said},{said}\n",
        },
    }
    files["mimic"] = {key: content for key, content in files["omop"].items() if key != "nobody"}
    for case, content in files[format].items():
        place = folder / format / case / name
        place.mkdir(parents=True)
        if format == "fhir":
            path = place / f"{name}.ndjson{'.gz' if case == 'not gzip' else ''}"
        else:
            path = place / f"{'person' if format == 'omop' else 'patients'}.csv"
            (place / "admissions.csv").write_text(f"subject_id,hadm_id,{said}\n1,2,3\n")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        yield case, place


@pytest.mark.parametrize("format", WRITERS)
@pytest.mark.parametrize("each", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_no_error_tells_an_identifier(format, each, more_identifiers, tmp_path, search, capfd):
    said = 0
    (tmp_path / "out").mkdir()
    identifiers = more_identifiers(9, each)
    for identifier in identifiers:
        word = identifier.text.replace("\n", " ")
        for case, source in broken_sources(tmp_path / str(said), format, word):
            with pytest.raises(EhrsimError) as refusal:
                import_events(source, tmp_path / "out" / "e", format=format)
            assert refusal.value.__cause__ is None
            assert refusal.value.__context__ is None
            shown = "".join(traceback.format_exception_only(refusal.value))
            assert cli.run(["import", str(source), "--from", format, "--out", str(tmp_path / "out" / "e")]) == 2
            found = search(tmp_path / "out", shown, repr(refusal.value.args), *capfd.readouterr()).find(identifiers)
            assert found == [], (case, shown)
            said += 1
    assert said >= 90 * each
    assert list((tmp_path / "out").iterdir()) == []


def test_an_unforeseen_error_tells_its_place_alone(tmp_path, monkeypatch, search):
    from ehrsim.importers import mimic

    def fail(*_):
        raise KeyError("Zelmira Quorvath")

    monkeypatch.setattr(mimic, "_lives", fail)
    source = write_mimic(tmp_path / "in", [type("I", (), {"text": "Zelmira Quorvath"})()])
    with pytest.raises(EhrsimError, match=r"KeyError in ehrsim\.importers\.mimic line \d+") as refusal:
        import_events(source, tmp_path / "out", format="mimic")
    assert "Zelmira" not in str(refusal.value)
    assert refusal.value.__context__ is None


def test_messages_keep_what_is_ours():
    from ehrsim.importers.deidentification.discretion import without_values

    said = "Zelmira: no column `person_id`, found name, Quorvath"
    assert without_values(said) == "…: no column `person_id`, found …, …"
    assert (
        without_values("/a/Zelmira line 17 is not JSON: 8 at character 9") == "… line 17 is not JSON: … at character 9"
    )
    assert without_values("labevents: charttime is not a date or time") == "labevents: charttime is not a date or time"
    assert "17" not in without_values("found 17")


def test_errors_name_the_file_by_its_number(tmp_path):
    for name in ("anna.ndjson", "zelmira.ndjson"):
        (tmp_path / name).write_text('{"resourceType": "Patient", "id": "1"}\n' + ("{" if name[0] == "z" else ""))
    with pytest.raises(EhrsimError, match=r"file 2 line 2 is not JSON") as refusal:
        import_events(tmp_path, tmp_path / "out", format="fhir")
    assert "zelmira" not in str(refusal.value)


def test_the_report_has_no_example(identifiers, tmp_path):
    report = import_events(write_omop(tmp_path / "in", identifiers[:40]), tmp_path / "out", format="omop")
    assert report.skipped
    assert report.changed
    assert {
        count.example for group in (report.skipped, report.changed, report.findings) for count in group.values()
    } == {""}
    assert report.source == "the omop source"
    assert pl.read_parquet(tmp_path / "out" / "metadata" / "codes.parquet")["description"].null_count() > 0
