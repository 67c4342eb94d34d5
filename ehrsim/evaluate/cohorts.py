"""The cohorts of an evaluation: held-out real patients, other real ones, simulated ones, and marginals alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar, get_args

import numpy as np
import polars as pl

from ehrsim import events
from ehrsim.errors import InputError, UsageError
from ehrsim.evaluate.marginals import marginal
from ehrsim.evaluate.report import CohortFacts, Role
from ehrsim.evaluate.resampling import Resamples, once, resamples, subjects

Source: TypeAlias = str | Path | pl.LazyFrame | pl.DataFrame
Counted = TypeVar("Counted")
MOST_PATIENTS, LEAST_PATIENTS = 20_000, 2
_KEPT = (*(name for name in events.COLUMNS if name != "text_value"), events.DESCRIPTION)
"""No metric reads textual answers."""


class Cohorts(NamedTuple):
    """Events by cohort, all in memory."""

    held_out: pl.LazyFrame
    """real patients whom the generator never saw"""
    real: pl.LazyFrame
    """other real patients, those it learned from if they are known: the floor"""
    simulated: pl.LazyFrame
    marginal: pl.LazyFrame
    """the real patients with nothing left but how common everything is: the ceiling"""

    def each(self, count: Callable[[pl.LazyFrame], Counted]) -> list[Counted]:
        """What is counted in each cohort."""
        return [count(cohort) for cohort in self]


class Weights(NamedTuple):
    """How often each block of patients counts, by cohort; marginals are taken as they are."""

    held_out: np.ndarray
    real: np.ndarray
    simulated: np.ndarray
    marginal: np.ndarray


class Gathered(NamedTuple):
    """The cohorts of an evaluation, what they are, and all that the generator may have learned from."""

    cohorts: Cohorts
    facts: list[CohortFacts]
    train: pl.LazyFrame | None
    """all training patients, None where nothing says who they are"""


def gather(
    real: Source, synthetic: Source, train: Source | None = None, *, patients: int = MOST_PATIENTS, seed: int = 0
) -> Gathered:
    """Read the cohorts: at most so many `patients` of each, and as many real as simulated ones.

    `real` is held out as a whole if `train` is given too. Else its splits say who is: `held_out`, or `tuning` if that
    has nobody, and `train` are the other real patients. A table without splits is halved by chance; then nothing tells
    what the generator has seen. Raises `InputError` where a source cannot be read or has hardly any patient.
    """
    if patients < LEAST_PATIENTS:
        raise UsageError(f"patients must be {LEAST_PATIENTS} or more, not {patients}")
    held_out, others, sources = _real(real, train, seed)
    simulated = _read(synthetic, None)
    names = {**sources, "simulated": _name(synthetic)}
    cohorts = {"held_out": held_out, "real": others, "simulated": simulated}
    numbers = {role: len(subjects(table)) for role, table in cohorts.items()}
    for role, number in numbers.items():
        if number < LEAST_PATIENTS:
            found = f"{names[role]} has {number} patients to compare"
            raise InputError(f"{found}, expected {LEAST_PATIENTS} or more", hint="see ehrsim inspect")
    size = min(numbers["real"], numbers["simulated"], patients)
    sizes = {"held_out": patients, "real": size, "simulated": size}
    kept = {role: some(table, sizes[role], seed) for role, table in cohorts.items()}
    gathered = Cohorts(**kept, marginal=marginal(kept["real"], seed).lazy())
    names["marginal"] = f"{names['real']}, dealt out anew"
    roles: tuple[Role, ...] = get_args(Role)
    facts = [
        CohortFacts(role=role, source=names[role], patients=len(subjects(table)), events=_height(table))
        for role, table in zip(roles, gathered, strict=True)
    ]
    return Gathered(gathered, facts, others if "train" in names["real"] or train is not None else None)


def draw(cohorts: Cohorts, *, draws: int, seed: int = 0) -> Weights:
    """The weights of every cohort."""
    sizes = [len(subjects(table)) for table in cohorts]
    drawn: Resamples = resamples(*sizes[:3], draws=draws, seed=seed)
    return Weights(*drawn, once(sizes[3]))


def some(table: pl.LazyFrame, patients: int, seed: int = 0) -> pl.LazyFrame:
    """The events of at most so many patients, drawn by chance from the seed alone."""
    everyone = subjects(table)
    if len(everyone) > patients:
        rng = np.random.Generator(np.random.Philox(key=[seed, 2]))
        chosen = everyone.gather(np.sort(rng.permutation(len(everyone))[:patients]))
        table = table.filter(pl.col("subject_id").is_in(chosen.implode()))
    return table.collect().lazy()


def descriptions(*cohorts: pl.LazyFrame) -> dict[str, str]:
    """What codes mean, of those that say so; the first cohort decides."""
    known: dict[str, str] = {}
    for table in reversed(cohorts):
        if events.DESCRIPTION in table.collect_schema():
            text = pl.col(events.DESCRIPTION).drop_nulls().min()
            known |= dict(table.group_by("code").agg(text).drop_nulls().sort("code").collect().iter_rows())
    return {code: f"{text} (reason)" if code.startswith("REASON//") else text for code, text in known.items()}


def _real(real: Source, train: Source | None, seed: int) -> tuple[pl.LazyFrame, pl.LazyFrame, dict[str, str]]:
    """Held-out patients, others, and the names of both."""
    if train is not None:
        return _read(real, None), _read(train, None), {"held_out": _name(real), "real": f"{_name(train)} (train)"}
    if isinstance(real, str | Path) and Path(real).is_dir():
        splits = _splits(Path(real))
        kept = next((split for split in ("held_out", "tuning") if split in splits), None)
        if kept and "train" in splits:
            names = {"held_out": f"{_name(real)}, split {kept}", "real": f"{_name(real)}, split train"}
            return _read(real, kept), _read(real, "train"), names
    table = _read(real, None)
    everyone = subjects(table)
    rng = np.random.Generator(np.random.Philox(key=[seed, 3]))
    half = everyone.gather(np.sort(rng.permutation(len(everyone))[: len(everyone) // 2])).implode()
    names = {"held_out": f"{_name(real)}, half of it", "real": f"{_name(real)}, the other half"}
    inside = pl.col("subject_id").is_in(half)
    return table.filter(inside), table.filter(~inside), names


def _splits(folder: Path) -> set[str]:
    """The splits of a folder that have patients."""
    own = {split for split in events.SPLITS if any((folder / "data" / split).rglob("*.parquet"))}
    table = None if own else events.read_splits(folder)
    return own if table is None else set(table["split"].unique())


def _read(source: Source, split: str | None) -> pl.LazyFrame:
    if isinstance(source, str | Path):
        table = events.read_events(source, split)
    else:
        table = events.conform_lazy(source.lazy(), source.lazy().collect_schema(), "the events given")
    present = table.collect_schema().names()
    return table.select([column for column in _KEPT if column in present])


def _name(source: Source) -> str:
    return Path(source).resolve().name if isinstance(source, str | Path) else "events given"


def _height(table: pl.LazyFrame) -> int:
    return int(table.select(pl.len()).collect().item())
