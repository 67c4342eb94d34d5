"""Tables and packed batches: every step and event once, in the bins of the scales, and what is left out counted."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrsim import events, vocabulary
from ehrsim.batch import PAST
from ehrsim.visits import CONTINUES, MISSING, encode
from ehrsim.visits.packing import CONTEXT_CODES, Shape, _choose_codes, batches, suggest_shape
from ehrsim.visits.scales import AT_END, AT_START, YEAR, fit_scales
from ehrsim.visits.table import sizes, suggest_places, tabulate

DAY = 86_400


def tabled(frame, *, min_patients=1, places=None):
    """Everything that becomes of a frame: vocabulary, sequences, scales, sizes, table and report."""
    words, _ = vocabulary.fit(frame.lazy(), min_patients=min_patients)
    sequences, _ = encode(frame, words)
    scales = fit_scales(sequences, words, DAY)
    size = sizes(words, scales, places or suggest_places(sequences))
    table, report = tabulate(sequences, scales, size)
    return words, sequences, scales, size, table, report


@pytest.fixture(scope="module")
def tiny(tiny_events):
    return tabled(tiny_events, min_patients=3, places=8)


def test_a_table_has_every_event_and_one_terminal_step_a_patient(tiny):
    _, sequences, _, size, table, report = tiny
    assert report.patients_without_time == report.steps_after_death == 0
    assert table.patients == sequences.patients
    assert len(table.visit.kind) == len(sequences.time) + sequences.patients + report.steps_split
    assert (table.visit.codes > 0).sum() == len(sequences.entry)
    last = table.visit.kind[table.step_offsets[1:] - 1]
    dead = sequences.death != MISSING
    assert last.tolist() == np.where(dead, size.death, size.end).tolist()
    assert (table.outcome == 2).tolist() == dead.tolist()
    inner = np.delete(table.visit.kind, table.step_offsets[1:] - 1)
    assert inner.max() <= size.continues
    assert table.events_before()[-1] == len(sequences.entry)


def test_steps_of_a_table_have_the_codes_of_their_sequences(tiny):
    _, sequences, _, size, table, _ = tiny
    offsets = np.diff(sequences.event_offsets)
    assert (offsets > size.places).any(), "the records must have steps that are split"
    by_patient = sequences.patient_of_step()[sequences.step_of_event()]
    of_row = np.repeat(np.arange(table.patients), np.diff(table.step_offsets))
    for patient in range(0, table.patients, 7):
        grid = table.visit.codes[of_row == patient]
        np.testing.assert_array_equal(grid[grid > 0], sequences.entry[by_patient == patient])


def test_bins_give_back_values_and_times(tiny):
    _, sequences, scales, size, table, _ = tiny
    filled = np.nonzero(table.visit.codes)
    valued = table.visit.value[filled] > 0
    np.testing.assert_array_equal(valued, ~np.isnan(sequences.value))
    back = scales.values.value(table.visit.codes[filled][valued], table.visit.rank[filled][valued])
    recorded = sequences.value[~np.isnan(sequences.value)]
    spread = {code: np.diff(scales.values.knots[code]).max() + 1 for code in range(size.vocabulary)}
    allowed = np.array([spread[code] for code in table.visit.codes[filled][valued].tolist()])
    assert (np.abs(back - recorded) <= allowed).all()
    assert np.mean(np.abs(back - recorded) <= 0.02 * recorded) > 0.95
    offset = table.visit.offset[filled]
    np.testing.assert_array_equal(offset == AT_START, sequences.offset == 0)
    ends = np.where(sequences.kind == CONTINUES, MISSING, sequences.length)[sequences.step_of_event()]
    np.testing.assert_array_equal(offset == AT_END, (sequences.offset == ends) & (sequences.offset != 0))


def test_ages_and_first_gaps_count_from_birth(tiny):
    _, sequences, scales, _, table, _ = tiny
    first = sequences.time[sequences.step_offsets[:-1]]
    years = (first // DAY - sequences.birth // DAY) * DAY / YEAR
    np.testing.assert_allclose(table.visit.age[table.step_offsets[:-1]], years, rtol=1e-6)
    np.testing.assert_array_equal(table.last_age, table.visit.age[table.step_offsets[1:] - 1])
    np.testing.assert_array_equal(
        table.first_gap, scales.first_gap_index(first // DAY - sequences.birth // DAY, first // DAY)
    )
    begins = np.repeat(table.visit.age[table.step_offsets[:-1]], np.diff(table.step_offsets))
    np.testing.assert_allclose(table.visit.elapsed, table.visit.age - begins, atol=1e-4)
    begins = np.repeat(table.step_offsets[:-1], np.diff(table.step_offsets))
    before = np.maximum(np.arange(len(begins)) - 1, begins)
    np.testing.assert_allclose(table.visit.since, table.visit.elapsed - table.visit.elapsed[before], atol=1e-4)
    counted = [step for count in np.diff(table.step_offsets) for step in range(count)]
    np.testing.assert_array_equal(table.visit.steps, counted)
    assert (np.diff(table.visit.age) >= 0)[
        np.diff(np.repeat(np.arange(table.patients), np.diff(table.step_offsets))) == 0
    ].all()


def test_gaps_are_those_between_steps(tiny):
    _, sequences, scales, _, table, _ = tiny
    for patient in range(0, table.patients, 11):
        begin, finish = table.step_offsets[patient : patient + 2]
        days = np.unique(sequences.time[slice(*sequences.step_offsets[patient : patient + 2])] // DAY)
        gaps = table.visit.gap[begin + 1 : finish - 1]
        nonzero = gaps[gaps > scales.gap.assign(np.zeros(1, np.int64))[0]]
        assert len(nonzero) <= len(days) - 1
        assert table.visit.gap[begin] == 0
        assert not table.timed[begin]
        assert table.timed[begin + 1 : finish - 1].all()
        assert table.timed[finish - 1] == (sequences.death[patient] != MISSING)


def naive_past(table) -> dict[str, np.ndarray]:
    """What is known of the values of each code from earlier steps, by walking through the steps."""
    past = {name: np.zeros(table.visit.codes.shape) for name in PAST}
    past["last_rank"] -= 1
    for patient in range(table.patients):
        seen: dict[int, list[tuple[float, float]]] = {}
        for step in range(*table.step_offsets[patient : patient + 2]):
            here = []
            for place, code in enumerate(table.visit.codes[step].tolist()):
                if code and code in seen:
                    rank, year = seen[code][-1]
                    past["last_rank"][step, place] = rank
                    past["last_age"][step, place] = table.visit.year[step] - year
                    past["measurements"][step, place] = len(seen[code])
                    past["mean_rank"][step, place] = np.mean([rank for rank, _ in seen[code]])
                if code and table.visit.value[step, place]:
                    here.append((code, (table.visit.rank[step, place], table.visit.year[step])))
            for code, measured in here:
                seen.setdefault(code, []).append(measured)
    return past


def test_values_before_are_those_of_the_steps_before(tiny):
    table = tiny[4]
    filled = table.visit.codes > 0
    past = naive_past(table)
    for name in PAST:
        np.testing.assert_allclose(getattr(table.visit, name)[filled], past[name][filled], atol=1e-4, err_msg=name)
    np.testing.assert_array_equal(table.visit.last_rank[filled], past["last_rank"][filled])
    assert (past["measurements"] > 1).sum() > 100


def test_a_value_equal_to_the_last_one_is_told_as_the_same_and_ranks_alike(tiny):
    _, sequences, _, size, table, _ = tiny
    filled = table.visit.codes > 0
    value, rank = (getattr(table.visit, name)[filled] for name in ("value", "rank"))
    owner = sequences.patient_of_step()[sequences.step_of_event()]
    lasts: dict[tuple[int, int], tuple[float, float]] = {}
    expected, last_rank = np.zeros(len(value), bool), np.zeros(len(value))
    for row, code in enumerate(sequences.entry):
        number, last_rank[row] = lasts.get((owner[row], code), (np.nan, -1))
        expected[row] = number == sequences.value[row]
        if value[row]:
            lasts[owner[row], code] = sequences.value[row], rank[row]
    np.testing.assert_array_equal(value == size.same, expected)
    np.testing.assert_array_equal(rank[expected], last_rank[expected])
    assert expected.sum() > 10
    assert value[~expected].max() <= size.value_bins


def test_steps_after_death_and_patients_without_time_are_counted():
    rows = [
        (1, 0, "MEDS_BIRTH"),
        (1, 100 * DAY, "LOINC//1"),
        (1, 200 * DAY, "LOINC//1"),
        (1, 200 * DAY, "MEDS_DEATH"),
        (1, 300 * DAY, "LOINC//1"),
        (1, 400 * DAY, "LOINC//1"),
        (2, None, "GENDER//male"),
        (3, 0, "MEDS_BIRTH"),
        (4, 0, "MEDS_BIRTH"),
        (4, DAY, "OBSERVATION_END"),
    ]
    frame = pl.DataFrame(rows, schema=["subject_id", "time", "code"], orient="row")
    frame = frame.with_columns((pl.col("time") * 1_000_000).cast(pl.Datetime("us")))
    _, sequences, _, size, table, report = tabled(events.conform(frame))
    assert (report.patients_without_time, report.steps_after_death, report.steps_split) == (2, 2, 0)
    assert np.diff(table.step_offsets).tolist() == [3, 1]
    assert table.visit.kind.tolist() == [0, 0, size.death, size.end]
    assert table.visit.codes[:, 0].tolist() == [1, 1, 0, 0]
    assert sequences.patients == 4


def unpacked(packed, patients: int) -> tuple[list[list], int]:
    """For each patient the steps that batches hold, as (kind, gap, age, events), and how many batches there were."""
    found: list[list] = [[] for _ in range(patients)]
    count = 0
    for batch in packed:
        count += 1
        number = batch.number[batch.patient]
        assert not batch.start[~batch.used].any()
        assert not batch.timed[~batch.used].any()
        assert batch.real_event.sum() == (batch.visit.codes > 0).sum()
        at = tuple(index[batch.real_event] for index in batch.events)
        assert len(set(zip(*(index.tolist() for index in at), strict=True))) == len(at[0])
        assert (batch.visit.codes[at] > 0).all()
        for row, column in zip(*np.nonzero(batch.used), strict=True):
            patient = number[row, column]
            assert batch.start[row, column] == (not found[patient])
            step = tuple(field[row, column] for field in batch.visit)
            found[patient].append(step)
    return found, count


def assert_same_steps(found: list[list], table, chosen) -> None:
    for patient in chosen:
        begin, finish = table.step_offsets[patient : patient + 2]
        assert len(found[patient]) == finish - begin
        for field, column in enumerate(table.visit):
            np.testing.assert_array_equal(np.array([step[field] for step in found[patient]]), column[begin:finish])


@pytest.mark.parametrize("steps_per_batch", [64, 256, 4_096])
def test_batches_hold_every_step_and_event_once(tiny, steps_per_batch):
    table = tiny[4]
    shape = suggest_shape(table, steps_per_batch)
    assert shape.steps >= np.diff(table.step_offsets).max()
    order = np.random.Generator(np.random.Philox(key=1)).permutation(table.patients)
    packed = list(batches(table, shape, order, code_key=5))
    found, _ = unpacked(packed, table.patients)
    assert_same_steps(found, table, range(table.patients))
    real = np.concatenate([batch.number[batch.real] for batch in packed])
    assert sorted(real.tolist()) == list(range(table.patients))
    for batch in packed:
        assert batch.used.shape == (shape.rows, shape.steps)
        assert batch.real.shape == (shape.patients,)
        assert batch.real_event.shape == (shape.events,)


def test_batches_of_some_patients_hold_only_them(tiny):
    table = tiny[4]
    order = np.array([17, 3, 90])
    packed = list(batches(table, suggest_shape(table, 256), order, code_key=5))
    found, count = unpacked(packed, table.patients)
    assert count == 1
    assert [patient for patient, steps in enumerate(found) if steps] == sorted(order.tolist())
    assert list(batches(table, suggest_shape(table, 256), order[:0], code_key=5)) == []


def test_records_longer_than_a_row_are_cut_at_its_end(tiny):
    table = tiny[4]
    shape = Shape(rows=2, steps=4, patients=8, events=4 * table.visit.codes.shape[1])
    found, _ = unpacked(batches(table, shape, np.arange(table.patients), code_key=5), table.patients)
    assert [len(steps) for steps in found] == np.minimum(np.diff(table.step_offsets), 4).tolist()


def test_contexts_are_facts_of_their_patients(tiny):
    table = tiny[4]
    (batch,) = batches(table, suggest_shape(table, 8_192), np.arange(table.patients), code_key=5)
    for place, patient in enumerate(batch.number[batch.real].tolist()):
        begin, finish = table.code_offsets[patient : patient + 2]
        has = set(table.distinct_codes[begin:finish].tolist())
        given = [code for code in batch.context.codes[place].tolist() if code]
        assert len(given) == len(set(given)) == min(CONTEXT_CODES, len(has))
        assert set(given) <= has
        assert batch.context.outcome[place] == table.outcome[patient]
        assert (batch.context.ages[place] == table.last_age[patient]).all()
        assert set(batch.context.statics[place].tolist()) - {0} == set(table.context_statics[patient].tolist()) - {0}
    assert not batch.context.codes[~batch.real].any()


def test_codes_that_few_have_are_chosen_the_sooner():
    """Everybody has codes 1 to 8, a fifth 9, a twentieth 10; the last patient has none."""
    rng, patients = np.random.default_rng(0), 2_001
    owned = [[*range(1, 9), *[9] * (number % 5 == 0), *[10] * (number % 20 == 0)] for number in range(patients - 1)]
    table = SimpleNamespace(
        patients=patients,
        distinct_codes=np.concatenate(owned).astype(np.int32),
        code_offsets=np.cumsum([0, *map(len, owned), 0]),
    )
    chosen = _choose_codes(table, rng)
    shares = np.bincount(chosen.ravel(), minlength=11)[1:] / np.bincount(table.distinct_codes)[1:]
    assert shares[9] > shares[8] > 1.5 * shares[:8].max()
    assert shares[:8].min() > 0.8 * shares[:8].max()
    assert all(len(set(row)) == CONTEXT_CODES for row in chosen[:-1].tolist()), "none twice"
    assert all(set(row) <= set(codes) for row, codes in zip(chosen.tolist(), owned, strict=False))
    assert not chosen[-1].any()


def test_context_codes_vary_with_their_key_alone(tiny):
    table = tiny[4]
    shape = suggest_shape(table, 8_192)
    first, again, other = (
        next(batches(table, shape, np.arange(table.patients), code_key=key)).context.codes for key in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), places=st.sampled_from([1, 2, 8]))
def test_any_table_is_packed_without_loss(event_tables, data, places):
    frame = data.draw(event_tables)
    _, sequences, _, size, table, report = tabled(frame, places=places)
    shape = suggest_shape(table, 64)
    found, _ = unpacked(batches(table, shape, np.arange(table.patients), code_key=0), table.patients)
    assert_same_steps(found, table, range(table.patients))
    alive = sequences.death[sequences.patient_of_step()] == MISSING
    if alive.all():
        assert (table.visit.codes > 0).sum() == len(sequences.entry)
        assert len(table.visit.kind) == len(sequences.time) + report.steps_split + table.patients
    for field, bins in (("kind", size.kinds), ("gap", size.gaps), ("clock", size.clocks), ("length", size.lengths)):
        column = getattr(table.visit, field)
        assert (column.min(), column.max()) >= (0, 0)
        assert column.max() < bins
    for field, bins in (("offset", size.offsets), ("value", size.values), ("duration", size.durations)):
        assert 0 <= getattr(table.visit, field).min() <= getattr(table.visit, field).max() < bins
