"""How soon one thing follows another: first occurrences per person-year of those who had the one before."""

from __future__ import annotations

import math
from typing import NamedTuple

from ehrsim.evaluate.survival import FollowUp


class Incidence(NamedTuple):
    """First occurrences in people at risk of it."""

    happened: int
    person_years: float

    @property
    def rate(self) -> float:
        """Per person-year; NaN where nobody was at risk."""
        return self.happened / self.person_years if self.person_years else math.nan


def after(cause: FollowUp, outcome: FollowUp) -> Incidence:
    """The incidence of an outcome from the first occurrence of a cause on, in those who had not had it by then.

    Both are of the same patients and count from the same origins.
    """
    at_risk = cause.happened & (outcome.time > cause.time)
    happened = int((at_risk & outcome.happened).sum())
    return Incidence(happened, float((outcome.time - cause.time)[at_risk].sum()))


def rate_ratio(one: Incidence, other: Incidence) -> tuple[float, float, float]:
    """The ratio of two rates, and the ends of its 95 % interval (Rothman, Greenland & Lash 2008, chapter 14).

    The variance of its logarithm is the sum of the reciprocals of both counts; NaN where either has none.
    """
    if not one.happened or not other.happened:
        return math.nan, math.nan, math.nan
    ratio = one.rate / other.rate
    width = 1.96 * math.sqrt(1 / one.happened + 1 / other.happened)
    return ratio, ratio * math.exp(-width), ratio * math.exp(width)
