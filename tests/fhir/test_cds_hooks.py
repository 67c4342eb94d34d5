"""CDS Hooks requests: their shape, the moments they are of, and that nothing of the future is in them."""

import re
from datetime import datetime, timedelta
from pathlib import Path

import jsonschema
import orjson
import polars as pl
import pytest

from ehrsim import events, export_cds_hooks, export_fhir, reference
from ehrsim.errors import InputError, UsageError
from ehrsim.fhir import cds_hooks

SCHEMA = Path(__file__).parents[2] / "schemas" / "cds-hooks-request.schema.json"
BIRTH, PAST = datetime(1950, 2, 3), datetime(2010, 1, 2, 3)
DAY = timedelta(days=1)
ADMITTED = datetime(2015, 3, 4, 10, 20, 30)
DISCHARGED = ADMITTED + 4 * DAY
DATE_TIME = re.compile(r'"(\d{4}-\d\d-\d\dT[\d:.]+Z)"')


@pytest.fixture(scope="module")
def validator():
    schema = orjson.loads(SCHEMA.read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture(scope="module")
def population() -> pl.DataFrame:
    return reference.population(8, seed=4)


@pytest.fixture(scope="module")
def folder(population, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cds") / "out"
    report = export_cds_hooks(population, out, moments=2)
    assert min(report.requests.values()) >= 4
    return out


def _requests(folder: Path) -> dict[str, dict]:
    return {str(path.relative_to(folder)): orjson.loads(path.read_bytes()) for path in sorted(folder.glob("*/*.json"))}


def _manifest(folder: Path) -> dict[str, dict]:
    fixtures = orjson.loads((folder / "manifest.json").read_bytes())["fixtures"]
    return {fixture["file"]: fixture for fixture in fixtures}


def _resources(request: dict):
    """Every resource in a request, the bundles as well."""
    for held in (request["context"].get("draftOrders"), *request["prefetch"].values()):
        if held is not None:
            yield held
            yield from (entry["resource"] for entry in held.get("entry", ()))


def _record(*rows, subject=1) -> pl.DataFrame:
    full = [{"subject_id": subject, "time": time, "code": code, **more} for time, code, more in rows]
    frame = pl.DataFrame(full, schema={**events.SCHEMA, "description": pl.String()})
    return events.sort(frame.lazy()).collect()


def _stay() -> list[tuple]:
    """A life with a visit long ago, and a stay with orders, results and diagnoses before, at and after them."""
    old, new = {"visit_id": 1}, {"visit_id": 2}
    ordered = ADMITTED + DAY
    return [
        (BIRTH, "MEDS_BIRTH", {}),
        (None, "GENDER//female", {}),
        (None, "SNOMED//38341003", {}),
        (PAST, "VISIT_START//AMB", old),
        (PAST, "VISIT_END//AMB", old),
        (PAST, "SNOMED//44054006", {**old, "end_time": DISCHARGED + DAY}),
        (PAST, "RxNorm//308182", {**old, "end_time": PAST + DAY, "text_value": "stopped"}),
        (PAST, "RxNorm//617310", {**old, "end_time": DISCHARGED + DAY, "text_value": "stopped"}),
        (ADMITTED, "VISIT_START//IMP", new),
        (ADMITTED, "VISIT_TYPE//SNOMED//32485007", new),
        (ADMITTED, "REASON//ICD10CM//J18.9", new),
        (ADMITTED, "ICD10CM//J18.9", new),
        (ADMITTED, "PROCEDURE//SNOMED//80146002", {**new, "end_time": DISCHARGED + DAY}),
        (ADMITTED, "LOINC//4548-4", {**new, "numeric_value": 7, "unit": "%"}),
        (ADMITTED, "LOINC//883-9", {**new, "numeric_value": 1, "end_time": DISCHARGED + DAY}),
        (ordered, "RxNorm//860975", {**new, "end_time": DISCHARGED + DAY, "text_value": "completed", "unit": "mg"}),
        (ordered, "RxNorm//310965", {**new, "numeric_value": 200, "unit": "mg"}),
        (ordered + DAY, "LOINC//4548-4", {**new, "numeric_value": 9, "unit": "%"}),
        (DISCHARGED, "VISIT_END//IMP", {**new, "text_value": "Home"}),
        (DISCHARGED + DAY, "MEDS_DEATH", {}),
    ]


def _one(record: pl.DataFrame, hook: str, out: Path, when: datetime, **options) -> dict:
    """The request of a hook at one moment of a record, all of whose moments are written."""
    export_cds_hooks(record, out, hooks=[hook], moments=9, **options)
    found = [name for name, said in _manifest(out).items() if datetime.fromisoformat(said["moment"][:-1]) == when]
    assert len(found) == 1
    return _requests(out)[found[0]]


def _found(request: dict, key: str) -> list[dict]:
    held = request["prefetch"][key]
    return [] if held is None else [entry["resource"] for entry in held["entry"]]


def test_requests_are_of_the_shape_of_the_schema(folder, validator, every_row, random_events, tmp_path):
    export_cds_hooks(every_row, tmp_path / "every", validate="full")
    export_cds_hooks(
        random_events, tmp_path / "random", validate="full", fhir_server="https://fhir.example.invalid/r4/"
    )
    for where in (folder, tmp_path / "every", tmp_path / "random"):
        requests = _requests(where)
        assert set(requests) == set(_manifest(where))
        for name, request in requests.items():
            validator.validate(request)
            assert name.startswith(request["hook"] + "/")
            assert "fhirAuthorization" not in request
        assert len({request["hookInstance"] for request in requests.values()}) == len(requests)


@pytest.mark.parametrize(
    ("hook", "change"),
    [
        ("patient-view", lambda one: one.pop("hookInstance")),
        ("patient-view", lambda one: one.update(hookInstance="1")),
        ("patient-view", lambda one: one.update(hook="patient-viewed")),
        ("patient-view", lambda one: one["context"].update(userId="abc")),
        ("patient-view", lambda one: one["context"].update(patientID="abc")),
        ("patient-view", lambda one: one["prefetch"].update(patient=[])),
        ("patient-view", lambda one: one.update(fhirAuthorization=TOKEN)),
        ("order-select", lambda one: one["context"].pop("selections")),
        ("order-select", lambda one: one["context"].update(selections=["Patient/1"])),
        ("order-select", lambda one: one["context"]["draftOrders"]["entry"][0]["resource"].update(status="active")),
        ("order-select", lambda one: one["context"]["draftOrders"].update(entry=[])),
        ("order-sign", lambda one: one["context"].pop("draftOrders")),
        ("order-sign", lambda one: one["context"].update(userId="Patient/abc")),
        ("encounter-discharge", lambda one: one["context"].pop("encounterId")),
    ],
)
def test_the_schema_refuses_what_the_specification_does(folder, validator, hook, change):
    request = next(request for request in _requests(folder).values() if request["hook"] == hook)
    validator.validate(request)
    change(request)
    assert not validator.is_valid(request)


TOKEN = {"access_token": "x", "token_type": "Bearer", "expires_in": 300, "scope": "user/*.read", "subject": "cds"}


def test_an_authorization_belongs_to_a_server(folder, validator):
    request = next(iter(_requests(folder).values()))
    request = {name: value for name, value in request.items() if name != "fhirServer"} | {"fhirAuthorization": TOKEN}
    assert validator.is_valid({**request, "fhirServer": "https://fhir.example.invalid"})
    assert not validator.is_valid(request)


def test_every_resource_is_labelled_and_of_the_patient_or_shared(folder):
    for request in _requests(folder).values():
        for resource in _resources(request):
            assert resource["meta"]["security"][0]["code"] == "HTEST"
            whom = resource.get("subject", resource.get("patient"))
            if whom is not None:
                assert whom["reference"] == f"Patient/{request['context']['patientId']}"


def test_moments_are_those_of_the_record(folder, population):
    """Visits start, medications start and inpatient stays end at the moments that the manifest names."""
    starts = {"patient-view": "VISIT_START//", "order-select": "RxNorm//", "order-sign": "RxNorm//"}
    starts["encounter-discharge"] = "VISIT_END//IMP"
    times = {
        hook: set(population.filter(pl.col("code").str.starts_with(code)).select("subject_id", "time").iter_rows())
        for hook, code in starts.items()
    }
    for said in _manifest(folder).values():
        assert (said["subject"], datetime.fromisoformat(said["moment"][:-1])) in times[said["hook"]]
        assert bool(said["orders"]) == said["hook"].startswith("order-")


def test_no_date_is_later_than_the_moment(folder):
    for name, request in _requests(folder).items():
        moment = _manifest(folder)[name]["moment"]
        dates = DATE_TIME.findall(orjson.dumps(request).decode())
        assert moment in dates or request["hook"] == "encounter-discharge"
        assert max(dates) <= moment


@pytest.mark.parametrize("hook", cds_hooks.HOOKS)
def test_a_request_is_the_same_if_the_future_never_happens(population, hook, tmp_path):
    """The event drawn is the first by hash, so it is drawn again when all that comes later is taken away."""
    export_cds_hooks(population, tmp_path / "whole", hooks=[hook])
    for number, (name, said) in enumerate(sorted(_manifest(tmp_path / "whole").items())[:8]):
        moment, subject = datetime.fromisoformat(said["moment"][:-1]), pl.col("subject_id") == said["subject"]
        past = population.filter(subject & (pl.col("time").is_null() | (pl.col("time") <= moment)))
        assert past.height < population.filter(subject).height
        out = tmp_path / str(number)
        export_cds_hooks(past, out, hooks=[hook])
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_ends_that_are_to_come_leave_no_trace(tmp_path):
    """The same requests, but for ids, whenever and however what goes on at the moment will have ended."""
    rows = [(time, code, dict(more)) for time, code, more in _stay()]
    for _, _, more in rows:
        if more.get("end_time", BIRTH) > DISCHARGED:
            more["end_time"] += 99 * DAY
            more.pop("text_value", None)
    for hook, when in (("patient-view", ADMITTED), ("order-sign", ADMITTED + DAY), ("encounter-discharge", DISCHARGED)):
        one = _one(_record(*_stay()), hook, tmp_path / f"{hook}-1", when)
        other = _one(_record(*rows), hook, tmp_path / f"{hook}-2", when)
        assert _without_ids(one) == _without_ids(other)


def _without_ids(request: dict) -> bytes:
    return re.sub(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", b"", orjson.dumps(request))


def test_a_record_is_opened_as_a_visit_starts(tmp_path):
    request = _one(_record(*_stay()), "patient-view", tmp_path / "out", ADMITTED)
    encounter = request["prefetch"]["encounter"]
    assert (encounter["status"], encounter["class"]["code"]) == ("in-progress", "IMP")
    assert "end" not in encounter["period"]
    assert "reasonCode" not in encounter
    assert encounter["type"][-1]["coding"][0]["code"] == "32485007"
    conditions = _found(request, "conditions")
    assert [one["code"]["coding"][0]["code"] for one in conditions] == ["44054006"]
    assert [one["clinicalStatus"]["coding"][0]["code"] for one in conditions] == ["active"]
    statuses = {
        one["medicationCodeableConcept"]["coding"][0]["code"]: one["status"] for one in _found(request, "medications")
    }
    assert statuses == {"308182": "stopped", "617310": "active"}
    assert request["prefetch"]["laboratory"] is None
    assert "deceasedDateTime" not in request["prefetch"]["patient"]
    assert request["prefetch"]["user"]["resourceType"] == "Practitioner"
    assert request["context"]["userId"] == f"Practitioner/{request['prefetch']['user']['id']}"


def test_orders_are_drafted_with_what_was_known_before_them(tmp_path):
    select = _one(_record(*_stay()), "order-select", tmp_path / "select", ADMITTED + DAY)
    sign = _one(_record(*_stay()), "order-sign", tmp_path / "sign", ADMITTED + DAY)
    assert select["prefetch"] == sign["prefetch"]
    assert select["context"]["draftOrders"] == sign["context"]["draftOrders"]
    drafts = [entry["resource"] for entry in sign["context"]["draftOrders"]["entry"]]
    assert {one["medicationCodeableConcept"]["coding"][0]["code"] for one in drafts} == {"860975", "310965"}
    for draft in drafts:
        assert draft["status"] == "draft"
        assert not {"dispenseRequest", "note"} & set(draft)
    assert select["context"]["selections"] == [f"MedicationRequest/{drafts[-1]['id']}"]
    known = {one["id"] for one in _found(sign, "medications")}
    assert len(known) == 2
    assert not known & {draft["id"] for draft in drafts}
    assert [one["valueQuantity"]["value"] for one in _found(sign, "laboratory")] == [7]
    assert {one["status"] for one in _found(sign, "procedures")} == {"in-progress"}
    assert len(_found(sign, "conditions")) == 2
    assert sign["prefetch"]["encounter"]["reasonCode"]


def test_a_discharge_is_that_of_a_living_inpatient(tmp_path):
    request = _one(_record(*_stay()), "encounter-discharge", tmp_path / "out", DISCHARGED)
    encounter = request["prefetch"]["encounter"]
    assert request["context"]["encounterId"] == encounter["id"]
    assert encounter["status"] == "in-progress"
    assert not {"hospitalization", "length"} & set(encounter)
    assert [one["valueQuantity"]["value"] for one in _found(request, "laboratory")] == [9, 7]
    assert {one["status"] for one in _found(request, "medications")} == {"stopped", "active"}
    dies = [(DISCHARGED if code == "MEDS_DEATH" else time, code, more) for time, code, more in _stay()]
    with pytest.raises(InputError, match="encounter-discharge"):
        export_cds_hooks(_record(*dies), tmp_path / "dies", hooks=["encounter-discharge"])
    out_patient = [(time, code.replace("IMP", "AMB"), more) for time, code, more in _stay()]
    with pytest.raises(InputError, match="no patient has a moment"):
        export_cds_hooks(_record(*out_patient), tmp_path / "out-patient", hooks=["encounter-discharge"])
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_an_order_outside_any_visit_has_no_encounter(tmp_path):
    record = _record((PAST, "RxNorm//860975", {}))
    request = _one(record, "order-sign", tmp_path / "out", PAST)
    assert "encounterId" not in request["context"]
    assert "encounter" not in request["prefetch"]
    assert next(iter(_manifest(tmp_path / "out").values()))["omitted"] == ["encounter"]


def test_undated_events_are_counted_as_not_known(tmp_path):
    report = export_cds_hooks(_record(*_stay()), tmp_path / "out", hooks=["patient-view"])
    assert [count.count for count in report.not_carried.values()] == [1]
    assert "38341003" not in "".join(path.read_text() for path in (tmp_path / "out").glob("*/*.json"))


def test_ids_are_those_of_the_export_and_bytes_do_not_depend_on_the_cohort(folder, population, tmp_path):
    export_fhir(population, tmp_path / "fhir", format="ndjson")
    known = {
        orjson.loads(line)["id"]
        for path in (tmp_path / "fhir").glob("*.ndjson")
        for line in path.read_bytes().splitlines()
    }
    for request in _requests(folder).values():
        assert {resource["id"] for resource in _resources(request) if resource["resourceType"] != "Bundle"} <= known
        assert request["context"].get("encounterId", next(iter(known))) in known
    subject = next(iter(_manifest(folder).values()))["subject"]
    export_cds_hooks(population.filter(pl.col("subject_id") == subject), tmp_path / "alone", moments=2)
    alone = _requests(tmp_path / "alone")
    assert alone
    for name in alone:
        assert (tmp_path / "alone" / name).read_bytes() == (folder / name).read_bytes()


def test_a_server_is_stated_only_if_asked_for_and_leads_nowhere(folder, tmp_path):
    assert all("fhirServer" not in request for request in _requests(folder).values())
    request = _one(
        _record(*_stay()), "order-sign", tmp_path / "out", ADMITTED + DAY, fhir_server="https://ehr.test/r4/"
    )
    assert request["fhirServer"] == "https://ehr.test/r4"
    entry = request["prefetch"]["conditions"]["entry"][0]
    assert entry["fullUrl"] == f"https://ehr.test/r4/Condition/{entry['resource']['id']}"
    for server in ("https://hospital.org/fhir", "ftp://ehr.test", "ehr.test", "https://test.com/x.invalid"):
        with pytest.raises(UsageError, match="reserved"):
            export_cds_hooks(_record(*_stay()), tmp_path / "no", fhir_server=server)


def test_unknown_options_are_refused_and_leave_nothing(tmp_path):
    for options in ({"hooks": ["order-sing"]}, {"hooks": []}, {"moments": 0}):
        with pytest.raises(UsageError):
            export_cds_hooks(_record(*_stay()), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())
