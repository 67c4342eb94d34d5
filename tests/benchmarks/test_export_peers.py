"""What is counted and timed beside other ways to FHIR, and that what cannot run is told in one line."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path
from types import ModuleType

import orjson
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WRITES = """
import json, pathlib, sys
people, out = int(sys.argv[1]), pathlib.Path(sys.argv[2])
out.mkdir()
sum(range(people * 1_000_000))
lines = [json.dumps({"resourceType": "Patient", "id": str(one)}) + "\\n" for one in range(people)]
(out / "Patient.ndjson").write_text("".join(lines))
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for folder in (BENCHMARKS, BENCHMARKS / "peers"):
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("export_peers")


def test_resources_are_counted_in_any_layout_and_without_white_space(script: ModuleType, tmp_path: Path) -> None:
    patient, visit = {"resourceType": "Patient", "id": "a"}, {"resourceType": "Encounter", "id": "b"}
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": patient}, {"resource": visit}]}
    for name in ("bundles", "lines", "both"):
        (tmp_path / name).mkdir()
    (tmp_path / "bundles" / "a.json").write_text(json.dumps(bundle, indent=4))
    (tmp_path / "both" / "bundles.ndjson").write_text(json.dumps(bundle) + "\n\n" + json.dumps(bundle) + "\n")
    (tmp_path / "lines" / "Patient.ndjson").write_bytes(orjson.dumps(patient) + b"\n")
    (tmp_path / "lines" / "Encounter.ndjson").write_bytes(orjson.dumps(visit) + b"\n")
    (tmp_path / "lines" / "manifest.json").write_text('{"output": []}')
    (tmp_path / "lines" / "log.json").write_text("[1]")

    indented, lines, twice = (script.written(tmp_path / name) for name in ("bundles", "lines", "both"))
    assert (lines.resources, lines.patients) == (2, 1)
    assert lines.compact == lines.bytes, "one resource a line, and what is no FHIR does not count"
    assert indented.compact == lines.compact < indented.bytes
    assert twice.resources == 4 and twice.compact == 2 * lines.compact
    with pytest.raises(script.FailedError, match="wrote no FHIR"):
        script.written(tmp_path / "nothing")


def test_what_fails_is_one_line_and_the_rest_is_measured(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def program(code: str, requirements: str = "") -> object:
        def command(job: object) -> list[str]:
            return [str(job.python), "-c", code, str(job.patients), str(job.out)]

        return script.Program("rules", command, 2, 20, requirements)

    programs = {
        "good": program(WRITES),
        "raises": program("def deep(): raise ValueError('no such\\n  thing')\ndeep()"),
        "raises later": program(WRITES + "assert people < 20, 'too many'"),
        "silent": program("raise SystemExit(3)"),
        "empty": program("pass"),
        "not JSON": program(WRITES + "(out / 'more.json').write_text('{')"),
        "absent": script.Program("rules", lambda job: [str(job.out / "absent")], 2, 20),
        "apart": program(WRITES, "carebundle"),
        "not asked for": program(WRITES, "clinosim"),
    }
    monkeypatch.setattr(script, "PROGRAMS", programs)
    options = Namespace(peers=["carebundle"], work=None, small=False, repeats=2, seconds=30)
    found = script.run_programs(options, tmp_path)
    assert "unexpected end of data" in found.pop("not JSON")["failed"]
    assert "No such file" in found.pop("absent")["failed"]
    assert {name: row["failed"] for name, row in found.items() if name != "good"} == {
        "raises": "ended with 1: thing",
        "raises later": "ended with 1: AssertionError: too many",
        "silent": "ended with 3: it says nothing",
        "empty": "it wrote no FHIR",
        "apart": "needs an environment of its own: name a folder with --work",
    }
    good = found["good"]
    assert (good["resources"], good["patients"], good["runs"]) == (20, 20, 2)
    assert 0 < good["resources_per_cpu_second"] < good["resources_per_cpu_second_beyond_the_start"]
    shown = script.table(found)
    assert "Traceback" not in shown and shown.splitlines()[-1] == f"apart: {found['apart']['failed']}"
    assert not list(tmp_path.glob("out*")), "nothing is left behind"


def test_a_costly_program_is_not_repeated(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def command(job: object) -> list[str]:
        return [str(job.python), "-c", WRITES, str(job.patients), str(job.out)]

    monkeypatch.setattr(script, "PROGRAMS", {"one": script.Program("rules", command, 1, 2)})
    options = Namespace(peers=[], work=None, small=False, repeats=3, seconds=0.001)
    assert script.run_programs(options, tmp_path)["one"]["runs"] == 1


def test_a_sample_is_even_and_knows_the_mix(script: ModuleType, tmp_path: Path) -> None:
    for name, number in {"Patient": 3, "Observation": 1_999}.items():
        lines = (orjson.dumps({"resourceType": name, "id": at}) + b"\n" for at in range(number))
        (tmp_path / f"{name}.ndjson").write_bytes(b"".join(lines))
    samples, counts = script.sampled(tmp_path, 1_000)
    assert counts == {"Patient": 3, "Observation": 1_999}
    assert len(samples["Patient"]) == 3
    assert [one["id"] for one in samples["Observation"]] == list(range(0, 1_999, 2))


def test_rates_are_for_the_mix_of_types_not_for_that_of_the_sample(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"Patient": 0.5, "Observation": 0.001}
    monkeypatch.setattr(script, "seconds_each", lambda work, some: seconds[some[0]["resourceType"]])
    monkeypatch.delitem(script.WAYS, "fhir.resources R4B, validated and dumped")
    samples = {name: [{"resourceType": name}] for name in seconds}
    rows = script.run_ways(samples, Counter({"Patient": 1, "Observation": 500}), 1)
    size = len('{"resourceType":"Patient"}\n') + 500 * len('{"resourceType":"Observation"}\n')
    filled = rows["dicts filled, dumped by orjson"]
    assert filled["resources_per_cpu_second"] == pytest.approx(501 / (0.5 + 500 * 0.001))
    assert filled["mb_per_cpu_second"] == pytest.approx(size / 1e6 / 1.0, rel=1e-3)


def test_every_way_gives_the_same_resource(script: ModuleType) -> None:
    resource = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "4548-4", "display": "HbA1c – blood"}]},
        "valueQuantity": {"value": 8.1, "unit": "%"},
    }
    for name, way in script.WAYS.items():
        assert orjson.loads(way("Observation")(resource)) == resource, name
    again = script.anew(resource)
    assert again == resource
    assert again["code"]["coding"] is not resource["code"]["coding"]
    assert again["code"]["coding"][0] is not resource["code"]["coding"][0]


def test_who_simulates_is_held_against_who_simulates(script: ModuleType) -> None:
    found = {
        name: {"resources_per_cpu_second": rate, "mb_per_cpu_second": rate}
        for name, rate in {
            script.EXPORTED: 100,
            script.SIMULATED: 80,
            "clinosim 0.6.5": 10,
            "dicts filled, dumped by json": 50,
        }.items()
    }
    found["clinosim 0.6.5"]["resources_per_cpu_second_beyond_the_start"] = 20
    ratios = script.with_ratios({**found, "tietai-synthea 1.5.0": {"failed": "no"}})
    assert [row.get("ehrsim_is_times_by_resources") for row in ratios.values()] == [1, 1, 4, 2, None]
    assert ratios["clinosim 0.6.5"]["ehrsim_is_times_by_mb"] == 8


def test_every_program_that_needs_an_environment_is_pinned(script: ModuleType) -> None:
    for name, program in script.PROGRAMS.items():
        if program.requirements:
            (pinned,) = (BENCHMARKS / "peers" / "requirements" / f"{program.requirements}.txt").read_text().split()
            assert name.startswith(pinned.replace("==", " "))


@pytest.mark.slow
def test_the_script_measures_ehrsim_and_the_other_ways_without_any_peer() -> None:
    command = [sys.executable, str(BENCHMARKS / "export_peers.py"), "--small", "--repeats", "1"]
    done = subprocess.run([*command, "--peers", "carebundle"], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    failed = {name for name, row in result["rows"].items() if "failed" in row}
    assert failed == {"carebundle 0.5.0, ndjson", "carebundle 0.5.0, bundles"}
    measured = {name: row for name, row in result["rows"].items() if name not in failed}
    assert len(measured) == 7
    assert all(row["resources"] == sum(result["mix"].values()) for row in measured.values())
    rates = {name: row["resources_per_cpu_second"] for name, row in measured.items()}
    assert rates["fhir.resources R4B, validated and dumped"] < rates["dicts filled, dumped by json"]
    assert rates["dicts filled, dumped by json"] < rates["dicts that are there, dumped by orjson"]
    assert rates["ehrsim, validate fast"] < rates["ehrsim, validate none"]
    assert "Traceback" not in done.stderr
