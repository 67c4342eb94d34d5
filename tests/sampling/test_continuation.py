"""Histories that go on: kept as they were, continued from the date on, whoever else is continued beside them."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from ehrsim import codes, events, runs
from ehrsim.errors import InputError, UsageError
from ehrsim.sampling import Conditions, continue_to
from ehrsim.sampling import continued as continued_in_memory
from ehrsim.sampling.continuation import continued_blocks
from ehrsim.sampling.histories import read_histories

COPIES = 3
SINCE = dt.datetime(1985, 6, 1)


def continued(run, source, out, **options) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The events of the output, and the table of whose they are."""
    continue_to(run, source, out, seed=3, slots=options.pop("slots", 32), **options)
    return events.read_events(out).collect(), pl.read_parquet(out / "metadata" / "continuations.parquet")


@pytest.fixture(scope="module")
def both(tiny_run, tiny_events, tmp_path_factory):
    """The tiny records continued three times from a date on, by the VAE."""
    return continued(
        tiny_run("vae").folder, tiny_events, tmp_path_factory.mktemp("on") / "out", copies=COPIES, since=SINCE, years=8
    )


def before(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("time").is_null() | (pl.col("time") < SINCE))


def test_a_history_stays_as_it_was(both, tiny_events):
    frame, listed = both
    past = before(frame).join(listed.select("subject_id", "source_subject_id", "copy"), on="subject_id")
    for copy in range(COPIES):
        mine = (
            past.filter(pl.col("copy") == copy).drop("subject_id", "copy").rename({"source_subject_id": "subject_id"})
        )
        source = before(tiny_events).filter(pl.col("subject_id").is_in(listed["source_subject_id"].unique().implode()))
        known = source.with_columns(end_time=pl.when(pl.col("end_time") < SINCE).then("end_time"))
        assert events.sort(mine.select(known.columns).lazy()).collect().equals(known)


def test_the_whole_is_a_valid_table_of_whole_subjects(both):
    frame, listed = both
    assert events.validate(frame.lazy()) == []
    assert frame["subject_id"].unique(maintain_order=True).to_list() == list(range(1, len(listed) + 1))
    assert frame.filter(pl.col("code") == codes.BIRTH).height == len(listed)
    assert frame.filter(pl.col("code") == "GENDER//male").height < len(listed)
    starts = frame.filter(pl.col("code").str.starts_with("VISIT_START//"))
    assert starts.select("subject_id", "visit_id").is_unique().all()


def test_futures_lie_between_the_date_and_the_last_year(both):
    frame, listed = both
    future = frame.filter(pl.col("time") >= SINCE).join(listed, on="subject_id")
    assert future["subject_id"].n_unique() > 0.2 * len(listed)
    assert future.filter(pl.col("time") > pl.col("until") + pl.duration(days=1)).is_empty()
    assert set(listed["until"].unique()) == {SINCE + dt.timedelta(seconds=8 * 365.25 * 86_400)}


def test_no_one_is_continued_who_was_dead_or_unborn(both, tiny_events):
    first = tiny_events.filter(pl.col("code") != codes.BIRTH).group_by("subject_id").agg(pl.col("time").min())
    dead = tiny_events.filter((pl.col("code") == codes.DEATH) & (pl.col("time") < SINCE))["subject_id"]
    seen = first.filter(pl.col("time") < SINCE)["subject_id"]
    assert set(both[1]["source_subject_id"]) == set(seen) - set(dead)


def test_the_futures_of_one_patient_differ(both):
    frame, listed = both
    future = frame.filter(pl.col("time") >= SINCE).join(listed, on="subject_id").sort("time")
    told = future.group_by("source_subject_id", "copy").agg(pl.col("time").dt.date().unique().sort())
    alike = told.group_by("source_subject_id").agg(pl.len(), pl.col("time").n_unique().alias("different"))
    assert (alike["different"] == alike["len"]).mean() > 0.9


def test_the_bytes_depend_neither_on_slots_nor_on_who_else_is_continued(both, tiny_run, tiny_events, tmp_path):
    frame, listed = both
    few = listed["source_subject_id"].unique().sort()[:5]
    some, _ = continued(
        tiny_run("vae").folder,
        tiny_events.filter(pl.col("subject_id").is_in(few.implode())),
        tmp_path / "out",
        copies=COPIES,
        since=SINCE,
        years=8,
        slots=7,
    )
    assert some.equals(frame.filter(pl.col("subject_id") <= 5 * COPIES))


def test_what_came_after_the_date_has_no_influence(both, tiny_run, tiny_events, tmp_path):
    frame, _ = continued(
        tiny_run("vae").folder, before(tiny_events), tmp_path / "out", copies=COPIES, since=SINCE, years=8
    )
    dead = tiny_events.filter(pl.col("code") == codes.DEATH)
    assert dead.filter(pl.col("time") >= SINCE).height > 5
    assert frame.equals(both[0])


@pytest.mark.parametrize("model", ["markov", pytest.param("gan", marks=pytest.mark.slow)])
def test_every_model_goes_on(model, tiny_run, tiny_events, tmp_path):
    frame, listed = continued(tiny_run(model).folder, tiny_events, tmp_path / "out", since=SINCE, years=8)
    assert events.validate(frame.lazy()) == []
    assert frame.filter(pl.col("time") >= SINCE)["subject_id"].n_unique() > 0.2 * len(listed)


def test_without_a_date_each_goes_on_from_the_last_event(tiny_run, tiny_events, tmp_path):
    frame, listed = continued(tiny_run("markov").folder, tiny_events, tmp_path / "out", years=30)
    last = tiny_events.filter(pl.col("time").is_not_null()).group_by("subject_id").agg(pl.col("time").max())
    since = listed.join(last, left_on="source_subject_id", right_on="subject_id")
    assert since.filter(pl.col("since") != pl.col("time")).is_empty()
    assert frame["time"].max() > tiny_events["time"].max() + dt.timedelta(days=365), "beyond the data of the run"


def test_what_cannot_go_on_is_left_out_and_counted(tiny_run, tiny_events):
    run = runs.load(tiny_run("markov").folder)
    dead = tiny_events.filter(pl.col("code") == codes.DEATH)["subject_id"]
    someone = min(set(tiny_events["subject_id"]) - set(dead))
    unborn = tiny_events.filter((pl.col("code") != codes.BIRTH) | (pl.col("subject_id") != someone))
    strange = pl.DataFrame({"subject_id": [5], "time": [dt.datetime(1970, 1, 1)], "code": ["LOCAL//none"]})
    table = events.sort(pl.concat([unborn, events.conform(strange)], how="diagonal").lazy()).collect()
    known, report = read_histories(run, table, since=None, years=1.0, copies=1)
    assert report.left_out == {"died before": len(dead), "without a birth": 1}
    assert report.unknown == {"code not in the vocabulary": 1}
    assert known.patients == 160 - len(dead) - 1


def test_conditions_hold_for_the_whole_record(tiny_run, tiny_events, tmp_path):
    wanted = codes.join("condition", "ICD10CM", "E11.9")
    frame, listed = continued(
        tiny_run("markov").folder,
        tiny_events,
        tmp_path / "out",
        since=SINCE,
        years=20,
        conditions=Conditions(required=(wanted,), alive=True),
    )
    assert frame.filter(pl.col("code") == wanted)["subject_id"].n_unique() == len(listed)
    assert frame.filter(pl.col("code") == codes.DEATH).is_empty()


def test_so_long_a_silence_that_none_is_drawn_ends_on_the_date(tiny_run, tiny_events):
    loaded, since = runs.load(tiny_run("markov").folder), dt.datetime(2090, 1, 1)
    run = loaded._replace(scales=loaded.scales._replace(ends_known=True))
    known, _ = read_histories(run, tiny_events, since=since, years=5.0, copies=1)
    blocks = continued_blocks(run, known, 0, known.patients, seed=1, conditions=None, slots=32)
    frame, report = next(blocks)
    after = frame.filter(pl.col("time") >= since).group_by("subject_id").agg(pl.col("time").min())
    assert len(after) == report.patients
    assert 0 < report.moved <= after.filter(pl.col("time") < since + dt.timedelta(days=1)).height


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"copies": 0}, UsageError, "0 futures"),
        ({"years": 0.0}, UsageError, "years is `0.0`"),
        ({"since": dt.datetime(1800, 1, 1)}, InputError, "160 without any event before"),
        ({"since": dt.datetime(2090, 1, 1)}, InputError, "at the end of the data of the run"),
        ({"conditions": Conditions(sex="female")}, UsageError, "instead of --sex"),
        ({"processes": 0, "since": SINCE}, UsageError, "processes"),
    ],
)
def test_what_cannot_be_asked_is_refused(options, error, message, tiny_run, tiny_events, tmp_path):
    with pytest.raises(error, match=message):
        continue_to(tiny_run("markov").folder, tiny_events, tmp_path / "out", **{"since": SINCE, **options})
    assert not (tmp_path / "out").exists()


def test_a_listed_copy_names_its_history(both):
    listed = both[1]
    assert listed["subject_id"].to_list() == list(range(1, len(listed) + 1))
    assert np.array_equal(listed["copy"].to_numpy(), np.tile(np.arange(COPIES), len(listed) // COPIES))
    assert listed.group_by("source_subject_id").len()["len"].unique().to_list() == [COPIES]


def test_the_same_in_memory_as_written(tiny_run, tiny_events, tmp_path):
    run = tiny_run("markov").folder
    frame, listed = continued(run, tiny_events, tmp_path / "out", since=SINCE, years=3)
    in_memory, whose = continued_in_memory(run, tiny_events, since=SINCE, years=3, seed=3, slots=16)
    assert in_memory.collect().select(frame.columns).equals(frame)
    assert whose.equals(listed)
