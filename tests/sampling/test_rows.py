"""What leaves the device becomes consistent records: nothing is told twice."""

import numpy as np

from ehrsim.batch import Sizes
from ehrsim.sampling.generate import _ranges
from ehrsim.sampling.rows import _first_told, _visits
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
