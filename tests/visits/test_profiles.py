"""Profiles: static facts as patients have them together, but for what would tell a few apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrsim.visits import MISSING, Sequences
from ehrsim.visits.profiles import fit_profiles
from ehrsim.visits.sequences import offsets_of
from ehrsim.vocabulary import Entry, Vocabulary

FEMALE, MALE, SINGLE, MARRIED, WHITE, BLACK, ASIAN = range(1, 8)
CODES = ("GENDER//female", "GENDER//male", "MARITAL//S", "MARITAL//M", "RACE//2106-3", "RACE//2054-5", "RACE//2028-9")


def words(min_patients: int) -> Vocabulary:
    return Vocabulary([], [], [], [Entry(code, None, None) for code in CODES], {}, {}, min_patients)


def sequences_of(*statics: list[int]) -> Sequences:
    """Patients with nothing but statics."""
    count = len(statics)
    none = np.full(count, MISSING)
    empty = np.zeros(0, np.int64)
    return Sequences(
        subject=np.arange(count),
        birth=none,
        death=none,
        end=none,
        static_offsets=offsets_of(np.array([len(row) for row in statics])),
        statics=np.array([static for row in statics for static in row], np.int32),
        step_offsets=np.zeros(count + 1, np.int64),
        time=empty,
        kind=empty.astype(np.int32),
        visit=empty,
        length=empty,
        end_value=empty.astype(np.float32),
        event_offsets=np.zeros(1, np.int64),
        entry=empty.astype(np.int32),
        offset=empty,
        value=empty.astype(np.float32),
        duration=empty,
    )


def fitted(statics: list[list[int]], min_patients: int) -> dict[tuple[int, ...], float]:
    rows, shares = fit_profiles(sequences_of(*statics), words(min_patients))
    assert shares.sum() == pytest.approx(1.0)
    return {tuple(row[row > 0].tolist()): share for row, share in zip(rows, shares.tolist(), strict=True)}


def test_frequent_profiles_keep_their_shares():
    statics = [[FEMALE, WHITE]] * 50 + [[MALE, WHITE]] * 30 + [[MALE, BLACK]] * 20
    assert fitted(statics, 11) == pytest.approx({(FEMALE, WHITE): 0.5, (MALE, WHITE): 0.3, (MALE, BLACK): 0.2})


def test_a_rare_value_is_given_out_as_in_the_whole_population():
    statics = [[FEMALE, WHITE]] * 60 + [[FEMALE, BLACK]] * 5 + [[MALE, BLACK]] * 30 + [[MALE, WHITE]] * 5
    shares = fitted(statics, 11)
    assert all(len(profile) == 2 for profile in shares)
    assert sum(share for profile, share in shares.items() if FEMALE in profile) == pytest.approx(0.65)
    assert shares[FEMALE, BLACK] == pytest.approx(5 / 100 * 35 / 100)


def test_a_value_that_few_have_is_never_given():
    shares = fitted([[FEMALE, WHITE]] * 40 + [[MALE, WHITE]] * 40 + [[MALE, ASIAN]] * 3, 11)
    assert set(shares) == {(FEMALE, WHITE), (MALE, WHITE)}


def test_no_facts_are_a_profile_too():
    assert fitted([[]] * 30 + [[MALE]] * 10, 5) == pytest.approx({(): 0.75, (MALE,): 0.25})


KINDS = st.tuples(
    st.sampled_from([[], [FEMALE], [MALE]]),
    st.sampled_from([[], [SINGLE], [MARRIED]]),
    st.sampled_from([[], [WHITE], [BLACK], [ASIAN], [WHITE, ASIAN]]),
).map(lambda parts: [static for part in parts for static in part])


@settings(max_examples=100, deadline=None)
@given(st.lists(KINDS, min_size=1, max_size=40), st.integers(1, 6))
def test_every_value_given_is_one_that_enough_patients_have(statics, min_patients):
    for profile in fitted(statics, min_patients):
        for kind in ((FEMALE, MALE), (SINGLE, MARRIED), (WHITE, BLACK, ASIAN)):
            value = [static for static in profile if static in kind]
            having = sum([static for static in patient if static in kind] == value for patient in statics)
            assert having >= min_patients or not value


def test_with_enough_patients_the_marginal_shares_are_those_of_the_data():
    rng = np.random.Generator(np.random.Philox(key=5))
    statics = [
        [
            int(rng.choice([FEMALE, MALE])),
            int(rng.choice([SINGLE, MARRIED])),
            int(rng.choice([WHITE, BLACK, ASIAN], p=[0.9, 0.07, 0.03])),
        ]
        for _ in range(2_000)
    ]
    shares = fitted(statics, 11)
    for static in range(1, 8):
        share = sum(part for profile, part in shares.items() if static in profile)
        assert share == pytest.approx(np.mean([static in patient for patient in statics]), abs=0.01)
