"""The run folder: read back exactly, refused in one line when anything in it is not as it was written."""

import json
import pickle
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ehrsim import runs
from ehrsim.errors import RunError, UsageError


@pytest.fixture
def folder(tiny_run, tmp_path) -> Path:
    """A copy of a run folder to damage."""
    return Path(shutil.copytree(tiny_run("markov").folder, tmp_path / "run"))


def sign(folder: Path) -> None:
    """Write the hashes anew, as someone would who means the damage."""
    lines = [f"{sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in runs.FILES]
    (folder / runs.MANIFEST).write_text("".join(lines))


def refusal(folder: Path) -> str:
    with pytest.raises(RunError) as caught:
        runs.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_what_was_saved_is_loaded(tiny_run, tmp_path):
    source = tiny_run("markov").folder
    run = runs.load(source)
    runs.save(run, source / "metrics.jsonl", tmp_path / "again")
    for name in (*runs.FILES, runs.MANIFEST):
        assert (tmp_path / "again" / name).read_bytes() == (source / name).read_bytes(), name
    weights = load_file(source / "weights.safetensors")
    assert runs.to_arrays(run.model).keys() == weights.keys()
    assert all(np.array_equal(found, weights[name]) for name, found in runs.to_arrays(run.model).items())
    assert len(run.identity) == 32


def test_a_run_is_not_written_over(tiny_run):
    source = tiny_run("markov").folder
    with pytest.raises(UsageError, match="--overwrite"):
        runs.save(runs.load(source), source / "metrics.jsonl", source)


def test_the_manifest_holds_the_hashes(folder):
    listed = dict(reversed(line.split("  ")) for line in (folder / runs.MANIFEST).read_text().splitlines())
    assert sorted(listed) == sorted(runs.FILES)
    assert all(sha256((folder / name).read_bytes()).hexdigest() == digest for name, digest in listed.items())


@pytest.mark.parametrize("name", [*runs.FILES, runs.MANIFEST])
def test_a_missing_file_is_named(name, folder):
    (folder / name).unlink()
    assert name in refusal(folder)


@pytest.mark.parametrize("name", runs.FILES)
def test_an_altered_file_is_named(name, folder):
    with (folder / name).open("ab") as file:
        file.write(b" ")
    assert "has been altered" in refusal(folder)


@pytest.mark.parametrize("name", runs.FILES)
def test_a_truncated_file_is_named(name, folder):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    assert name in refusal(folder)


@pytest.mark.parametrize("name", [name for name in runs.FILES if name != "metrics.jsonl"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe", b"[1, 2]", pickle.dumps({"a": 1})])
def test_a_signed_file_of_something_else_is_refused(name, content, folder):
    (folder / name).write_bytes(content)
    sign(folder)
    assert name in refusal(folder)


def test_nothing_is_unpickled(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    for name in ("weights.safetensors", "scales.safetensors"):
        (folder / name).write_bytes(pickle.dumps(Bomb()))
        sign(folder)
        refusal(folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("manifest", ["", "no hashes here\n", "\x00\x01"])
def test_a_manifest_of_something_else_is_refused(manifest, folder):
    (folder / runs.MANIFEST).write_text(manifest)
    assert runs.MANIFEST in refusal(folder)


def test_a_manifest_that_is_no_text_is_refused(folder):
    (folder / runs.MANIFEST).write_bytes(b"\xff\xfe\x80")
    assert runs.MANIFEST in refusal(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format_version": 99}, f"run format 99, expected {runs.FORMAT_VERSION}"),
        ({"format_version": "1"}, "format_version"),
        ({"model": "oracle"}, "unknown model `oracle`"),
        ({"model_config": {"width": 3}}, "width"),
        ({"sizes": {}}, "config.json"),
        ({"surplus": 1}, "surplus"),
    ],
)
def test_another_configuration_is_refused(change, said, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    sign(folder)
    assert said in refusal(folder)


@pytest.mark.parametrize("size", ["vocabulary", "kinds", "places", "gaps", "groups"])
def test_sizes_of_another_vocabulary_are_refused(size, folder):
    config = json.loads((folder / "config.json").read_text())
    config["sizes"][size] = -1
    (folder / "config.json").write_text(json.dumps(config))
    sign(folder)
    assert "config.json" in refusal(folder)


def test_a_vocabulary_of_another_run_is_refused(folder):
    vocabulary = json.loads((folder / "vocabulary.json").read_text())
    vocabulary["entries"] = vocabulary["entries"][1:]
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary))
    sign(folder)
    assert "sizes" in refusal(folder)


@pytest.mark.parametrize("damage", ["shape", "type", "missing", "surplus"])
def test_weights_of_another_model_are_refused(damage, folder):
    weights = load_file(folder / "weights.safetensors")
    name = sorted(weights)[0]
    if damage == "shape":
        weights[name] = weights[name][:-1]
    elif damage == "type":
        weights[name] = weights[name].astype(np.float16)
    elif damage == "missing":
        del weights[name]
    else:
        weights["extra.value"] = weights[name]
    save_file(weights, folder / "weights.safetensors")
    sign(folder)
    assert ("extra.value" if damage == "surplus" else name) in refusal(folder)


@pytest.mark.parametrize("where", ["nowhere", "file"])
def test_what_is_no_folder_is_refused(where, tmp_path):
    (tmp_path / "file").write_text("no run")
    assert where in refusal(tmp_path / where)
