"""What came before a moment of each patient, visit by visit, as arrays that a network can read."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


class Sequences(NamedTuple):
    """The visits of patients in order."""

    visits: sparse.csr_matrix
    """(visits + 1, columns) what each holds: 1 for a code, a number of about the size of 1 for a value; the last is
    empty, and follows the visits of those who have fewer than others"""
    numbers: NDArray[np.float32]
    """(visits + 1, numbers) when each was, each number of about the size of 1"""
    rows: NDArray[np.int64]
    """(patients, most visits) the row of each visit of a patient in order, then the empty one"""
    static: NDArray[np.float32]
    """(patients, statics) what does not change: sex, race, and the age at the moment"""

    def of(self, patients: NDArray[np.int64]) -> Sequences:
        """Some of the patients, or some more than once."""
        return self._replace(rows=self.rows[patients], static=self.static[patients])
