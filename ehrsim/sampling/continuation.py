"""Continuation: histories with the futures that a run draws for them, a block of whole patients at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ehrsim import events
from ehrsim.errors import UsageError
from ehrsim.progress import Progress, silent
from ehrsim.runs import Run
from ehrsim.sampling.beginnings import beginnings
from ehrsim.sampling.blocks import BLOCK, SampleReport, sample
from ehrsim.sampling.conditions import Conditions, tables_for
from ehrsim.sampling.histories import Histories
from ehrsim.visits import decode


def continued_blocks(
    run: Run,
    histories: Histories,
    first: int,
    end: int,
    *,
    seed: int,
    conditions: Conditions | None,
    slots: int,
    progress: Progress = silent,
) -> Iterator[tuple[pl.DataFrame, SampleReport]]:
    """The events of patients `first` to `end` (exclusive), each whole: the history as it was, then its future.

    Raises `UsageError` for conditions that cannot be met, or that concern what a history has settled.
    """
    conditions = conditions or Conditions()
    if stated := conditions.statics():
        kind = next(iter(stated))
        raise UsageError(f"a history says of which {kind} the patient is", hint=f"choose histories instead of --{kind}")
    tables = tables_for(conditions, run.vocabulary, run.scales, run.model.sizes)
    copies = histories.copies
    together = max(BLOCK // copies, 1)
    total = SampleReport(0, 0, 0)
    for begin in range(first // copies // together * together, -(-end // copies), together):
        stop = min(begin + together, histories.number)
        low, high = max(first, begin * copies), min(end, stop * copies)
        drawn = sample(
            run.model,
            run.vocabulary,
            run.scales,
            first=low,
            end=high,
            seed=seed,
            conditions=conditions,
            slots=slots,
            beginnings=beginnings(run, tables, histories, begin, stop, together, seed),
            known_of=histories.known_of,
            progress=lambda task, done, _, unit, low=low: progress(task, low - first + done, end - first, unit),
        )
        report = total
        for sequences, latest in drawn:
            report = total.plus(latest)
            yield _joined(histories, decode(sequences, run.vocabulary), sequences.subject), report
        total = report


def _joined(histories: Histories, futures: pl.DataFrame, subject: np.ndarray) -> pl.DataFrame:
    """The futures of some subjects, each after its history, in canonical order."""
    source = histories.sequences.subject[(subject - 1) // histories.copies]
    names = pl.DataFrame({"subject_id": source, "new": subject})
    past = names.join(histories.events, on="subject_id", how="inner").drop("subject_id").rename({"new": "subject_id"})
    return events.sort(pl.concat([past, futures], how="diagonal").lazy()).select(futures.columns).collect()
