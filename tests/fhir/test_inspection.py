import orjson
import pytest

from ehrsim.errors import FormatError, InputError
from ehrsim.fhir import inspect_fhir

PATIENT = {"resourceType": "Patient", "id": "1"}
LOST = {"resourceType": "Condition", "id": "2", "subject": {"reference": "Patient/9"}}


def test_dangling_references_and_missing_labels_are_counted(tmp_path):
    (tmp_path / "Patient.ndjson").write_bytes(orjson.dumps(PATIENT) + b"\n\n")
    (tmp_path / "Condition.ndjson").write_bytes(orjson.dumps(LOST) + b"\n")
    found = inspect_fhir(tmp_path)
    assert (found.files, found.resources, found.patients) == (2, {"Condition": 1, "Patient": 1}, 1)
    assert (found.references, found.dangling, found.first_dangling, found.unlabelled) == (1, 1, "Patient/9", 2)
    assert "dangling references: 1 of 1 (first: Patient/9)" in found.lines()


def test_references_inside_a_bundle_do_not_reach_another(tmp_path):
    entry = {"fullUrl": "urn:uuid:a", "resource": PATIENT}
    lost = {"resourceType": "Condition", "id": "2", "subject": {"reference": "urn:uuid:a"}}
    (tmp_path / "1.json").write_bytes(orjson.dumps({"resourceType": "Bundle", "entry": [entry]}))
    (tmp_path / "2.json").write_bytes(orjson.dumps({"resourceType": "Bundle", "entry": [{"resource": lost}]}))
    assert inspect_fhir(tmp_path).dangling == 1


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.ndjson", b"{", InputError),
        ("a.ndjson", b'{"a":1}', FormatError),
        ("a.json", b"[]", FormatError),
        ("a.json", b"\xff\xfe", InputError),
        ("a.json", b"", InputError),
        ("a.json", b'{"resourceType":"Bundle","entry":[{"fullUrl":"x"}]}', InputError),
        ("a.json", b'{"resourceType":"Bundle","entry":[{"resource":{}}]}', InputError),
        ("a.json", b'{"resourceType":"Bundle","entry":3}', InputError),
        ("a.txt", b"{}", FormatError),
    ],
)
def test_what_is_not_fhir_is_named(name, content, error, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error):
        inspect_fhir(tmp_path)
