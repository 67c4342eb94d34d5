"""Canaries: patients made up to be planted among the training patients, and how much a model remembers of them.

A canary has the visits of a real patient, but what happens in them is drawn at random: every code is as likely as any
other, so that no population explains a canary. For each one planted there are others made the same way that are not. A
model that finds the planted one likelier than those has memorised it. The threat model is that of a released run
folder, and of whoever can have likelihoods computed.

Exposure (Carlini et al. 2019, "The Secret Sharer", USENIX Security) is the log, to base 2, of the number of candidates
less that of the rank of the planted one: 1 bit less than halves the candidates each time.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
from scipy import stats

from ehrsim import codes, events
from ehrsim.errors import InputError
from ehrsim.evaluate.records import VISIT_MARKS
from ehrsim.evaluate.resampling import Floats, Indices

MOST_EVENTS, LEAST_VISITS = 80, 3
_KEPT = (codes.BIRTH, codes.DEATH, codes.OBSERVATION_END)
_CONTENT = ("code", "numeric_value", "text_value", "unit")


class Candidates(NamedTuple):
    """Canaries as an event table; candidate 0 of each canary is the one to plant."""

    events: pl.DataFrame
    canary: pl.DataFrame
    """subject_id, canary, candidate"""


class Exposure(msgspec.Struct, frozen=True):
    """What a model remembers of planted canaries.

    A model that remembers nothing gives each rank alike; its exposure is `chance` on average, not 0.
    """

    canaries: int
    candidates: int
    """of each canary, the planted one included"""
    repeats: int
    """How often each was planted."""
    bits: list[float]
    mean: float
    chance: float
    most: float
    """The exposure of a canary that is likelier than all others."""
    p_value: float
    """Of the mean rank, were all ranks alike (one-sided, normal approximation)"""
    first: int
    """Canaries that are likelier than all their candidates."""


def candidates(frame: pl.LazyFrame, *, canaries: int, number: int, seed: int = 0) -> Candidates:
    """Make `number` candidates of each of `canaries`, with the codes, values and units of `frame`.

    The visits are those of patients of at least 3 visits and at most 80 events. Subject ids are negative, and every one
    is of the training split of `ehrsim.events.split_of`. Raises `InputError` where there are too few such patients.
    """
    table = frame.select(events.COLUMNS).collect()
    content = table.filter(_is_content()).select("subject_id", "visit_id", *_CONTENT)
    sizes = content.group_by("subject_id").agg(events=pl.len(), visits=pl.col("visit_id").n_unique())
    fit = sizes.filter((pl.col("visits") >= LEAST_VISITS) & (pl.col("events") <= MOST_EVENTS))["subject_id"].sort()
    if len(fit) < canaries:
        raise InputError(
            f"{len(fit):,} patients have {LEAST_VISITS} visits or more and {MOST_EVENTS} events or fewer in them",
            hint=f"expected {canaries:,}, one for each canary",
        )
    rng = np.random.Generator(np.random.Philox(key=[seed, 8]))
    chosen = fit.gather(rng.permutation(len(fit))[:canaries])
    ids = _training_ids(canaries * number)
    named = pl.DataFrame(
        {
            "template": np.repeat(chosen.to_numpy(), number),
            "canary": np.repeat(np.arange(canaries), number),
            "candidate": np.tile(np.arange(number), canaries),
            "new_id": ids,
        }
    )
    rows = named.join(table, left_on="template", right_on="subject_id", maintain_order="left_right")
    drawn = _drawn(content, int(rows.select(_is_content().sum()).item()), rng)
    blank = rows.filter(_is_content()).drop(_CONTENT).with_columns(end_time=pl.lit(None, rows.schema["end_time"]))
    filled = pl.concat([blank, drawn], how="horizontal").select(rows.columns)
    made = pl.concat([rows.filter(~_is_content()), filled])
    shown = made.rename({"new_id": "subject_id"}).select(events.COLUMNS)
    return Candidates(
        events.sort(events.conform(shown).lazy()).collect(),
        named.select(pl.col("new_id").alias("subject_id"), "canary", "candidate"),
    )


def planted(made: Candidates, repeats: int) -> pl.DataFrame:
    """The events of the candidates to plant, each under `repeats` subject ids of its own."""
    own = made.canary.filter(pl.col("candidate") == 0)
    ids = _training_ids(made.canary.height + own.height * repeats)[made.canary.height :]
    copies = pl.concat([own.select("subject_id")] * repeats).with_columns(copy=pl.Series(ids))
    rows = copies.join(made.events, on="subject_id").drop("subject_id").rename({"copy": "subject_id"})
    return events.sort(rows.select(events.COLUMNS).lazy()).collect()


def exposure(likelihood: Floats, *, repeats: int = 1) -> Exposure:
    """The exposure of canaries from likelihoods (canaries, candidates), of which the first in each row was planted."""
    canaries, number = likelihood.shape
    rank = 1 + (likelihood[:, 1:] > likelihood[:, :1]).sum(axis=1) + (likelihood[:, 1:] == likelihood[:, :1]).sum(1) / 2
    bits = np.log2(number) - np.log2(rank)
    spread = np.sqrt((number**2 - 1) / 12 / canaries)
    return Exposure(
        canaries=canaries,
        candidates=number,
        repeats=repeats,
        bits=[float(one) for one in bits],
        mean=float(bits.mean()),
        chance=float(np.log2(number) - np.log2(np.arange(1, number + 1)).mean()),
        most=float(np.log2(number)),
        p_value=float(stats.norm.cdf((rank.mean() - (number + 1) / 2) / spread)),
        first=int((rank == 1).sum()),
    )


def _is_content() -> pl.Expr:
    """What happens in a visit, other than what marks it."""
    marks = pl.col("code").is_in(_KEPT) | pl.col("code").str.contains(VISIT_MARKS)
    return pl.col("visit_id").is_not_null() & pl.col("time").is_not_null() & ~marks


def _drawn(content: pl.DataFrame, number: int, rng: np.random.Generator) -> pl.DataFrame:
    """`number` contents of events: a code, all being as likely, then one of its events."""
    ordered = content.select(_CONTENT).sort(_CONTENT)
    _, begin, count = np.unique(ordered["code"].to_numpy(), return_index=True, return_counts=True)
    code = rng.integers(0, len(begin), number)
    place = begin[code] + np.floor(rng.random(number) * count[code]).astype(np.int64)
    return ordered.select(pl.all().gather(place))


def _training_ids(number: int) -> Indices:
    """The first `number` negative subject ids of the training split, as it is told of the id alone."""
    ids = -np.arange(1, 2 * number + 101, dtype=np.int64)
    training = (events.split_of(pl.Series(ids)) == "train").to_numpy()
    chosen: Indices = ids[training][:number]
    return chosen
