"""Encoding and decoding: what goes in comes out, but for what the report says."""

from datetime import datetime

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from ehrsim import events, vocabulary
from ehrsim.visits import CONTINUES, MISSING, NO_VISIT, decode, encode


def to_the_second(table: pl.DataFrame) -> pl.DataFrame:
    """Times rounded down to whole seconds, in canonical order."""
    rounded = table.with_columns(
        (pl.col(column).dt.timestamp("us").floordiv(1_000_000) * 1_000_000).cast(pl.Datetime("us"))
        for column in ("time", "end_time")
    )
    return events.sort(rounded.lazy()).collect()


@settings(max_examples=100, deadline=None)
@given(data=st.data(), step_seconds=st.sampled_from([86_400, 3_600, 7 * 86_400]))
def test_any_table_comes_back(event_tables, data, step_seconds):
    table = data.draw(event_tables)
    words, report = vocabulary.fit(table.lazy(), min_patients=1)
    sequences, said = encode(table, words, step_seconds=step_seconds)
    assert report.events_dropped == report.events_rolled_up == 0
    assert said.left_out == said.altered == {}
    assert_frame_equal(decode(sequences, words), to_the_second(table))


def rows(*given_rows: tuple) -> pl.DataFrame:
    """A table of (subject, time text or None, code, and further columns by name)."""
    full = [
        {"subject_id": subject, "time": text and datetime.fromisoformat(text), "code": code, **more}
        for subject, text, code, more in given_rows
    ]
    frame = events.conform(pl.DataFrame(full, schema_overrides={"time": pl.Datetime("us")}, infer_schema_length=None))
    return events.sort(frame.lazy()).collect()


def coded(table: pl.DataFrame, words: vocabulary.Vocabulary | None = None, **options):
    """The sequences of a table, what encoding said, and the vocabulary it used."""
    words = words or vocabulary.fit(table.lazy(), min_patients=1)[0]
    return *encode(table, words, **options), words


LONG_STAY = rows(
    (1, "1969-12-30T22:00", "VISIT_START//IMP", {"visit_id": 5}),
    (1, "1969-12-31T23:59:59", "ICD10CM//I10", {"visit_id": 5}),
    (1, "1970-01-01T00:00", "ICD10CM//I10", {"visit_id": 5}),
    (1, "1970-01-01T06:00", "LOINC//8867-4", {"visit_id": 5, "numeric_value": 61.0, "unit": "/min"}),
    (1, "1970-01-01T06:00", "LOINC//8867-4", {"visit_id": 5, "numeric_value": 61.0, "unit": "/min"}),
    (1, "1970-01-01T10:00", "VISIT_START//AMB", {"visit_id": 6}),
    (1, "1970-01-01T10:00", "ICD10CM//I10", {}),
    (1, "1970-01-02T08:00", "VISIT_END//IMP", {"visit_id": 5}),
)


def test_a_stay_is_a_run_of_days_beside_what_happens_meanwhile():
    sequences, said, words = coded(LONG_STAY)
    kinds = [words.visit_types[kind - 1].code if kind > 0 else kind for kind in sequences.kind.tolist()]
    assert kinds == ["VISIT_START//IMP", CONTINUES, CONTINUES, "VISIT_START//AMB", NO_VISIT]
    assert np.diff(sequences.event_offsets).tolist() == [0, 1, 3, 0, 1]
    assert sequences.time.tolist() == [-93_600, -1, 0, 36_000, 36_000]
    assert sequences.length.tolist() == [3 * 86_400 - 14 * 3_600, *[MISSING] * 4]
    assert said.left_out == {}
    assert_frame_equal(decode(sequences, words), LONG_STAY)


def test_finer_bins_split_a_day():
    sequences, _, words = coded(LONG_STAY, step_seconds=3_600)
    assert np.diff(sequences.event_offsets).tolist() == [0, 1, 1, 2, 0, 1]
    assert_frame_equal(decode(sequences, words), LONG_STAY)


def test_patients_without_visits_or_events_are_kept():
    table = rows(
        (1, None, "GENDER//male", {}),
        (2, "1950-01-01T00:00", "MEDS_BIRTH", {}),
        (2, "2020-01-01T00:00", "MEDS_DEATH", {}),
        (3, "2020-01-01T00:00", "ICD10CM//I10", {}),
    )
    sequences, _, words = coded(table)
    assert sequences.patients == 3
    assert np.diff(sequences.step_offsets).tolist() == [0, 0, 1]
    assert_frame_equal(decode(sequences, words), table)


def test_what_is_left_out_is_counted_by_reason():
    known = rows(
        (1, None, "GENDER//male", {}),
        (1, "2020-01-01T08:00", "VISIT_START//AMB", {"visit_id": 1}),
        (1, "2020-01-01T08:00", "ICD10CM//I10", {"visit_id": 1}),
        (1, "2020-01-01T09:00", "VISIT_END//AMB", {"visit_id": 1}),
    )
    _, _, words = coded(known)
    table = rows(
        (1, None, "GENDER//male", {}),
        (1, None, "RACE//2106-3", {}),
        (1, "1950-01-01T00:00", "MEDS_BIRTH", {}),
        (1, "1951-01-01T00:00", "MEDS_BIRTH", {}),
        (1, "2020-01-01T08:00", "VISIT_START//AMB", {"visit_id": 1}),
        (1, "2020-01-01T08:30", "VISIT_START//AMB", {"visit_id": 1}),
        (1, "2020-01-01T08:00", "VISIT_START//IMP", {"visit_id": 2}),
        (1, "2020-01-01T07:00", "VISIT_END//AMB", {"visit_id": 1}),
        (1, "2020-01-01T09:00", "VISIT_END//AMB", {"visit_id": 1}),
        (1, "2020-01-01T09:30", "VISIT_END//AMB", {"visit_id": 9}),
        (1, "2020-01-01T08:00", "ICD10CM//I10", {"visit_id": 1}),
        (1, "2020-01-01T08:00", "LOINC//1", {"visit_id": 1}),
        (1, "2020-01-01T08:00", "LOINC//2", {"visit_id": 1}),
    )
    sequences, said, _ = coded(table, words)
    assert list(said.left_out.values()) == [2, 1, 4, 1]
    assert decode(sequences, words).height == table.height - sum(said.left_out.values())


def test_a_visit_lasts_from_its_first_start_to_its_last_end():
    table = rows(
        (1, "2020-01-01T08:00", "VISIT_START//IMP", {"visit_id": 1}),
        (1, "2020-01-02T08:00", "VISIT_START//IMP", {"visit_id": 1}),
        (1, "2020-01-03T08:00", "VISIT_END//IMP", {"visit_id": 1}),
        (1, "2020-01-04T08:00", "VISIT_END//IMP", {"visit_id": 1}),
    )
    sequences, said, words = coded(table)
    assert sum(said.left_out.values()) == 2
    assert_frame_equal(decode(sequences, words), table[[0, 3]])


def test_what_is_altered_is_counted_by_reason():
    table = rows(
        (1, None, "GENDER//male", {"numeric_value": 1.0}),
        (1, "2020-01-01T08:00", "VISIT_START//IMP", {"visit_id": 1, "numeric_value": 3.0}),
        (1, "2020-01-01T08:00", "ICD10CM//I10", {"visit_id": 1}),
        (1, "2020-01-02T08:00", "VISIT_END//IMP", {"visit_id": 1, "text_value": "home"}),
        (1, "2020-02-01T08:00", "VISIT_START//IMP", {"visit_id": 2}),
        (1, "2020-02-02T08:00", "VISIT_END//IMP", {"visit_id": 2, "text_value": "home"}),
        (1, "2020-03-01T08:00", "VISIT_START//IMP", {"visit_id": 3}),
        (1, "2020-03-02T08:00", "VISIT_END//IMP", {"visit_id": 3, "text_value": "hospice"}),
        (1, "2020-03-02T08:00", "MEDS_DEATH", {"visit_id": 3}),
    )
    sequences, said, words = coded(table)
    assert said.left_out == {}
    assert said.altered == {
        "visit end brought to the usual one of its type": 1,
        "detail of a birth, death, static fact or visit bound": 3,
    }
    assert decode(sequences, words)["text_value"].to_list().count("home") == 3


def test_a_code_that_is_not_known_takes_its_parent_s_place():
    broad = rows((1, "2020-01-01T08:00", "ICD10CM//E11", {}))
    _, _, words = coded(broad)
    sequences, said, _ = coded(rows((1, "2020-01-01T08:00", "ICD10CM//E11.9", {})), words)
    assert said.altered == {"code kept in a broader form": 1}
    assert decode(sequences, words)["code"].to_list() == ["ICD10CM//E11"]


def test_descriptions_come_back_where_they_were_given():
    table = rows((1, "2020-01-01T08:00", "ICD10CM//E11", {"description": "Type 2 diabetes"}))
    sequences, _, words = coded(table)
    assert_frame_equal(decode(sequences, words), table)


def test_selected_patients_are_those_of_a_table_of_them():
    table = rows(
        *((subject, "2020-01-01T08:00", f"LOINC//{subject}", {"numeric_value": 1.5}) for subject in (1, 2, 3)),
        *((subject, None, "GENDER//male", {}) for subject in (2, 3)),
        (3, "2020-02-01T08:00", "LOINC//1", {}),
    )
    sequences, _, words = coded(table)
    chosen = sequences.select(np.array([2, 0]))
    assert chosen.subject.tolist() == [3, 1]
    assert_frame_equal(decode(chosen, words), table.filter(pl.col("subject_id") != 2))
    assert decode(sequences.select(np.array([], np.int64)), words).is_empty()


def test_an_empty_table_has_empty_sequences():
    table = rows((1, "2020-01-01T08:00", "ICD10CM//E11", {}))
    sequences, said, words = coded(table.clear(), coded(table)[2])
    assert sequences.patients == len(sequences.time) == len(sequences.entry) == 0
    assert said.left_out == {}
    assert decode(sequences, words).is_empty()


def test_a_visit_whose_start_no_event_tells_is_a_visit_all_the_same():
    table = rows(
        (1, "2020-01-01T08:00", "ICD10CM//I10", {"visit_id": 7}),
        (1, "2020-01-02T08:00", "LOINC//8867-4", {"visit_id": 7, "numeric_value": 61.0, "unit": "/min"}),
        (1, "2020-01-03T08:00", "VISIT_END//IMP", {"visit_id": 7}),
        (1, "2020-02-01T08:00", "ICD10CM//I10", {"visit_id": 8}),
    )
    sequences, said, words = coded(table)
    unstated = words.type_index[vocabulary.UNSTATED_VISIT]
    assert sequences.kind.tolist() == [unstated, CONTINUES, unstated]
    assert sequences.length.tolist() == [2 * 86_400, MISSING, MISSING]
    assert said.left_out == {}
    assert_frame_equal(decode(sequences, words), table)


def test_what_comes_before_the_start_of_its_visit_continues_nothing():
    table = rows(
        (1, "2020-01-01T08:00", "ICD10CM//I10", {"visit_id": 7}),
        (1, "2020-01-02T08:00", "ICD10CM//I10", {"visit_id": 7}),
        (1, "2020-01-05T08:00", "VISIT_START//IMP", {"visit_id": 7}),
        (1, "2020-01-06T08:00", "ICD10CM//I10", {"visit_id": 7}),
    )
    sequences, _, words = coded(table)
    assert sequences.kind.tolist() == [NO_VISIT, NO_VISIT, 1, CONTINUES]
    assert_frame_equal(decode(sequences, words), table)
