"""The peer that knows marginals alone: whatever is drawn is drawn from what training patients have, and from no more.

Sex, age at the first visit and its day, the number of visits, each gap, the type and the number of codes of each visit,
and which codes these are (by how common each is, without repetition) are all independent. What it cannot show, as two
codes that come together more often than by chance, a model must have learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import adapter
import numpy as np
from exchange import Patient, Visit

Drawn = np.ndarray


class Marginals(NamedTuple):
    """Everything that training patients have, each on its own."""

    sexes: list[str | None]
    ages: list[int | None]
    """In days from birth to the first visit; None where the birth is not known."""
    starts: Drawn
    """Days of the first visits."""
    visits: Drawn
    """How many of each patient."""
    gaps: Drawn
    """In days from a visit to the next."""
    types: list[str | None]
    sizes: Drawn
    """How many codes of each visit."""
    codes: list[str]
    shares: Drawn
    """(codes,) of visits with the code"""


def learned(train: Sequence[Patient], *_: object) -> Marginals:
    """Gather the marginals."""
    visits = [visit for patient in train for visit in patient.visits]
    codes, counts = np.unique([code for visit in visits for code in visit.codes], return_counts=True)
    births = [(patient.birth, patient.visits[0].start) for patient in train]
    gaps = [later.start - earlier.start for patient in train for earlier, later in pairwise(patient.visits)]
    return Marginals(
        sexes=[patient.sex for patient in train],
        ages=[None if birth is None else first - birth for birth, first in births],
        starts=np.array([first for _, first in births]),
        visits=np.array([len(patient.visits) for patient in train]),
        gaps=np.array(gaps or [1]),
        types=[visit.type for visit in visits],
        sizes=np.array([len(visit.codes) for visit in visits]),
        codes=codes.tolist(),
        shares=counts / len(visits),
    )


def one_of(values: list, rng: np.random.Generator) -> object:
    """One of some values, each as likely."""
    return values[rng.integers(len(values))]


def days(known: Marginals, rng: np.random.Generator) -> Drawn:
    """The days of the visits of one patient, ascending."""
    gaps = rng.choice(known.gaps, rng.choice(known.visits) - 1)
    return rng.choice(known.starts) + np.concatenate([[0], np.cumsum(gaps)])


def patient(known: Marginals, when: Sequence[int], codes: list[list[str]], rng: np.random.Generator) -> Patient:
    """A patient who has those codes on those days; sex, age and types of visits are drawn."""
    age = one_of(known.ages, rng)
    visits = [
        Visit(int(day), one_of(known.types, rng), tuple(sorted(own))) for day, own in zip(when, codes, strict=True)
    ]
    return Patient(None if age is None else int(when[0]) - age, one_of(known.sexes, rng), tuple(visits))


def some_codes(known: Marginals, visits: int, rng: np.random.Generator) -> list[list[str]]:
    """As many codes of each of some visits as some training visit has."""
    sizes = rng.choice(known.sizes, visits)
    # The largest of the logs of shares with Gumbel noise are a sample without repetition, in proportion to the shares.
    keys = np.log(known.shares) + rng.gumbel(size=(visits, len(known.codes)))
    order = np.argsort(-keys, axis=1)
    return [[known.codes[code] for code in row[:size]] for row, size in zip(order, sizes, strict=True)]


def simulated(known: Marginals, number: int, rng: np.random.Generator) -> list[Patient]:
    """So many patients."""
    lives = (days(known, rng) for _ in range(number))
    return [patient(known, when, some_codes(known, len(when), rng), rng) for when in lives]


if __name__ == "__main__":
    adapter.run(__doc__, learned, simulated)
