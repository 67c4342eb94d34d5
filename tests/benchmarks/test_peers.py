"""Every peer reads and writes the same exchange file, and what an exchange file says survives the way to events."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

import ehrsim
from ehrsim import events

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PEERS = BENCHMARKS / "peers"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    for folder in (BENCHMARKS, PEERS):
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module(request.param)


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PEERS))
    return importlib.import_module("exchange")


@pytest.mark.parametrize("script", ["conversion"], indirect=True)
def test_what_is_exchanged_survives_the_way_to_events_and_back(
    script: ModuleType, exchange: ModuleType, tiny_events: pl.DataFrame, tmp_path: Path
) -> None:
    vocabulary = script.known(tiny_events.lazy(), 11)
    table = script.exchanged(tiny_events.lazy(), vocabulary)
    assert table.height == tiny_events["subject_id"].n_unique()
    assert table["birth"].null_count() == 0 and set(table["sex"]) == {"female", "male"}
    visits = table["visits"].explode().struct.unnest()
    assert set(visits["type"]) == {"AMB", "IMP"}
    assert visits["codes"].list.len().min() >= 1

    frame = script.as_events(table)
    assert frame.equals(events.sort(events.conform(frame).lazy()).collect())
    assert script.exchanged(frame.lazy(), vocabulary).equals(table)

    table.write_parquet(tmp_path / "first.parquet")
    exchange.write(exchange.read(tmp_path / "first.parquet"), tmp_path / "second.parquet")
    assert exchange.table_of(tmp_path / "second.parquet").equals(table)


@pytest.mark.parametrize("script", ["conversion"], indirect=True)
def test_rare_codes_are_not_exchanged(script: ModuleType, tiny_events: pl.DataFrame) -> None:
    rare = tiny_events.filter(pl.col("code") == "LOINC//4548-4").unique("subject_id").head(10)
    marked = pl.concat([tiny_events, rare.with_columns(code=pl.lit("LOINC//rare"))]).lazy()
    assert "LOINC//rare" not in script.known(marked, 11) and "LOINC//rare" in script.known(marked, 10)
    visits = script.exchanged(marked, script.known(marked, 11))["visits"].explode().struct.unnest()
    assert "LOINC//rare" not in visits["codes"].explode()


def test_patients_that_are_not_as_they_should_be_are_refused(exchange: ModuleType, tmp_path: Path) -> None:
    def life(*visits: tuple[int, tuple[str, ...]]) -> list:
        return [exchange.Patient(None, None, tuple(exchange.Visit(start, None, codes) for start, codes in visits))]

    exchange.write(life((5, ("A", "B")), (5, ("A",))), tmp_path / "good.parquet")
    for visits, why in (
        ([(5, ("A",)), (4, ("A",))], "order of time"),
        ([(5, ())], "codes"),
        ([(5, ("A", "A"))], "codes"),
        ([(5, ("B", "A"))], "codes"),
    ):
        with pytest.raises(ValueError, match=why):
            exchange.write(life(*visits), tmp_path / "bad.parquet")
    assert not (tmp_path / "bad.parquet").exists()


@pytest.mark.parametrize("script", ["conversion"], indirect=True)
def test_marginals_are_kept_and_nothing_else(
    script: ModuleType, exchange: ModuleType, tiny_events: pl.DataFrame, tmp_path: Path
) -> None:
    table = script.exchanged(tiny_events.lazy(), script.known(tiny_events.lazy(), 11))
    table.write_parquet(tmp_path / "train.parquet")
    said = simulated("marginals", sys.executable, tmp_path, 400)
    assert said["generate"]["wall"] > 0
    real, other = (exchange.read(tmp_path / f"{name}.parquet") for name in ("train", "out"))
    assert len(other) == 400
    means = [[sum(len(patient.visits) for patient in cohort) / len(cohort) for cohort in (real, other)]]
    contents = [[visit for patient in cohort for visit in patient.visits] for cohort in (real, other)]
    means.append([sum(len(visit.codes) for visit in visits) / len(visits) for visits in contents])
    for truth, model in means:
        assert model == pytest.approx(truth, rel=0.1)
    shares = [Counter(code for visit in visits for code in visit.codes) for visits in contents]
    assert set(shares[1]) == set(shares[0])
    together = [sum({"ICD10CM//E11.9", "RxNorm//860975"} <= set(visit.codes) for visit in v) / len(v) for v in contents]
    assert together[1] < 0.6 * together[0], "a disease and its medication are drawn independently"


def simulated(peer: str, python: str | Path, folder: Path, patients: int) -> dict:
    """What a peer says that it took to write `out.parquet` from `train.parquet`."""
    command = [str(python), str(PEERS / f"{peer}.py"), "--small", "--patients", str(patients), "--seed", "1"]
    for option, name in (("train", "train"), ("tuning", "train"), ("out", "out")):
        command += [f"--{option}", str(folder / f"{name}.parquet")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (BENCHMARKS, PEERS)))}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["conversion"], indirect=True)
@pytest.mark.parametrize("peer", ["tokens", "medgan", "halo"])
def test_a_peer_with_an_environment_simulates_patients(
    script: ModuleType, exchange: ModuleType, tiny_events: pl.DataFrame, tmp_path: Path, peer: str
) -> None:
    environments = importlib.import_module("environments")
    if not (cache := os.environ.get("EHRSIM_PEERS")):
        pytest.skip("EHRSIM_PEERS names no folder for environments of peers, which take gigabytes and minutes")
    try:
        python = environments.python_for(peer, Path(cache))
    except environments.NoEnvironmentError as error:
        pytest.skip(str(error))
    vocabulary = script.known(tiny_events.lazy(), 11)
    script.exchanged(tiny_events.lazy(), vocabulary).write_parquet(tmp_path / "train.parquet")
    said = simulated(peer, python, tmp_path, 50)
    assert said["fit"]["cpu"] > 0 and said["generate"]["cpu"] > 0
    patients = exchange.read(tmp_path / "out.parquet")
    assert len(patients) == 50
    codes = {code for patient in patients for visit in patient.visits for code in visit.codes}
    assert codes <= set(vocabulary)


@pytest.mark.slow
def test_peers_stand_side_by_side(tmp_path: Path, tiny_events: pl.DataFrame) -> None:
    events.write_events(tiny_events.lazy(), tmp_path / "all")
    ehrsim.import_events(tmp_path / "all", tmp_path / "events", held_out=0.3)
    # The training patients themselves: as like as can be, so their distances are those of the floor.
    events.write_events(ehrsim.read_events(tmp_path / "events", "train"), tmp_path / "themselves")
    command = [sys.executable, str(PEERS / "compare.py"), str(tmp_path / "events"), "--small", "--peers", "marginals"]
    command += ["--cohort", str(tmp_path / "themselves")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert set(result["peers"]) == {"marginals", "themselves"}
    for name, figure in result["peers"]["themselves"].items():
        assert name.startswith("told_apart") or figure["value"] == pytest.approx(figure["floor"])
    assert result["peers"]["marginals"]["pair_by_visit/total_variation"]["value"] > 0
    assert result["peers"]["marginals"]["patients a CPU second"]["value"] > 0
    assert "floor" in done.stderr and "marginals" in done.stderr


@pytest.mark.parametrize("script", ["environments"], indirect=True)
def test_a_python_that_is_not_there_is_named(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "REQUIREMENTS", tmp_path)
    (tmp_path / "peer.txt").write_text("# python 3.99\nnumpy==2.2.6\n")
    with pytest.raises(script.NoEnvironmentError, match=r"no Python 3\.99"):
        script.python_for("peer", tmp_path / "environments")
    assert script.python_for("another", tmp_path) == Path(sys.executable)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["sampling_speed"], indirect=True)
def test_speeds_of_drawing_stand_beside_the_records_drawn(script: ModuleType) -> None:
    models = "ordered,set,tokens" if os.environ.get("EHRSIM_PEERS") else "ordered,set"
    command = [sys.executable, str(BENCHMARKS / "sampling_speed.py"), "--small", "--repeats", "1", "--models", models]
    command += ["--environments", os.environ["EHRSIM_PEERS"]] if "tokens" in models else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert list(result["models"]) == models.split(",")
    for name, figures in result["models"].items():
        assert figures["patients_per_cpu_second"] > 0 and figures["simulated"]["codes_per_visit"] > 0
        assert name in done.stderr
    assert (result["ordered_over_tokens"] is None) == ("tokens" not in models)


@pytest.mark.parametrize("script", ["sampling_speed"], indirect=True)
def test_records_to_be_drawn_fast_have_ten_visits_of_ten_distinct_codes(script: ModuleType) -> None:
    table = script.synthetic(60, seed=1)
    assert table.equals(script.synthetic(60, seed=1)), "a seed decides"
    drawn = script.content(table.lazy())
    assert drawn["codes_per_visit"] == 10 and abs(drawn["visits_per_patient"] - 10) < 1.5
    codes = table.filter(pl.col("code").str.contains("^(SNOMED|RxNorm|LOINC)//"))["code"].value_counts(sort=True)
    assert codes["code"][0] == "SNOMED//10000", "the commonest"
