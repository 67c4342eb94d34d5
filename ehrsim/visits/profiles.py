"""Profiles: the sets of static facts that simulated patients are given, with their shares.

A profile has for each kind of static fact (sex, race, language …) what real patients have of it. Kind after kind is
drawn given the kinds before, as long as enough real patients share them; what too few share is drawn as in the whole
population instead. Every profile is as complete as real ones are, and none is told apart by few people.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ehrsim import codes
from ehrsim.visits.sequences import Int32, Int64, Sequences
from ehrsim.vocabulary import Vocabulary

MOST_PROFILES = 4096
"""Profiles kept: the likeliest. More have no room on the device, and hardly a share."""

Value = tuple[int, ...]
"""What a patient has of one kind: indices of statics in ascending order, mostly one, none where nothing is known."""


class _Partial(NamedTuple):
    """A profile of the kinds so far."""

    statics: Value
    share: float
    sharing: Int64
    """Real patients who have it, empty where they are too few."""


def fit_profiles(sequences: Sequences, vocabulary: Vocabulary) -> tuple[Int32, NDArray[np.float64]]:
    """Profiles (profiles, S) of indices of statics, padded with 0, and the share (profiles,) of each."""
    everyone = np.arange(sequences.patients)
    partials = [_Partial((), 1.0, everyone)]
    for values in _values_by_kind(sequences, vocabulary):
        whole = _shares(values, everyone, vocabulary.min_patients)
        extended = [
            _extended(partial, value, share, values, vocabulary.min_patients)
            for partial in partials
            for value, share in _given(partial, values, whole, vocabulary.min_patients).items()
        ]
        partials = sorted(extended, key=lambda partial: (-partial.share, partial.statics))[:MOST_PROFILES]
    width = max((len(partial.statics) for partial in partials), default=0)
    rows = [[*partial.statics, *[0] * (max(width, 1) - len(partial.statics))] for partial in partials]
    shares = np.array([partial.share for partial in partials])
    return np.array(rows, np.int32), shares / shares.sum()


def _values_by_kind(sequences: Sequences, vocabulary: Vocabulary) -> list[list[Value]]:
    """For each kind of static fact, the value of every patient."""
    kinds = [codes.parse(entry.code).kind for entry in vocabulary.statics]
    owner = np.repeat(np.arange(sequences.patients), np.diff(sequences.static_offsets))
    found: dict[str, list[set[int]]] = {
        kind: [set() for _ in range(sequences.patients)] for kind in dict.fromkeys(kinds)
    }
    for patient, static in zip(owner.tolist(), sequences.statics.tolist(), strict=True):
        found[kinds[static - 1]][patient].add(static)
    return [[tuple(sorted(value)) for value in values] for values in found.values()]


def _shares(values: list[Value], patients: Int64, min_patients: int) -> dict[Value, float]:
    """The shares of the values that enough of the patients have, which are all there is; else of nothing."""
    counts = Counter(values[patient] for patient in patients.tolist())
    enough = {value: count for value, count in sorted(counts.items()) if count >= min_patients}
    total = sum(enough.values())
    return {value: count / total for value, count in enough.items()} if enough else {(): 1.0}


def _given(partial: _Partial, values: list[Value], whole: dict[Value, float], min_patients: int) -> dict[Value, float]:
    """The shares of the values given a partial profile; those too rare given it are shared out as in the whole."""
    if not len(partial.sharing):
        return whole
    counts = Counter(values[patient] for patient in partial.sharing.tolist())
    shares = {value: count / len(partial.sharing) for value, count in counts.items() if count >= min_patients}
    rest = 1.0 - sum(shares.values())
    if rest > 1e-12:
        shares = {value: shares.get(value, 0.0) + rest * whole.get(value, 0.0) for value in {*shares, *whole}}
    return dict(sorted(shares.items()))


def _extended(partial: _Partial, value: Value, share: float, values: list[Value], min_patients: int) -> _Partial:
    sharing = np.array([patient for patient in partial.sharing.tolist() if values[patient] == value], np.int64)
    kept = sharing if len(sharing) >= min_patients else sharing[:0]
    return _Partial((*partial.statics, *value), partial.share * share, kept)
