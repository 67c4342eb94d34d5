"""The host side of sampling: run the slots, gather the rows of each patient, hand over whole blocks in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ehrsim.errors import UsageError
from ehrsim.models.base import PatientModel
from ehrsim.progress import Progress, silent
from ehrsim.sampling.advance import advance
from ehrsim.sampling.beginnings import Beginnings
from ehrsim.sampling.conditions import Conditions, tables_for
from ehrsim.sampling.rows import Known, Rows, to_sequences
from ehrsim.sampling.slots import Row, Slots, Tables, empty_slots
from ehrsim.visits.scales import Scales
from ehrsim.visits.sequences import Int64, Sequences
from ehrsim.vocabulary import Vocabulary

BLOCK = 2_000
"""Patients to a block: output is handed over in whole blocks, so that shards do not depend on how it is run."""
STEPS_PER_CHUNK = 16
MOST_ATTEMPTS = 2_000
"""Draws of one patient until the conditions count as unattainable."""


class SampleReport(NamedTuple):
    """How the patients of a run so far came about."""

    patients: int
    attempts: int
    """Records drawn; `patients / attempts` is the acceptance rate of the conditions."""
    truncated_steps: int
    """Steps with more codes than the model has places for; the surplus is left out."""
    moved: int = 0
    """Futures that begin at the date asked for, since none that begins later was found: it is unlikely to be so long
    without a visit."""

    def lines(self) -> list[str]:
        """What is worth saying, for people."""
        lines = []
        if self.attempts > self.patients:
            lines.append(f"accepted {self.patients / self.attempts:.1%} of the records drawn")
        if self.moved:
            lines.append(f"begin on the date, as none that begin later were drawn: {self.moved:,}")
        return lines

    def plus(self, other: SampleReport) -> SampleReport:
        """Both together."""
        return SampleReport(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def sample(
    model: PatientModel,
    vocabulary: Vocabulary,
    scales: Scales,
    *,
    first: int,
    end: int,
    seed: int,
    conditions: Conditions | None = None,
    slots: int = 256,
    beginnings: Beginnings | None = None,
    known_of: Callable[[Int64], Known] | None = None,
    progress: Progress = silent,
) -> Iterator[tuple[Sequences, SampleReport]]:
    """Yield the records of patients `first` to `end` (exclusive), block after block in order.

    Patient i is the same whatever `first`, `end` and `slots` are. With `beginnings` the patients go on with histories,
    of which `known_of` tells what is known by patient; then only what is new is told. Raises `UsageError` if the
    conditions name codes that the vocabulary lacks, or cannot be met.
    """
    tables = tables_for(conditions or Conditions(), vocabulary, scales, model.sizes)
    key = jax.random.key(seed)
    state = empty_slots(model, tables, key, first, slots)
    pending = _Pending(first, end)
    longest = jnp.int32(2 * scales.longest)
    while not pending.done:
        state, rows = _chunk(model, tables, key, jnp.int32(end), longest, state, beginnings)
        pending.take(rows, model)
        progress("generate", pending.finished, end - first, "patients")
        for block in pending.blocks():
            known = known_of(np.unique(block["patient"])) if known_of else None
            yield to_sequences(block, scales, model.sizes, known), pending.report()


@jax.jit
def _chunk(
    model: Any,
    tables: Tables,
    key: jax.Array,
    end: jax.Array,
    longest: jax.Array,
    slots: Slots,
    beginnings: Beginnings | None,
) -> tuple[Slots, Row]:
    """STEPS_PER_CHUNK steps of every slot; rows have the steps as leading axis."""

    def body(state: Slots, _: None) -> tuple[Slots, Row]:
        return advance(model, tables, key, end, longest, state, beginnings)

    return jax.lax.scan(body, slots, None, length=STEPS_PER_CHUNK)


class _Pending:
    """Rows on their way to whole blocks of patients."""

    def __init__(self, first: int, end: int) -> None:
        self._first, self._end, self._next = first, end, first
        self._chunks: list[Rows] = []
        self._rows = 0
        self._accepted = np.full(end - first, -1, np.int64)
        self._latest = np.zeros(end - first, np.int64)
        self._truncated = 0
        self._moved = 0
        self.finished = 0

    @property
    def done(self) -> bool:
        """Whether every block has been handed over."""
        return self._next >= self._end

    def take(self, row: Row, model: PatientModel) -> None:
        """Add the rows of a chunk."""
        flat = {name: np.asarray(part).reshape(-1, *part.shape[2:]) for name, part in row._asdict().items()}
        real = flat["patient"] < self._end
        rows = {name: column[real] for name, column in flat.items()}
        position = rows["patient"] - self._first
        np.maximum.at(self._latest, position, rows["attempt"])
        won = rows["accepted"]
        self._accepted[position[won]] = rows["attempt"][won]
        self.finished += int(won.sum())
        self._truncated += int(rows["truncated"].sum())
        self._moved += int(rows["moved"].sum())
        self._chunks.append(rows)
        self._rows += len(position)
        if self._latest.max(initial=0) >= MOST_ATTEMPTS:
            raise UsageError(
                f"no patient meets the conditions in {MOST_ATTEMPTS} draws",
                hint="loosen the conditions, or check that the training data has such patients",
            )
        if self._rows > 1_000_000:
            self._prune()

    def _gather(self) -> Rows:
        rows = {name: np.concatenate([chunk[name] for chunk in self._chunks]) for name in self._chunks[0]}
        position = rows["patient"] - self._first
        live = np.where(self._accepted >= 0, self._accepted, self._latest)[position]
        keep = rows["attempt"] == live
        return {name: column[keep] for name, column in rows.items()}

    def _prune(self) -> None:
        """Forget the rows of rejected draws."""
        self._chunks = [self._gather()]
        self._rows = len(self._chunks[0]["patient"])

    def blocks(self) -> Iterator[Rows]:
        """The blocks that have become complete, in order."""
        while not self.done:
            last = min(self._next + BLOCK - self._next % BLOCK, self._end)
            if (self._accepted[self._next - self._first : last - self._first] < 0).any():
                return
            rows = self._gather()
            within = rows["patient"] < last
            self._chunks = [{name: column[~within] for name, column in rows.items()}]
            self._rows = int((~within).sum())
            self._next = last
            yield {name: column[within] for name, column in rows.items()}

    def report(self) -> SampleReport:
        """Counts so far."""
        settled = self._accepted >= 0
        attempts = int((self._accepted[settled] + 1).sum())
        return SampleReport(int(settled.sum()), attempts, self._truncated, self._moved)
