"""The page as a whole: numbers, escaping, self-containment, the same bytes, and what is refused."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from ehrsim import events
from ehrsim.errors import InputError
from ehrsim.evaluate import write_overview
from ehrsim.evaluate.overview import read_metrics, training_curve

HOSTILE = "</title><script>alert(\"1\")</script> & 'quoted'"
METRICS = b'{"step":50,"tuning":3.5,"loss":4.0}\n{"step":100,"tuning":2.25,"loss":3.0}\n{"step":150,"tuning":2.5}\n'


def cohort(patients: int, carriers: int, *, first: int = 1, split: str | None = None) -> pl.DataFrame:
    """Patients of whom `carriers` have hypertension; every one has a birth, a sex, a visit and a weight."""
    rows: list[tuple[object, ...]] = []
    for subject in range(first, first + patients):
        visit = datetime(2000, 1, 1)
        rows += [
            (subject, None, "GENDER//female", None, None, None, "Female"),
            (subject, datetime(1950, 1, 1), "MEDS_BIRTH", None, None, None, "Birth"),
            (subject, visit, "VISIT_START//AMB", None, None, 1, "Start"),
            (subject, visit, "LOINC//29463-7", 60.0 + subject % 20, "kg", 1, "Body weight"),
        ]
        if subject < first + carriers:
            rows.append((subject, visit, "ICD10CM//I10", None, None, 1, HOSTILE))
    columns = ["subject_id", "time", "code", "numeric_value", "unit", "visit_id", events.DESCRIPTION]
    return events.conform(pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None))


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(METRICS)
    return path


def write_splits(folder: Path, splits: dict[str, pl.DataFrame]) -> Path:
    with events.event_writer(folder, {"dataset_name": "test"}) as writer:
        for split, frame in splits.items():
            writer.write(frame, split)
    return folder


@pytest.fixture
def population(tmp_path: Path) -> Path:
    splits = {"train": cohort(40, 40), "tuning": cohort(20, 5, first=100), "held_out": cohort(10, 5, first=200)}
    return write_splits(tmp_path / "population", splits)


@pytest.fixture
def simulated(tmp_path: Path) -> Path:
    events.write_events(cohort(30, 6), tmp_path / "cohort.parquet")
    with events.event_writer(tmp_path / "cohort", {"dataset_name": "test"}) as writer:
        writer.write(cohort(30, 6))
    return tmp_path / "cohort"


def page_of(population: Path, simulated: Path, metrics: Path, **given: object) -> str:
    page = simulated.parent / "page.html"
    write_overview(population, simulated, page, metrics=metrics, title=HOSTILE, **given)  # type: ignore[arg-type]
    return page.read_text(encoding="utf-8")


def test_the_page_is_whole_and_needs_nothing_else(
    population: Path, simulated: Path, metrics: Path, structure_of
) -> None:
    page = page_of(population, simulated, metrics, facts=(("Seed <i>", "7 & 8"),))
    structure = structure_of(page)
    assert structure.open == []
    assert "script" not in structure.seen
    assert all(address.startswith(("#", "data:")) for address in structure.addresses)
    assert not re.search(r"https?:|@import|url\(", page)


def test_text_from_data_and_callers_is_escaped(population: Path, simulated: Path, metrics: Path) -> None:
    page = page_of(population, simulated, metrics, facts=(("Seed <i>", "7 & 8"),))
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt; &amp; &#39;quoted&#39;" in page
    assert "Seed &lt;i&gt;" in page
    assert "7 &amp; 8" in page


def test_the_held_out_split_is_compared_first(population: Path, simulated: Path, metrics: Path) -> None:
    page = page_of(population, simulated, metrics)
    assert "10 real patients" in page
    assert "the held-out split" in page
    # 5 of 10 real patients carry the code, and 6 of 30 simulated ones.
    assert "real 50 %, simulated 20 %" in page
    assert "−30.0" in page
    assert "Best on the tuning split: 2.25 nats a visit, at step 100." in page


def test_the_tuning_split_comes_second_and_all_patients_last(tmp_path: Path, simulated: Path, metrics: Path) -> None:
    tuned = write_splits(tmp_path / "tuned", {"train": cohort(40, 40), "tuning": cohort(20, 5, first=100)})
    assert "20 real patients" in page_of(tuned, simulated, metrics)
    whole = write_splits(tmp_path / "whole", {"train": cohort(40, 10)})
    page = page_of(whole, simulated, metrics)
    assert "40 real patients" in page
    assert "no split was kept apart" in page


def test_marks_of_follow_up_are_not_compared_as_codes(population: Path, tmp_path: Path, metrics: Path) -> None:
    end = [(1, datetime(1950, 1, 1), "MEDS_BIRTH"), (1, datetime(1990, 1, 1), "OBSERVATION_END")]
    frame = pl.DataFrame(end, schema=["subject_id", "time", "code"], orient="row")
    events.write_events(frame, tmp_path / "followed.parquet")
    page = page_of(population, tmp_path / "followed.parquet", metrics)
    assert "OBSERVATION_END" not in page
    assert "followed to age 40" in page
    assert "Nobody in this cohort has a condition" in page


def test_the_same_input_gives_the_same_bytes(population: Path, simulated: Path, metrics: Path) -> None:
    assert page_of(population, simulated, metrics) == page_of(population, simulated, metrics)


def test_a_single_parquet_file_is_a_cohort_too(population: Path, simulated: Path, metrics: Path) -> None:
    assert "30 simulated patients" in page_of(population, simulated.with_suffix(".parquet"), metrics)


def test_cohorts_that_share_nothing_still_give_a_page(
    population: Path, tmp_path: Path, metrics: Path, structure_of
) -> None:
    bare = pl.DataFrame({"subject_id": [1], "time": [None], "code": ["GENDER//male"]}).cast({"time": pl.Datetime("us")})
    events.write_events(bare, tmp_path / "bare.parquet")
    page = page_of(population, tmp_path / "bare.parquet", metrics)
    assert "No simulated patient has a birth" in page
    assert "share no measurement" in page
    assert structure_of(page).open == []


def test_an_empty_cohort_is_refused_and_nothing_is_written(population: Path, tmp_path: Path, metrics: Path) -> None:
    events.write_events(cohort(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(InputError, match=r"empty\.parquet holds no events"):
        page_of(population, tmp_path / "empty.parquet", metrics)
    with pytest.raises(InputError, match="holds no events"):
        page_of(tmp_path / "empty.parquet", tmp_path / "empty.parquet", metrics)
    assert not (tmp_path / "page.html").exists()


def test_a_run_without_figures_has_no_curve(population: Path, simulated: Path, tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_bytes(b"")
    assert "The run has no training figures." in page_of(population, simulated, tmp_path / "none.jsonl")
    assert training_curve([{"step": 1, "tuning": None}]) is None  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"step":1}\n{"step":', r"metrics\.jsonl line 2 is not JSON"),
        (b"[1]", "line 1 has no `step`"),
        (b'{"loss":1.0}', "line 1 has no `step`"),
    ],
)
def test_broken_metrics_are_refused_by_line(metrics: Path, content: bytes, message: str) -> None:
    metrics.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_metrics(metrics)


def test_missing_metrics_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nowhere\.jsonl"):
        read_metrics(tmp_path / "nowhere.jsonl")
