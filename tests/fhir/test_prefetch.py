"""Prefetch templates: which are understood, what they find, and how those that are not supported are refused."""

from datetime import date

import pytest

from ehrsim.errors import InputError
from ehrsim.fhir import prefetch

META = {"source": "here"}
PATIENT = {"resourceType": "Patient", "id": "p"}


def _observation(number: int, day: str, code: str, category: str = "laboratory") -> dict:
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "category": [{"coding": [{"system": "c", "code": category}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": code}, {"system": "local", "code": "x"}]},
        "subject": {"reference": "Patient/p"},
        "encounter": {"reference": f"Encounter/e{number % 2}"},
        "effectiveDateTime": day,
    }


OBSERVATIONS = [
    _observation(1, "2020-01-31T10:00:00Z", "4548-4"),
    _observation(2, "2020-02-01T00:00:00Z", "4548-4"),
    _observation(3, "2020-02-29T23:59:59.500000Z", "2345-7"),
    _observation(4, "2021-03-01T00:00:00Z", "8480-6", "vital-signs"),
]
PERIOD = {
    "resourceType": "Procedure",
    "id": "r1",
    "status": "completed",
    "code": {"coding": [{"system": "s", "code": "1"}]},
    "subject": {"reference": "Patient/p"},
    "performedPeriod": {"start": "2020-01-15T00:00:00Z", "end": "2020-02-15T00:00:00Z"},
}
RECORD = {"Patient": [PATIENT], "Observation": OBSERVATIONS, "Procedure": [PERIOD]}


def _ids(query: str) -> list[str]:
    found = prefetch.answer(query, RECORD, META, None)
    return [] if found is None else [entry["resource"]["id"] for entry in found["entry"]]


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ("", "o1 o2 o3 o4"),
        ("&code=4548-4", "o1 o2"),
        ("&code=http://loinc.org|4548-4", "o1 o2"),
        ("&code=http%3A%2F%2Floinc.org%7C4548-4", "o1 o2"),
        ("&code=http://snomed.info/sct|4548-4", ""),
        ("&code=4548-4,2345-7", "o1 o2 o3"),
        ("&code=local|x&category=vital-signs", "o4"),
        ("&status=final", "o1 o2 o3 o4"),
        ("&status=amended", ""),
        ("&encounter=e1", "o1 o3"),
        ("&encounter=Encounter/e0", "o2 o4"),
        ("&_id=o2,o3", "o2 o3"),
        ("&date=2020-02", "o2 o3"),
        ("&date=2020-02-01", "o2"),
        ("&date=2020-02-01T00:00:00Z", "o2"),
        ("&date=gt2020-01", "o2 o3 o4"),
        ("&date=ge2020-02", "o2 o3 o4"),
        ("&date=gt2020-02", "o4"),
        ("&date=lt2020-02", "o1"),
        ("&date=le2020-02", "o1 o2 o3"),
        ("&date=ge2020-02&date=lt2021", "o2 o3"),
        ("&_sort=-date&_count=2", "o4 o3"),
        ("&_sort=date&_count=1", "o1"),
    ],
)
def test_a_search_finds_what_a_server_would(parameters, found):
    assert _ids(f"Observation?patient=p{parameters}") == found.split()
    assert _ids(f"Observation?subject=Patient/p{parameters}") == found.split()
    assert _ids(f"Observation?patient=another{parameters}") == []


@pytest.mark.parametrize(
    ("comparison", "matches"),
    [("2020", True), ("2020-01", False), ("gt2020-01", True), ("lt2020-02", True), ("ge2020-03", False)],
)
def test_a_period_is_compared_as_one(comparison, matches):
    assert bool(_ids(f"Procedure?patient=p&date={comparison}")) == matches


def test_a_searchset_says_how_many_there_are_and_nothing_is_null():
    found = prefetch.answer("Observation?patient=p&_count=1", RECORD, META, "https://ehr.test")
    assert (found["type"], found["total"], len(found["entry"]), found["meta"]) == ("searchset", 4, 1, META)
    assert found["entry"][0]["fullUrl"] == "https://ehr.test/Observation/o1"
    assert found["entry"][0]["search"] == {"mode": "match"}
    assert prefetch.answer("Patient/p", RECORD, META, None) is PATIENT
    assert prefetch.answer("Patient/q", RECORD, META, None) is None
    assert prefetch.answer("Condition?patient=p", RECORD, META, None) is None


def test_tokens_are_replaced():
    context = prefetch.Context({"context.patientId": "p", "userPractitionerId": "u"}, date(2020, 3, 1))
    text = "Observation?patient={{context.patientId}}&date=gt{{today() - 90 days}}&date=le{{ today() }}"
    assert prefetch.fill(text, context) == "Observation?patient=p&date=gt2019-12-02&date=le2020-03-01"
    assert prefetch.fill("Practitioner/{{userPractitionerId}}", context) == "Practitioner/u"
    assert prefetch.fill("Encounter/{{context.encounterId}}", context) is None


def test_templates_come_from_files_and_override_the_standard_ones(tmp_path):
    toml, json = tmp_path / "more.toml", tmp_path / "more.json"
    query = "Observation?patient={{context.patientId}}&code=4548-4"
    toml.write_text(f'a1c = "{query}"\npatient = "Patient/{{{{context.patientId}}}}"\n')
    json.write_text(f'{{"a1c": "{query}"}}')
    for source in (toml, json, str(json), {"a1c": query}):
        found = {template.key: template.text for template in prefetch.templates(source)}
        assert found == {**prefetch.STANDARD, "a1c": query}
    assert prefetch.types(prefetch.templates(None)) >= {"Patient", "Practitioner", "Observation"}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("Coverage?patient={{context.patientId}}", "Coverage is no type"),
        ("Observation?code=4548-4", "not of one patient"),
        ("Observation?patient={{context.patientId}}&code:in=x", "code:in=x"),
        ("Observation?patient={{context.patientId}}&_include=x", "_include"),
        ("Observation?patient={{context.patientId}}&date=soon", "soon"),
        ("Observation?patient={{context.patientId}}&date=ne2020", "ne2020"),
        ("Observation?patient={{context.patientId}}&code=", "no value"),
        ("Observation?patient={{context.patientId}}&_count=0", "_count"),
        ("Observation?patient={{context.patientId}}&_sort=code", "_sort"),
        ("Condition?patient={{context.patientId}}&date=2020", "onset-date"),
        ("Patient/{{context.subjectId}}", "context.subjectId"),
        ("Patient", "Type/id"),
        ("Observation/x?code=1", "without an id"),
        ("", "nothing is no type"),
        (7, "expected a FHIR query"),
    ],
)
def test_what_is_not_supported_is_refused_by_key(query, said):
    with pytest.raises(InputError, match="`mine`") as raised:
        prefetch.templates({"mine": query})
    assert said in str(raised.value)


def test_files_that_hold_no_templates_are_refused(tmp_path):
    broken, listed = tmp_path / "broken.toml", tmp_path / "listed.json"
    broken.write_text("a1c = Observation")
    listed.write_text("[1]")
    for path, said in ((broken, "not valid TOML"), (listed, "expected a mapping"), (tmp_path / "none", "cannot be")):
        with pytest.raises(InputError, match=said):
            prefetch.templates(path)
