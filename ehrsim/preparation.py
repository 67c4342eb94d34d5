"""Preparation: events -> vocabulary, scales and tables, all that training has to know of the data."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl

from ehrsim import codes, vocabulary
from ehrsim import events as event_table
from ehrsim.batch import Sizes
from ehrsim.errors import InputError
from ehrsim.visits import Sequences, encode, packing, table
from ehrsim.visits.packing import Shape
from ehrsim.visits.precursors import with_precursors
from ehrsim.visits.scales import Scales, fit_scales

DAY = 86_400
MOST_REPEATED = 0.2
"""Of the moments of a code within a step, those after the first: a larger share asks for finer steps."""


class Data(NamedTuple):
    """A training set as the model sees it."""

    vocabulary: vocabulary.Vocabulary
    scales: Scales
    sizes: Sizes
    train: table.Table
    tuning: table.Table
    shape: Shape
    provenance: dict[str, Any]


def prepare(events: str | Path | pl.LazyFrame | pl.DataFrame, *, min_patients: int, steps_per_batch: int) -> Data:
    """Vocabulary, scales and tables from the training split; the tuning split only passes through them."""
    train, tuning = _split(events)
    parents = _parents(events)
    vocab, vocabulary_report = vocabulary.fit(train, min_patients=min_patients, parents=parents)
    frame = train.collect()
    if frame.is_empty():
        raise InputError("the training split holds no events", hint="ehrsim import makes splits; see ehrsim inspect")
    step_seconds = _step_seconds(frame)
    sequences, encoded = encode(frame, vocab, step_seconds=step_seconds)
    held, _ = encode(tuning.collect(), vocab, step_seconds=step_seconds)
    scales = fit_scales(sequences, vocab, step_seconds)
    sizes = table.sizes(vocab, scales, table.suggest_places(sequences))
    steps, tabulated = table.tabulate(sequences, scales, sizes)
    if not steps.patients:
        raise InputError("no training patient has a visit or a known life span", hint="see ehrsim inspect")
    sizes = with_precursors(sizes, steps)
    tuning_steps = table.tabulate(held, scales, sizes)[0] if held.patients else steps
    provenance = {
        "software": {name: version(name) for name in ("ehrsim", "jax", "flax", "optax", "numpy", "polars")},
        "data": {
            "sha256": _fingerprint(sequences, held),
            "train_patients": steps.patients,
            "tuning_patients": tuning_steps.patients if held.patients else 0,
            "steps": len(sequences.time),
            "events": len(sequences.entry),
        },
        "vocabulary": msgspec.to_builtins(vocabulary_report),
        "left_out": {**encoded.left_out, **tabulated._asdict()},
    }
    shape = packing.suggest_shape(steps, steps_per_batch)
    return Data(vocab, scales, sizes, steps, tuning_steps, shape, provenance)


def _split(events: str | Path | pl.LazyFrame | pl.DataFrame) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    if isinstance(events, pl.LazyFrame | pl.DataFrame):
        frame = events.lazy()
        return tuple(event_table.only(frame, split) for split in ("train", "tuning"))  # type: ignore[return-value]
    train = event_table.read_events(events, "train")
    try:
        return train, event_table.read_events(events, "tuning")
    except InputError:
        return train, train.clear()


def _parents(events: str | Path | pl.LazyFrame | pl.DataFrame) -> dict[str, str]:
    """Parents that the data's own code table gives, beyond those that codes imply."""
    if isinstance(events, pl.LazyFrame | pl.DataFrame) or not Path(events).is_dir():
        return {}
    table = event_table.read_codes(events).filter(pl.col("parent_codes").list.len() > 0)
    rows = table.select("code", pl.col("parent_codes").list.first()).iter_rows()
    return {code: parent for code, parent in rows if not codes.parents(code)}


def _step_seconds(frame: pl.DataFrame) -> int:
    """A day, or a finer bin where codes recur within one (monitoring): what comes again is to be another step."""
    timed = frame.lazy().filter(pl.col("time").is_not_null())
    for seconds in (DAY, DAY // 4):
        bin_of = pl.col("time").dt.timestamp("us").floordiv(seconds * 1_000_000)
        moments = timed.group_by("subject_id", "visit_id", bin_of.alias("bin"), "code").agg(pl.col("time").n_unique())
        first, moments_in_all = moments.select(pl.len(), pl.col("time").sum()).collect().row(0)
        if first >= (1 - MOST_REPEATED) * moments_in_all:
            return seconds
    return DAY // 24


def _fingerprint(*splits: Sequences) -> str:
    digest = hashlib.sha256()
    for sequences in splits:
        for column in sequences:
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
