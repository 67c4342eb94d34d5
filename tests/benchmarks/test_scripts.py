"""Every benchmark runs as a script and prints one JSON line; the parts that decide what is measured are right."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

import ehrsim
from ehrsim import events
from ehrsim.reference import population
from ehrsim.reference.loading import load

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COMMANDS = {
    "import_events": [],
    "export": [],
    "export_tables": [],
    "generate": ["--model", "markov"],
    "train": [],
}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(request.param)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_script_prints_one_line_of_json_with_rates_machine_and_versions(name: str) -> None:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--small", "--repeats", "1", *COMMANDS[name]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result["benchmark"] == name
    assert result["machine"]["cores"] >= 1
    assert result["versions"]["ehrsim"]
    for measured in result["formats"].values() if "formats" in result else [result]:
        assert all(rate > 0 for key, rate in measured.items() if key.endswith("_second"))
        assert all(measured["counts"].values())


@pytest.mark.slow
def test_memory_of_exports_is_that_of_the_process_that_exports() -> None:
    command = [sys.executable, str(BENCHMARKS / "export_memory.py"), "--small"]
    few, more = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["figures"]
    assert 50 < few["peak_mb"] < 400
    assert more["gigabytes"] > 1.5 * few["gigabytes"]


@pytest.mark.slow
def test_attacks_find_what_was_handed_out_and_only_that() -> None:
    pytest.importorskip("sklearn")
    found = printed("attacks", "--small", "--memorised")["figures"]
    assert found["membership_by_data"]["auc"][0] > 0.95
    assert found["disclosure"]["singling_out"]["multivariate"]["low"] > 0.5
    assert found["copies"]["exact"]["low"] > 0.5
    assert found["membership_by_run"]["auc"][0] < 0.9, "a run of 40 steps has learned nobody by heart"
    found = printed("attacks", "--small", "--real")["figures"]
    assert found["membership_by_data"]["detections"][0]["found"]["low"] <= 0.02
    assert found["disclosure"]["singling_out"]["multivariate"]["low"] <= 0.02


@pytest.mark.slow
def test_an_accelerator_is_measured_beside_the_limit_of_its_memory() -> None:
    command = [sys.executable, str(BENCHMARKS / "accelerator.py"), "--small", "--preset", "small", "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["device"]
    for figures in (result["training"], result["generation"]):
        assert figures["visits_per_second"] > 0
        assert figures["times_the_bandwidth_limit"] > 1


@pytest.mark.slow
def test_a_large_vocabulary_is_measured_with_both_emissions() -> None:
    result = printed("large_vocabulary", "--small", "--repeats", "1")
    assert list(result["emissions"]) == ["two-level", "ordered"]
    two_level, ordered = result["emissions"].values()
    assert two_level["vocabulary"] == ordered["vocabulary"] > 450
    assert two_level["tuning_nats"] == pytest.approx(ordered["tuning_nats"], rel=0.1), "both know next to nothing"
    for figures in (two_level, ordered):
        assert figures["training"]["cpu_seconds_per_step"] > 0
        assert figures["generation"]["patients_per_cpu_second"] > 0
        assert 0 < figures["training"]["peak_gb_before"] <= figures["training"]["peak_gb_training"]


@pytest.mark.parametrize("script", ["large_vocabulary"], indirect=True)
def test_records_with_many_codes_have_a_long_tail_and_chronic_codes_that_recur(script: ModuleType) -> None:
    frame = script.population(300, 2_000, seed=3)
    assert events.validate(frame.lazy()) == []
    coded = frame.filter(~pl.col("code").is_in(["MEDS_BIRTH", "VISIT_START//AMB"]))
    number = coded.group_by("code").len().sort("len", descending=True)["len"]
    assert len(number) == 2_000
    assert number[0] > 20 * number[1_000] and number.min() >= 4
    again = coded.group_by("subject_id", "code").len().filter(pl.col("len") >= 3)
    assert again.height > 300, "chance alone makes few"


@pytest.mark.slow
def test_fidelity_is_told_beside_its_floor() -> None:
    command = [sys.executable, str(BENCHMARKS / "fidelity.py"), "--small", "--model", "markov", "--preset", "small"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    held_out, real, simulated = result["patients"]
    assert 10 < held_out < real == simulated
    metrics = result["metrics"]
    assert (
        0 < metrics["code_by_visit/total_variation"]["floor"] < metrics["code_by_visit/total_variation"]["value"] <= 1
    )
    assert metrics["code_by_visit/r_squared"]["value"] < metrics["code_by_visit/r_squared"]["floor"] <= 1
    for figure in metrics.values():
        if figure["interval"] is not None:
            assert figure["interval"][0] <= figure["value"] <= figure["interval"][1]
    assert metrics["told_apart/features"]["value"] > 0.65, "forty steps of training give no good patients"
    assert metrics["told_apart/network"]["bar"] == "<= 0.75"
    assert "what gives simulated patients away:" in done.stderr.splitlines()


@pytest.mark.slow
def test_an_evaluation_is_measured() -> None:
    result = printed("evaluate", "--small", "--repeats", "1")
    assert result["patients"] == 400 and 0.5 < result["events"]["real"] / result["events"]["synthetic"] < 2
    assert result["cpu_seconds"][0] > 0 and 0 < result["peak_gb"] < 4


@pytest.mark.slow
def test_a_cohort_on_conditions_keeps_them_all() -> None:
    result = printed("conditioning", "--small")
    assert result["asked"] == result["patients"] == result["keeping_all"] == 50
    assert 0 < result["acceptance"] <= 1
    assert 0 < result["others"]["tvd"]["floor"] < result["others"]["tvd"]["value"] < 1


@pytest.mark.slow
def test_futures_are_compared_with_what_came_and_with_guesses() -> None:
    result = printed("continuation", "--small")
    assert result["histories"] > 10
    assert 0 < result["visits"]["within_80_percent"] <= 1
    assert 0.5 < result["new_codes"]["auc_of_how_common"] < 1
    assert all(mean > 0 for mean in (*result["visits"]["means"], *result["new_codes"]["shares"]))


@pytest.mark.slow
def test_people_of_the_reference_population_have_its_hazards(tmp_path: Path) -> None:
    """Real people stand for simulated ones, so that the rates differ by chance alone."""
    events.write_events(population(3_000, seed=5).lazy(), tmp_path / "cohort")
    result = printed("hazards", "--cohort", str(tmp_path / "cohort"), "--people", "3000")
    assert result["of"] == len(result["rows"]) == 20
    held = [row["interval"][0] <= 1 <= row["interval"][1] for row in result["rows"]]
    assert sum(held) >= 16, "of 95 % intervals"
    assert all(row["true_rate"] > 0 and min(row["events"]) > 0 for row in result["rows"])


@pytest.mark.parametrize("script", ["hazards"], indirect=True)
def test_causes_and_outcomes_are_those_of_the_specification(script: ModuleType) -> None:
    pairs = list(script.pairs(load()))
    named = {(pair.cause, pair.outcome) for pair in pairs}
    assert {("diabetes", "ckd_2"), ("hypertension", "stroke"), ("coronary_disease", "statin_start_coronary")} <= named
    assert all(pair.cause_codes and pair.outcome_codes for pair in pairs)
    assert len({(pair.cause_codes, pair.outcome_codes) for pair in pairs}) == len(pairs), "none counts twice"
    assert not any(set(pair.cause_codes) & set(pair.outcome_codes) for pair in pairs)


def printed(name: str, *options: str) -> dict:
    """The line that a script prints."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *options]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
def test_a_cohort_that_is_there_is_judged_instead(tmp_path: Path, tiny_events: pl.DataFrame) -> None:
    events.write_events(tiny_events.lazy(), tmp_path / "all")
    ehrsim.import_events(tmp_path / "all", tmp_path / "events", held_out=0.3)
    # The training patients themselves: as like as can be, so their distances are those of the floor.
    events.write_events(ehrsim.read_events(tmp_path / "events", "train"), tmp_path / "cohort")
    command = [sys.executable, str(BENCHMARKS / "fidelity.py"), "--small", str(tmp_path / "events")]
    done = subprocess.run([*command, "--cohort", str(tmp_path / "cohort")], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["fit_seconds"] is None and result["model"] == "cohort"
    for name, figure in result["metrics"].items():
        assert name.startswith("told_apart") or figure["value"] == figure["floor"], name
    assert subprocess.run([*command, "--cohort", "a", "--run", "b"], check=False, capture_output=True).returncode == 2


@pytest.mark.parametrize("script", ["measure"], indirect=True)
def test_rates_are_of_the_median_repeat(script: ModuleType) -> None:
    seconds = [script.Seconds(cpu, wall) for cpu, wall in ((1, 2), (2, 4), (9, 99))]
    measured = script.rates({"events": 100}, seconds)
    assert measured["events_per_cpu_second"] == 50
    assert measured["events_per_wall_second"] == 25
    assert measured["cpu_seconds"] == [1, 2, 9]


@pytest.mark.parametrize("script", ["measure"], indirect=True)
def test_the_work_of_children_counts(script: ModuleType) -> None:
    work = "import time; begin = time.process_time()\nwhile time.process_time() - begin < 0.3: pass"
    _, taken = script.timed(lambda: subprocess.run([sys.executable, "-c", work], check=True))
    assert taken.cpu >= 0.28


@pytest.mark.parametrize("script", ["generate"], indirect=True)
def test_records_are_cut_to_their_last_visits_by_time_and_keep_facts(script: ModuleType) -> None:
    rows = [(1, None, "GENDER//male", None)]
    rows += [(1, datetime(2000 + number, 1, 1), f"A{part}", number) for number in range(1, 6) for part in range(2)]
    frame = events.conform(pl.DataFrame(rows, schema=["subject_id", "time", "code", "visit_id"], orient="row"))
    kept = script.last_visits(frame, 2)
    assert kept["visit_id"].to_list() == [None, 4, 4, 5, 5]
