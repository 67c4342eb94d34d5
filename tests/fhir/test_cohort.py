"""What an export says of all its patients together: their Group, quality measures and reports."""

import orjson
import polars as pl
import pytest

import ehrsim
from ehrsim import codes, reference
from ehrsim.errors import FormatError, UsageError
from ehrsim.fhir import cohort, export_fhir, inspect_fhir, validate_fhir
from ehrsim.fhir.writers import COHORT_TYPES
from ehrsim.importers import import_events
from ehrsim.quality import load_measures, membership, reference_date


@pytest.fixture(scope="module")
def population() -> pl.DataFrame:
    """Forty people with the visits of their last years."""
    whole = reference.population(40, seed=3)
    return whole.filter(pl.col("time").is_null() | (pl.col("time").dt.year() > 2021) | (pl.col("code") == codes.BIRTH))


def _lines(folder, kind):
    return [orjson.loads(line) for line in (folder / f"{kind}.ndjson").read_bytes().splitlines()]


@pytest.fixture(scope="module")
def folder(population, tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort") / "out"
    export_fhir(population, out, include=COHORT_TYPES, validate="full")
    return out


def test_the_group_has_every_patient_and_is_labelled(folder):
    (group,) = _lines(folder, "Group")
    members = [member["entity"]["reference"] for member in group["member"]]
    assert sorted(members) == sorted(f"Patient/{one['id']}" for one in _lines(folder, "Patient"))
    assert group["quantity"] == len(members) == len(set(members)) == 40
    assert (group["type"], group["actual"], group["name"]) == ("person", True, "Simulated cohort, 40 patients")
    assert {tag["code"] for tag in group["meta"]["tag"]} == {"synthetic", "derived"}
    assert not inspect_fhir(folder).unlabelled


def test_reports_count_who_is_in_each_population(folder, population):
    when = reference_date([population.lazy()])
    members = membership(population, load_measures(), when)
    reports = {one["measure"]: one for one in _lines(folder, "MeasureReport")}
    measures = _lines(folder, "Measure")
    assert [f"{one['url']}|{one['version']}" for one in measures] == list(reports)
    (group,) = _lines(folder, "Group")
    scored = 0
    for measure, (name, own) in zip(measures, members.items(), strict=True):
        report = reports[f"{measure['url']}|{measure['version']}"]
        assert measure["url"].endswith(f"/{name}")
        (about,) = report["group"]
        counts = {one["code"]["coding"][0]["code"]: one["count"] for one in about["population"]}
        kept = own.filter("denominator", ~pl.col("exclusion"))
        assert counts == {
            "initial-population": own.height,
            "denominator": own["denominator"].sum(),
            "denominator-exclusion": own.filter("denominator", "exclusion").height,
            "numerator": kept["numerator"].sum(),
        }
        score = about.get("measureScore", {}).get("value")
        assert score == (pytest.approx(kept["numerator"].mean(), abs=1e-4) if kept.height else None)
        scored += score is not None
        assert report["subject"] == {"reference": f"Group/{group['id']}"}
        assert report["period"]["end"] == report["date"] == str(population["time"].max().date())
    assert scored >= 4


def test_a_measure_states_its_criteria_with_their_codes(folder):
    criteria = {
        population["code"]["coding"][0]["code"]: orjson.loads(population["criteria"]["expression"])
        for population in _lines(folder, "Measure")[0]["group"][0]["population"]
    }
    assert criteria["initial-population"] == {"ages": [18, 76], "period_months": 12}
    (numerator,) = criteria["numerator"]["all"]
    assert numerator == {"codes": "hba1c", "months": 12, "latest": {"unit": "%", "above": 9.0}, "or_none": True}
    assert "LOINC//4548-4" in criteria["numerator"]["codes"]["hba1c"]


@pytest.mark.parametrize("format", ["ndjson", "transaction", "batch", "collection"])
def test_the_same_in_every_format_and_grouping(format, folder, population, resources_in, tmp_path, monkeypatch):
    monkeypatch.setitem(ehrsim.fhir.export.GROUP_EVENTS, format, 500)
    shuffled = population.sample(fraction=1, shuffle=True, seed=2)
    export_fhir(shuffled, tmp_path / "out", format=format, include=COHORT_TYPES)
    own = [one for one in resources_in(tmp_path / "out") if one["resourceType"] in COHORT_TYPES]
    for one in own:
        if "subject" in one:
            one["subject"]["reference"] = one["subject"]["reference"].replace("urn:uuid:", "Group/")
    assert sorted(own, key=str) == sorted((one for kind in COHORT_TYPES for one in _lines(folder, kind)), key=str)
    assert not inspect_fhir(tmp_path / "out").dangling
    assert validate_fhir(tmp_path / "out").ok
    if format != "ndjson":
        assert orjson.loads((tmp_path / "out" / "cohort.json").read_bytes())["type"] == format


@pytest.mark.parametrize("format", ["ndjson", "transaction", "collection"])
def test_a_large_cohort_is_a_group_of_groups(format, population, resources_in, tmp_path, monkeypatch):
    monkeypatch.setattr(cohort, "MEMBERS", 15)
    monkeypatch.setattr("ehrsim.fhir.writers.COHORT_ENTRIES", 2)
    export_fhir(population, tmp_path / "out", format=format, include=["Group"])
    found = resources_in(tmp_path / "out")
    *parts, whole = [one for one in found if one["resourceType"] == "Group"]
    assert [len(part["member"]) for part in parts] == [15, 15, 10]
    assert whole["quantity"] == 40
    named = [member["entity"]["reference"][-36:] for member in whole["member"]]
    assert named == [part["id"] for part in parts]
    patients = {one["id"] for one in found if one["resourceType"] == "Patient"}
    assert {member["entity"]["reference"][-36:] for part in parts for member in part["member"]} == patients
    summary = inspect_fhir(tmp_path / "out")
    assert summary.references
    assert not summary.dangling


def test_another_cohort_of_the_run_has_another_group(folder, population, tmp_path):
    few = population.filter(pl.col("subject_id") < 9)
    export_fhir(few, tmp_path / "few", include=COHORT_TYPES)
    ids = [
        {kind: {one["id"] for one in _lines(where, kind)} for kind in COHORT_TYPES}
        for where in (folder, tmp_path / "few")
    ]
    assert ids[0]["Measure"] == ids[1]["Measure"]
    assert not ids[0]["Group"] & ids[1]["Group"]
    assert not ids[0]["MeasureReport"] & ids[1]["MeasureReport"]


def test_an_import_makes_no_events_of_them(folder, population, tmp_path):
    export_fhir(population, tmp_path / "plain")
    for name, source in (("with", folder), ("without", tmp_path / "plain")):
        import_events(source, tmp_path / name, identified=True)
    one, other = (ehrsim.read_events(tmp_path / name).collect() for name in ("with", "without"))
    assert one.equals(other)


def test_they_are_written_where_they_are_asked_for(population, tmp_path):
    assert not set(COHORT_TYPES) & export_fhir(population, tmp_path / "a").resources.keys()
    report = export_fhir(population, tmp_path / "b", include=["MeasureReport"])
    assert report.resources.keys() >= {"Measure", "MeasureReport"}
    assert "Group" not in report.resources
    assert all("subject" not in one for one in _lines(tmp_path / "b", "MeasureReport"))
    assert any(line.startswith("measure hba1c-poor-control: ") for line in report.lines())


def test_without_times_there_is_no_period_to_report_on(tmp_path):
    frame = pl.DataFrame({"subject_id": [1], "time": [None], "code": ["GENDER//female"]})
    report = export_fhir(frame, tmp_path / "out", include=COHORT_TYPES)
    assert report.resources["Group"] == 1
    assert "MeasureReport" not in report.resources


def test_measures_of_ones_own(population, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        """
        [codes]
        weight = ["LOINC//29463-7"]
        [[measure]]
        name = "weighed"
        title = "Weighed"
        description = "People who were weighed."
        improvement = "increase"
        kind = "process"
        ages = [0, 150]
        numerator = [{ codes = "weight", months = 12 }]
        """
    )
    report = export_fhir(population, tmp_path / "out", include=["MeasureReport"], measures=path)
    assert report.scores.keys() == {"weighed"}
    met, of = report.scores["weighed"]
    assert 0 < met <= of <= 40
    with pytest.raises(UsageError, match="no MeasureReport is asked for"):
        export_fhir(population, tmp_path / "other", measures=path)
    path.write_text("[codes]")
    with pytest.raises(FormatError, match="missing required field `measure`"):
        export_fhir(population, tmp_path / "other", include=["MeasureReport"], measures=path)
    assert not (tmp_path / "other").exists()
