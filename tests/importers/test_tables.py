import gzip

import polars as pl
import pytest

from ehrsim.errors import InputError
from ehrsim.importers import tables
from ehrsim.importers.report import ImportReport
from ehrsim.importers.tables import Table

ROWS = [("1", "a, b"), ("2", None), ("3", "c")]
TEXT = 'Id,Note\n1,"a, b"\n2,\n3, c \n'


def read(path, **options):
    report = ImportReport("source", "table")
    batches = list(tables.rows(Table("notes", path), ["id"], ["note", "other"], report, **options))
    assert report.rows == sum(batch.height for batch in batches)
    return pl.concat(batches).select("id", "note").rows()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.csv", TEXT.encode()),
        ("notes.csv.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("notes.csv", gzip.compress(TEXT.encode(), mtime=0)),
        ("notes.csv.gz", TEXT.encode()),
        ("notes.csv", b"\xef\xbb\xbf" + TEXT.encode()),
        ("notes.csv", TEXT.replace("\n", "\r\n").encode()),
        ("notes.csv", b'"Id";"Note"\n1;"a, b"\n2;\\N\n3;c\n'),
        ("notes.tsv", b"Id\tNote\n1\ta, b\n2\tNULL\n3\tc\n"),
        ("notes.csv", b"ID|NOTE|REST\n1|a, b|x\n2||x\n3|c|x\n"),
    ],
)
def test_dialects_of_csv(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name) == ROWS


def test_parquet(tmp_path):
    pl.DataFrame(ROWS, schema=["ID", "note"], orient="row").write_parquet(tmp_path / "notes.parquet")
    assert read(tmp_path / "notes.parquet") == ROWS


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_batches_are_bounded(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BATCH_ROWS", 1000)
    path = tmp_path / f"numbers.{suffix}"
    frame = pl.DataFrame({"id": range(4500)}).cast(pl.String)
    if suffix == "parquet":
        frame.write_parquet(path)
    else:
        text = frame.write_csv().encode()
        path.write_bytes(gzip.compress(text, mtime=0) if suffix == "csv.gz" else text)
    batches = list(tables.rows(Table("numbers", path), ["id"], [], ImportReport("source", "table")))
    assert len(batches) >= 5
    assert max(batch.height for batch in batches) <= 1000
    assert pl.concat(batches)["id"].to_list() == frame["id"].to_list()


@pytest.mark.parametrize("format", ["omop", "mimic", "synthea", "table"])
def test_batch_size_does_not_change_the_events(format, write_source, run_import, monkeypatch):
    source = write_source(format)
    whole, _ = run_import(source, format)
    monkeypatch.setattr(tables, "BATCH_ROWS", 1)
    by_row, _ = run_import(source, format)
    assert by_row.equals(whole)


def test_missing_column_is_named_with_the_nearest(tmp_path):
    (tmp_path / "notes.csv").write_text("idd,note\n1,a\n")
    with pytest.raises(InputError, match=r"notes\.csv: no column `id`, found idd, note") as caught:
        read(tmp_path / "notes.csv")
    assert caught.value.hint == "did you mean `idd`?"


@pytest.mark.parametrize("header", ["id,id,note", "id,ID,note"])
def test_two_columns_of_one_name_are_refused(header, tmp_path):
    (tmp_path / "notes.csv").write_text(f"{header}\n1,2,a\n")
    with pytest.raises(InputError, match="two columns are called"):
        read(tmp_path / "notes.csv")


def test_tables_are_found_in_any_case_and_format(tmp_path):
    for name in ("PERSON.CSV", "death.csv.gz", "Concept.parquet", "readme.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.csv").mkdir()
    assert set(tables.find_tables([tmp_path])) == {"person", "death", "concept"}
    assert tables.find_tables([tmp_path / "nowhere"]) == {}
