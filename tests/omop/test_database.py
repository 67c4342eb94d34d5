"""What is exported loads into a database with every key, reference, type and NOT NULL of the CDM enforced."""

from pathlib import Path

import polars as pl
import pytest

import ehrsim
from ehrsim import reference
from ehrsim.importers import import_events
from ehrsim.omop import export_omop
from ehrsim.omop.definitions import TABLES, ddl, references_left_open

duckdb = pytest.importorskip("duckdb")


def load(folder: Path, format: str) -> "duckdb.DuckDBPyConnection":
    """A database with all tables of an export; DuckDB refuses a row that breaks a constraint."""
    connection = duckdb.connect()
    connection.execute(ddl())
    for name, table in TABLES.items():
        path = folder / f"{name}.{format}"
        text = {column.name: "VARCHAR" for column in table.columns}
        source = f"read_csv('{path}', header=true, columns={text}, nullstr='')" if format == "csv" else f"'{path}'"
        connection.execute(f"insert into {name} by name from {source}")
    for name, column in references_left_open():
        key = TABLES[column.refers_to].key
        query = f"select count(*) from {name} where {column.name} not in (select {key} from {column.refers_to})"
        assert connection.execute(query).fetchone() == (0,), f"{name}.{column.name} refers to nothing"
    for name, table in TABLES.items():
        for column in table.columns:
            if column.length is not None:
                longest = connection.execute(f"select max(length({column.name})) from {name}").fetchone()[0]
                assert (longest or 0) <= column.length, f"{name}.{column.name} is too long"
    return connection


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_the_reference_population_loads(format, tmp_path):
    table = reference.population(60, seed=3)
    report = export_omop(table, tmp_path / "omop", format=format)
    connection = load(tmp_path / "omop", format)
    loaded = {name: connection.execute(f"select count(*) from {name}").fetchone()[0] for name in TABLES}
    assert {name: count for name, count in loaded.items() if count} == report.rows
    assert loaded["person"] == 60
    (name, version, vocabulary) = connection.execute(
        "select cdm_source_name, cdm_version, vocabulary_version from cdm_source"
    ).fetchone()
    assert "Synthetic" in name
    assert (version, vocabulary) == ("5.4", "ehrsim local")
    # A question as a user asks it: how many have had a diagnosis, counted in the events as well.
    query = "select count(distinct person_id) from condition_occurrence where condition_source_value = 'ICD10CM//I10'"
    expected = table.filter(pl.col("code") == "ICD10CM//I10")["subject_id"].n_unique()
    assert connection.execute(query).fetchone() == (expected,)
    assert expected > 5


def test_the_database_refuses_what_breaks_a_constraint():
    connection = duckdb.connect()
    connection.execute(ddl())
    with pytest.raises(duckdb.ConstraintException, match="foreign key"):
        connection.execute("insert into death values (1, '2020-01-01', null, null, null, null, null)")
    with pytest.raises(duckdb.ConstraintException, match="NOT NULL"):
        connection.execute("insert into vocabulary values ('A', null, null, null, 0)")
    connection.execute("insert into vocabulary values ('A', 'A', null, null, 0)")
    with pytest.raises(duckdb.ConstraintException, match=r"[Dd]uplicate key"):
        connection.execute("insert into vocabulary values ('A', 'A', null, null, 0)")


def test_every_reference_is_to_a_table_with_a_key_of_that_type():
    for table in TABLES.values():
        for column in table.columns:
            if column.refers_to:
                (key,) = (other for other in TABLES[column.refers_to].columns if other.key)
                assert key.type == column.type, f"{table.name}.{column.name}"


def test_a_duckdb_file_of_the_tables_is_imported_like_the_folder(tmp_path):
    export_omop(reference.population(10, seed=3), tmp_path / "omop", format="parquet")
    with duckdb.connect(str(tmp_path / "cdm.duckdb")) as connection:
        connection.execute(ddl())
        for name in TABLES:
            connection.execute(f"insert into {name} by name from '{tmp_path}/omop/{name}.parquet'")
    import_events(tmp_path / "cdm.duckdb", tmp_path / "one", identified=True)
    import_events(tmp_path / "omop", tmp_path / "two", identified=True)
    one, two = (ehrsim.read_events(tmp_path / name).collect() for name in ("one", "two"))
    assert one.equals(two)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["synthea_stu3_1461", "nafld_mayo_17549", "pbcseq_312", "diabetes130_71518"])
def test_real_data_loads(name, event_sets, tmp_path):
    import_events(event_sets / name, tmp_path / "events")
    report = export_omop(tmp_path / "events", tmp_path / "omop", format="parquet")
    connection = load(tmp_path / "omop", "parquet")
    assert connection.execute("select count(*) from person").fetchone() == (report.patients,)
