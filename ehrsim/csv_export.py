"""The verb `export_csv`: events as plain CSV for spreadsheets and R, with a mapping by which they are imported again.

| file | a row is | columns |
|---|---|---|
| `events.csv` | an event | those of the event table, with `kind` and `description` of the code |
| `patients.csv` | a patient | sex, race …, birth, death, first and last event, number of events |
| `codes.csv` | a code | kind, system, value, description, numbers of events and patients |
| `mapping.toml` | | how `ehrsim import` reads `events.csv` |
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import polars as pl

from ehrsim import codes, groups
from ehrsim.events import DESCRIPTION
from ehrsim.groups import Events
from ehrsim.outputs import atomic_directory
from ehrsim.progress import Progress, silent
from ehrsim.table_report import TableReport

GROUP_EVENTS = 500_000
TIME_FORMAT = "%Y-%m-%d %H:%M:%S%.f"
EVENT_COLUMNS = (
    *("subject_id", "time", "kind", "code", "description", "numeric_value", "unit", "text_value", "visit_id"),
    "end_time",
)
_STATICS = {"gender": "sex", "race": "race", "ethnicity": "ethnicity", "marital": "marital_status"}
_STATICS |= {"language": "language"}
_VALUES = {"numeric_value": True, "text_value": True}
_DISPLAYS = {**codes.RACES, **codes.ETHNICITIES}

_HEAD = """\
# How `ehrsim import mapping.toml` reads events.csv. An event that names a value is made only from rows that have one,
# so there is one for rows with a number, with a text, with both and with neither, for facts with a time and without.

[[tables]]
file = "events.csv"
separator = ","
null_values = [""]
subject_id = "{subject_id}"
visit_id = "{visit_id}"
time = "{time}"
"""


def export_csv(events: Events, out: str | Path, *, overwrite: bool = False, progress: Progress = silent) -> TableReport:
    """Write events (a MEDS folder, a Parquet file or a frame) as CSV files to the folder `out`, and report it.

    Times are `2020-12-31 23:59:59`, without a zone; an empty cell is no value. Importing `mapping.toml` gives the same
    events. Memory is bounded by a group of some hundred thousand events.

    Raises `InputError` for a source that is no event table, `UsageError` for an output that exists.
    """
    report = TableReport(format="CSV")
    with atomic_directory(Path(out), overwrite=overwrite) as folder:
        source = groups.open_source(events)
        parts = groups.parts(source, GROUP_EVENTS, report)
        total = sum(part.subjects for part in parts)
        counted: list[pl.DataFrame] = []
        with (folder / "events.csv").open("wb") as event_file, (folder / "patients.csv").open("wb") as patient_file:
            for number, part in enumerate(parts):
                frame = _described(groups.read(part, report), source.descriptions)
                rows = _stripped(frame, report)
                people = _patients(rows)
                _append(event_file, rows.select(EVENT_COLUMNS), first=number == 0)
                _append(patient_file, people, first=number == 0)
                counted.append(_code_counts(rows))
                report.wrote("events", rows.height)
                report.wrote("patients", people.height)
                report.patients += people.height
                progress("export", report.patients, total, "patients")
        table = _code_table(counted)
        table.write_csv(folder / "codes.csv")
        report.wrote("codes", table.height)
        (folder / "mapping.toml").write_text(mapping(), encoding="utf-8")
    return report


def mapping() -> str:
    """The mapping file for `events.csv`."""
    blocks = [_HEAD]
    for static in (False, True):
        for numeric in (False, True):
            for text in (False, True):
                present = {"time": not static, "numeric_value": numeric, "text_value": text}
                filled = [name for name in _VALUES if present[name]]
                templates = ["code", "description", "unit", "end_time", *filled]
                lines = ["[[tables.events]]", *(f'{name} = "{{{name}}}"' for name in templates)]
                lines += ["static = true"] if static else []
                tests = (
                    f'{{ column = "{name}", present = {str(wanted).lower()} }}' for name, wanted in present.items()
                )
                lines.append(f"where = [{', '.join(tests)}]")
                blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _append(file: BinaryIO, frame: pl.DataFrame, *, first: bool) -> None:
    frame.write_csv(file, include_header=first, datetime_format=TIME_FORMAT)


def _described(frame: pl.DataFrame, descriptions: dict[str, str]) -> pl.DataFrame:
    """The events with the parts of their codes: kind, system, value and description."""
    known = groups.descriptions_in(frame, descriptions)
    distinct = frame["code"].unique().to_list()
    parsed = [codes.parse(code) for code in distinct]
    table = pl.DataFrame(
        {
            "code": distinct,
            "kind": [code.kind for code in parsed],
            "system": [code.system for code in parsed],
            "value": [code.value for code in parsed],
            DESCRIPTION: [known.get(code) for code in distinct],
        },
        schema=dict.fromkeys(("code", "kind", "system", "value", DESCRIPTION), pl.String),
    )
    bare = frame.drop(DESCRIPTION) if DESCRIPTION in frame.columns else frame
    return bare.join(table, on="code", how="left", maintain_order="left")


def _stripped(frame: pl.DataFrame, report: TableReport) -> pl.DataFrame:
    """The events with texts, units and codes without space around them, which an import of CSV takes off."""
    for column in ("code", "text_value", "unit"):
        padded = frame.filter(pl.col(column) != pl.col(column).str.strip_chars())
        if padded.height:
            report.change(
                f"space around a {column.removesuffix('_value')} removed", padded.height, groups.example(padded)
            )
            frame = frame.with_columns(pl.col(column).str.strip_chars())
    return frame


def _patients(rows: pl.DataFrame) -> pl.DataFrame:
    """One row a patient."""
    value = pl.col("value").replace(_DISPLAYS)
    facts = [value.filter(pl.col("kind") == kind).first().alias(name) for kind, name in _STATICS.items()]
    moments = [pl.col("time").filter(pl.col("kind") == kind).first().alias(kind) for kind in ("birth", "death")]
    after_birth = pl.col("time").filter(pl.col("kind") != "birth")
    return rows.group_by("subject_id", maintain_order=True).agg(
        *facts, *moments, first_event=after_birth.min(), last_event=after_birth.max(), events=pl.len()
    )


def _code_counts(rows: pl.DataFrame) -> pl.DataFrame:
    names = ("code", "kind", "system", "value", DESCRIPTION)
    return rows.group_by(names, maintain_order=True).agg(events=pl.len(), patients=pl.col("subject_id").n_unique())


def _code_table(counted: list[pl.DataFrame]) -> pl.DataFrame:
    """The code table: subjects are whole in their group, so counts of patients add up."""
    first = pl.col(DESCRIPTION).drop_nulls().first()
    sums = pl.col("events", "patients").sum()
    return pl.concat(counted).group_by("code", "kind", "system", "value").agg(first, sums).sort("code")
