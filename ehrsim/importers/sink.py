"""From batches of event rows in any order to a sorted, split MEDS data set, in bounded memory.

Each batch is made canonical, then spilled to one of `PARTS` parts by a hash of the subject; what needs no more than one
spill is one part. Each part, which holds whole subjects, is then read back, checked, sorted and written as shards.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from ehrsim import codes, events
from ehrsim.errors import InputError
from ehrsim.events import EventWriter
from ehrsim.importers.canonical import canonical
from ehrsim.importers.deidentification import Deidentifier
from ehrsim.importers.report import ImportReport
from ehrsim.progress import Progress

PARTS = 64
SPILL_ROWS = 1_000_000
"""Rows gathered before they are spilled: about 100 MB of events."""


def write_batches(
    batches: Iterator[pl.DataFrame],
    out: Path,
    report: ImportReport,
    *,
    held_out: float,
    overwrite: bool,
    progress: Progress,
    deidentifier: Deidentifier | None = None,
) -> None:
    """Consume `batches` into the MEDS data set `out`, completing `report`; `deidentifier` takes out what identifies.

    Raises `InputError` if not one event came out: an empty data set helps nobody.
    """
    dataset = {"dataset_name": report.source, "etl_name": f"ehrsim import --from {report.format}"}
    with events.event_writer(out, dataset, overwrite=overwrite) as writer:
        with tempfile.TemporaryDirectory(prefix="ehrsim-", dir=out.parent) as spill:
            parts = _spill(batches, Path(spill), report, progress, deidentifier)
            if deidentifier is not None:
                _study(parts, report, deidentifier, progress)
            for index, part in enumerate(parts):
                _write_part(part, writer, report, held_out, deidentifier)
                progress("sort", index + 1, len(parts), "parts")
        if not writer.events:
            raise InputError(f"{report.source} holds no usable event", hint=_why(report))
        report.events, report.subjects = writer.events, writer.subjects
        if deidentifier is not None:
            report.deidentification = deidentifier.conclude()
        writer.add_codes(report.tables.codes)
        path = writer.metadata_path("import.json")
        path.write_bytes(orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2))


def _why(report: ImportReport) -> str:
    reasons = [f"{count.count:,} rows skipped: {reason}" for reason, count in report.skipped.items()]
    return "; ".join(reasons[:3]) or f"no {report.format} records in it"


def _spill(
    batches: Iterator[pl.DataFrame],
    folder: Path,
    report: ImportReport,
    progress: Progress,
    deidentifier: Deidentifier | None,
) -> list[list[Path]]:
    """Write batches to part files by subject; returns the files of each non-empty part."""
    parts: list[list[Path]] = [[] for _ in range(PARTS)]
    gathered: list[pl.DataFrame] = []
    rows = total = 0
    for batch in batches:
        frame = canonical(events.conform(batch), report)
        if deidentifier is not None:
            frame = deidentifier.screen(frame)
        gathered.append(frame)
        rows += frame.height
        total += frame.height
        progress("read", total, None, "events")
        if rows >= SPILL_ROWS:
            _spill_gathered(gathered, folder, parts, PARTS)
            gathered, rows = [], 0
    _spill_gathered(gathered, folder, parts, PARTS if any(parts) else 1)
    return [files for files in parts if files]


def _spill_gathered(gathered: list[pl.DataFrame], folder: Path, parts: list[list[Path]], count: int) -> None:
    """Write what was gathered to the first `count` parts."""
    if not gathered:
        return
    frame = pl.concat(gathered, how="diagonal")
    frame = frame.with_columns(part=pl.Series(events.mixed(frame["subject_id"]) % count))
    for (part,), rows in frame.partition_by("part", include_key=False, as_dict=True).items():
        path = folder / f"{part}-{len(parts[part])}.parquet"
        rows.write_parquet(path, compression="lz4")
        parts[part].append(path)


def _study(parts: list[list[Path]], report: ImportReport, deidentifier: Deidentifier, progress: Progress) -> None:
    """Show every part to the de-identification before any is written, and bring the source's splits to its ids."""
    for index, part in enumerate(parts):
        studied = deidentifier.study(_part(part).collect())
        for path in part:
            path.unlink()
        studied.write_parquet(part[0], compression="lz4")
        parts[index] = part[:1]
        progress("study", index + 1, len(parts), "parts")
    report.tables.splits = deidentifier.splits(report.tables.splits)
    # What the source calls its codes has been judged event by event; its table of codes may hold anything.
    report.tables.codes.clear()


def _part(files: list[Path]) -> pl.LazyFrame:
    return pl.concat([pl.scan_parquet(path) for path in files], how="diagonal")


def _write_part(
    files: list[Path], writer: EventWriter, report: ImportReport, held_out: float, deidentifier: Deidentifier | None
) -> None:
    """Sort, check and write the subjects of one part, split by split."""
    part = _part(files)
    if deidentifier is not None:
        part = deidentifier.finish(part.collect()).lazy()
    frame = events.sort(part).collect()
    for problem in events.validate(frame.lazy()):
        report.find(problem.name, problem.rows, problem.example)
    _count_codes(frame, report)
    subjects = frame["subject_id"].unique(maintain_order=True)
    split = _splits(subjects, report, held_out)
    for name in events.SPLITS:
        chosen = subjects.filter(split == name)
        report.splits[name] = report.splits.get(name, 0) + len(chosen)
        writer.write(frame.filter(pl.col("subject_id").is_in(chosen.implode())), name)


def _splits(subjects: pl.Series, report: ImportReport, held_out: float) -> pl.Series:
    """The source's own splits where it has them, with `held_out` cut from its training subjects; else by hash."""
    if not report.tables.splits:
        return events.split_of(subjects, held_out=held_out)
    known = [report.tables.splits.get(subject) for subject in subjects]
    report.find("subject in none of the source's splits, put to train", known.count(None), "")
    given = pl.Series(known, dtype=pl.String).fill_null("train")
    # By another hash than that of `split_of`: splits that it made would leave nothing, or all, of the lowest range.
    again = pl.Series(events.mixed(subjects).view(np.int64))
    cut = events.split_of(again, tuning=0.0, held_out=held_out) == "held_out"
    return pl.select(pl.when((given == "train") & cut).then(pl.lit("held_out")).otherwise(given)).to_series()


def _count_codes(frame: pl.DataFrame, report: ImportReport) -> None:
    kinds: Counter[str] = Counter()
    systems: Counter[str] = Counter()
    for code, count in frame["code"].value_counts().iter_rows():
        parsed = codes.parse(code)
        kinds[parsed.kind] += count
        systems[parsed.system] += count
    report.count_codes(kinds, systems)
