"""The page on a patient, from every layout of an export."""

import re

import pytest

from ehrsim import reference
from ehrsim.errors import InputError, UsageError
from ehrsim.fhir import export_fhir
from ehrsim.fhir.chart import context, read_chart, write_chart
from ehrsim.fhir.writers import FINANCIAL_TYPES


@pytest.fixture(scope="module", params=["ndjson", "transaction", "collection"])
def exported(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("chart") / "out"
    export_fhir(reference.population(6, seed=3), out, format=request.param, include=FINANCIAL_TYPES)
    return out


def test_a_page_shows_a_patient_whole_and_says_that_it_is_synthetic(exported, tmp_path):
    page = tmp_path / "chart.html"
    shown = write_chart(exported, page)
    html = page.read_text(encoding="utf-8")
    told = context(read_chart(exported, shown))
    assert "<strong>Synthetic.</strong>" in html
    assert told["name"] in html
    assert dict(told["facts"]).keys() >= {"Sex", "Born", "Lives at", "Cared for by", "In an emergency", "Insured with"}
    for section in ("problems", "medications", "trends", "visits", "immunizations"):
        assert told[section], section
    assert {row.what for row in told["problems"]} <= set(re.findall(r"<span>([^<]+)<", html.replace("&#39;", "'")))
    assert any(row.more.count("for ") for row in told["medications"]), "orders name their reasons"
    assert any(trend.flag for trend in told["trends"]) or any(trend.usual for trend in told["trends"])
    assert "SYNTHETIC" in told["visits"][0].note
    assert "http://" not in re.sub(r"<svg.*?</svg>", "", html), "nothing is loaded from elsewhere"


def test_charts_of_all_layouts_are_the_same(tmp_path):
    population, pages = reference.population(4, seed=8), set()
    for layout in ("ndjson", "batch", "collection"):
        export_fhir(population, tmp_path / layout, format=layout)
        write_chart(tmp_path / layout, tmp_path / f"{layout}.html", patient="2")
        pages.add((tmp_path / f"{layout}.html").read_bytes())
    assert len(pages) == 1


def test_a_patient_is_named_by_subject_or_by_id(exported, tmp_path):
    chart = read_chart(exported, "3")
    assert read_chart(exported, chart.patient["id"]).patient == chart.patient
    with pytest.raises(InputError, match="has no patient `77`"):
        write_chart(exported, tmp_path / "chart.html", patient="77")
    assert not (tmp_path / "chart.html").exists()


def test_a_page_that_exists_is_kept(exported, tmp_path):
    page = tmp_path / "chart.html"
    page.write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        write_chart(exported, page)
    assert page.read_text() == "mine"


def test_a_folder_without_patients_is_refused(tmp_path):
    (tmp_path / "Observation.ndjson").write_bytes(b"")
    with pytest.raises(InputError, match="holds no Patient"):
        write_chart(tmp_path, tmp_path / "chart.html")


def test_what_goes_on_comes_before_what_has_ended(tmp_path):
    export_fhir(reference.population(6, seed=3), tmp_path / "out")
    found = set()
    for subject in range(1, 7):
        shown = context(read_chart(tmp_path / "out", str(subject)))
        for name, word in (("problems", "Active"), ("medications", "active"), ("care_plans", "active")):
            going_on = [row.more.startswith(word) for row in shown[name]]
            assert going_on == sorted(going_on, reverse=True)
            found |= set(going_on)
    assert found == {True, False}
