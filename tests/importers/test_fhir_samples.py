"""The FHIR samples, imported whole, against counts made from their JSON alone."""

import gzip
from collections import Counter
from pathlib import Path

import orjson
import polars as pl
import pytest

import ehrsim.events
from ehrsim import codes
from ehrsim.importers import detect, import_events

BUNDLES = "fhir_r4_bundles_synthea2019"
NDJSON = "fhir_r4_ndjson_synthea2019"
BULK = "fhir_r4_bulk_ndjson_10patients"
SYSTEMS = {
    "http://snomed.info/sct": "SNOMED",
    "http://loinc.org": "LOINC",
    "http://www.nlm.nih.gov/research/umls/rxnorm": "RxNorm",
    "http://hl7.org/fhir/sid/cvx": "CVX",
}
KINDS = {
    "Condition": "condition",
    "Procedure": "procedure",
    "MedicationRequest": "medication",
    "Immunization": "immunization",
    "AllergyIntolerance": "allergy",
    "DiagnosticReport": "panel",
    "CarePlan": "care_plan",
}


def resources_of(folder: Path) -> list[dict]:
    """All resources of a sample, read without the importer."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            found += [entry["resource"] for entry in orjson.loads(path.read_bytes())["entry"]]
        elif not path.name.startswith("log."):
            found += [orjson.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    return found


def expected_counts(resources: list[dict]) -> tuple[Counter, Counter]:
    """Events by kind and by code system that the resources of these samples amount to."""
    kinds: Counter = Counter()
    systems: Counter = Counter()

    def count(kind: str, concept: dict) -> None:
        kinds[kind] += 1
        systems[SYSTEMS[concept["coding"][0]["system"]]] += 1

    for resource in resources:
        name = resource["resourceType"]
        if name in KINDS:
            concept = resource.get("code") or resource.get("medicationCodeableConcept") or resource.get("vaccineCode")
            count(KINDS[name], concept or resource["category"][0])
        elif name == "Observation":
            for part in resource.get("component", [resource]):
                count("observation", part["code"])
        elif name == "Encounter":
            kinds.update(("visit_start", "visit_end"))
            for concept in resource["type"]:
                count("visit_type", concept)
            for concept in resource.get("reasonCode", []):
                count("reason", concept)
        elif name == "Patient":
            kinds.update(("birth", "gender", "race", "ethnicity", "marital", "language"))
            kinds["death"] += "deceasedDateTime" in resource
    return kinds, systems


@pytest.fixture(scope="module")
def imported(samples, tmp_path_factory):
    """Import a sample once; returns its report and its events."""
    done = {}

    def import_sample(name):
        if name not in done:
            out = tmp_path_factory.mktemp("fhir") / name
            report = import_events(samples / name, out, identified=True)
            done[name] = report, ehrsim.events.read_events(out).collect()
        return done[name]

    return import_sample


@pytest.mark.parametrize("name", [BUNDLES, NDJSON, BULK])
def test_counts_by_kind_and_code_system_are_those_of_the_source(name, samples, imported):
    report, events = imported(name)
    resources = resources_of(samples / name)
    kinds, systems = expected_counts(resources)
    assert report.format == detect(samples / name) == "fhir"
    assert report.rows == len(resources)
    assert {kind: count for kind, count in report.kinds.items() if count} == {k: c for k, c in kinds.items() if c}
    assert {system: report.systems.get(system, 0) for system in systems} == dict(systems)
    assert report.events == events.height == kinds.total()
    assert report.subjects == events["subject_id"].n_unique() == sum(r["resourceType"] == "Patient" for r in resources)
    assert report.skipped == report.changed == {}


@pytest.mark.parametrize("name", [BUNDLES, NDJSON, BULK])
def test_every_resource_type_without_events_is_counted(name, samples, imported):
    report, _ = imported(name)
    types = Counter(resource["resourceType"] for resource in resources_of(samples / name))
    for known in ("Patient", "Encounter", "Observation", *KINDS):
        types.pop(known, None)
    prefix = "resource type that makes no events: "
    found = {what.removeprefix(prefix): count.count for what, count in report.findings.items() if prefix in what}
    assert found == dict(types)
    assert found


def test_bundles_and_ndjson_of_the_same_patients_give_the_same_events(imported):
    (_, bundles), (_, ndjson) = imported(BUNDLES), imported(NDJSON)
    assert ehrsim.events.sort(bundles.lazy()).collect().equals(ehrsim.events.sort(ndjson.lazy()).collect())


@pytest.mark.parametrize("name", [NDJSON, BULK])
def test_deaths_births_and_visits_stand_at_their_written_times(name, samples, imported):
    _, events = imported(name)
    resources = resources_of(samples / name)
    patients = [resource for resource in resources if resource["resourceType"] == "Patient"]
    deaths = sorted(patient["deceasedDateTime"][:19] for patient in patients if "deceasedDateTime" in patient)
    births = sorted(patient["birthDate"] + "T00:00:00" for patient in patients)
    encounters = [resource["period"] for resource in resources if resource["resourceType"] == "Encounter"]
    assert written(events.filter(pl.col("code") == codes.DEATH), "time") == deaths
    assert written(events.filter(pl.col("code") == codes.BIRTH), "time") == births
    for prefix, end in (("VISIT_START//", "start"), ("VISIT_END//", "end")):
        rows = events.filter(pl.col("code").str.starts_with(prefix))
        assert written(rows, "time") == sorted(period[end][:19] for period in encounters)
        assert rows["visit_id"].n_unique() == len(encounters)


def written(rows: pl.DataFrame, column: str) -> list[str]:
    """Times as FHIR writes them, sorted."""
    return rows[column].dt.strftime("%Y-%m-%dT%H:%M:%S").sort().to_list()


def test_blood_pressures_are_two_events_of_one_moment_and_visit(samples, imported):
    _, events = imported(NDJSON)
    pressures = [r for r in resources_of(samples / NDJSON) if r["resourceType"] == "Observation" and "component" in r]
    assert len(pressures) > 100
    assert "LOINC//55284-4" not in events["code"]
    for code in ("8480-6", "8462-4"):
        expected = [
            round(part["valueQuantity"]["value"], 3)
            for pressure in pressures
            for part in pressure["component"]
            if part["code"]["coding"][0]["code"] == code
        ]
        rows = events.filter(pl.col("code") == f"LOINC//{code}")
        assert rows["unit"].unique().to_list() == ["mm[Hg]"]
        assert rows["numeric_value"].sort().to_list() == pytest.approx(sorted(expected), abs=0.01)
    moments = ["subject_id", "time", "visit_id"]
    systolic, diastolic = (events.filter(pl.col("code") == f"LOINC//{code}") for code in ("8480-6", "8462-4"))
    assert systolic.select(moments).sort(moments).equals(diastolic.select(moments).sort(moments))


def test_values_units_answers_ends_and_displays_are_kept(samples, imported):
    _, events = imported(NDJSON)
    resources = resources_of(samples / NDJSON)
    smoking = events.filter(pl.col("code") == "LOINC//72166-2")
    answers = [r["valueCodeableConcept"]["coding"][0]["code"] for r in resources if is_observation(r, "72166-2")]
    assert Counter(smoking["text_value"]) == Counter(f"SNOMED//{answer}" for answer in answers)
    heights = [r["valueQuantity"]["value"] for r in resources if is_observation(r, "8302-2")]
    rows = events.filter(pl.col("code") == "LOINC//8302-2")
    assert rows["numeric_value"].sort().to_list() == pytest.approx(sorted(heights), rel=1e-6)
    assert set(rows["unit"]) == {"cm"}
    assert set(rows["description"]) == {"Body Height"}
    ends = sum("abatementDateTime" in r for r in resources)
    is_condition = pl.col("code").map_elements(lambda code: codes.parse(code).kind == "condition", pl.Boolean)
    assert events.filter(is_condition)["end_time"].drop_nulls().len() == ends == 70
    statuses = Counter(r["status"] for r in resources if r["resourceType"] == "MedicationRequest")
    medications = events.filter(pl.col("code").str.starts_with("RxNorm//"))
    assert medications["text_value"].drop_nulls().len() == statuses["stopped"] == 47


def is_observation(resource: dict, code: str) -> bool:
    return resource["resourceType"] == "Observation" and resource["code"]["coding"][0]["code"] == code


def test_race_that_is_no_omb_category_keeps_its_words(imported):
    _, events = imported(NDJSON)
    races = Counter(events.filter(pl.col("code").str.starts_with("RACE//"))["code"])
    assert races == {"RACE//2106-3": 20, "RACE//2028-9": 2, "RACE//2054-5": 2, "RACE//Other": 1}


def test_medication_that_is_a_reference_takes_the_code_of_its_medication(samples, tmp_path, imported):
    _, expected = imported(NDJSON)
    drugs = {}
    with (tmp_path / "MedicationRequest.ndjson").open("wb") as requests:
        for line in gzip.decompress((samples / NDJSON / "MedicationRequest.ndjson.gz").read_bytes()).splitlines():
            resource = orjson.loads(line)
            concept = resource.pop("medicationCodeableConcept")
            number = drugs.setdefault(orjson.dumps(concept), f"drug-{len(drugs)}")
            resource["medicationReference"] = {"reference": f"Medication/{number}"}
            requests.write(orjson.dumps(resource) + b"\n")
    with (tmp_path / "zz-Medication.ndjson").open("wb") as medications:
        for concept, number in drugs.items():
            medication = {"resourceType": "Medication", "id": number, "code": orjson.loads(concept)}
            medications.write(orjson.dumps(medication) + b"\n")
    (tmp_path / "Patient.ndjson.gz").write_bytes((samples / NDJSON / "Patient.ndjson.gz").read_bytes())
    report = import_events(tmp_path, tmp_path / "out", identified=True)
    events = ehrsim.events.read_events(tmp_path / "out").collect()
    drugs_of = [table.filter(pl.col("code").str.starts_with("RxNorm//")) for table in (events, expected)]
    assert report.skipped == {}
    assert drugs_of[0].height == 65
    assert ehrsim.events.sort(drugs_of[0].lazy()).collect().equals(ehrsim.events.sort(drugs_of[1].lazy()).collect())
