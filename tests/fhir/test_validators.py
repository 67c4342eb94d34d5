"""Exports held against validators that know more than fhir.resources: profiles, invariants, bindings, references."""

import os
import shutil
import subprocess
from pathlib import Path

import orjson
import polars as pl
import pytest

import ehrsim
from ehrsim import codes, reference
from ehrsim.fhir import export_cds_hooks, export_fhir
from ehrsim.fhir.locales import LOCALES
from ehrsim.fhir.writers import ON_REQUEST
from ehrsim.importers import import_events
from ehrsim.training import training_config

MEDPLUM = Path(__file__).parent / "medplum.mjs"
SUBJECTS = 200


@pytest.fixture(scope="session")
def work(shared) -> Path:
    """The folder of installed validators, set up where they are not; needs node, npm and the network for that."""
    folder = Path(os.environ.get("FHIR_WORK", Path.home() / ".cache" / "fhir-validators"))
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (folder / "npm" / "node_modules" / "fhirpath").is_dir():
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed")
        setup = shared / "fhir" / "validators" / "setup.sh"
        subprocess.run(["bash", str(setup)], check=True, env={**os.environ, "FHIR_WORK": str(folder)})
    return folder


@pytest.fixture(params=["specval", "medplum"])
def check(request, work, shared):
    """A function that holds all bundles of a folder against a validator and returns how many resources it checked.

    Its second argument is the folder of the version of US Core.
    """
    script = MEDPLUM if request.param == "medplum" else shared / "fhir" / "validators" / "specval.mjs"
    profiles = ":".join(str(work / "igs" / name / "package") for name in ("610", "ips"))
    environment = {**os.environ, "FHIR_WORK": str(work), "FHIR_IGS": str(work / "igs"), "NM_MISC": str(work / "npm")}
    environment["PROFILES"] = profiles

    def run(folder: Path, us_core: str = "610") -> int:
        if us_core != "610":
            environment["PROFILES"] = str(work / "igs" / us_core / "package")
        files = [str(path) for path in sorted([*folder.glob("*.json"), *folder.glob("*.ndjson")])]
        found = subprocess.run(
            ["node", str(script), *files], capture_output=True, text=True, env=environment, check=False
        )
        last = found.stdout.splitlines()[-1]
        assert found.returncode == 0, found.stdout[:4_000] + found.stderr[:2_000]
        assert " 0 errors" in last
        return int(last.split()[0])

    return run


@pytest.mark.slow
def test_reference_patients_are_valid(check, tmp_path):
    """Two hundred patients, each with the first visits and every sixteenth later one."""
    visit = pl.col("visit_id")
    population = reference.population(SUBJECTS, seed=5).filter(visit.is_null() | (visit < 4) | (visit % 16 == 3))
    report = export_fhir(population, tmp_path / "out", format="collection", include=ON_REQUEST)
    assert check(tmp_path / "out") >= sum(report.resources.values()) > 80 * SUBJECTS


@pytest.mark.slow
@pytest.mark.parametrize(("locale", "us_core"), [*((name, "610") for name in LOCALES), ("us", "800")])
def test_patients_of_every_country_are_valid(locale, us_core, check, tmp_path):
    """Fifty, every tenth of another gender; those of the United States in US Core 6.1 and 8.0."""
    visit, code = pl.col("visit_id"), pl.col("code")
    few = reference.population(50, seed=9).filter(visit.is_null() | (visit < 3) | (visit % 16 == 3))
    other = (pl.col("subject_id") % 10 == 0) & code.str.starts_with("GENDER//")
    few = few.with_columns(pl.when(other).then(pl.lit("GENDER//other")).otherwise(code).alias("code"))
    options = {"us_core": "8.0"} if us_core == "800" else {}
    report = export_fhir(few, tmp_path / "out", format="collection", locale=locale, include=ON_REQUEST, **options)
    assert check(tmp_path / "out", us_core) >= sum(report.resources.values()) > 50 * 50


@pytest.mark.slow
@pytest.mark.parametrize("name", ["synthea_stu3_1461", "nafld_mayo_17549", "diabetes130_71518"])
def test_real_data_is_valid(name, check, event_sets, tmp_path):
    import_events(event_sets / name, tmp_path / "events")
    events = ehrsim.read_events(tmp_path / "events").collect()
    chosen = events["subject_id"].unique().sort().head(SUBJECTS)
    few = events.filter(pl.col("subject_id").is_in(chosen.implode()))
    report = export_fhir(few, tmp_path / "out", format="collection", include=ON_REQUEST)
    assert check(tmp_path / "out") >= sum(report.resources.values()) > 10 * SUBJECTS


@pytest.mark.slow
def test_simulated_patients_are_valid(check, event_sets, tmp_path):
    """Of a baseline that has hardly been trained: the stranger the records, the harder the test."""
    training = training_config("small", max_steps=60)
    import_events(event_sets / "synthea_stu3_1461", tmp_path / "events")
    ehrsim.fit(tmp_path / "events", tmp_path / "run", model="markov", training=training)
    cohort = ehrsim.generate(tmp_path / "run", SUBJECTS, seed=7)
    report = export_fhir(cohort, tmp_path / "out", format="collection", include=ON_REQUEST)
    assert check(tmp_path / "out") >= sum(report.resources.values()) > 10 * SUBJECTS


@pytest.mark.slow
def test_events_of_every_and_any_form_are_valid(check, every_row, random_events, tmp_path):
    """Random events know nothing of birth and death, so these two are left out."""
    any_form = random_events.filter(~pl.col("code").is_in([codes.BIRTH, codes.DEATH]) & (pl.col("subject_id") < 60))
    for name, table in (("every", every_row), ("any", any_form)):
        report = export_fhir(table, tmp_path / name, format="collection", include=ON_REQUEST)
        assert check(tmp_path / name) >= sum(report.resources.values())


@pytest.mark.slow
def test_summaries_of_reference_patients_are_valid(check, tmp_path):
    """Documents of whole lives, held against the IPS profiles beside those of US Core."""
    report = export_fhir(reference.population(SUBJECTS, seed=5), tmp_path / "out", format="ips")
    assert report.resources["Composition"] == SUBJECTS
    assert check(tmp_path / "out") >= sum(report.resources.values()) > 80 * SUBJECTS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["synthea_stu3_1461", "nafld_mayo_17549", "diabetes130_71518"])
def test_summaries_of_real_data_are_valid(name, check, event_sets, tmp_path):
    import_events(event_sets / name, tmp_path / "events")
    events = ehrsim.read_events(tmp_path / "events").collect()
    few = events.filter(pl.col("subject_id").is_in(events["subject_id"].unique().sort().head(50).implode()))
    report = export_fhir(few, tmp_path / "out", format="ips")
    assert report.resources["Composition"] == 50
    assert check(tmp_path / "out") >= sum(report.resources.values()) > 10 * 50


@pytest.mark.slow
def test_summaries_of_events_of_every_and_any_form_are_valid(check, every_row, random_events, tmp_path):
    any_form = random_events.filter(~pl.col("code").is_in([codes.BIRTH, codes.DEATH]) & (pl.col("subject_id") < 60))
    for name, table in (("every", every_row), ("any", any_form)):
        report = export_fhir(table, tmp_path / name, format="ips")
        assert check(tmp_path / name) >= sum(report.resources.values())


@pytest.mark.slow
@pytest.mark.parametrize("check", ["specval"], indirect=True)
def test_what_is_prefetched_and_drafted_is_valid(check, every_row, tmp_path):
    """Every searchset, collection of drafts and resource that CDS Hooks requests hold, each on its own."""
    population = reference.population(30, seed=5)
    for name, table in (("reference", population), ("every", every_row)):
        export_cds_hooks(table, tmp_path / name)
        requests = [orjson.loads(path.read_bytes()) for path in sorted((tmp_path / name).glob("*/*.json"))]
        held = [request["context"].get("draftOrders") for request in requests]
        held += [found for request in requests for found in request["prefetch"].values()]
        held = [one for one in held if one is not None]
        (tmp_path / f"{name}-held").mkdir()
        (tmp_path / f"{name}-held" / "all.ndjson").write_bytes(b"\n".join(map(orjson.dumps, held)))
        assert check(tmp_path / f"{name}-held") >= len(held) > 5 * len(requests)


@pytest.mark.slow
@pytest.mark.parametrize("check", ["specval"], indirect=True)
def test_a_defect_of_a_summary_is_found(check, every_row, tmp_path):
    """The section of allergies is required by the IPS profile alone."""
    export_fhir(every_row, tmp_path / "out", format="ips")
    path = tmp_path / "out" / "2.json"
    path.write_bytes(path.read_bytes().replace(b'"code":"48765-2"', b'"code":"8716-3"', 1))
    with pytest.raises(AssertionError, match="sectionAllergies"):
        check(tmp_path / "out")


@pytest.mark.slow
def test_the_validators_find_a_defect(check, every_row, tmp_path):
    export_fhir(every_row, tmp_path / "out", format="collection", include=ON_REQUEST)
    path = tmp_path / "out" / "2.json"
    path.write_bytes(path.read_bytes().replace(b'"status":"final"', b'"statuses":"final"', 1))
    with pytest.raises(AssertionError, match="status"):
        check(tmp_path / "out")
