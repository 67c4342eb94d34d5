"""Numbers that only the key tells from chance: ids of subjects, and the draws behind their shifts in time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ehrsim.outputs import atomic_file

Draws = npt.NDArray[np.uint64]
DRAWS = ("year", "day", "end", "order")
"""What each of the four numbers of a subject is for."""


class Pseudonyms:
    """Keyed BLAKE2b of ids: without the key, neither the id nor whether two ids are of one person can be told."""

    def __init__(self, key: bytes, *, remember: bool) -> None:
        self._key = key
        self._known: dict[int, int] | None = {} if remember else None

    def subjects(self, identifiers: pl.Series) -> pl.Series:
        """The pseudonyms of subject ids: 63 bits each, so that two of ten million are alike in 1 of 200,000 imports."""
        unique = identifiers.unique()
        replaced = [self.subject(identifier) for identifier in unique.to_list()]
        if self._known is not None:
            self._known.update(zip(unique.to_list(), replaced, strict=True))
        return identifiers.replace_strict(unique, pl.Series(replaced, dtype=pl.Int64), return_dtype=pl.Int64)

    def subject(self, identifier: int) -> int:
        """The pseudonym of one subject id."""
        return int.from_bytes(self._digest(identifier, b"subject", 8), "little") >> 1

    def draws(self, pseudonyms: pl.Series) -> pl.DataFrame:
        """(subject_id, year, day, end, order): four numbers of 64 bits for each subject, drawn once and for all."""
        digests = b"".join(self._digest(number, b"draws", 32) for number in pseudonyms.to_list())
        numbers = np.frombuffer(digests, dtype="<u8").reshape(-1, len(DRAWS))
        columns = {name: numbers[:, place] for place, name in enumerate(DRAWS)}
        return pl.DataFrame({"subject_id": pseudonyms, **columns})

    def word(self, text: str) -> str:
        """A code of 16 hexadecimal digits for a text."""
        return hashlib.blake2b(text.encode(), digest_size=8, key=self._key, person=b"code").hexdigest()

    def _digest(self, number: int, purpose: bytes, size: int) -> bytes:
        content = number.to_bytes(8, "little", signed=True)
        return hashlib.blake2b(content, digest_size=size, key=self._key, person=purpose).digest()

    def write_mapping(self, path: Path, kept: Iterable[int]) -> None:
        """Write (source_id, subject_id) of the subjects `kept` as CSV, for its owner alone to read."""
        wanted = set(kept)
        pairs = sorted((new, old) for old, new in (self._known or {}).items() if new in wanted)
        table = pl.DataFrame({"source_id": [old for _, old in pairs], "subject_id": [new for new, _ in pairs]})
        with atomic_file(path, overwrite=False) as temporary:
            temporary.touch(mode=0o600)
            table.write_csv(temporary)
