"""International Patient Summary documents: what they hold, what they leave out, and what they say of nothing."""

import re
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import orjson
import polars as pl
import pytest

import ehrsim
from ehrsim import events, reference
from ehrsim.errors import UsageError
from ehrsim.fhir import export_fhir, inspect_fhir
from ehrsim.fhir.writers import TOLD_TYPES
from ehrsim.importers import import_events

LOINC_OF = {
    "problems": "11450-4",
    "medications": "10160-0",
    "allergies": "48765-2",
    "immunizations": "11369-6",
    "results": "30954-2",
    "procedures": "47519-4",
    "vital signs": "8716-3",
    "past illnesses": "11348-0",
    "social history": "29762-2",
    "plan of care": "18776-5",
}
REQUIRED = {"problems", "medications", "allergies"}
EARLY, LATE, LAST = datetime(2015, 1, 2, 3), datetime(2018, 1, 2, 3), datetime(2020, 5, 6, 7, 8, 9)


@pytest.fixture(scope="module")
def population() -> pl.DataFrame:
    return reference.population(10, seed=4)


@pytest.fixture(scope="module")
def folder(population, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("ips") / "out"
    export_fhir(population, out, format="ips", validate="full")
    return out


def _documents(folder: Path) -> dict[str, dict]:
    return {path.stem: orjson.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))}


def _sections(document: dict) -> dict[str, list[dict]]:
    """The resources of each section, by our name of it."""
    by_url = {entry["fullUrl"]: entry["resource"] for entry in document["entry"]}
    names = {code: name for name, code in LOINC_OF.items()}
    return {
        names[section["code"]["coding"][0]["code"]]: [by_url[entry["reference"]] for entry in section["entry"]]
        for section in document["entry"][0]["resource"]["section"]
    }


def _record(*rows, subject=1) -> pl.DataFrame:
    """Events of one subject from (time, code) with any other columns by name."""
    full = [{"subject_id": subject, "time": time, "code": code, **more} for time, code, more in rows]
    frame = pl.DataFrame(full, schema={**events.SCHEMA, "description": pl.String()})
    return events.sort(frame.lazy()).collect()


def _exported(tmp_path, *rows) -> dict:
    export_fhir(_record(*rows), tmp_path / "out", format="ips", validate="full")
    return _documents(tmp_path / "out")["1"]


def test_documents_are_whole_and_identified(folder, population):
    found = inspect_fhir(folder)
    assert (found.dangling, found.unlabelled, found.patients) == (0, 0, 10)
    documents = _documents(folder)
    assert set(documents) == {str(one) for one in population["subject_id"].unique()}
    assert len({document["identifier"]["value"] for document in documents.values()}) == 10
    for document in documents.values():
        kinds = [entry["resource"]["resourceType"] for entry in document["entry"]]
        assert document["type"] == "document"
        assert kinds[:2] == ["Composition", "Patient"]
        assert kinds.count("Composition") == kinds.count("Patient") == 1
        assert set(_sections(document)) >= REQUIRED
        assert all(resources for resources in _sections(document).values())


def test_the_timestamp_is_that_of_the_last_event(folder, population):
    latest = population.group_by("subject_id").agg(pl.max_horizontal("time", "end_time").max())
    for subject, moment in latest.iter_rows():
        document = _documents(folder)[str(subject)]
        assert datetime.fromisoformat(document["timestamp"]).replace(tzinfo=None) == moment
        assert document["entry"][0]["resource"]["date"] == document["timestamp"]


def test_ids_are_those_of_the_other_formats_and_bytes_do_not_depend_on_the_cohort(folder, population, tmp_path):
    export_fhir(population, tmp_path / "collection", format="collection")
    for name, document in _documents(folder).items():
        collection = orjson.loads((tmp_path / "collection" / f"{name}.json").read_bytes())
        known = {entry["resource"]["id"] for entry in collection["entry"]}
        made = {"Composition", "Condition", "AllergyIntolerance", "MedicationStatement"}
        for entry in document["entry"]:
            assert entry["resource"]["id"] in known or entry["resource"]["resourceType"] in made
    export_fhir(population.filter(pl.col("subject_id") == 3), tmp_path / "alone", format="ips")
    assert (tmp_path / "alone" / "3.json").read_bytes() == (folder / "3.json").read_bytes()


def test_a_summary_lists_what_goes_on_and_the_latest_of_each_code(tmp_path):
    found = _exported(
        tmp_path,
        (EARLY, "SNOMED//44054006", {"description": "Diabetes"}),
        (LATE, "SNOMED//44054006", {"description": "Diabetes"}),
        (EARLY, "SNOMED//195662009", {"end_time": LATE, "description": "Pharyngitis"}),
        (EARLY, "RxNorm//860975", {}),
        (LATE, "RxNorm//860975", {}),
        (EARLY, "RxNorm//308182", {"end_time": LATE}),
        (EARLY, "CVX//140", {}),
        (LATE, "CVX//140", {}),
        (EARLY, "LOINC//4548-4", {"numeric_value": 7, "unit": "%"}),
        (LATE, "LOINC//4548-4", {"numeric_value": 8, "unit": "%"}),
        (LAST, "ALLERGY//SNOMED//91935009", {"description": "Allergy to peanuts"}),
    )
    sections = _sections(found)
    assert set(sections) == {*REQUIRED, "past illnesses", "immunizations", "results"}
    assert [one["onsetDateTime"][:4] for one in sections["problems"]] == ["2015"]
    assert [one["code"]["text"] for one in sections["past illnesses"]] == ["Pharyngitis"]
    assert [one["authoredOn"][:4] for one in sections["medications"]] == ["2018"]
    assert len(sections["immunizations"]) == 2
    assert [one["valueQuantity"]["value"] for one in sections["results"]] == [8]
    assert [one["code"]["text"] for one in sections["allergies"]] == ["Allergy to peanuts"]


def test_what_is_left_out_is_counted(population, tmp_path):
    """Every clinical resource of the record is in the document, or counted as left out."""
    whole = export_fhir(population, tmp_path / "whole", format="collection")
    report = export_fhir(population, tmp_path / "ips", format="ips")
    clinical = set(whole.resources) & TOLD_TYPES - {"Organization", "Location", "Practitioner", "Patient", "Provenance"}
    made = sum(
        _is_absent(entry["resource"])
        for document in _documents(tmp_path / "ips").values()
        for entry in document["entry"]
    )
    kept = sum(report.resources[kind] for kind in clinical if kind in report.resources) - made
    kept += report.resources.get("MedicationStatement", 0)
    # Results that a report leads to are in the document though no section lists them.
    led_to = sum(_unlisted(document) for document in _documents(tmp_path / "ips").values())
    assert kept - led_to + sum(count.count for count in report.left_out.values()) == sum(
        whole.resources[kind] for kind in clinical
    )
    assert not report.not_carried


def _is_absent(resource: dict) -> bool:
    return b"absent-unknown-uv-ips" in orjson.dumps(resource)


def _unlisted(document: dict) -> int:
    """Observations in a document that no section lists, as results of a report."""
    listed = {one["id"] for resources in _sections(document).values() for one in resources}
    return sum(
        entry["resource"]["resourceType"] == "Observation" and entry["resource"]["id"] not in listed
        for entry in document["entry"]
    )


def test_nothing_recorded_is_no_information_and_all_ended_is_nothing_known(tmp_path):
    """That a record has no allergy does not say that anybody asked for one."""
    nothing = _exported(tmp_path / "nothing", (LAST, "LOINC//4548-4", {"numeric_value": 7, "unit": "%"}))
    assert _absent_codes(nothing) == {"no-problem-info", "no-medication-info", "no-allergy-info"}
    ended = _exported(
        tmp_path / "ended",
        (EARLY, "SNOMED//195662009", {"end_time": LATE}),
        (EARLY, "RxNorm//308182", {"end_time": LATE}),
    )
    assert _absent_codes(ended) == {"no-known-problems", "no-known-medications", "no-allergy-info"}
    assert "No known problems" in _narratives(ended)["11450-4"]
    stated = _exported(tmp_path / "stated", (EARLY, "ALLERGY//SNOMED//716186003", {"description": "No known allergy"}))
    assert _absent_codes(stated) == {"no-problem-info", "no-medication-info"}


def _absent_codes(document: dict) -> set[str]:
    text = orjson.dumps(document)
    return {code.decode() for code in re.findall(rb'absent-unknown-uv-ips","code":"([^"]+)"', text)}


def _narratives(document: dict) -> dict[str, str]:
    sections = document["entry"][0]["resource"]["section"]
    return {section["code"]["coding"][0]["code"]: section["text"]["div"] for section in sections}


def test_narratives_are_well_formed_tables_whatever_the_texts_hold(tmp_path, random_events):
    found = _exported(
        tmp_path,
        (EARLY, "LOINC//4548-4", {"text_value": 'a <b> & "c"\n\x0bd\x01', "description": "<script>A1c</script>"}),
        (LATE, "LOINC//8480-6", {"numeric_value": 120, "unit": "mm[Hg]"}),
    )
    div = ElementTree.fromstring(_narratives(found)["30954-2"])
    cells = [cell.text for cell in div.iter("{http://www.w3.org/1999/xhtml}td")]
    assert cells == ["<script>A1c</script>", 'a <b> & "c" d', "2015-01-02"]
    assert "Diastolic blood pressure unknown" in _narratives(found)["8716-3"]
    export_fhir(random_events, tmp_path / "any", format="ips", validate="full")
    for document in _documents(tmp_path / "any").values():
        for text in _narratives(document).values():
            ElementTree.fromstring(text)


def test_profiles_are_claimed_where_they_are_met(tmp_path):
    found = _exported(
        tmp_path,
        (None, "PROCEDURE//SNOMED//73761001", {}),
        (EARLY, "PROCEDURE//SNOMED//80146002", {"end_time": LATE}),
        (EARLY, "LOINC//72166-2", {"text_value": "SNOMED//266919005"}),
        (LATE, "LOINC//72166-2", {"text_value": "LOINC//LA18978-9"}),
        (EARLY, "LOINC//4548-4", {"numeric_value": 7, "unit": "%"}),
        (EARLY, "LOINC//2160-0", {}),
        (EARLY, "LOINC//2823-3", {"numeric_value": 4, "unit": "mEq per L"}),
        (EARLY, "LOINC//44261-6", {"numeric_value": 4, "unit": "{score}"}),
    )
    patient = found["entry"][1]["resource"]
    assert patient["_birthDate"]["extension"][0]["valueCode"] == "unknown"
    assert _claims(patient) == {"us-core-patient", "Patient-uv-ips"}
    sections = _sections(found)
    claims = [_claims(one) for one in sections["procedures"]]
    assert claims == [{"us-core-procedure"}, {"us-core-procedure", "Procedure-uv-ips"}]
    assert "Observation-tobaccouse-uv-ips" in _claims(sections["social history"][0])
    results = {one["code"]["coding"][0]["code"]: _claims(one) for one in sections["results"]}
    assert results["4548-4"] == {"us-core-observation-lab", "Observation-results-laboratory-uv-ips"}
    assert "Observation-results-uv-ips" in results["2160-0"], "without a value"
    assert "Observation-results-uv-ips" in results["2823-3"], "not of UCUM"
    assert "Observation-results-uv-ips" in results["44261-6"], "not of a laboratory"
    assert {"Composition-uv-ips"} == _claims(found["entry"][0]["resource"])
    assert {"Bundle-uv-ips"} == _claims(found)


def _claims(resource: dict) -> set[str]:
    return {url.rpartition("/")[2] for url in resource["meta"]["profile"]}


def test_an_imported_summary_has_no_events_of_what_is_absent(tmp_path):
    record = _record((EARLY, "GENDER//male", {}), (LATE, "LOINC//4548-4", {"numeric_value": 7, "unit": "%"}))
    export_fhir(record, tmp_path / "ips", format="ips")
    report = import_events(tmp_path / "ips", tmp_path / "events", identified=True)
    assert set(ehrsim.read_events(tmp_path / "events").collect()["code"]) == {"GENDER//male", "LOINC//4548-4"}
    assert sum(count.count for reason, count in report.skipped.items() if "says that there is none" in reason) == 3


def test_options_of_other_formats_are_refused(population, tmp_path):
    with pytest.raises(UsageError, match="NDJSON"):
        export_fhir(population, tmp_path / "out", format="ips", compressed=True)
    assert not list(tmp_path.iterdir())
