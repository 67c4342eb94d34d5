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

BATCH_ROWS = 500_000

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
    """Yield the events of a MEDS source in batches of whole subjects; splits and code table go to the report."""
    if source.is_dir():
        _metadata(source, report)
    shards = _shards(source)
    hinted = any(_names_kinds(shard) for shard in shards)
    for shard in shards:
        report.files += 1
        for frame in _batches(shard):
            report.rows += frame.height
            yield _canonical_dialect(frame, report, hinted=hinted)


def _shards(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    single = source / "events.parquet"
    shards = [single] if single.is_file() else sorted((source / "data").rglob("*.parquet"))
    if not shards:
        raise InputError(f"{source} holds no Parquet file of events", hint="expected data/*.parquet or events.parquet")
    return shards


def _names_kinds(shard: Path) -> bool:
    """Whether any `text_value` names the kind of its event."""
    text = pl.col("text_value").cast(pl.String, strict=False)
    with events.readable(shard):
        if "text_value" not in pl.read_parquet_schema(shard):
            return False
        return bool(pl.scan_parquet(shard).select(text.is_in(list(_HINTS)).any()).collect().item())


def _batches(shard: Path) -> Iterator[pl.DataFrame]:
    """The rows of a file in batches of about `BATCH_ROWS` that never end amid the consecutive rows of a subject."""
    with events.readable(shard):
        rows = int(pl.scan_parquet(shard).select(pl.len()).collect().item())
    held: list[pl.DataFrame] = []
    for offset in range(0, max(rows, 1), BATCH_ROWS):
        with events.readable(shard):
            part = pl.scan_parquet(shard).slice(offset, BATCH_ROWS).collect()
        frame = pl.concat([*held, _columns(part, name_of(shard))])
        if offset + BATCH_ROWS >= rows:
            yield frame
            return
        run = frame["subject_id"].rle_id()
        held = [frame.filter(run == run.max())]
        if held[0].height < frame.height:
            yield frame.filter(run < run.max())


def _columns(frame: pl.DataFrame, shard: str) -> pl.DataFrame:
    if "encounter_id" in frame.columns and "visit_id" not in frame.columns:
        identifiers = events.stable_id(frame["encounter_id"].cast(pl.String))
        frame = frame.with_columns(identifiers.alias("visit_id")).drop("encounter_id")
    return events.conform(frame, shard)


def _metadata(source: Path, report: ImportReport) -> None:
    folder = source / "metadata" if (source / "metadata").is_dir() else source
    path = folder / "subject_splits.parquet"
    if path.is_file():
        splits = events.read_split_table(path)
        unknown = splits.filter(~pl.col("split").is_in(events.SPLITS))
        if unknown.height:
            raise InputError(
                f"{name_of(path)}: column `split` holds `{unknown['split'][0]}`",
                hint=f"expected {', '.join(events.SPLITS)}",
            )
        report.tables.splits = dict(splits.iter_rows())
    if (folder / "codes.parquet").is_file():
        report.tables.codes.append(events.read_code_table(folder / "codes.parquet"))


def _canonical_dialect(frame: pl.DataFrame, report: ImportReport, *, hinted: bool) -> pl.DataFrame:
    renamed = frame["code"].is_in(list(_RENAMED))
    if renamed.any():
        report.change("code renamed", int(renamed.sum()), str(_RENAMED))
        frame = frame.with_columns(pl.col("code").replace(_RENAMED))
    return _fold_ends(_apply_hints(frame, report) if hinted else frame, report)


def _apply_hints(frame: pl.DataFrame, report: ImportReport) -> pl.DataFrame:
    """Move a kind named in `text_value` into the code, and mark encounter types, which have none, by their place."""
    hinted = frame["text_value"].is_in(list(_HINTS)).fill_null(False)
    snomed = frame["code"].str.starts_with("SNOMED//")
    report.change("kind moved from the text to the code", int(hinted.sum()))
    pairs = frame.filter(hinted).select("code", "text_value").unique()
    table = [(code, text, *_hinted(code, text)) for code, text in pairs.iter_rows()]
    names = ["code", "text_value", "new_code", "new_text"]
    mapping = pl.DataFrame(table, schema=dict.fromkeys(names, pl.String), orient="row")
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
    """Turn each `CODE//END` event into the `end_time` of the latest event of that code that is open, and drop it."""
    closing = frame["code"].str.ends_with("//END").fill_null(False)
    if not closing.any():
        return frame
    pairs = _pair_ends(frame.with_row_index("row").with_columns(closing=closing))
    unmatched = pairs.filter(pl.col("start").is_null())
    if unmatched.height:
        report.skip("end of something that never started", unmatched.height, unmatched["code"][0])
    report.change("end event folded into end_time", pairs.height - unmatched.height)
    rest = frame.with_row_index("row").filter(~closing)
    closed = pairs.drop_nulls("start").select(pl.col("start").alias("row"), pl.col("time").alias("closed"))
    joined = rest.join(closed, on="row", how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce("closed", "end_time").alias("end_time")).drop("row", "closed")


def _pair_ends(frame: pl.DataFrame) -> pl.DataFrame:
    """The end events (code, time) with the row of the `start` each one closes, null where nothing is open.

    Starts and ends of a code pair like brackets: an end closes the latest start that is still open, and one that finds
    none open is passed over. `level` is the number of open ones, so that at each level starts and ends alternate.
    """
    key = ["subject_id", "code"]
    frame = frame.with_columns(pl.col("code").str.strip_suffix("//END"))
    ended = frame.filter("closing")["code"].unique()
    moments = frame.filter(pl.col("code").is_in(ended.implode()) & (pl.col("time").is_not_null() | pl.col("closing")))
    moments = moments.sort(*key, "time", "closing", maintain_order=True)
    balance = pl.when("closing").then(-1).otherwise(1).cum_sum().over(key)
    opened = moments.with_columns(balance=balance).with_columns(
        open=pl.col("balance") - pl.min_horizontal(pl.lit(0), pl.col("balance").cum_min().over(key))
    )
    before = pl.col("open").shift(1, fill_value=0).over(key)
    levels = opened.with_columns(level=pl.when("closing").then(before).otherwise("open"))
    paired = levels.with_columns(start=pl.col("row").shift(1).over([*key, "level"]))
    return paired.filter("closing").select(
        "code", "time", start=pl.when((pl.col("level") > 0) & pl.col("time").is_not_null()).then("start")
    )
