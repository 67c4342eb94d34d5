"""MEDS data sets, folders with an `events.parquet`, and single Parquet files of events.

Columns beyond the event schema are dropped, `encounter_id` (text) becomes `visit_id`. Data sets that say what kind a
SNOMED code is in `text_value` ("condition", "procedure" …), or that close a condition with an event `CODE//END`, are
brought to the canonical form: a kind prefix, and an `end_time` on the event that is closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from ehrsim import codes, events
from ehrsim.errors import InputError
from ehrsim.importers.report import ImportReport, name_of

_HINTS: dict[str, tuple[codes.Kind, str | None]] = {
    "condition": ("condition", None),
    "procedure": ("procedure", None),
    "imaging": ("procedure", None),
    "immunization": ("immunization", None),
    "allergy": ("allergy", None),
    "medication active": ("medication", "active"),
    "medication stopped": ("medication", "stopped"),
}
"""Texts that name the kind of their event, with the text that remains."""

_RENAMED = {"FOLLOWUP_END": codes.OBSERVATION_END}


def recognises(source: Path) -> bool:
    """Whether `source` is a MEDS folder, a folder with `events.parquet`, or a Parquet file with MEDS columns."""
    if source.is_dir():
        return (source / "events.parquet").is_file() or any((source / "data").rglob("*.parquet"))
    return source.suffix == ".parquet"


def read(source: Path, report: ImportReport) -> Iterator[pl.DataFrame]:
    """Yield the events of a MEDS source, a file at a time; splits and code table go to the report."""
    for shard in _shards(source):
        report.files += 1
        frame = events.read_parquet(shard)
        report.rows += frame.height
        yield _canonical_dialect(_columns(frame, name_of(shard)), report)
    if source.is_dir():
        _metadata(source, report)


def _shards(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    single = source / "events.parquet"
    shards = [single] if single.is_file() else sorted((source / "data").rglob("*.parquet"))
    if not shards:
        raise InputError(f"{source} holds no Parquet file of events", hint="expected data/*.parquet or events.parquet")
    return shards


def _columns(frame: pl.DataFrame, shard: str) -> pl.DataFrame:
    if "encounter_id" in frame.columns and "visit_id" not in frame.columns:
        identifiers = events.stable_id(frame["encounter_id"].cast(pl.String))
        frame = frame.with_columns(identifiers.alias("visit_id")).drop("encounter_id")
    return events.conform_lazy(frame.lazy(), frame.schema, shard).collect()


def _metadata(source: Path, report: ImportReport) -> None:
    folder = source / "metadata" if (source / "metadata").is_dir() else source
    if (folder / "subject_splits.parquet").is_file():
        splits = events.read_parquet(folder / "subject_splits.parquet")
        report.source_splits = dict(zip(splits["subject_id"].to_list(), splits["split"].to_list(), strict=True))
    if (folder / "codes.parquet").is_file():
        table = events.read_parquet(folder / "codes.parquet")
        if "code" in table.columns:
            absent = [name for name in events.CODES_SCHEMA if name not in table.columns]
            table = table.with_columns(pl.lit(None, events.CODES_SCHEMA[name]).alias(name) for name in absent)
            report.code_table.append(table.select(pl.col(n).cast(t) for n, t in events.CODES_SCHEMA.items()))


def _canonical_dialect(frame: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    renamed = frame["code"].is_in(list(_RENAMED))
    if renamed.any():
        report.change("code renamed", int(renamed.sum()), str(_RENAMED))
        frame = frame.with_columns(pl.col("code").replace(_RENAMED))
    return _fold_ends(_apply_hints(frame, report), report)


def _apply_hints(frame: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """Move a kind named in `text_value` into the code, and mark encounter types, which have none, by their place."""
    hinted = frame["text_value"].is_in(list(_HINTS)).fill_null(False)
    snomed = frame["code"].str.starts_with("SNOMED//")
    if not hinted.any():
        return frame
    report.change("kind moved from the text to the code", int(hinted.sum()))
    pairs = frame.filter(hinted).select("code", "text_value").unique()
    table = [(code, text, *_hinted(code, text)) for code, text in pairs.iter_rows()]
    mapping = pl.DataFrame(table, schema=["code", "text_value", "new_code", "new_text"], orient="row").with_columns(
        pl.col("new_text").cast(pl.String)
    )
    plain = frame.filter(snomed & ~hinted)["code"].unique().to_list()
    untyped = {code: _untyped(code) for code in plain if not code.endswith("//END")}
    types = snomed & frame["text_value"].is_null() & frame["numeric_value"].is_null() & frame["visit_id"].is_not_null()
    frame = frame.join(mapping, on=["code", "text_value"], how="left", maintain_order="left")
    is_hinted = pl.col("new_code").is_not_null()
    return frame.with_columns(
        pl.when(is_hinted)
        .then("new_code")
        .when(types & pl.col("code").is_in(list(untyped)))
        .then(pl.col("code").replace({code: names[0] for code, names in untyped.items()}))
        .when(snomed & pl.col("numeric_value").is_not_null())
        .then(pl.col("code").replace({code: names[1] for code, names in untyped.items()}))
        .otherwise("code")
        .alias("code"),
        pl.when(is_hinted).then("new_text").otherwise("text_value").alias("text_value"),
    ).drop("new_code", "new_text")


def _hinted(code: str, text: str) -> tuple[str, str | None]:
    kind, remains = _HINTS[text]
    parsed = codes.parse(code)
    return codes.join(kind, parsed.system, parsed.value), remains


def _untyped(code: str) -> tuple[str, str]:
    """A SNOMED code without a hint is the type of its encounter, or an observation if it has a value."""
    _, system, value = codes.parse(code)
    return codes.join("visit_type", system, value), codes.join("observation", system, value)


def _fold_ends(frame: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """Turn each `CODE//END` event into the `end_time` of the latest open event of that code, and drop it."""
    closing = frame["code"].str.ends_with("//END")
    if not closing.any():
        return frame
    ends = frame.filter(closing).select(
        "subject_id", pl.col("code").str.strip_suffix("//END"), pl.col("time").alias("closed")
    )
    rest = frame.filter(~closing).with_row_index("row")
    starts = rest.filter(pl.col("time").is_not_null() & pl.col("code").is_in(ends["code"].unique().implode()))
    matched = ends.sort("closed").join_asof(
        starts.select("subject_id", "code", "time", "row").sort("time"),
        left_on="closed",
        right_on="time",
        by=["subject_id", "code"],
        check_sortedness=False,
    )
    unmatched = matched.filter(pl.col("row").is_null())
    if unmatched.height:
        report.skip("end of something that never started", unmatched.height, unmatched["code"][0])
    report.change("end event folded into end_time", matched.height - unmatched.height)
    closed = matched.drop_nulls("row").group_by("row").agg(pl.col("closed").max())
    joined = rest.join(closed, on="row", how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce("closed", "end_time").alias("end_time")).drop("row", "closed")
