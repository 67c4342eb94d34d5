"""The law of the importer and the exporter: what FHIR carries of an event table comes back as it was."""

from pathlib import Path

import polars as pl
import pytest

import ehrsim
from ehrsim import codes, events, reference
from ehrsim.fhir import export_fhir
from ehrsim.importers import import_events

COLUMNS = list(events.SCHEMA)


def _round_trip(table: pl.DataFrame, folder: Path, format: str = "ndjson") -> pl.DataFrame:
    export_fhir(table, folder / "fhir", format=format, overwrite=True)
    import_events(folder / "fhir", folder / "events", identified=True, overwrite=True)
    return events.sort(ehrsim.read_events(folder / "events").select(COLUMNS)).collect()


def _carried(table: pl.DataFrame) -> pl.DataFrame:
    """What FHIR carries of the events of real data sets: no end of follow-up, no visit of a death, no odd gender."""
    code = pl.col("code")
    words = dict.fromkeys(codes.RACES.values(), "") | {
        display: f"RACE//{race}" for race, display in codes.RACES.items()
    }
    kept = table.lazy().select(COLUMNS).filter(code != codes.OBSERVATION_END)
    kept = kept.filter(~code.str.starts_with("GENDER//") | code.is_in(["GENDER//male", "GENDER//female"]))
    kept = kept.with_columns(
        pl.when(code != codes.DEATH).then(pl.col("visit_id")).alias("visit_id"),
        code.replace({f"RACE//{display}": race for display, race in words.items()}),
    )
    return events.sort(kept).collect()


@pytest.mark.parametrize("format", ["ndjson", "transaction", "batch", "collection"])
def test_every_row_of_the_mapping_comes_back(every_row, format, tmp_path):
    assert _round_trip(every_row, tmp_path, format).equals(every_row.select(COLUMNS))


def test_descriptions_come_back(every_row, tmp_path):
    _round_trip(every_row, tmp_path)
    described = dict(events.read_codes(tmp_path / "events").select("code", "description").iter_rows())
    assert described["ICD10CM//E11.9"] == "Type 2 diabetes"


def test_the_reference_population_comes_back(tmp_path):
    table = reference.population(60, seed=6)
    assert _round_trip(table, tmp_path).equals(events.sort(table.lazy().select(COLUMNS)).collect())


def test_what_came_through_once_comes_through_always(random_events, tmp_path):
    once = _round_trip(random_events, tmp_path)
    assert once.height > 0.7 * random_events.height
    assert _round_trip(once, tmp_path, "transaction").equals(once)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "subjects"), [("synthea_stu3_1461", None), ("nafld_mayo_17549", 1_000), ("diabetes130_71518", 1_000)]
)
def test_real_data_comes_back(name, subjects, event_sets, tmp_path):
    import_events(event_sets / name, tmp_path / "source")
    table = ehrsim.read_events(tmp_path / "source").collect()
    chosen = table["subject_id"].unique().sort().head(subjects or table.height)
    table = table.filter(pl.col("subject_id").is_in(chosen.implode()))
    assert _round_trip(table, tmp_path).equals(_carried(table))
