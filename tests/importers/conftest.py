"""Tiny sources in every format, and one way to import them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ehrsim import events
from ehrsim.importers import import_events
from ehrsim.importers.report import ImportReport

GOLDEN = Path(__file__).parents[1] / "golden" / "importers"

WriteSource = Callable[..., Path]
RunImport = Callable[..., tuple[pl.DataFrame, ImportReport]]


@pytest.fixture
def write_source(tmp_path: Path) -> WriteSource:
    """Copy the tiny source of a format, with files (by their name without suffix) replaced, and give its path."""

    def write(format: str, **replaced: str | bytes) -> Path:
        folder = tmp_path / format
        shutil.copytree(GOLDEN / format, folder, dirs_exist_ok=True)
        for name, content in replaced.items():
            (path,) = folder.rglob(f"{name}.*")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder / "mapping.toml" if format == "table" else folder

    return write


@pytest.fixture
def run_import(tmp_path: Path) -> RunImport:
    """Import a source and give the events, sorted as written, with the report."""

    def run(source: Path, format: str, **options: Any) -> tuple[pl.DataFrame, ImportReport]:
        out = tmp_path / "out" / str(len(list(tmp_path.glob("out/*"))))
        out.parent.mkdir(exist_ok=True)
        report = import_events(source, out, format=format, identified=True, **options)
        return events.sort(events.read_events(out)).collect(), report

    return run
