"""Ids of rows: a function of the subject and of the place among its own rows, so that no subject moves others.

A subject has a *slot* of `SPAN` ids in every table. The slot of a subject whose id lies in [0, 2**32) is that id, and
its row ids stay below 2**52, which even a double holds exactly; the slots of others (hashes of texts) are hashed into
[2**32, 2**43), where two that fall on the same one, about one pair in a set of four million, make way for each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ehrsim import events
from ehrsim.errors import InputError

Ints = npt.NDArray[np.int64]

SPAN = 1 << 20
_PLAIN, _END = 1 << 32, (1 << 43) - (1 << 32)


def slots(subjects: pl.Series) -> pl.DataFrame:
    """(subject_id, slot) of distinct subjects."""
    ids = np.sort(subjects.to_numpy()).astype(np.int64)
    slot = ids.copy()
    other = np.flatnonzero((ids < 0) | (ids >= _PLAIN))
    hashed = _PLAIN + (events.mixed(pl.Series(ids[other])) % np.uint64(_END - _PLAIN)).astype(np.int64)
    order = np.argsort(hashed, kind="stable")
    steps = np.arange(len(order))
    slot[other[order]] = np.maximum.accumulate(hashed[order] - steps) + steps
    return pl.DataFrame({"subject_id": ids, "slot": slot})


def ranks(groups: npt.NDArray[Any]) -> Ints:
    """The place of each row in its run of equal values."""
    starts = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1)) if len(groups) else np.zeros(0, dtype=np.int64)
    lengths = np.diff(starts, append=len(groups))
    return np.arange(len(groups)) - np.repeat(starts, lengths)


def row_ids(slot: pl.Series, table: str) -> pl.Series:
    """An id for each row of a table, of which each subject's rows stand together.

    Raises `InputError` for a subject with more rows than a slot has ids.
    """
    rank = ranks(slot.to_numpy())
    if len(rank) and rank.max() >= SPAN:
        raise InputError(f"a subject has more than {SPAN:,} rows of {table}", hint="export it to MEDS or CSV")
    return pl.Series(slot.to_numpy() * SPAN + rank, dtype=pl.Int64)
