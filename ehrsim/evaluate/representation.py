"""Who is there: the share of each group of patients beside its share of others, or beside a target.

Since many groups are tested at once, some would differ by chance alone: p-values are corrected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import polars as pl
from scipy import stats

from ehrsim.errors import UsageError
from ehrsim.evaluate.demographics import ATTRIBUTES, groups
from ehrsim.evaluate.resampling import Floats

SIGNIFICANT = 0.05
TOLERATED = math.log(1.1)
"""A log disparity of less, odds that are a tenth off, is not worth an alarm however certain (Bhanot et al. 2021)."""
WIDTH = float(stats.norm.ppf(0.975))
"""Standard errors to either side in a 95 % interval."""
Interval = tuple[float, float]


class Representation(msgspec.Struct, frozen=True):
    """How a group's share of simulated patients compares with its share of real ones, or with a target."""

    attribute: str
    group: str
    patients: int
    """simulated patients of the group"""
    share: float
    target: float
    log_disparity: float
    """log odds of the share less log odds of the target: nought for the same share"""
    interval: Interval
    p: float
    corrected_p: float
    """by Holm's method over all groups"""
    flagged: bool
    """whether it is significant and more than `TOLERATED`"""


def holm(p: Floats) -> Floats:
    """p-values corrected so that one false alarm is as likely as a single test's (Holm 1979, Scand. J. Stat. 6:65)."""
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def benjamini_hochberg(p: Floats) -> Floats:
    """p-values corrected for the share of false ones among alarms (Benjamini and Hochberg 1995, JRSS B 57:289)."""
    order = np.argsort(p)[::-1]
    steps = np.minimum.accumulate(p[order] * len(p) / np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def representation(
    simulated: pl.DataFrame, training: pl.DataFrame, *, intersections: bool = True
) -> list[Representation]:
    """The log disparity of every group of two tables of `attributes`, by Bhanot et al. (2021, Entropy 23:1165).

    Of those whose attribute is known; half a patient is added to each cell, so that an absent group has one too.
    """
    found = []
    tables = (simulated, training)
    shares = [_shares(people, intersections=intersections) for people in tables]
    for key in sorted(shares[0].keys() | shares[1].keys(), key=_order):
        sizes = [share.get(key, (0, _known(people, key[0]))) for share, people in zip(shares, tables, strict=True)]
        (a, n), (b, m) = sizes
        cells = np.array([a, n - a, b, m - b]) + 0.5
        value = math.log(cells[0] / cells[1]) - math.log(cells[2] / cells[3])
        found.append((key, a, a / max(n, 1), b / max(m, 1), value, math.sqrt((1 / cells).sum())))
    return _representations(found)


def against_target(people: pl.DataFrame, target: Mapping[str, Mapping[str, float]]) -> list[Representation]:
    """The same against a distribution the user gives: attribute to group to share, as of a census.

    Raises `UsageError` for an unknown attribute, and for shares that do not add up to 1 or lie outside it.
    """
    found = []
    for attribute, wanted in target.items():
        if attribute not in ATTRIBUTES:
            raise UsageError(f"target names the attribute {attribute!r}", hint=f"one of {', '.join(ATTRIBUTES)}")
        if not all(0 < share < 1 for share in wanted.values()) or not math.isclose(
            sum(wanted.values()), 1, abs_tol=1e-3
        ):
            raise UsageError(
                f"target shares of {attribute!r} are {list(wanted.values())}",
                hint="each between 0 and 1, all adding up to 1",
            )
        known = people[attribute].drop_nulls()
        for group, share in wanted.items():
            a, n = int((known == group).sum()), len(known)
            value = math.log((a + 0.5) / (n - a + 0.5)) - math.log(share / (1 - share))
            error = math.sqrt(1 / (a + 0.5) + 1 / (n - a + 0.5))
            found.append(((attribute, group), a, a / max(n, 1), share, value, error))
    return _representations(found)


def _representations(
    found: Sequence[tuple[tuple[str, str], int, float, float, float, float]],
) -> list[Representation]:
    values, errors = (np.array([one[place] for one in found]) for place in (4, 5))
    p = 2 * stats.norm.sf(np.abs(values) / errors) if found else np.zeros(0)
    return [
        Representation(
            *key,
            patients,
            share,
            target,
            value,
            (value - WIDTH * error, value + WIDTH * error),
            float(single),
            float(corrected),
            bool(corrected < SIGNIFICANT and abs(value) > TOLERATED),
        )
        for (key, patients, share, target, value, error), single, corrected in zip(found, p, holm(p), strict=True)
    ]


def _shares(people: pl.DataFrame, *, intersections: bool) -> dict[tuple[str, str], tuple[int, int]]:
    """Of each group, its patients and all those of whom its attributes are known."""
    found = groups(people, intersections=intersections)
    return {(one.attribute, one.name): (int(one.member.sum()), _known(people, one.attribute)) for one in found}


def _known(people: pl.DataFrame, attribute: str) -> int:
    return people.drop_nulls(attribute.split(" × ")).height


def _order(key: tuple[str, str]) -> tuple[int, int, str, str]:
    first = key[0].split(" × ")
    return len(first), ATTRIBUTES.index(first[0]), *key
