"""The verb `export_omop`: events in, the tables of OMOP CDM 5.4 out, labelled as synthetic in cdm_source."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import get_args

import polars as pl

from ehrsim import groups
from ehrsim.errors import UsageError
from ehrsim.groups import Events
from ehrsim.omop import athena, identifiers, losses, people
from ehrsim.omop.codebook import Codebook, codebook
from ehrsim.omop.concepts import CDM_VERSION, vocabulary_tables
from ehrsim.omop.facts import fact_tables, with_values
from ehrsim.omop.placing import placed
from ehrsim.omop.visits import visit_table, visits, with_visits
from ehrsim.omop.writing import Format, TableWriter
from ehrsim.outputs import atomic_directory
from ehrsim.progress import Progress, silent
from ehrsim.table_report import TableReport

GROUP_EVENTS = 250_000
"""Events of a group of subjects, which are in memory at a time."""

_DESCRIPTION = (
    "SYNTHETIC DATA. Simulated patients who never existed, written by ehrsim. No row describes a real person, "
    "unless real events were exported. Not for clinical use."
)
_NO_VOCABULARY = "ehrsim local"


def export_omop(
    events: Events,
    out: str | Path,
    *,
    format: Format = "csv",
    vocabulary: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> TableReport:
    """Write events (a MEDS folder, a Parquet file or a frame) as OMOP CDM 5.4 tables to the folder `out`.

    `format` is `csv` or `parquet`, one file a table. Codes keep their text in `*_source_value` and have a local concept
    in `*_source_concept_id`; `*_concept_id` is 0, unless `vocabulary` is the folder of an Athena download, by which
    codes, answers and units are mapped to standard concepts. person_id is the subject id; ids of rows follow from the
    subject and the place among its rows alone, see `ehrsim.omop.identifiers`. Memory is bounded by a group of some
    hundred thousand events.

    Raises `InputError` for a source that is no event table or a folder without a vocabulary, `UsageError` for an
    unknown option or an output that exists; then nothing is written.
    """
    if format not in get_args(Format):
        raise UsageError(f"unknown format `{format}`", hint=f"expected one of {', '.join(get_args(Format))}")
    report = TableReport(format=f"OMOP CDM 5.4, {format}")
    with atomic_directory(Path(out), overwrite=overwrite) as folder, ExitStack() as stack:
        source = groups.open_source(events)
        parts = groups.parts(source, GROUP_EVENTS, report)
        book = codebook(source, Path(vocabulary) if vocabulary else None, report)
        slots = identifiers.slots(pl.concat([part.ids for part in parts]))
        writer = TableWriter(folder, format, stack)
        total = sum(part.subjects for part in parts)
        last = date.min
        for part in parts:
            frame = groups.read(part, report)
            if not frame.is_empty():
                last = max(last, _write_group(frame, book, slots, writer, report))
            progress("export", report.patients, total, "patients")
        version = athena.version(Path(vocabulary)) if vocabulary else _NO_VOCABULARY
        for name, table in _whole_tables(book, source.dataset, last, version).items():
            writer.write(name, table)
        writer.finish()
        report.rows = {name: count for name, count in writer.rows.items() if count}
    return report


def _write_group(
    frame: pl.DataFrame, book: Codebook, slots: pl.DataFrame, writer: TableWriter, report: TableReport
) -> date:
    """Write the rows of a group of subjects; returns the last day of their records."""
    rows = placed(frame, book, slots)
    stays = visits(rows)
    losses.count_losses(rows, stays, report)
    rows = with_visits(with_values(rows, book.answers, book.units), stays)
    persons, periods = people.persons(rows), people.observation_periods(rows)
    tables = {
        "person": persons,
        "observation_period": periods,
        "visit_occurrence": visit_table(stays),
        **fact_tables(rows),
        "death": people.deaths(rows),
    }
    for name, table in tables.items():
        writer.write(name, table)
    report.patients += persons.height
    return periods["observation_period_end_date"].max() or date.min  # type: ignore[return-value]


def _whole_tables(book: Codebook, dataset: dict[str, object], last: date, version: str) -> dict[str, pl.DataFrame]:
    """The tables that are written once: concepts with what they refer to, and the label of the whole."""
    name = str(dataset.get("dataset_name") or "events")
    released = last if last > date.min else date(1970, 1, 1)
    label = {
        "cdm_source_name": f"Synthetic patients of ehrsim: {name}"[:255],
        "cdm_source_abbreviation": "ehrsim synthetic",
        "cdm_holder": "ehrsim",
        "source_description": _DESCRIPTION + (f" Run {dataset['run']}." if dataset.get("run") else ""),
        "cdm_etl_reference": "ehrsim export --to omop",
        "source_release_date": released,
        "cdm_release_date": released,
        "cdm_version": "5.4",
        "cdm_version_concept_id": CDM_VERSION,
        "vocabulary_version": version,
    }
    return {**vocabulary_tables(book.concepts, version), "concept": book.concepts, "cdm_source": pl.DataFrame([label])}
