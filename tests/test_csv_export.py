"""CSV for spreadsheets: what is written comes back by the mapping beside it, and adds up."""

from datetime import datetime

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ehrsim
from ehrsim import events, reference
from ehrsim.importers import import_events

COLUMNS = list(events.SCHEMA)
TEXTS = ['a "b", é漢', "line\nline", "NULL", "6", "x"]
MOMENTS = [datetime(2020, 1, 1), datetime(2020, 1, 1, 2, 3, 4, 500_000), datetime(1990, 5, 6, 7)]


@st.composite
def _event(draw: st.DrawFn) -> dict:
    def maybe(values: list) -> object:
        return draw(st.one_of(st.none(), st.sampled_from(values)))

    begun, ended = maybe(MOMENTS), maybe(MOMENTS)
    return {
        "subject_id": draw(st.sampled_from([0, 1, 10**17])),
        "time": begun,
        "code": draw(st.sampled_from(["LOINC//4548-4", "GENDER//male", "MEDS_BIRTH", "ICD10CM//E11.9", "A b//c"])),
        "numeric_value": maybe([0.1, 7.0, 1e-30, 3e38, -2.5]),
        "text_value": maybe(TEXTS),
        "unit": maybe(["mg", "%"]),
        "visit_id": maybe([0, 5]),
        "end_time": ended if not (begun and ended and ended < begun) else None,
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(_event(), min_size=1, max_size=12))
def test_events_come_back(rows, tmp_path):
    table = events.sort(pl.DataFrame(rows, schema=events.SCHEMA).lazy()).collect()
    ehrsim.export_csv(table, tmp_path / "csv", overwrite=True)
    import_events(tmp_path / "csv" / "mapping.toml", tmp_path / "events", overwrite=True)
    back = events.sort(ehrsim.read_events(tmp_path / "events").select(COLUMNS)).collect()
    # Facts without a time that are the same are one fact.
    once = table.filter(pl.col("time").is_not_null() | pl.struct(COLUMNS).is_first_distinct())
    assert back.rows() == once.rows()


def test_the_reference_population_comes_back_with_its_descriptions(tmp_path):
    table = reference.population(20, seed=4)
    report = ehrsim.export_csv(table, tmp_path / "csv")
    import_events(tmp_path / "csv" / "mapping.toml", tmp_path / "events")
    back = ehrsim.read_events(tmp_path / "events")
    assert events.sort(back.select(COLUMNS)).collect().equals(events.sort(table.lazy().select(COLUMNS)).collect())
    known = table.select("code", "description").drop_nulls().unique().sort("code")
    assert events.read_codes(tmp_path / "events").select("code", "description").drop_nulls().sort("code").equals(known)
    assert report.rows["events"] == table.height


def test_patients_and_codes_add_up(tmp_path):
    table = reference.population(20, seed=4)
    ehrsim.export_csv(table, tmp_path / "csv")
    people = pl.read_csv(tmp_path / "csv" / "patients.csv", try_parse_dates=True)
    codes = pl.read_csv(tmp_path / "csv" / "codes.csv")
    assert people["events"].sum() == codes["events"].sum() == table.height
    assert people.filter(pl.col("sex") == "female").height == table.filter(pl.col("code") == "GENDER//female").height
    assert people["race"].is_in(["White", "Black or African American", "Asian"]).any()
    pressure = codes.row(by_predicate=pl.col("code") == "LOINC//8480-6", named=True)
    taken = table.filter(pl.col("code") == "LOINC//8480-6")
    assert (pressure["events"], pressure["patients"]) == (taken.height, taken["subject_id"].n_unique())
    assert pressure["kind"] == "observation"
    births = table.filter(pl.col("code") == "MEDS_BIRTH").sort("subject_id")["time"]
    assert people.sort("subject_id")["birth"].cast(births.dtype).to_list() == births.to_list()


def test_space_around_texts_is_counted(tmp_path):
    table = events.conform(
        pl.DataFrame({"subject_id": [1], "time": [MOMENTS[0]], "code": ["A//1"], "text_value": [" so "]})
    )
    report = ehrsim.export_csv(table, tmp_path / "csv")
    assert report.changed["space around a text removed"].count == 1
    assert pl.read_csv(tmp_path / "csv" / "events.csv")["text_value"].to_list() == ["so"]
