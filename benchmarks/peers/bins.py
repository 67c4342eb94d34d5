"""Numbers as bins, for peers that know tokens alone: a number is its bin, and a bin any of its training values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from exchange import Patient

MOST = 40


class Bins(NamedTuple):
    """Bins of about as many training values each."""

    edges: np.ndarray
    """(bins,) the least value of each, ascending"""
    values: list[np.ndarray]
    """The training values in each bin, one at least."""

    def of(self, value: int | None) -> int | None:
        """The bin of a value; None for None, or where nothing was seen in training."""
        if value is None or not len(self.edges):
            return None
        return max(int(np.searchsorted(self.edges, value, "right")) - 1, 0)

    def draw(self, place: int, rng: np.random.Generator) -> int:
        """A training value of a bin."""
        return int(rng.choice(self.values[place]))


def bins(values: Sequence[int]) -> Bins:
    """Bins of some values; a value that is common enough has one for itself."""
    if not len(values):
        return Bins(np.array([]), [])
    edges = np.unique(np.quantile(values, np.linspace(0, 1, MOST), method="lower"))
    place = np.searchsorted(edges, values, "right") - 1
    return Bins(edges, [np.array(values)[place == number] for number in range(len(edges))])


def bins_of(train: Sequence[Patient]) -> dict[str, Bins]:
    """Bins of the `age` at the first visit in days, of its `day`, and of the `gap` from a visit to the next."""
    ages = [patient.visits[0].start - patient.birth for patient in train if patient.birth is not None]
    gaps = [later.start - earlier.start for patient in train for earlier, later in pairwise(patient.visits)]
    days = [patient.visits[0].start for patient in train]
    return {"age": bins(ages), "day": bins(days), "gap": bins(gaps or [1])}
