"""The command line: quick help, examples that work, exit codes, one line for every refusal."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ehrsim import cli

NAMES = list(cli.EXAMPLES)


def test_help_imports_nothing_heavy():
    program = (
        "import sys, ehrsim.cli\n"
        "assert ehrsim.cli.run(['--help']) == 0\n"
        "heavy = {'jax', 'flax', 'polars', 'numpy', 'optax', 'fhir'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_help_of_every_command_shows_its_example(name, capsys):
    assert cli.run([name, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(example in shown for example in (cli.EXAMPLES[name], *cli.MORE_EXAMPLES.get(name, ())))


@pytest.mark.slow
def test_the_examples_work_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, example in cli.EXAMPLES.items():
        if name == "upload":
            continue  # There is no server; `tests/fhir/test_upload.py` has one.
        for line in (example, *cli.MORE_EXAMPLES.get(name, ())):
            assert cli.run(shlex.split(line)[1:]) == 0, (line, capsys.readouterr().err)
            assert capsys.readouterr().out.strip(), f"{name} says nothing of what it did"
    assert (tmp_path / "demo" / "overview.html").is_file()
    assert (tmp_path / "fhir" / "Patient.ndjson").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "nonsense"),
        (["reference", "--out", "x"], "--number"),
        (["reference", "-n", "many", "--out", "x"], "many"),
        (["reference", "-n", "-5", "--out", "x"], "-5"),
        (["import", "nowhere", "--out", "x"], "nowhere does not exist"),
        (["import", "nowhere", "--from", "csv", "--out", "x"], "csv"),
        (["inspect", "nowhere"], "nowhere does not exist"),
        (["inspect", "."], "no events, no run and no FHIR"),
        (["fit", "nowhere", "--out", "x"], "nowhere"),
        (["fit", "nowhere", "--model", "oracle", "--out", "x"], "oracle"),
        (["fit", "nowhere", "--max-steps", "0", "--out", "x"], "max-steps"),
        (["generate", "nowhere", "-n", "5", "--out", "x"], "nowhere"),
        (["generate", "nowhere", "-n", "0", "--out", "x"], "0:0"),
        (["generate", "nowhere", "-n", "5", "--age", "old", "--out", "x"], "old"),
        (["generate", "nowhere", "-n", "5", "--range", "3:9", "--out", "x"], "3:9"),
        (["generate", "nowhere", "-n", "5", "--alive", "--deceased", "--out", "x"], "contradict"),
        (["generate", "nowhere", "-n", "5", "--years", "2", "--out", "x"], "--continue"),
        (["generate", "nowhere", "-n", "5", "--continue", "y", "--since", "soon", "--out", "x"], "soon"),
        (["generate", "nowhere", "-n", "5", "--continue", "y", "--range", "0:2", "--out", "x"], "--range"),
        (["export", "nowhere", "--out", "x"], "nowhere"),
        (["export", "nowhere", "--format", "xml", "--out", "x"], "xml"),
        (["export", "nowhere", "--to", "omop", "--entries", "5", "--out", "x"], "--entries does not go with --to omop"),
        (["export", "nowhere", "--to", "omop", "--format", "ndjson", "--out", "x"], "expected one of csv, parquet"),
        (["export", "nowhere", "--to", "csv", "--format", "parquet", "--out", "x"], "an option of --to fhir and omop"),
        (["export", "nowhere", "--to", "csv", "--gzip", "--out", "x"], "--gzip does not go with --to csv"),
        (["export", "nowhere", "--to", "meds", "--seed", "5", "--out", "x"], "--seed does not go with --to meds"),
        (["export", "nowhere", "--strict", "--out", "x"], "it is an option of --to meds"),
        (["export", "nowhere", "--hooks", "order-sign", "--out", "x"], "--hooks"),
        (["export", "nowhere", "--moments", "0", "--out", "x"], "--moments"),
        (["export", "nowhere", "--format", "ips", "--gzip", "--out", "x"], "ips"),
        (["export", "nowhere", "--to", "cds-hooks", "--format", "ips", "--out", "x"], "--format"),
        (["export", "nowhere", "--to", "cds-hooks", "--gzip", "--out", "x"], "--gzip"),
        (["export", "nowhere", "--to", "cds-hooks", "--hooks", "order-sing", "--out", "x"], "order-sing"),
        (["export", "nowhere", "--to", "cds-hooks", "--moments", "0", "--out", "x"], "moments"),
        (["export", "nowhere", "--to", "cds-hooks", "--prefetch", "absent.toml", "--out", "x"], "absent.toml"),
        (["export", "nowhere", "--to", "cds-hooks", "--fhir-server", "https://a.org/r4", "--out", "x"], "a.org"),
        (["schemas", "--check", "nowhere"], "nowhere"),
    ],
)
def test_a_refusal_is_one_line_and_leaves_nothing(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = cli.run(arguments)
    captured = capsys.readouterr()
    assert code == (1 if "--check" in arguments else 2)
    assert captured.err.startswith("ehrsim: ")
    assert len(captured.err.strip().splitlines()) == 1
    assert said in captured.err
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_is_not_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kept = Path("population")
    kept.mkdir()
    (kept / "notes.txt").write_text("mine")
    assert cli.run(["reference", "-n", "3", "--out", "population"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (kept / "notes.txt").read_text() == "mine"


def test_the_schemas_of_the_repository_are_what_the_models_give(capsys):
    folder = Path(__file__).parents[2] / "schemas"
    assert cli.run(["schemas", "--check", str(folder)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (["--to", "omop", "--format", "parquet"], "person.parquet"),
        (["--to", "omop"], "person.csv"),
        (["--to", "csv"], "mapping.toml"),
        (["--to", "meds", "--strict", "--shard", "500", "--splits", "none"], "data/1.parquet"),
    ],
)
def test_events_are_exported_to_tables(arguments, file, tiny_events, tmp_path, capsys):
    source, out = tmp_path / "events.parquet", tmp_path / "out"
    tiny_events.write_parquet(source)
    assert cli.run(["export", str(source), *arguments, "--out", str(out)]) == 0
    assert f"wrote 160 patients from {tiny_events.height:,} events" in capsys.readouterr().out
    assert (out / file).is_file()
