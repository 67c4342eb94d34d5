"""Outputs are whole or absent, whatever happens on the way."""

import os
import signal
import subprocess
import sys

import pytest

from ehrsim.errors import InputError, UsageError
from ehrsim.outputs import atomic_directory, atomic_file


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_it_is_finished(tmp_path):
    with atomic_directory(tmp_path / "deep" / "out") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert names(tmp_path / "deep") == ["out"]
    assert (tmp_path / "deep" / "out" / "a").read_text() == "1"


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), atomic_directory(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        raise KeyError("broken")
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "file") as path:
        path.write_text("1")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_failure_keeps_what_was_there(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    (tmp_path / "file").write_text("old")
    with pytest.raises(KeyError), atomic_directory(tmp_path / "out", overwrite=True) as folder:
        (folder / "new").write_text("new")
        raise KeyError
    with pytest.raises(KeyError), atomic_file(tmp_path / "file") as path:
        path.write_text("new")
        raise KeyError
    assert names(tmp_path) == ["file", "out"]
    assert names(tmp_path / "out") == ["old"]
    assert (tmp_path / "file").read_text() == "old"


def test_overwriting_replaces_everything(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with atomic_directory(tmp_path / "out", overwrite=True) as folder:
        (folder / "new").write_text("new")
        assert names(tmp_path / "out") == ["old"]
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["new"]


def test_a_failure_to_rename_puts_the_old_back(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_directory(tmp_path / "out", overwrite=True) as folder:
        folder.rmdir()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["old"]


def test_what_exists_is_refused_before_any_work(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="full exists already"), atomic_directory(tmp_path / "full"):
        raise AssertionError("work began")
    for overwrite in (False, True):
        with (
            pytest.raises(UsageError, match="expected a folder"),
            atomic_directory(tmp_path / "file", overwrite=overwrite),
        ):
            raise AssertionError("work began")
    with pytest.raises(UsageError, match="expected a file"), atomic_file(tmp_path / "full"):
        raise AssertionError("work began")
    with pytest.raises(UsageError, match="file exists already"), atomic_file(tmp_path / "file", overwrite=False):
        raise AssertionError("work began")
    with atomic_directory(tmp_path / "empty") as folder:
        (folder / "a").touch()
    assert names(tmp_path) == ["empty", "file", "full"]
    assert names(tmp_path / "empty") == ["a"]


def test_a_place_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"), atomic_directory(tmp_path / "file" / "out"):
        raise AssertionError("work began")
    with pytest.raises(InputError, match="cannot write"), atomic_file(tmp_path / "file" / "out"):
        raise AssertionError("work began")


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "old").touch()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with atomic_directory(tmp_path / "out", overwrite=True) as folder:
        (folder / "new").touch()
    assert (tmp_path / "out").is_symlink()
    assert names(tmp_path / "disk") == ["new"]


def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(tmp_path):
    stale = tmp_path / f".out.{os.getpid()}.partial"
    stale.mkdir()
    (stale / "half").touch()
    with atomic_directory(tmp_path / "out") as folder:
        assert names(folder) == []
    assert names(tmp_path) == ["out"]


WRITER = """
import sys, time
from pathlib import Path
from ehrsim.outputs import atomic_directory
with atomic_directory(Path(sys.argv[1]), overwrite=True) as folder:
    (folder / "half").write_text("x")
    print("began", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_process_leaves_the_old_output(tmp_path, how):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "out")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        assert process.stdout.readline() == b"began\n"
        process.send_signal(how)
        assert process.wait(timeout=30) != 0
    assert names(tmp_path / "out") == ["old"]
    left = [name for name in names(tmp_path) if name != "out"]
    assert all(name.startswith(".out.") and name.endswith(".partial") for name in left)
    assert len(left) == (how == signal.SIGKILL)
