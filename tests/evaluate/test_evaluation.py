"""The whole evaluation: files, bars, gates, the page, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import polars as pl
import pytest

import ehrsim
from ehrsim import events
from ehrsim.errors import GateError, InputError, UsageError
from ehrsim.evaluate import gates
from ehrsim.evaluate.report import Metric, Report, table

pytest.importorskip("sklearn")
SCHEMAS = Path(__file__).parents[2] / "schemas"
QUICK = {"draws": 10, "patients": 120}


@pytest.fixture(scope="module")
def sources(world, tmp_path_factory) -> tuple[Path, Path]:
    """A MEDS folder with splits, and a Parquet file of as good a cohort as there can be."""
    folder = tmp_path_factory.mktemp("sources")
    with events.event_writer(folder / "real", {"dataset_name": "world"}) as writer:
        writer.write(world(150, seed=1).collect(), "train")
        writer.write(world(120, seed=2).with_columns(pl.col("subject_id") + 1000).collect(), "held_out")
    events.write_events(world(150, seed=3), folder / "cohort.parquet")
    return folder / "real", folder / "cohort.parquet"


@pytest.fixture(scope="module")
def written(sources, tmp_path_factory) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("report") / "out"
    return ehrsim.evaluate_cohort(*sources, out, **QUICK), out


def test_every_metric_comes_four_ways(written) -> None:
    report, _ = written
    assert [section.name for section in report.sections] == ["fidelity", "diversity"]
    for section in report.sections:
        names = [metric.name for metric in section.metrics]
        assert len(set(names)) == len(names)
        for metric in section.metrics:
            assert None not in (metric.value, metric.interval, metric.floor, metric.ceiling), metric.name
            assert metric.interval[0] <= metric.value <= metric.interval[1], metric.name
            assert metric.bar and metric.met is not None, metric.name
    facts = {one.role: one for one in report.cohorts}
    assert facts["held_out"].source == "real, split held_out" and facts["held_out"].patients == 120
    assert facts["real"].patients == facts["simulated"].patients == facts["marginal"].patients == 120


def test_the_report_on_disk_is_that_of_the_schema_and_the_same_again(written, sources, tmp_path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    report, out = written
    text = (out / "report.json").read_bytes()
    jsonschema.validate(json.loads(text), json.loads((SCHEMAS / "evaluation-report.schema.json").read_text()))
    assert msgspec.json.decode(text, type=Report) == report
    ehrsim.evaluate_cohort(*sources, tmp_path / "again", **QUICK)
    for name in ("report.json", "report.html"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes(), name


def test_the_page_needs_nothing_else_and_shows_no_real_patient(written, structure_of) -> None:
    _, out = written
    page = (out / "report.html").read_text(encoding="utf-8")
    structure = structure_of(page)
    assert structure.open == [] and "script" not in structure.seen
    assert all(address.startswith(("#", "data:")) for address in structure.addresses)
    assert not re.search(r"https?:|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page and "@media print" in page
    lives = re.findall(r'aria-label="Timeline of (\w+) patient', page)
    assert lives == ["simulated", "simulated"]


def test_frames_are_judged_like_files_and_halved_where_there_are_no_splits(world) -> None:
    report = ehrsim.evaluate_cohort(world(200, seed=1).collect(), world(100, seed=3), **QUICK)
    held_out, real, *_ = report.cohorts
    assert (held_out.patients, real.patients) == (100, 100)
    assert held_out.source == "events given, half of it"


def test_training_patients_may_be_a_table_of_their_own(world) -> None:
    report = ehrsim.evaluate_cohort(world(90, seed=1), world(80, seed=3), train=world(100, seed=2), **QUICK)
    assert [one.patients for one in report.cohorts] == [90, 80, 80, 80]


def test_a_strict_evaluation_names_the_gates_that_fail(sources, shuffled, tmp_path) -> None:
    real, cohort = sources
    bad = shuffled(events.read_events(cohort))
    with pytest.raises(GateError, match="sequence_by_patient/total_variation"):
        ehrsim.evaluate_cohort(real, bad, tmp_path / "bad", strict=True, **QUICK)
    assert (tmp_path / "bad" / "report.json").is_file(), "the report says what was found"
    lenient = tmp_path / "gates.toml"
    lenient.write_text('[[bar]]\nmetrics = "*"\nplus = -9.0\n')
    assert not ehrsim.evaluate_cohort(real, bad, gates_file=lenient, strict=True, **QUICK).failed, "none is a gate"


def test_the_first_bar_that_matches_counts() -> None:
    metric = Metric(name="number/age", group="", title="", best="low", value=0.2, floor=0.1)
    bars = [gates.Bar(metrics="a/other", plus=1), gates.Bar(metrics="a/number/*", of_floor=1.5, gate=True)]
    judged = gates._judged("a", metric, [*bars, gates.Bar(metrics="*", plus=9)])
    assert (judged.limit, judged.met, judged.gate, judged.bar) == (0.15, False, True, "<= 1.5 floor")


@pytest.mark.parametrize(
    ("best", "value", "floor", "met"),
    [("low", 0.13, 0.1, True), ("low", 0.14, 0.1, False), ("low", None, 0.1, False), ("low", 0.1, None, None)],
)
def test_a_bar_is_met_or_not(best, value, floor, met) -> None:
    metric = Metric(name="a", group="", title="", best=best, value=value, floor=floor)
    assert gates._judged("s", metric, [gates.Bar(metrics="*", of_floor=1.3)]).met is met


@pytest.mark.parametrize(("value", "floor", "met"), [(0.981, 0.99, True), (0.97, 0.99, False), (-0.2, -0.1, False)])
def test_high_values_must_not_fall_far_below_the_floor(value, floor, met) -> None:
    metric = Metric(name="a", group="", title="", best="high", value=value, floor=floor)
    assert gates._judged("s", metric, [gates.Bar(metrics="*", of_floor=0.99)]).met is met


def test_every_bar_of_the_built_in_file_is_of_a_metric(written) -> None:
    from fnmatch import fnmatchcase

    report, _ = written
    names = [f"{section.name}/{metric.name}" for section in report.sections for metric in section.metrics]
    bars = [bar for bar in gates.load() if not bar.metrics.startswith("privacy/")]
    assert all(any(fnmatchcase(name, bar.metrics) for name in names) for bar in bars)


@pytest.mark.slow
def test_attacks_find_copies_and_nothing_in_other_patients(sources) -> None:
    real, cohort = sources
    other = ehrsim.evaluate_cohort(real, cohort, attacks=True, **QUICK).sections[-1]
    copies = events.read_events(real, "train")
    copied = ehrsim.evaluate_cohort(real, copies, attacks=True, **QUICK)
    assert other.name == copied.sections[-1].name == "privacy"
    found = {metric.name: metric for metric in other.metrics}
    low, high = found["membership/auc"].interval
    assert low < 0.5 < high
    assert all(metric.met is not False for name, metric in found.items() if name.startswith("membership/group"))
    assert found["copies/exact"].value < 0.05
    held = {bar.metrics for bar in gates.load() if bar.metrics.startswith("privacy/")}
    assert {f"privacy/{name}" for name in ("membership/auc", "linkability")} <= held
    failed = set(copied.failed)
    assert {"privacy/membership/auc", "privacy/membership/found_at_0.01"} <= failed
    assert "privacy/singling_out/several_parts" in failed
    assert next(one.value for one in copied.sections[-1].metrics if one.name == "copies/exact") == 1


def test_nobody_is_attacked_where_nothing_says_who_was_trained_on(world) -> None:
    with pytest.raises(UsageError, match="nothing says who was trained on"):
        ehrsim.evaluate_cohort(world(200, seed=1).collect(), world(100, seed=3), attacks=True, **QUICK)


def test_a_bar_may_be_held_against_a_bound() -> None:
    metric = Metric(name="a", group="", title="", best="low", value=0.55, interval=(0.5, 0.62))
    assert [gates.Bar(metrics="*", plus=0.6, held=held).of(metric) for held in ("value", "lower", "upper")] == [
        0.55,
        0.5,
        0.62,
    ]
    assert gates.Bar(metrics="*", plus=0.6, held="upper").text(metric) == "upper bound <= 0.6"


def test_what_cannot_be_judged_is_refused_in_one_line(world, tmp_path) -> None:
    nobody = world(5, seed=1).filter(pl.col("subject_id") > 99)
    with pytest.raises(InputError, match="0 patients"):
        ehrsim.evaluate_cohort(world(20, seed=1), nobody, **QUICK)
    with pytest.raises(InputError, match="no column `time`"):
        ehrsim.evaluate_cohort(world(20, seed=1), pl.DataFrame({"subject_id": [1]}), **QUICK)
    with pytest.raises(UsageError, match="patients"):
        ehrsim.evaluate_cohort(world(20, seed=1), world(20, seed=2), patients=1)
    broken = tmp_path / "gates.toml"
    broken.write_text("[[bar]]\nmetrics = 3\n")
    with pytest.raises(InputError, match=r"gates\.toml is no file of bars"):
        ehrsim.evaluate_cohort(world(20, seed=1), world(20, seed=2), gates_file=broken)
    assert [path.name for path in tmp_path.iterdir()] == ["gates.toml"]


def test_the_table_is_plain_text(written) -> None:
    shown = table(written[0]).splitlines()
    assert shown[0].split() == ["value", "95", "%", "interval", "real", "marginals", "ratio", "bar", "met"]
    assert len(shown) == 1 + sum(len(section.metrics) for section in written[0].sections)
