"""What leaves the device becomes consistent records: nothing is told twice."""

from types import SimpleNamespace

import numpy as np

from ehrsim.batch import Sizes
from ehrsim.sampling.generate import _ranges
from ehrsim.sampling.rows import _chosen, _first_told, _in_order, _moments, _visits
from ehrsim.visits.scales import Histogram, last_alike
from ehrsim.visits.sequences import CONTINUES, MISSING, NO_VISIT


def test_what_is_told_twice_is_told_once():
    facts = [
        # visit, code, time, value, duration
        (1, 5, 100, 7.0, MISSING),
        (1, 5, 100, 7.0, MISSING),  # twice
        (1, 5, 100, 8.0, MISSING),  # another value
        (1, 5, 101, 7.0, MISSING),  # another time
        (1, 6, 100, 7.0, MISSING),  # another code
        (2, 5, 100, 7.0, MISSING),  # another visit
        (1, 5, 100, 7.0, 60),  # with an end
        (1, 9, 100, np.nan, MISSING),
        (1, 9, 100, np.nan, MISSING),  # twice, without a value
        (1, 5, 100, 7.0, MISSING),  # a third time, further on
    ]
    visit, code, time, value, duration = (np.array(column) for column in zip(*facts, strict=True))
    told = _first_told(visit, code.astype(np.int32), time, value.astype(np.float32), duration)
    assert told.tolist() == [0, 2, 3, 4, 5, 6, 7]


def test_nothing_told_is_nothing():
    none = np.zeros(0, np.int64)
    assert _first_told(none, none.astype(np.int32), none, none.astype(np.float32), none).tolist() == []


def test_a_number_that_has_decided_is_as_good_as_new():
    uniform = (np.arange(100_000) + 0.5) / 100_000
    chosen, left = _chosen(uniform, np.full(len(uniform), 0.3))
    assert chosen.mean() == 0.3
    for part in (left[chosen], left[~chosen]):
        np.testing.assert_allclose(np.quantile(part, [0, 0.25, 0.5, 0.75, 1]), [0, 0.25, 0.5, 0.75, 1], atol=1e-4)
    assert not _chosen(uniform, np.zeros(len(uniform)))[0].any()
    assert _chosen(uniform, np.ones(len(uniform)))[0].all()


def test_steps_of_a_kind_are_at_the_second_of_the_last_one_in_the_bin_as_often_as_in_the_data():
    rng = np.random.default_rng(0)
    patient, steps = np.repeat(np.arange(2_000), 10), 20_000
    rows = {
        "kind": rng.integers(0, 3, steps),
        "clock": rng.integers(0, 3, steps),
        "clock_within": rng.random(steps).astype(np.float32),
        "time": np.tile(np.arange(10), 2_000),
    }
    clock = Histogram(28_800.0 * np.arange(3)[:, None] + np.linspace(0, 28_799, 5)[None])
    scales = SimpleNamespace(clock=clock, clock_kept=np.array([0.0, 0.6, 1.0]), step_seconds=86_400)
    second = np.mod(_moments(rows, patient, scales), 86_400)
    assert (clock.assign(second) == rows["clock"]).all()
    before = last_alike(patient, rows["clock"])
    kept = (second == second[before])[before >= 0]
    kind = rows["kind"][before >= 0]
    assert kept[kind == 0].mean() < 0.001
    assert abs(kept[kind == 1].mean() - 0.6) < 0.03
    assert kept[kind == 2].all()
    assert len(np.unique(second[before < 0])) > 4_000


def test_times_of_a_code_ascend_and_stay_with_it():
    code = np.array([1, 1, 1, 2, 1, 1])
    np.testing.assert_array_equal(_in_order(np.array([5, 3, 4, 9, 2, 1]), code), [3, 4, 5, 9, 1, 2])
    assert len(_in_order(np.zeros(0, np.int64), np.zeros(0, np.int64))) == 0


def test_processes_share_whole_blocks():
    assert _ranges(0, 100, 2) == [(0, 100)]
    assert _ranges(0, 4100, 2) == [(0, 4000), (4000, 4100)]
    assert _ranges(1500, 9000, 3) == [(1500, 4000), (4000, 8000), (8000, 9000)]


def test_a_continuation_belongs_to_the_last_visit_that_has_begun():
    sizes = Sizes(*[0] * len(Sizes._fields))._replace(kinds=6)
    more = sizes.continues
    kinds = np.array([NO_VISIT, more, 1, NO_VISIT, more, 2, more, more, NO_VISIT, 1])
    patient = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    kind, visit = _visits(kinds, patient, sizes)
    outside = [NO_VISIT, MISSING]
    assert np.stack([kind, visit], 1).tolist() == [
        outside,
        outside,
        [1, 1],
        outside,
        [CONTINUES, 1],
        [2, 2],
        outside,
        outside,
        outside,
        [1, 1],
    ]
