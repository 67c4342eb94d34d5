"""What an evaluation finds: sections of metrics, each beside its floor and its ceiling, as JSON has them.

A section is what one function makes of the cohorts (`ehrsim/evaluate/evaluation.py` lists them); it knows nothing of
bars, which `ehrsim/evaluate/gates.py` sets afterwards.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec
import numpy as np

from ehrsim.evaluate.resampling import NOT_NEGATIVE, Floats, figure

FORMAT = "ehrsim-evaluation/1"
Best = Literal["low", "high"]
Role = Literal["held_out", "real", "simulated", "marginal"]
Interval = tuple[float, float]


class Metric(msgspec.Struct, kw_only=True, frozen=True):
    """One figure on simulated patients, in four ways, and whether it is good enough. Intervals are of 95 %."""

    name: str
    """unique in its section; parts are separated by a slash"""
    group: str
    title: str
    best: Best
    """whether low or high values are good"""
    value: float | None
    """null where it cannot be told, as of something that was never simulated"""
    interval: Interval | None = None
    floor: float | None = None
    """the same of real patients: no generator can be expected to do better"""
    ceiling: float | None = None
    """the same of a generator that knows only how common everything is"""
    ratio: float | None = None
    """value over floor"""
    ratio_interval: Interval | None = None
    excess: float | None = None
    """value less floor"""
    excess_interval: Interval | None = None
    score: float | None = None
    """1 at the floor, 0 at the ceiling; null where marginals alone reach the floor"""
    bar: str | None = None
    """what is good enough, in words"""
    limit: float | None = None
    """the same as a number"""
    met: bool | None = None
    gate: bool = False
    """whether a strict evaluation fails if the bar is not met"""
    details: dict[str, Any] = {}


class Section(msgspec.Struct, kw_only=True, frozen=True):
    """A part of a report."""

    name: str
    title: str
    metrics: list[Metric]
    details: dict[str, Any] = {}


class CohortFacts(msgspec.Struct, kw_only=True, frozen=True):
    """What was compared: where it is from, and how much of it there is."""

    role: Role
    source: str
    patients: int
    events: int


class Report(msgspec.Struct, kw_only=True, frozen=True):
    """An evaluation of simulated patients."""

    format: str = FORMAT
    software: str
    seed: int
    draws: int
    """how often patients were drawn again for the intervals"""
    cohorts: list[CohortFacts]
    sections: list[Section]

    @property
    def failed(self) -> list[str]:
        """The gates that are not met, as SECTION/METRIC."""
        return [
            f"{section.name}/{metric.name}"
            for section in self.sections
            for metric in section.metrics
            if metric.gate and metric.met is False
        ]


def measured(
    name: str,
    group: str,
    title: str,
    found: Floats,
    floor: Floats,
    ceiling: Floats,
    *,
    best: Best = "low",
    bounds: tuple[float, float] = NOT_NEGATIVE,
    details: dict[str, Any] | None = None,
) -> Metric:
    """The metric of what was `found` of simulated patients and of real ones (`floor`), each first as it is and then by
    draw (1 + draws,), and of marginals alone (1,).

    `bounds` are the least and the most that the figure can be.
    """
    one = figure(found, floor, bounds=bounds)
    return Metric(
        name=name,
        group=group,
        title=title,
        best=best,
        value=shown(one.value),
        interval=_pair(one.interval),
        floor=shown(one.floor),
        ceiling=shown(float(ceiling[0])),
        ratio=shown(one.ratio),
        ratio_interval=_pair(one.ratio_interval),
        excess=shown(one.difference),
        excess_interval=_pair(one.difference_interval),
        score=shown(score(one.value, floor, float(ceiling[0]), best)),
        details=details or {},
    )


def score(value: float, floor: Floats, ceiling: float, best: Best) -> float | None:
    """Where a value stands between the ceiling (0) and the floor (1); None where these are not clearly apart.

    They are, if the ceiling is worse than the floor by four times the spread of the floor's draws.
    """
    span = (ceiling - floor[0]) * (1 if best == "low" else -1)
    draws = floor[1:][np.isfinite(floor[1:])]
    if not math.isfinite(span) or not len(draws) or span <= 4 * float(draws.std()) or span <= 0:
        return None
    return float((ceiling - value) / (ceiling - floor[0]))


def shown(value: float | None) -> float | None:
    """A number as JSON has it: to six digits, null if there is none."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _pair(interval: tuple[float, float] | None) -> Interval | None:
    low, high = (None, None) if interval is None else (shown(interval[0]), shown(interval[1]))
    return None if low is None or high is None else (low, high)


def table(report: Report) -> str:
    """The metrics in columns of plain text: value, interval, floor, ceiling, ratio, bar, and whether it is met."""
    head = ("", "value", "95 % interval", "real", "marginals", "ratio", "bar", "met")
    rows = [head]
    for section in report.sections:
        for metric in section.metrics:
            interval = "" if metric.interval is None else f"{metric.interval[0]:.4f} to {metric.interval[1]:.4f}"
            met = "" if metric.met is None else "yes" if metric.met else "NO"
            numbers = (_cell(metric.value), interval, _cell(metric.floor), _cell(metric.ceiling))
            ratio = "" if metric.ratio is None else f"{metric.ratio:.2f}"
            rows.append((f"{section.name}/{metric.name}"[:60], *numbers, ratio, metric.bar or "", met))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
