"""One resource of every shape, held against fhir.resources and fhirkit-rs; and how shapes are told apart."""

import importlib
from pathlib import Path
from types import ModuleType

import orjson
import polars as pl
import pytest

import ehrsim
from ehrsim import codes, reference
from ehrsim.fhir import export_fhir
from ehrsim.fhir.writers import ON_REQUEST, TYPES
from ehrsim.importers import import_events

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that picks the samples, which runs the same on many patients."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("fhir_judges")


@pytest.fixture
def sample(script, every_row, random_events, tmp_path) -> list[bytes]:
    """One line of every shape of events of every and any form, and of some reference patients."""
    # Random events know nothing of birth and death.
    any_form = random_events.filter(~pl.col("code").is_in([codes.BIRTH, codes.DEATH]) & (pl.col("subject_id") < 40))
    found: dict[int, bytes] = {}
    for name, table in (("every", every_row), ("any", any_form), ("reference", reference.population(12, seed=8))):
        export_fhir(table, tmp_path / name, include=ON_REQUEST)
        found |= {shape: line for shape, line in script.one_of_each(tmp_path / name) if shape not in found}
    return list(found.values())


def test_fhir_resources_takes_every_shape(script, sample):
    resources = [orjson.loads(line) for line in sample]
    assert len(resources) > 1_000
    assert {one["resourceType"] for one in resources} >= set(TYPES) - {"Device", "AdverseEvent", "FamilyMemberHistory"}
    assert script.by_fhir_resources(resources) == {"errors": 0, "first": []}
    resources[0]["statuses"] = "final"
    assert script.by_fhir_resources(resources)["errors"] == 1


@pytest.mark.slow
def test_fhirkit_takes_every_shape(script, sample):
    pytest.importorskip("fhirkit", reason="fhirkit-rs is not installed: pip install fhirkit-rs")
    assert script.by_fhirkit(sample) == {"errors": 0, "first": []}
    broken = sample[0].replace(b'"resourceType":"', b'"statuses":"final","resourceType":"', 1)
    assert script.by_fhirkit([broken])["errors"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["synthea_stu3_1461", "nafld_mayo_17549", "diabetes130_71518"])
def test_both_take_every_shape_of_real_data(name, script, event_sets, tmp_path):
    pytest.importorskip("fhirkit", reason="fhirkit-rs is not installed: pip install fhirkit-rs")
    import_events(event_sets / name, tmp_path / "events")
    table = ehrsim.read_events(tmp_path / "events").collect()
    few = table.filter(pl.col("subject_id").is_in(table["subject_id"].unique().sort().head(500).implode()))
    export_fhir(few, tmp_path / "out", include=ON_REQUEST)
    lines = [line for _, line in script.one_of_each(tmp_path / "out")]
    assert script.by_fhirkit(lines) == {"errors": 0, "first": []}
    assert script.by_fhir_resources([orjson.loads(line) for line in lines]) == {"errors": 0, "first": []}


def test_shapes_differ_by_elements_codes_and_precision_not_by_numbers_and_words(script):
    def shape(**more):
        return script.shape_of({"resourceType": "Observation", "id": "1", **more})

    value = {"value": 7.1, "unit": "%"}
    assert shape(valueQuantity=value) == shape(valueQuantity={"value": 8.5, "unit": "%"}, id="2")
    assert shape(valueQuantity=value) != shape(valueQuantity={"value": 8.5, "unit": "mmol/mol"})
    assert shape(valueString="a") == shape(valueString="b") != shape(valueBoolean=True)
    assert shape(issued="2020-01-01") == shape(issued="2021-03-05") != shape(issued="2021-03-05T10:00:00Z")
    one, two = {"coding": [{"code": "a"}]}, {"coding": [{"code": "a"}, {"code": "b"}]}
    assert shape(code=one) != shape(code=two)
    assert shape(note=[{"text": "x"}]) == shape(note=[{"text": "x"}, {"text": "y"}])
