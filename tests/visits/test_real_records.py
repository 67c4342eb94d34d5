"""The codec on the development data: whole records come back, and what does not is what the report says."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ehrsim import events, vocabulary
from ehrsim.importers import import_events
from ehrsim.visits import decode, encode

SETS = ["covid_wuhan_375", "pbcseq_312", "uci_diabetes_70", "synthea_stu3_1461"]
LARGE = ["nafld_mayo_17549", "physionet2012_seta_4000", "synthea_py_1250", "diabetes130_71518"]


def lonely_ends(table: pl.DataFrame) -> int:
    """Ends of visits that never started, as one of the sets has them for every patient."""
    starts, ends = (table.filter(pl.col("code").str.starts_with(f"VISIT_{mark}//")) for mark in ("START", "END"))
    return ends.join(starts, on=["subject_id", "visit_id"], how="anti").height


def judge_codec(source, folder) -> int:
    import_events(source, folder)
    table = events.read_events(folder).select(events.COLUMNS).collect()
    words, _ = vocabulary.fit(table.lazy(), min_patients=1)
    sequences, said = encode(table, words)
    decoded = decode(sequences, words)
    assert decoded.height == table.height - sum(said.left_out.values())
    unsaid = sum(said.left_out.values()) + sum(said.altered.values())
    assert unsaid - lonely_ends(table) < 0.001 * table.height
    rounded = table.with_columns(pl.col("time", "end_time").dt.truncate("1s"))
    rounded = events.sort(rounded.lazy()).collect()
    if not said.left_out and not said.altered:
        assert_frame_equal(decoded, rounded)
    keys = ["subject_id", "time", "code", "numeric_value", "text_value", "unit", "end_time"]
    missing = rounded.join(decoded, on=keys, how="anti", nulls_equal=True)
    assert missing.height <= unsaid
    return decoded.height


@pytest.mark.parametrize("name", SETS)
def test_records_of_a_set_come_back(event_sets, tmp_path, name):
    assert judge_codec(event_sets / name, tmp_path / "events") > 1_000


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_records_of_a_large_set_come_back(event_sets, tmp_path, name):
    assert judge_codec(event_sets / name, tmp_path / "events") > 1_000
