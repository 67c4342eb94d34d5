"""Identifiers of resources: UUIDs that are a function of the run, the subject and the event alone.

A UUID here is RFC 9562 version 8: 122 bits of a keyed hash, computed for whole columns at once. The hash absorbs 64-bit
words one by one into two lanes with the finaliser of splitmix64 (Steele, Lea & Flood, OOPSLA 2014), each lane with
constants of its own, so that a collision needs both lanes to collide: among ten million ids that has probability 1e-23.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

Words = npt.NDArray[np.uint64]
Lanes = npt.NDArray[np.uint64]
"""Hashes, shape (n, 2)."""

_STEPS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_FACTORS = (np.uint64(0xD6E8FEB86659FD93), np.uint64(0xA0761D6478BD642F))
_GROUPS = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
"""The hexadecimal digits between the dashes of a UUID."""


def key_of(*parts: str | int) -> Words:
    """A 128-bit key, shape (2,), of any few strings and integers (BLAKE2b)."""
    digest = hashlib.blake2b(orjson.dumps([str(part) for part in parts]), digest_size=16).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def run_key(dataset: dict[str, Any], seed: int) -> Words:
    """The key of an export: of the run and name of a data set (`metadata/dataset.json`) and the seed."""
    return key_of("run", str(dataset.get("run", "")), str(dataset.get("dataset_name", "")), seed)


def text_words(texts: Iterable[str]) -> Words:
    """One word a string (BLAKE2b); hash distinct strings once and gather."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def hashed(key: Words, *columns: npt.NDArray[Any]) -> Lanes:
    """The hash of each row of some 64-bit columns under a key, shape (n, 2)."""
    words = [np.ascontiguousarray(column).view(np.uint64) for column in columns]
    lanes = np.empty((len(words[0]), 2), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for lane in (0, 1):
            state = np.full(len(words[0]), key[lane])
            for position, word in enumerate(words, start=1):
                state ^= word * _FACTORS[lane] + _STEPS[lane] * np.uint64(position)
                state = _mixed(state)
            lanes[:, lane] = state
    return lanes


def _mixed(words: Words) -> Words:
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def uuids(lanes: Lanes) -> pl.Series:
    """The UUIDs of hashes, in lower case with dashes."""
    octets = lanes.astype(">u8").view(np.uint8).reshape(-1, 16)
    octets[:, 6] = (octets[:, 6] & 0x0F) | 0x80
    octets[:, 8] = (octets[:, 8] & 0x3F) | 0x80
    digits = np.frombuffer(octets.tobytes().hex().encode(), dtype=np.uint8).reshape(-1, 32)
    characters = np.full((len(octets), 37), ord("-"), dtype=np.uint8)
    for dashes, (first, end) in enumerate(_GROUPS):
        characters[:, first + dashes : end + dashes] = digits[:, first:end]
    characters[:, 36] = ord("\n")
    # The reader of CSV is by far the quickest way from bytes to a column of texts.
    return pl.read_csv(BytesIO(characters.tobytes()), has_header=False, schema={"uuid": pl.String}).to_series()


def uuid_of(*parts: str | int) -> str:
    """The UUID of any few strings and integers."""
    return str(uuids(key_of(*parts).reshape(1, 2))[0])


def subject_lanes(key: Words, subjects: npt.NDArray[np.int64]) -> Lanes:
    """The hashes of subjects by their ids, under the key of a run: those of their Patients."""
    return hashed(key_of("Patient", *key.tolist()), subjects)
