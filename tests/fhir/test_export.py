import gzip
import hashlib
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import orjson
import polars as pl
import pytest

import ehrsim
from ehrsim import codes, events, reference
from ehrsim.errors import FormatError, GateError, InputError, UsageError
from ehrsim.fhir import export_fhir, inspect_fhir
from ehrsim.fhir.resources import MAPPINGS, Mapping
from ehrsim.fhir.writers import SHARED_TYPES

FORMATS = ("ndjson", "transaction", "batch", "collection")


@pytest.fixture(scope="module")
def population() -> pl.DataFrame:
    return reference.population(12, seed=4)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _ids(resources) -> dict[str, str]:
    return {resource["id"]: resource["resourceType"] for resource in resources}


@pytest.mark.parametrize("format", FORMATS)
def test_everything_a_table_can_hold_is_valid_and_resolves(every_row, random_events, format, tmp_path):
    for name, table in (("every", every_row), ("random", random_events)):
        report = export_fhir(table, tmp_path / name, format=format, validate="full")
        made = set(report.resources) - set(SHARED_TYPES)
        assert {kind: report.validated[kind] for kind in made} == {kind: report.resources[kind] for kind in made}
        found = inspect_fhir(tmp_path / name)
        assert found.resources == report.resources
        assert (found.dangling, found.unlabelled, found.patients) == (0, 0, report.patients)


def test_counts_are_those_of_the_events(population, tmp_path):
    report = export_fhir(population, tmp_path / "out")
    kinds = population["code"].map_elements(lambda code: codes.parse(code).kind, return_dtype=pl.String)
    count = dict(kinds.value_counts().iter_rows())
    assert report.events == population.height
    assert report.patients == report.resources["Patient"] == report.resources["Provenance"] == 12
    assert report.resources["Encounter"] == count["visit_start"]
    for kind, mapping in MAPPINGS.items():
        if kind != "observation":
            assert report.resources.get(mapping.resource_type, 0) == count.get(kind, 0), kind
    pressures = population.filter(pl.col("code").is_in(["LOINC//8480-6", "LOINC//8462-4"]))
    moments = pressures.select("subject_id", "visit_id", "time").n_unique()
    assert report.resources["Observation"] == count["observation"] - pressures.height + moments
    assert not report.not_carried
    assert not report.changed


def test_every_code_has_a_canonical_system_and_a_display(population, every_row, resources_in, tmp_path):
    for name, table in (("reference", population), ("every", every_row)):
        export_fhir(table, tmp_path / name)
        for resource in resources_in(tmp_path / name):
            for coding in _codings(resource):
                assert set(coding) == {"system", "code", "display"}
                assert coding["system"].startswith(("http://", "https://", "urn:"))
                assert coding["display"].strip() == coding["display"] != ""
        assert b"example.org" not in b"".join(path.read_bytes() for path in (tmp_path / name).iterdir())


def _codings(value):
    if isinstance(value, dict):
        found = value.get("coding", [])
        yield from found
        for key, member in value.items():
            if key in ("class", "valueCoding", "security", "tag"):
                yield from member if isinstance(member, list) else [member]
            else:
                yield from _codings(member)
    elif isinstance(value, list):
        for member in value:
            yield from _codings(member)


def test_every_resource_says_that_it_is_synthetic_and_of_which_run(population, resources_in, tmp_path):
    export_fhir(population, tmp_path / "out", seed=3)
    sources = set()
    for resource in resources_in(tmp_path / "out"):
        assert resource["meta"]["security"][0]["code"] == "HTEST"
        assert resource["meta"]["tag"][0] | {"display": ""} == {
            "system": f"{codes.URI_BASE}/CodeSystem/tag",
            "code": "synthetic",
            "display": "",
        }
        sources.add(resource["meta"]["source"])
    assert len(sources) == 1
    assert sources.pop().startswith(f"{codes.URI_BASE}/run/")


def test_nothing_is_dated_before_birth_or_after_death(population, resources_in, tmp_path):
    export_fhir(population, tmp_path / "out")
    resources = resources_in(tmp_path / "out")
    lives = {
        resource["id"]: (resource["birthDate"], resource.get("deceasedDateTime", "9999"))
        for resource in resources
        if resource["resourceType"] == "Patient"
    }
    dated = 0
    for resource in resources:
        whom = resource.get("subject") or resource.get("patient") or resource.get("target", [{}])[0]
        if "reference" not in whom:
            continue
        birth, death = lives[whom["reference"].removeprefix("Patient/")]
        for time in _times(resource):
            dated += 1
            assert birth <= time[:10]
            assert time[:10] <= death[:10]
    assert dated > population.height / 2


def _times(resource):
    for key, value in resource.items():
        if isinstance(value, str) and (
            key.endswith("DateTime") or key in ("issued", "recordedDate", "authoredOn", "recorded")
        ):
            yield value
        if key in ("period", "performedPeriod", "effectivePeriod"):
            yield value["start"]


@pytest.mark.parametrize("format", FORMATS)
def test_same_events_give_the_same_bytes(population, format, tmp_path):
    for name in "ab":
        export_fhir(population, tmp_path / name, format=format)
    assert _digest(tmp_path / "a") == _digest(tmp_path / "b")
    export_fhir(population, tmp_path / "c", format=format, seed=1)
    assert _digest(tmp_path / "c") != _digest(tmp_path / "a")


def test_ids_do_not_depend_on_format_order_grouping_or_the_other_patients(
    population, resources_in, tmp_path, monkeypatch
):
    export_fhir(population, tmp_path / "all")
    whole = _ids(resources_in(tmp_path / "all"))
    export_fhir(population, tmp_path / "bundles", format="transaction")
    monkeypatch.setitem(ehrsim.fhir.export.GROUP_EVENTS, "ndjson", 500)
    export_fhir(population.sample(fraction=1, shuffle=True, seed=2), tmp_path / "shuffled")
    few = population.filter(pl.col("subject_id").is_in([2, 5, 11]))
    export_fhir(few, tmp_path / "few", format="collection")
    shuffled = _ids(resources_in(tmp_path / "shuffled"))
    assert whole == shuffled
    places = {uuid for uuid, kind in whole.items() if kind in SHARED_TYPES}
    assert _ids(resources_in(tmp_path / "bundles")).items() <= whole.items()
    assert whole.keys() - _ids(resources_in(tmp_path / "bundles")).keys() <= places
    assert _ids(resources_in(tmp_path / "few")).items() <= whole.items()


def test_ids_do_not_depend_on_shards_but_on_the_run(population, resources_in, tmp_path):
    halves = [population.filter(pl.col("subject_id") % 2 == part) for part in (0, 1)]
    layouts = {"one": ([population], "r1"), "two": (halves, "r1"), "other": ([population], "r2")}
    found = {}
    for name, (frames, run) in layouts.items():
        with events.event_writer(tmp_path / name, {"dataset_name": "x", "run": run}) as writer:
            for frame in frames:
                writer.write(frame)
        export_fhir(tmp_path / name, tmp_path / f"{name}-fhir")
        resources = resources_in(tmp_path / f"{name}-fhir")
        found[name] = {resource["id"] for resource in resources if resource["resourceType"] == "Observation"}
        assert any("Body weight" in str(resource.get("code")) for resource in resources)
    assert found["one"] == found["two"]
    assert not found["one"] & found["other"]


def test_a_subject_in_two_shards_is_one_patient(every_row, resources_in, tmp_path):
    with events.event_writer(tmp_path / "events", {"dataset_name": "x"}) as writer:
        writer.write(every_row.filter(pl.col("visit_id").is_null()))
        writer.write(every_row.filter(pl.col("visit_id").is_not_null()))
    assert export_fhir(tmp_path / "events", tmp_path / "out").resources["Patient"] == 2


def test_equal_events_are_resources_of_their_own(resources_in, tmp_path):
    row = {"subject_id": 1, "time": datetime(2020, 1, 1), "code": "ICD10CM//I10"}
    export_fhir(pl.DataFrame([row] * 3), tmp_path / "out")
    found = [resource["id"] for resource in resources_in(tmp_path / "out") if resource["resourceType"] == "Condition"]
    assert len(set(found)) == 3


@pytest.mark.parametrize("format", ["transaction", "batch"])
def test_bundles_to_upload_refer_to_nothing_that_a_server_has_not_had(every_row, format, tmp_path):
    export_fhir(every_row, tmp_path / "out", format=format, entries=10)
    shared, *parts = sorted((tmp_path / "out").iterdir(), key=lambda path: (path.name != "shared.json", path.name))
    assert shared.name == "shared.json"
    assert [path.stem for path in parts] == [f"1-{part:03d}" for part in (1, 2, 3, 4)] + [
        f"2-{part:03d}" for part in (1, 2, 3, 4, 5)
    ]
    uploaded = set()
    for path in (shared, *parts):
        bundle = orjson.loads(path.read_bytes())
        assert (bundle["resourceType"], bundle["type"]) == ("Bundle", format)
        assert path is shared or len(bundle["entry"]) <= 10
        own = {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}
        assert len(own) == len(bundle["entry"])
        names = {f"{resource['resourceType']}/{resource['id']}" for resource in own.values()}
        for entry in bundle["entry"]:
            name = f"{entry['resource']['resourceType']}/{entry['resource']['id']}"
            assert entry["fullUrl"] == f"urn:uuid:{entry['resource']['id']}"
            assert entry["request"] == {"method": "PUT", "url": name}
            for target in _references(entry["resource"]):
                inside = target in names or (format == "transaction" and target in own)
                assert inside or target in uploaded or target.startswith("#")
        assert not names & uploaded
        uploaded |= names


def _references(value):
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        for member in value.values():
            yield from _references(member)
    elif isinstance(value, list):
        for member in value:
            yield from _references(member)


def test_a_patient_of_few_resources_is_one_transaction(every_row, tmp_path):
    export_fhir(every_row, tmp_path / "out", format="transaction")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1.json", "2.json", "shared.json"]


def test_resources_are_the_same_in_every_format_but_for_how_they_refer(population, resources_in, tmp_path):
    found = {}
    for format in FORMATS:
        export_fhir(population, tmp_path / format, format=format)
        texts = {}
        for resource in resources_in(tmp_path / format):
            name = f"{resource['resourceType']}/{resource['id']}"
            texts[name] = re.sub(rb'"(urn:uuid:|[A-Z][A-Za-z]+/)([0-9a-f-]{36})"', rb'"\2"', orjson.dumps(resource))
        found[format] = texts
    assert found["ndjson"] == found["transaction"] == found["batch"]
    # Places that nobody goes to are in no collection.
    assert found["collection"].items() <= found["ndjson"].items()
    assert len(found["collection"]) > len(found["ndjson"]) - 48


def test_ndjson_comes_with_the_manifest_of_a_bulk_export(every_row, tmp_path):
    report = export_fhir(every_row, tmp_path / "out")
    manifest = orjson.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert manifest.keys() == {"transactionTime", "request", "requiresAccessToken", "output", "error"}
    assert manifest["transactionTime"] == f"{every_row['time'].max():%Y-%m-%dT%H:%M:%SZ}"
    assert {output["type"]: output["count"] for output in manifest["output"]} == report.resources
    for output in manifest["output"]:
        assert (tmp_path / "out" / output["url"]).read_bytes().count(b"\n") == output["count"]


def test_ndjson_in_shards_and_gzipped_holds_the_same_lines(population, tmp_path):
    export_fhir(population, tmp_path / "whole")
    for compressed in (False, True):
        out = tmp_path / f"shards-{compressed}"
        report = export_fhir(population, out, shard=1_000, compressed=compressed)
        manifest = orjson.loads((out / "manifest.json").read_bytes())
        lines = {}
        for output in manifest["output"]:
            data = (out / output["url"]).read_bytes()
            data = gzip.decompress(data) if compressed else data
            assert data.count(b"\n") == output["count"] <= 1_000
            lines[output["type"]] = lines.get(output["type"], b"") + data
        assert lines == {name: (tmp_path / "whole" / f"{name}.ndjson").read_bytes() for name in lines}
        assert inspect_fhir(out).resources == report.resources
        assert len(manifest["output"]) > len(lines)


@pytest.mark.parametrize(
    "options",
    [
        {"entries": 0, "format": "batch"},
        {"shard": 0},
        {"shard": 5, "format": "collection"},
        {"compressed": True, "format": "batch"},
    ],
)
def test_layouts_that_make_no_sense_are_refused(every_row, options, tmp_path):
    with pytest.raises(UsageError):
        export_fhir(every_row, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_what_fhir_cannot_carry_is_counted_with_a_first_example(tmp_path):
    time, earlier = datetime(2020, 1, 2), datetime(2020, 1, 1)
    rows = [
        (1, time, "OBSERVATION_END", None, None, None, None),
        (1, time, "MEDS_DEATH", None, None, 5, None),
        (1, None, "GENDER//unknown", None, None, None, None),
        (1, None, "RACE//2106-3", None, None, None, None),
        (1, None, "RACE//2028-9", None, None, None, None),
        (1, time, "ICD10CM//I10", 3.0, None, None, earlier),
        (1, time, "CVX//08", float("nan"), None, None, time),
        (1, time, "REASON//ICD10CM//I10", None, None, None, None),
        (1, time, "VISIT_END//AMB", None, None, 6, None),
        (1, datetime(9999, 1, 1), "ICD10CM//I10", None, None, None, None),
        (None, time, "ICD10CM//I10", None, None, None, None),
        (1, time, "  ", None, None, None, None),
        (1, time, "LOINC//85354-9", None, None, None, None),
    ]
    columns = ["subject_id", "time", "code", "numeric_value", "text_value", "visit_id", "end_time"]
    report = export_fhir(pl.DataFrame(rows, schema=columns, orient="row"), tmp_path / "out")
    assert {reason: count.count for reason, count in report.not_carried.items()} == {
        "no subject id": 1,
        "no code": 1,
        "time outside 1800-2300": 1,
        "end time before start": 1,
        "NaN or infinite value": 1,
        "end of follow-up": 1,
        "demographic fact beyond the first of its kind": 1,
        "gender that is not male, female or other": 1,
        "end of a visit that has no start, an earlier end, or no later time": 1,
        "type or reason outside any visit": 1,
        "blood pressure panel as an observation of its own": 1,
        "end time of immunization events": 1,
        "numeric value of condition events": 1,
        "visit of a demographic fact, birth or death": 1,
    }
    assert report.not_carried["numeric value of condition events"].example.startswith("subject_id 1, time 2020-01-02")
    assert any("not carried by FHIR 1: end of follow-up (first: subject_id 1" in line for line in report.lines())


def test_an_invalid_resource_fails_the_gate_and_leaves_nothing(every_row, tmp_path, monkeypatch):
    broken = Mapping("Condition", lambda event: {"resourceType": "Condition", "id": event[0]})
    monkeypatch.setitem(MAPPINGS, "condition", broken)
    with pytest.raises(GateError, match=r"Condition/[0-9a-f-]{36} is not valid FHIR: .*expected `subject`"):
        export_fhir(every_row, tmp_path / "out", validate="fast")
    assert not list(tmp_path.iterdir())


def test_every_resource_is_validated_and_one_of_every_shape_in_full(every_row, tmp_path):
    report = export_fhir(every_row, tmp_path / "sample", validate="full")
    assert report.validated == report.resources
    own = {kind: count for kind, count in report.resources.items() if kind not in SHARED_TYPES}
    assert report.in_full > 0.8 * sum(own.values())
    assert any(line.startswith("validated ") for line in report.lines())


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("missing", InputError, "missing does not exist"),
        ("empty", FormatError, "has no data/ folder"),
        ("text.parquet", InputError, "is not a readable Parquet file"),
    ],
)
def test_a_source_that_is_no_event_table_is_refused(source, error, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(error, match=message):
        export_fhir(tmp_path / source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_events_no_output(tmp_path):
    with pytest.raises(InputError, match="no events to export"):
        export_fhir(
            events.conform(pl.DataFrame(schema={"subject_id": pl.Int64, "time": pl.Datetime, "code": pl.String})),
            tmp_path / "out",
        )
    assert not list(tmp_path.iterdir())


def test_a_damaged_dataset_description_is_named(every_row, tmp_path):
    events.write_events(every_row, tmp_path / "events")
    (tmp_path / "events" / "metadata" / "dataset.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset\.json is not valid JSON"):
        export_fhir(tmp_path / "events", tmp_path / "out")


def test_unknown_options_and_existing_outputs_are_refused(every_row, tmp_path):
    with pytest.raises(UsageError, match="unknown format `xml`"):
        export_fhir(every_row, tmp_path / "out", format="xml")
    with pytest.raises(UsageError, match="unknown validate `some`"):
        export_fhir(every_row, tmp_path / "out", validate="some")
    export_fhir(every_row, tmp_path / "out")
    before = _digest(tmp_path / "out")
    with pytest.raises(UsageError, match="exists already"):
        export_fhir(every_row, tmp_path / "out", seed=2)
    assert _digest(tmp_path / "out") == before
    export_fhir(every_row, tmp_path / "out", seed=2, overwrite=True)
    assert _digest(tmp_path / "out") != before


def test_nothing_but_validation_needs_fhir_resources():
    code = (
        "import sys, ehrsim.fhir; assert not [name for name in sys.modules if name.startswith(('fhir.', 'pydantic'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_thousand_patients_are_valid(tmp_path):
    report = export_fhir(reference.population(1_000, seed=8), tmp_path / "out", validate="full")
    assert report.resources["Patient"] == 1_000
    assert report.validated == report.resources
    assert inspect_fhir(tmp_path / "out").dangling == 0


def test_characters_that_no_string_can_have_are_written_as_spaces(resources_in, tmp_path):
    rows = [
        {"subject_id": 1, "time": datetime(2020, 1, 1), "code": "LOINC//4548-4", "text_value": "a\x0bb\x01"},
        {"subject_id": 1, "time": datetime(2020, 1, 2), "code": "LOINC//4548-4", "text_value": "\x02"},
    ]
    report = export_fhir(pl.DataFrame(rows), tmp_path / "out")
    found = [one.get("valueString") for one in resources_in(tmp_path / "out") if one["resourceType"] == "Observation"]
    assert found == ["a b ", None]
    assert report.changed["control character in a text, written as a space"].count == 2


@pytest.mark.parametrize(("us_core", "sex"), [("6.1", "us-core-birthsex"), ("8.0", "us-core-sex"), ("none", "")])
def test_a_version_of_us_core_is_claimed_and_met(every_row, us_core, sex, resources_in, tmp_path):
    export_fhir(every_row, tmp_path / "out", us_core=us_core, validate="full")
    patient = next(one for one in resources_in(tmp_path / "out") if one["resourceType"] == "Patient")
    extensions = {one["url"].rpartition("/")[2] for one in patient.get("extension", [])}
    assert (sex in extensions) == bool(sex) == ("profile" in patient["meta"])
    assert ("us-core-sex" in extensions) == (us_core == "8.0")


@pytest.mark.parametrize("options", [{"us_core": "5.0"}, {"us_core": "8.0", "locale": "de"}])
def test_a_version_of_us_core_that_makes_no_sense_is_refused(every_row, options, tmp_path):
    with pytest.raises(UsageError, match=r"us_core|US Core"):
        export_fhir(every_row, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
