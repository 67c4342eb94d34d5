"""The vocabulary: what it holds, what becomes of the rare, and that nothing stands for too few patients."""

from collections import defaultdict
from datetime import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrsim import codes, events, vocabulary
from ehrsim.errors import InputError, RunError
from ehrsim.visits import decode, encode
from ehrsim.vocabulary import GROUPS, Entry, Vocabulary, group_of

NOON = datetime(2020, 1, 1, 12)


def patients_with(counts: dict[str | tuple, int], *, static: bool = False) -> pl.DataFrame:
    """A table in which each code (or code, text and unit) is had by so many patients, numbered from 1."""
    rows = []
    for given_code, count in counts.items():
        code, text, unit = given_code if isinstance(given_code, tuple) else (given_code, None, None)
        rows += [(subject, None if static else NOON, code, text, unit) for subject in range(1, count + 1)]
    frame = pl.DataFrame(
        rows,
        schema={
            "subject_id": pl.Int64,
            "time": pl.Datetime("us"),
            "code": pl.String,
            "text_value": pl.String,
            "unit": pl.String,
        },
        orient="row",
    )
    return events.conform(frame)


def shifted(frame: pl.DataFrame, by: int) -> pl.DataFrame:
    """The same with other patients."""
    return frame.with_columns(pl.col("subject_id") + by)


def names(words: Vocabulary) -> list[str]:
    return [entry.code for entry in words.entries]


def test_entries_are_in_clinical_order_with_their_groups():
    table = patients_with(
        {
            "LOINC//4548-4": 2,
            "CVX//140": 2,
            "ICD10CM//I10": 2,
            "PROCEDURE//SNOMED//80146002": 2,
            "REASON//SNOMED//36971009": 2,
        }
    )
    words, _ = vocabulary.fit(table.lazy(), min_patients=1)
    assert names(words) == [
        "ICD10CM//I10",
        "REASON//SNOMED//36971009",
        "CVX//140",
        "PROCEDURE//SNOMED//80146002",
        "LOINC//4548-4",
    ]
    assert words.group_bounds == ((1, 3), (3, 5), (5, 6))
    assert [group_of(code) for code in names(words)] == [0, 0, 1, 1, 2]
    assert words.size == 6
    assert [words.index[entry] for entry in words.entries] == [1, 2, 3, 4, 5]


def test_groups_without_entries_are_empty_ranges():
    words, _ = vocabulary.fit(patients_with({"LOINC//4548-4": 2}).lazy(), min_patients=1)
    assert words.group_bounds == ((1, 1), (1, 1), (1, 2))
    assert len(words.group_bounds) == len(GROUPS)


def test_text_and_unit_make_different_entries():
    counts = {("LOINC//1", "yes", None): 3, ("LOINC//1", "no", None): 4, ("LOINC//1", None, "mg"): 5, "LOINC//1": 6}
    words, _ = vocabulary.fit(patients_with(counts).lazy(), min_patients=1)
    assert set(words.entries) == {Entry(*key) if isinstance(key, tuple) else Entry(key, None, None) for key in counts}


def test_visit_marks_births_and_deaths_are_no_entries():
    marks = ("MEDS_BIRTH", "MEDS_DEATH", "OBSERVATION_END", "VISIT_START//IMP", "VISIT_START//AMB")
    table = pl.concat(
        [
            patients_with(dict.fromkeys([*marks, "LOINC//1"], 3)),
            patients_with({("VISIT_END//IMP", "home", "d"): 2, "VISIT_END//IMP": 1}),
            shifted(patients_with({"VISIT_START//AMB": 1}), 10),
            patients_with({"GENDER//female": 2}, static=True),
        ]
    )
    words, report = vocabulary.fit(table.lazy(), min_patients=1)
    assert names(words) == ["LOINC//1"]
    assert words.visit_types == [Entry("VISIT_START//AMB", None, None), Entry("VISIT_START//IMP", None, None)]
    assert words.visit_ends == [Entry("VISIT_END//AMB", None, None), Entry("VISIT_END//IMP", "home", "d")]
    assert words.statics == [Entry("GENDER//female", None, None)]
    assert report.events_kept == 3 + 7 + 2


def test_rare_icd_codes_roll_up_to_their_category_then_chapter():
    table = pl.concat(
        [
            patients_with({"ICD10CM//E11.9": 6}),
            shifted(patients_with({"ICD10CM//E11.22": 5}), 100),
            patients_with({"ICD10CM//I10": 20, "ICD10CM//E66.9": 3}),
            shifted(patients_with({"ICD10CM//E03.9": 8}), 100),
            patients_with({"ICD10CM//J45.909": 2}),
        ]
    )
    words, report = vocabulary.fit(table.lazy())
    assert names(words) == ["ICD10CM//I10", "ICD10CM//E00-E89", "ICD10CM//E11"]
    assert report.rolled_up == {
        "ICD10CM//E03.9": "ICD10CM//E00-E89",
        "ICD10CM//E11.22": "ICD10CM//E11",
        "ICD10CM//E11.9": "ICD10CM//E11",
        "ICD10CM//E66.9": "ICD10CM//E00-E89",
    }
    assert report.dropped == ["ICD10CM//J45.909"]
    assert (report.events_kept, report.events_rolled_up, report.events_dropped) == (20, 22, 2)


def test_patients_who_have_several_rare_codes_count_once():
    table = patients_with({"ICD10CM//E11.9": 6, "ICD10CM//E11.8": 6})
    with pytest.raises(InputError, match="no code occurs in 11 patients"):
        vocabulary.fit(table.lazy(), min_patients=11)
    assert vocabulary.fit(table.lazy(), min_patients=6)[1].rolled_up == {}


def test_rare_codes_roll_up_to_given_parents():
    table = pl.concat([patients_with({"MY//a": 7, "MY//c": 2, "MY//z": 30}), shifted(patients_with({"MY//b": 7}), 50)])
    parents = {"MY//a": "MY//ab", "MY//b": "MY//ab", "MY//ab": "MY//root", "MY//c": "MY//root"}
    words, report = vocabulary.fit(table.lazy(), parents=parents)
    assert names(words) == ["MY//z", "MY//ab"], "the commonest first"
    assert report.rolled_up == {"MY//a": "MY//ab", "MY//b": "MY//ab"}
    assert report.dropped == ["MY//c"]
    assert words.lookup(Entry("MY//a", None, None)) == words.index[Entry("MY//ab", None, None)]


def test_parents_in_a_circle_end_nowhere():
    table = patients_with({"MY//a": 3, "MY//z": 30})
    words, report = vocabulary.fit(table.lazy(), parents={"MY//a": "MY//b", "MY//b": "MY//a"})
    assert names(words) == ["MY//z"]
    assert report.dropped == ["MY//a"]


def test_rare_answers_lose_their_text_before_their_code():
    table = pl.concat(
        [patients_with({("LOINC//1", "odd", None): 5}), shifted(patients_with({("LOINC//1", "odder", None): 6}), 50)]
    )
    words, report = vocabulary.fit(table.lazy())
    assert words.entries == [Entry("LOINC//1", None, None)]
    assert report.rolled_up == {"LOINC//1 odd": "LOINC//1", "LOINC//1 odder": "LOINC//1"}


def test_rare_visit_types_ends_and_statics_are_dropped_and_reported():
    table = pl.concat(
        [
            patients_with({"VISIT_START//AMB": 20, "VISIT_START//SECRET": 2, "LOINC//1": 20}),
            patients_with({("VISIT_END//AMB", "to his cousin", None): 3}),
            patients_with({"GENDER//female": 12, "RACE//1002-5": 4}, static=True),
        ]
    ).with_columns(pl.lit(1).alias("visit_id"), description=pl.col("code").str.to_lowercase())
    words, report = vocabulary.fit(table.lazy())
    assert words.visit_types == [Entry("VISIT_START//AMB", None, None)]
    assert words.visit_ends == [Entry("VISIT_END//AMB", None, None)]
    assert words.statics == [Entry("GENDER//female", None, None)]
    assert sorted(report.dropped) == ["RACE//1002-5", "VISIT_START//SECRET"]
    assert sorted(words.descriptions) == ["GENDER//female", "LOINC//1", "VISIT_START//AMB"]
    _, said = encode(table, words)
    assert (
        said.left_out["visit start or end without its counterpart, repeated, or of a type not in the vocabulary"] == 2
    )
    assert said.left_out["static fact not in the vocabulary"] == 4


def test_descriptions_cover_answers_and_chapters():
    counts = {("LOINC//1", "SNOMED//8517006", None): 12, "ICD10CM//E11.9": 6, "SNOMED//8517006": 3}
    table = pl.concat([patients_with(counts), shifted(patients_with({"ICD10CM//E66.9": 9}), 50)])
    shown = {"LOINC//1": "Smoking", "SNOMED//8517006": "Former smoker", "ICD10CM//E11.9": "Diabetes"}
    described = table.with_columns(pl.col("code").replace_strict(shown, default=None).alias("description"))
    words, _ = vocabulary.fit(described.lazy())
    assert words.descriptions == {
        "LOINC//1": "Smoking",
        "SNOMED//8517006": "Former smoker",
        "ICD10CM//E00-E89": "Endocrine, nutritional and metabolic diseases",
    }
    assert vocabulary.fit(table.lazy())[0].descriptions == {}


def test_nothing_frequent_is_refused_in_one_line():
    with pytest.raises(InputError) as refusal:
        vocabulary.fit(patients_with({"LOINC//1": 3}).lazy(), min_patients=4)
    assert "\n" not in str(refusal.value)
    assert "min_patients" in refusal.value.hint


def test_matching_finds_codes_below_and_by_prefix():
    counts = dict.fromkeys(["ICD10CM//E11", "ICD10CM//E11.22", "ICD10CM//E66.9", "LOINC//1"], 2)
    words, _ = vocabulary.fit(patients_with(counts).lazy(), min_patients=1)

    def found(pattern: str) -> list[str]:
        return [words.entries[index - 1].code for index in words.matching(pattern)]

    assert found("ICD10CM//E11") == ["ICD10CM//E11", "ICD10CM//E11.22"]
    assert found("ICD10CM//E00-E89") == ["ICD10CM//E11", "ICD10CM//E11.22", "ICD10CM//E66.9"]
    assert found("ICD10CM//E*") == ["ICD10CM//E11", "ICD10CM//E11.22", "ICD10CM//E66.9"]
    assert found("LOINC//2") == []


def test_saved_vocabularies_load_and_others_are_refused(tmp_path):
    words, _ = vocabulary.fit(patients_with({("LOINC//1", "ja ö", "%"): 2}).lazy(), min_patients=1)
    words.save(tmp_path / "vocabulary.json")
    again = Vocabulary.load(tmp_path / "vocabulary.json")
    assert again == words
    assert again.index == words.index
    (tmp_path / "vocabulary.json").write_text('{"entries": 3}')
    for path in ("vocabulary.json", "absent.json"):
        with pytest.raises(RunError, match=path):
            Vocabulary.load(tmp_path / path)


CHILDREN = [
    *(f"ICD10CM//E1{digit}.{decimal}" for digit in (0, 1) for decimal in range(3)),
    *(f"ICD10CM//E11.{decimal}{last}" for decimal in range(2) for last in range(2)),
    "ICD10CM//E11",
    "ICD9CM//250.01",
    "ICD9CM//250",
    *(f"MY//{name}" for name in "abcdef"),
]
PARENTS = {"MY//a": "MY//d", "MY//b": "MY//d", "MY//c": "MY//e", "MY//d": "MY//f", "MY//e": "MY//f"}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.sampled_from(CHILDREN), st.sampled_from([None, None, "x", "y"])),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 5),
)
def test_nothing_in_a_vocabulary_stands_for_too_few(rows, min_patients):
    frame = pl.DataFrame(rows, schema=["subject_id", "code", "text_value"], orient="row")
    table = events.sort(events.conform(frame.with_columns(pl.lit(NOON).alias("time"))).lazy()).collect()
    try:
        words, report = vocabulary.fit(table.lazy(), min_patients=min_patients, parents=PARENTS)
    except InputError:
        return
    sequences, said = encode(table, words)
    patients = defaultdict(set)
    for subject, *entry in decode(sequences, words).select("subject_id", "code", "text_value", "unit").iter_rows():
        patients[Entry(*entry)].add(subject)
    assert set(patients) == set(words.entries)
    assert all(len(subjects) >= min_patients for subjects in patients.values())
    assert sum(said.left_out.values()) == report.events_dropped
    assert said.altered.get("code kept in a broader form", 0) == report.events_rolled_up
    assert report.events_kept + report.events_rolled_up + report.events_dropped == table.height
    original = {Entry(*row) for row in table.select("code", "text_value", "unit").unique().iter_rows()}
    kept = len(set(words.entries) & original)
    assert kept + len(report.rolled_up) + len(report.dropped) == len(original)


def test_a_vocabulary_does_not_depend_on_the_order_of_rows(tiny_events):
    shuffled = tiny_events.sample(fraction=1, shuffle=True, seed=3)
    assert vocabulary.fit(tiny_events.lazy(), min_patients=11) == vocabulary.fit(shuffled.lazy(), min_patients=11)


@pytest.mark.slow
def test_real_codes_roll_up_as_counted(event_sets, tmp_path):
    from ehrsim.importers import import_events

    import_events(event_sets / "diabetes130_71518", tmp_path / "events")
    table = events.read_events(tmp_path / "events", "train").collect()
    words, report = vocabulary.fit(table.lazy())
    sequences, said = encode(table, words)
    assert said.altered["code kept in a broader form"] == report.events_rolled_up > 1_000
    owner = sequences.patient_of_step()[sequences.step_of_event()]
    pairs = np.unique(np.stack([sequences.entry, owner]), axis=1)
    assert np.bincount(pairs[0], minlength=words.size)[1:].min() >= 11
    assert all(codes.parse(old).system == codes.parse(new).system for old, new in report.rolled_up.items())
