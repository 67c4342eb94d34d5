"""Files of FHIR: every form that is read, and every defect, which is one error that names the file."""

import gzip
import json

import pytest

from ehrsim.errors import FormatError, InputError
from ehrsim.importers import detect, import_events
from ehrsim.importers.fhir import sources

SUBJECT = {"reference": "Patient/p1"}
PATIENT = {"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1950-02-03"}
CONDITION = {
    "resourceType": "Condition",
    "id": "c1",
    "subject": SUBJECT,
    "code": {"coding": [{"system": "http://snomed.info/sct", "code": "44054006"}]},
    "onsetDateTime": "2015-03-04",
}
OBSERVATION = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "subject": SUBJECT,
    "code": {"coding": [{"system": "http://loinc.org", "code": "4548-4"}]},
    "effectiveDateTime": "2015-03-04",
}
ENCOUNTER = {
    "resourceType": "Encounter",
    "id": "e1",
    "status": "finished",
    "class": {"code": "AMB"},
    "subject": SUBJECT,
    "period": {"start": "2015-03-04T10:20:30Z", "end": "2015-03-04T10:50:30Z"},
}


def lines(*resources):
    return "".join(json.dumps(resource) + "\n" for resource in resources).encode()


def bundle(*resources):
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": resource} for resource in resources]}


BODIES = {
    "all.ndjson": lambda resources: lines(*resources),
    "all.ndjson.gz": lambda resources: gzip.compress(lines(*resources)),
    "Patient.000.ndjson": lambda resources: lines(*resources),
    "no-gz-in-its-name.ndjson": lambda resources: gzip.compress(lines(*resources)),
    "byte-order-mark.ndjson": lambda resources: b"\xef\xbb\xbf" + lines(*resources),
    "blank-lines.ndjson": lambda resources: b"\n\n" + lines(*resources).replace(b"\n", b"\r\n \n"),
    "no-newline-at-end.ndjson": lambda resources: lines(*resources).rstrip(),
    "lines-named.json": lambda resources: lines(*resources),
    "bundle.json": lambda resources: json.dumps(bundle(*resources)).encode(),
    "bundle-indented.json": lambda resources: json.dumps(bundle(*resources), indent=2).encode(),
    "bundle.json.gz": lambda resources: gzip.compress(json.dumps(bundle(*resources)).encode()),
    "bundles-by-line.ndjson": lambda resources: lines(*(bundle(resource) for resource in resources)),
}


@pytest.mark.parametrize("name", BODIES)
def test_every_form_of_file_gives_the_same_events(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(BODIES[name]([CONDITION, OBSERVATION, ENCOUNTER, PATIENT]))
    assert detect(path) == "fhir"
    report = import_events(path, tmp_path / "out", identified=True)
    assert (report.files, report.rows, report.events, report.subjects) == (1, 4, 6, 1)
    assert report.kinds == dict.fromkeys(("birth", "gender", "visit_start", "visit_end", "condition", "observation"), 1)
    assert not report.skipped


def test_single_resources_in_nested_folders_with_manifest_and_log_beside_them(tmp_path):
    for name, content in {
        "a/patient.json": json.dumps(PATIENT),
        "b/c/condition.json": json.dumps(CONDITION, indent=1),
        "manifest.json": '{"output": []}',
        "log.ndjson": '{"eventId": "kickoff"}\n',
        "readme.txt": "words",
    }.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_text(content)
    report = import_events(tmp_path / "source", tmp_path / "out", identified=True)
    assert (report.files, report.rows, report.events) == (2, 2, 3)
    assert report.findings["file that holds no FHIR data"].count == 3


WHOLE = lines(PATIENT, CONDITION, OBSERVATION)
IMAGE = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256))
UNREADABLE = {
    "truncated gzip": ("a.ndjson.gz", gzip.compress(WHOLE)[:-30], "ends in the middle of its gzip data"),
    "corrupt gzip": ("a.ndjson.gz", gzip.compress(WHOLE)[:40] + b"\0" * 60, "corrupt gzip data"),
    "not gzip": ("a.ndjson.gz", WHOLE, "is not gzip data"),
    "empty": ("a.ndjson", b"", "is empty"),
    "empty gzip": ("a.ndjson.gz", gzip.compress(b""), "is empty"),
    "empty bundle file": ("a.json", b" \n", "is empty"),
    "blank lines only": ("a.ndjson", b"\n\n\n", "is empty"),
    "invalid on line 3": ("a.ndjson", lines(PATIENT, CONDITION) + b'{"resourceType": \n', "line 3 is not JSON"),
    "cut short": ("a.json", json.dumps(bundle(PATIENT)).encode()[:-9], "is not JSON"),
    "not UTF-8": ("a.ndjson", WHOLE + b'{"resourceType": "Cl\xe9"}\n', "line 4 is not UTF-8 text: byte 0xe9 at 20"),
    "UTF-16": ("a.json", json.dumps(PATIENT).encode("utf-16"), "is not UTF-8 text"),
    "array": ("a.json", b'[{"resourceType": "Patient"}]', "holds a JSON array"),
    "number": ("a.ndjson", b"1\n", "line 1 holds a JSON value"),
    "NaN": ("a.ndjson", WHOLE.replace(b'"final"', b"NaN"), "line 3 is not JSON"),
    "Infinity": ("a.ndjson", WHOLE.replace(b'"final"', b"-Infinity"), "line 3 is not JSON"),
    "infinite number": ("a.ndjson", WHOLE.replace(b'"final"', b"1e999"), "line 3 is not JSON"),
    "image": ("a.json", IMAGE, "is not UTF-8 text"),
    "XML": ("a.json", b"<Bundle/>", "is not JSON"),
    "CSV": ("a.ndjson", b"a,b\n1,2\n", "line 1 is not JSON"),
    "zeros": ("a.json", bytes(1000), "is not JSON"),
    "deeply nested": ("a.json", b'{"a":' * 5000, "is not JSON"),
}


@pytest.mark.parametrize("as_folder", [False, True])
@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_file_is_one_error_that_names_it(name, as_folder, tmp_path):
    file, content, message = UNREADABLE[name]
    source = tmp_path / "source"
    source.mkdir()
    (source / file).write_bytes(content)
    if as_folder:
        (source / "whole.ndjson").write_bytes(WHOLE)
    with pytest.raises(InputError, match=file) as refused:
        import_events(source if as_folder else source / file, tmp_path / "out" / "events", identified=True)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "out").glob("*"))


def test_line_longer_than_the_limit_is_refused_without_reading_it_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LONGEST_LINE", 2000)
    long = b'{"resourceType": "Observation", "note": "' + b"x" * 5000 + b'"}\n'
    (tmp_path / "a.ndjson").write_bytes(WHOLE + long)
    with pytest.raises(InputError, match=r"a\.ndjson line 4 is longer than 2,000 bytes"):
        import_events(tmp_path / "a.ndjson", tmp_path / "out", identified=True)
    assert not (tmp_path / "out").exists()


def test_document_larger_than_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LARGEST_DOCUMENT", 100)
    (tmp_path / "a.json").write_bytes(json.dumps(bundle(PATIENT, CONDITION)).encode())
    with pytest.raises(InputError, match=r"a\.json is longer than 100 bytes"):
        import_events(tmp_path / "a.json", tmp_path / "out", identified=True)


@pytest.mark.parametrize(("files", "message"), [({}, "source"), ({"a.png": IMAGE, "b.jpg": IMAGE}, "source")])
def test_folder_without_fhir_is_refused(files, message, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name, content in files.items():
        (source / name).write_bytes(content)
    with pytest.raises(FormatError, match=message):
        import_events(source, tmp_path / "out", identified=True)
    with pytest.raises(FormatError, match="holds no FHIR file"):
        import_events(source, tmp_path / "out", format="fhir", identified=True)
    assert not (tmp_path / "out").exists()


def test_source_of_other_resources_only_says_that_it_holds_no_event(tmp_path):
    (tmp_path / "a.ndjson").write_bytes(lines({"resourceType": "Organization", "id": "o"}))
    with pytest.raises(InputError, match="no usable event"):
        import_events(tmp_path / "a.ndjson", tmp_path / "out", identified=True)
    assert not (tmp_path / "out").exists()
