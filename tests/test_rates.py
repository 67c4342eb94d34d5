"""Rates: counted by hand on a few records, and how far apart cohorts are."""

import itertools

import numpy as np
import pytest

from ehrsim import rates


@pytest.fixture(scope="module")
def counted(tiny_data):
    return rates.count(tiny_data.train, tiny_data.sizes)


def test_steps_codes_and_patients_are_counted(counted, tiny_data):
    table, sizes = tiny_data.train, tiny_data.sizes
    lengths = np.diff(table.step_offsets)
    assert counted.kind.sum() == lengths.sum()
    assert counted.steps.sum() == table.patients
    assert counted.kind[sizes.death] + counted.kind[sizes.end] == table.patients, "every record ends once"
    pairs = sequences = 0
    carriers = np.zeros(sizes.vocabulary)
    of_kind = np.zeros((sizes.kinds, sizes.vocabulary))
    for first, last in zip(table.step_offsets[:-1], table.step_offsets[1:], strict=True):
        sets = [set(row[row > 0].tolist()) for row in table.visit.codes[first:last]]
        for kind, codes in zip(table.visit.kind[first:last], sets, strict=True):
            of_kind[kind, list(codes)] += 1
        pairs += sum(len(codes) * (len(codes) - 1) // 2 for codes in sets)
        sequences += sum(len(a) * len(b) for a, b in itertools.pairwise(sets))
        carriers[list(set().union(*sets))] += 1
    assert np.array_equal(counted.codes, of_kind)
    assert np.array_equal(counted.carriers, carriers)
    assert counted.pairs.sum() == pairs
    assert counted.sequences.sum() == sequences


def test_a_distance_is_nought_to_itself_and_one_to_the_opposite(counted):
    assert rates.distance(counted, counted) == 0
    nothing = rates.Rates(*(part * 0 for part in counted))
    assert rates.distance(counted, nothing) == 1
    assert rates.distance(counted, rates.total([counted, counted])) == pytest.approx(0, abs=1e-12)


def test_a_distance_is_the_mean_total_variation(counted):
    moved = counted._replace(kind=np.roll(counted.kind, 1))
    share, other = (part / part.sum() for part in (counted.kind, moved.kind))
    expected = np.abs(share - other).sum() / 2 / len(counted)
    assert rates.distance(counted, moved) == pytest.approx(expected)
