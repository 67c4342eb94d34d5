"""The reference population as event tables, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np
import polars as pl

from ehrsim.errors import UsageError
from ehrsim.reference.calendar import MINUTES_PER_YEAR, minute_of
from ehrsim.reference.content import Chart, Writer, texts, write
from ehrsim.reference.draws import Ints
from ehrsim.reference.measurements import bodies
from ehrsim.reference.people import draw_people
from ehrsim.reference.schedule import schedule
from ehrsim.reference.simulate import Lives, select, simulate, state_intervals
from ehrsim.reference.table import event_frame
from ehrsim.reference.visits import Observed

REFERENCE_DATE = date(2025, 1, 1)
BLOCK = 2_000
"""Patients written together: few enough for the cache (about 300 MB at the peak)."""
COHORT = 4 * BLOCK
"""Patients whose lives are simulated together: the yearly steps cost much the same for 2,000 people as for 8,000."""


def population(n: int, *, seed: int = 0, first: int = 0, reference_date: date = REFERENCE_DATE) -> pl.DataFrame:
    """The events of patients `first` to `first + n` in one frame; `blocks` streams larger populations.

    Patient i is the same for any `n`, `first` and block: subject `i + 1`, drawn from `seed` and i alone. Everyone is
    followed from birth to death or to `reference_date`. Raises `UsageError` for a negative number.
    """
    frames = list(blocks(n, seed=seed, first=first, reference_date=reference_date))
    return pl.concat(frames) if frames else next(blocks(1, reference_date=reference_date)).clear()


def blocks(
    n: int, *, seed: int = 0, first: int = 0, reference_date: date = REFERENCE_DATE, size: int = BLOCK
) -> Iterator[pl.DataFrame]:
    """The same events as `population`, as canonical frames of `size` patients each."""
    for name, number in (("n", n), ("first", first)):
        if number < 0:
            raise UsageError(f"{name} is `{number}`, expected 0 or more")
    if size < 1:
        raise UsageError(f"size is `{size}`, expected 1 or more")
    whole = max(COHORT // size, 1) * size
    for start in range(0, n, whole):
        count = min(whole, n - start)
        lives = simulate(draw_people(first + start, count, seed))
        for begin in range(0, count, size):
            yield _frame(select(lives, begin, min(begin + size, count)), reference_date)


def _frame(lives: Lives, reference_date: date) -> pl.DataFrame:
    states = state_intervals(lives)
    observed = observe(lives, reference_date)
    plan = schedule(lives, observed, states)
    answers = {text: number for number, text in enumerate(texts())}
    writer = Writer()
    write(Chart(plan, observed, bodies(lives.people, states), answers), writer)
    return event_frame(lives.people, observed, plan.visits, writer)


def observe(lives: Lives, reference_date: date) -> Observed:
    """Put lives on the calendar: births and deaths in minutes."""
    people, reference = lives.people, minute_of(reference_date)
    birth = reference - np.floor(people.age * MINUTES_PER_YEAR).astype(np.int64)
    died: Ints = np.full(len(birth), np.iinfo(np.int64).max)
    dead = np.isfinite(lives.death)
    died[dead] = birth[dead] + np.floor(lives.death[dead] * MINUTES_PER_YEAR).astype(np.int64)
    return Observed(people.keys, birth, np.minimum(died, reference), died, people.male.astype(np.int64), lives.until)
