"""Bars: what is good enough, as data (`gates.toml`), and which of them a strict evaluation insists on."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import msgspec

from ehrsim.errors import GateError, InputError
from ehrsim.evaluate.report import Metric, Report, Section, shown

BUILT_IN = Path(__file__).with_name("gates.toml")
MOST_NAMED = 8
Held = Literal["value", "lower", "upper"]


class Bar(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The limit of some metrics: `of_floor` times the floor plus `plus`."""

    metrics: str
    """SECTION/METRIC, with * for anything"""
    of_floor: float = 0.0
    plus: float = 0.0
    gate: bool = False
    """whether a strict evaluation fails if it is not met"""
    held: Held = "value"
    """what is held against the limit: the value, or the lower or upper bound of its interval"""

    def limit(self, metric: Metric) -> float | None:
        """The worst value that is good enough; None if that depends on a floor that is not known."""
        if not self.of_floor:
            return self.plus
        if metric.floor is None:
            return None
        # Of a floor below nought, less is further below.
        return metric.floor - (1 - self.of_floor) * abs(metric.floor) + self.plus

    def of(self, metric: Metric) -> float | None:
        """What of a metric is held against the limit."""
        if self.held == "value":
            return metric.value
        return None if metric.interval is None else metric.interval[self.held == "upper"]

    def text(self, metric: Metric) -> str:
        """The limit in words.

        >>> metric = Metric(name="a", group="", title="", best="low", value=0.1)
        >>> Bar(metrics="*", of_floor=1.3).text(metric), Bar(metrics="*", of_floor=1, plus=0.02).text(metric)
        ('<= 1.3 floor', '<= floor + 0.02')
        """
        bound = "" if self.held == "value" else f"{self.held} bound "
        floor = "" if not self.of_floor else "floor" if self.of_floor == 1 else f"{self.of_floor:g} floor"
        plus = f"{self.plus:g}" if self.plus or not floor else ""
        return f"{bound}{'<=' if metric.best == 'low' else '>='} {' + '.join(part for part in (floor, plus) if part)}"


class Gates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of bars; the first that matches counts."""

    bar: list[Bar]


def load(path: Path | None = None) -> list[Bar]:
    """The bars of a file, before those that ehrsim has; raises `InputError` naming what is wrong in it."""
    built_in = _decoded(BUILT_IN)
    return built_in if path is None else [*_decoded(path), *built_in]


def _decoded(path: Path) -> list[Bar]:
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Gates).bar
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "schemas/gates.schema.json says what it may hold"
        raise InputError(f"{path} is no file of bars: {error}", hint=hint) from None


def judged(sections: list[Section], bars: list[Bar]) -> list[Section]:
    """The sections with a bar at every metric that one matches."""
    return [
        msgspec.structs.replace(section, metrics=[_judged(section.name, metric, bars) for metric in section.metrics])
        for section in sections
    ]


def _judged(section: str, metric: Metric, bars: list[Bar]) -> Metric:
    bar = next((bar for bar in bars if fnmatchcase(f"{section}/{metric.name}", bar.metrics)), None)
    if bar is None:
        return metric
    limit = bar.limit(metric)
    # What cannot be told of simulated patients, since they have none of it, is not good enough.
    met = None
    if limit is not None:
        value = bar.of(metric)
        met = value is not None and (value <= limit if metric.best == "low" else value >= limit)
    return msgspec.structs.replace(metric, bar=bar.text(metric), limit=shown(limit), met=met, gate=bar.gate)


def insist(report: Report) -> None:
    """Raise `GateError` naming the gates that are not met."""
    failed = report.failed
    if failed:
        more = f" and {len(failed) - MOST_NAMED} more" if len(failed) > MOST_NAMED else ""
        raise GateError(f"{len(failed)} gates are not met: {', '.join(failed[:MOST_NAMED])}{more}")
