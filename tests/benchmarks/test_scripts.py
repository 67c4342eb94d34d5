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

from ehrsim import events

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COMMANDS = {
    "import_events": [],
    "export": [],
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
    for measured in result["formats"].values() if name == "import_events" else [result]:
        assert all(rate > 0 for key, rate in measured.items() if key.endswith("_second"))
        assert all(measured["counts"].values())


@pytest.mark.slow
def test_fidelity_is_told_beside_its_floor() -> None:
    command = [sys.executable, str(BENCHMARKS / "fidelity.py"), "--small", "--model", "markov", "--preset", "small"]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    held_out, real, simulated = result["patients"]
    assert 10 < held_out < real == simulated
    for figures in result["patterns"].values():
        assert 0 < figures["tvd_floor"] < figures["tvd"] <= 1
        assert figures["r2"] < figures["r2_floor"] <= 1
    assert all(figures["wasserstein_floor"] >= 0 for figures in result["numbers"].values())


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
