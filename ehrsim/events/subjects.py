"""Numbers for subjects: ids from text, and the split each one belongs to. Both follow from the subject alone."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
from numpy.typing import NDArray

SPLITS = ("train", "tuning", "held_out")


def split_of(subject_ids: pl.Series, *, tuning: float = 0.1, held_out: float = 0.0) -> pl.Series:
    """The split of each subject by a hash of its id alone, so that it never changes as data grows; null for null.

    The lowest `held_out` share of the hash range is held out, the next `tuning` share is for tuning, the rest trains.
    """
    fraction = (mixed(subject_ids.fill_null(0)) >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    names = np.where(fraction < held_out, "held_out", np.where(fraction < held_out + tuning, "tuning", "train"))
    split = pl.Series("split", names.tolist(), dtype=pl.String)
    return pl.select(pl.when(subject_ids.is_not_null()).then(split)).to_series().alias("split")


def mixed(subject_ids: pl.Series) -> NDArray[np.uint64]:
    """64 well-mixed bits for each id: the output function of splitmix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        bits = subject_ids.to_numpy().astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        finished: NDArray[np.uint64] = bits ^ (bits >> np.uint64(31))
    return finished


def only(events: pl.LazyFrame, split: str | None) -> pl.LazyFrame:
    """The subjects that `split_of` puts into `split`; all of them for None."""
    if split is None:
        return events
    member = pl.col("subject_id").map_batches(lambda ids: split_of(ids) == split, return_dtype=pl.Boolean)
    return events.filter(member)


def stable_id(identifiers: pl.Series) -> pl.Series:
    """A 63-bit integer id for each string: the number itself where the string is one, else a BLAKE2b hash of it."""
    unique = identifiers.drop_nulls().unique()
    values = [stable_id_of(text) for text in unique.to_list()]
    return identifiers.replace_strict(unique, pl.Series(values, dtype=pl.Int64), default=None, return_dtype=pl.Int64)


def stable_id_of(text: str) -> int:
    """`stable_id` of one string."""
    if text.isascii() and text.isdigit() and len(text) <= 18 and (text == "0" or text[0] != "0"):
        return int(text)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
