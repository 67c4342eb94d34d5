"""Charts as inline SVG, from arrays. Colours and type are the page's: each mark has a class that its style sheet knows.

All text passes through `Markup.format`, which escapes it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scale = Callable[[float], float]
Limits = Callable[[Floats], tuple[Floats, Floats]]
_STRIP = 28
"""Width of the strip at the edge of a logarithmic axis that holds nought."""
_UNITS = {
    "mm[Hg]": "mmHg",
    "Cel": "°C",
    "[degF]": "°F",
    "[iU]": "IU",
    "{score}": "points",
    "m2": "m²",
    "10*3": "10³",
    "10*6": "10⁶",
    "10*9": "10⁹",
    "10*12": "10¹²",
    "ug": "µg",
    "uL": "µL",
    "umol": "µmol",
}


class Frame(NamedTuple):
    """The edges of the plot inside a drawing."""

    left: float
    top: float
    right: float
    bottom: float


def frame(width: float, height: float) -> Frame:
    """The plot of a drawing with tick labels at its left and below, and a label under them."""
    return Frame(44, 10, width - 12, height - 40)


class Line(NamedTuple):
    """A named curve; `style` is its class."""

    name: str
    style: str
    x: Sequence[float]
    y: Sequence[float]


class Point(NamedTuple):
    """A mark of a scatter chart with the text shown on hover."""

    x: float
    y: float
    text: str
    style: str


def join(parts: Iterable[Markup]) -> Markup:
    """Pieces of a drawing, a line each."""
    return Markup("\n").join(parts)


def svg(width: float, height: float, title: str, body: Markup) -> Markup:
    """A drawing of `width` × `height` user units that fills its container; `title` is its text for screen readers."""
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">\n{}\n</svg>').format(
        round(width), round(height), title, body
    )


def text(x: float, y: float, content: str, style: str = "", anchor: str = "start") -> Markup:
    """A line of text with its baseline at `y`."""
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>').format(
        x, y, style, anchor, content
    )


def segment(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    """A straight line."""
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(x1, y1, x2, y2, style)


def rectangle(x: float, y: float, width: float, height: float, style: str, hover: str = "") -> Markup:
    """A box with slightly rounded corners, and a text on hover if there is one."""
    return Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1.5" class="{}">{}</rect>').format(
        x, y, width, height, style, _hover(hover)
    )


def circle(x: float, y: float, radius: float, style: str, hover: str = "") -> Markup:
    """A disc, and a text on hover if there is one."""
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" class="{}">{}</circle>').format(
        x, y, radius, style, _hover(hover)
    )


def path(points: Iterable[tuple[float, float]], style: str, *, closed: bool = False) -> Markup:
    """A polyline, or a polygon if `closed`."""
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return Markup('<path d="M{}{}" class="{}"/>').format(steps, "Z" if closed else "", style)


def _hover(content: str) -> Markup:
    return Markup("<title>{}</title>").format(content) if content else Markup("")


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """The map of `low` to `high` onto `start` to `end`; everything falls onto the middle where low equals high."""
    if high == low:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def logarithmic(low: float, high: float, start: float, end: float, zero: float) -> Scale:
    """The same on a logarithmic axis, where nought and less have a place of their own at `zero`."""
    scale = linear(math.log(low), math.log(high), start, end)
    return lambda value: scale(math.log(max(value, low))) if value > 0 else zero


def ticks(low: float, high: float, number: int = 5) -> list[float]:
    """About `number` round values between `low` and `high`: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / number
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [first * step + index * step for index in range(int((high - first * step) / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number for an axis or a table: three significant digits, thousands separated, no exponent.

    >>> number(0.0123), number(5.0), number(12345.6), number(-0.5)
    ('0.0123', '5', '12,300', '−0.5')
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    digits = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    shown = f"{rounded:,.{max(digits, 0)}f}"
    return (shown.rstrip("0").rstrip(".") if "." in shown else shown).replace("-", "−")


def percent(share: float) -> str:
    """A share in per cent, to three digits at most.

    >>> percent(0.5), percent(0.0123), percent(0.00012)
    ('50 %', '1.2 %', '0.01 %')
    """
    hundredfold = share * 100
    decimals = 0 if hundredfold >= 9.95 or hundredfold == 0 else 1 if hundredfold >= 0.95 else 2
    return f"{hundredfold:.{decimals}f} %"


def unit_text(unit: str | None) -> str:
    """A UCUM unit as people write it.

    >>> unit_text("mm[Hg]"), unit_text("Cel"), unit_text("10*3/uL"), unit_text(None)
    ('mmHg', '°C', '10³/µL', '')
    """
    shown = unit or ""
    for code, written in _UNITS.items():
        shown = shown.replace(code, written)
    return shown


def _axes(
    x: Scale, y: Scale, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]], plot: Frame
) -> Markup:
    """Grid lines and ticks with their labels, left of the plot and below it."""
    left, _, right, bottom = plot
    parts = [segment(left, y(value), right, y(value), "grid") for value, _ in y_ticks]
    parts += [text(left - 6, y(value) + 4, label, "tick", "end") for value, label in y_ticks]
    parts += [segment(x(value), bottom, x(value), bottom + 4, "axis") for value, _ in x_ticks]
    parts += [text(x(value), bottom + 16, label, "tick", "middle") for value, label in x_ticks]
    parts.append(segment(left, bottom, right, bottom, "axis"))
    return join(parts)


def curves(lines: Sequence[Line], *, title: str, x_label: str, marked: tuple[float, float] | None = None) -> Markup:
    """Curves over a common axis, each named at its end; `marked` (x, y) is ringed."""
    width, height = 720, 260
    left, top, right, bottom = plot = frame(width - 110, height)
    every_x = [value for line in lines for value in line.x]
    every_y = [value for line in lines for value in line.y]
    margin = 0.05 * (max(every_y) - min(every_y) or 1.0)
    low, high = min(every_y) - margin, max(every_y) + margin
    x, y = linear(min(every_x), max(every_x), left, right), linear(low, high, bottom, top)
    x_ticks = [(value, number(value)) for value in ticks(min(every_x), max(every_x), 7)]
    parts = [_axes(x, y, x_ticks, [(value, number(value)) for value in ticks(low, high)], plot)]
    for line in lines:
        places = [(x(a), y(b)) for a, b in zip(line.x, line.y, strict=True)]
        parts.append(path(places, f"line {line.style}"))
        parts += [
            circle(*place, 2.5, f"fill {line.style}", f"{line.name}: {b:.3f} at step {a:,.0f}")
            for place, a, b in zip(places, line.x, line.y, strict=True)
        ]
    ends = _apart([y(line.y[-1]) for line in lines], 15)
    parts += [text(right + 8, end + 4, line.name, f"name {line.style}") for line, end in zip(lines, ends, strict=True)]
    if marked is not None:
        parts.append(circle(x(marked[0]), y(marked[1]), 6, "ring", f"best: {marked[1]:.3f} at step {marked[0]:,.0f}"))
    parts.append(text((left + right) / 2, height - 4, x_label, "label", "middle"))
    return svg(width, height, title, join(parts))


def _apart(places: Sequence[float], distance: float) -> list[float]:
    """The places moved down where they lie closer than `distance` to one above."""
    moved = list(places)
    order = sorted(range(len(places)), key=lambda index: places[index])
    for above, below in itertools.pairwise(order):
        moved[below] = max(moved[below], moved[above] + distance)
    return moved


def prevalence_scatter(points: Sequence[Point], limits: Limits, *, low: float, title: str) -> Markup:
    """Shares of patients, real across and simulated up, on logarithmic axes from `low` over the line of identity.

    `limits` gives the band of what chance explains. A share of nought stands in a strip at the edge.
    """
    width, height = 300, 310
    left, top, right, bottom = plot = frame(width, height)._replace(top=24)
    x = logarithmic(low, 1, left + _STRIP, right, left)
    y = logarithmic(low, 1, bottom - _STRIP, top, bottom)
    marks = [
        (0.0, "0"),
        *((10.0**power, f"{number(100 * 10.0**power)} %") for power in range(round(math.log10(low)), 1)),
    ]
    parts = [_axes(x, y, marks, marks, plot)]
    parts.append(path(_band(limits, x, y, low), "band", closed=True))
    parts.append(segment(x(low), y(low), x(1), y(1), "identity"))
    parts += [circle(x(p.x), y(p.y), 3.2, p.style, p.text) for p in points]
    parts.append(text((left + right) / 2, height - 5, "real patients", "label", "middle"))
    parts.append(text(2, 10, "simulated patients", "label"))
    return svg(width, height, title, join(parts))


def _band(limits: Limits, x: Scale, y: Scale, low: float) -> list[tuple[float, float]]:
    """The outline of the band: over the strip of nought as for nought, then along the axis and back."""
    shares = np.geomspace(low, 1, 90)
    lowest, highest = limits(shares)
    _, never = limits(np.zeros(1))
    outline = [(x(0), y(0)), (x(0), y(never[0])), (x(low), y(never[0]))]
    outline += [(x(share), y(high)) for share, high in zip(shares, highest, strict=True)]
    return outline + [(x(share), y(high)) for share, high in zip(shares[::-1], lowest[::-1], strict=True)]


def histogram(
    edges: Floats, real: Floats, synthetic: Floats, *, title: str, x_label: str, medians: tuple[float, float]
) -> Markup:
    """Two distributions over the same bins (shares that sum to one): simulated filled, real as an outline."""
    width, height = 320, 210
    left, top, right, bottom = plot = frame(width, height)
    high = max(float(real.max(initial=0)), float(synthetic.max(initial=0)), 1e-9) * 1.08
    x, y = linear(edges[0], edges[-1], left, right), linear(0, high, bottom, top)
    x_ticks = [(value, number(value)) for value in ticks(edges[0], edges[-1])]
    parts = [_axes(x, y, x_ticks, [(value, percent(value)) for value in ticks(0, high, 4)], plot)]
    for begin, end, share, other in zip(edges[:-1], edges[1:], synthetic, real, strict=True):
        hover = f"{number(begin)} to {number(end)}: real {percent(other)}, simulated {percent(share)}"
        parts.append(rectangle(x(begin), y(share), x(end) - x(begin), bottom - y(share), "area synthetic", hover))
    corners = [(edge, share) for share, pair in zip(real, itertools.pairwise(edges), strict=True) for edge in pair]
    parts.append(path([(x(edge), y(share)) for edge, share in corners], "line real"))
    for median, style in zip(medians, ("real", "synthetic"), strict=True):
        parts.append(
            path(
                [(x(median), bottom), (x(median) - 4, bottom + 6), (x(median) + 4, bottom + 6)],
                f"fill {style}",
                closed=True,
            )
        )
    parts.append(text((left + right) / 2, height - 5, x_label, "label", "middle"))
    return svg(width, height, title, join(parts))


def quantile_ranges(real: Sequence[float], synthetic: Sequence[float], *, title: str, unit: str) -> Markup:
    """Two distributions as ranges (quantiles 5, 25, 50, 75, 95): thin line, thick line, and a mark at the median."""
    width, height = 320, 86
    left, right = 12.0, width - 12.0
    low, high = min(real[0], synthetic[0]), max(real[-1], synthetic[-1])
    margin = 0.04 * (high - low or 1.0)
    x = linear(low - margin, high + margin, left, right)
    parts = []
    for value in ticks(low - margin, high + margin, 5):
        parts.append(segment(x(value), 8, x(value), 56, "grid"))
        parts.append(text(x(value), 70, number(value), "tick", "middle"))
    for (q5, q25, q50, q75, q95), style, line in ((real, "real", 20.0), (synthetic, "synthetic", 44.0)):
        name = "simulated" if style == "synthetic" else "real"
        hover = f"{name}: median {number(q50)}, half {number(q25)} to {number(q75)}, most {number(q5)} to {number(q95)}"
        parts.append(segment(x(q5), line, x(q95), line, f"line {style}"))
        parts.append(rectangle(x(q25), line - 6, max(x(q75) - x(q25), 1), 12, f"box {style}", hover))
        parts.append(segment(x(q50), line - 9, x(q50), line + 9, f"median {style}"))
    parts.append(text(right, 84, unit_text(unit), "label", "end"))
    return svg(width, height, title, join(parts))


def survival_curves(
    real: tuple[Sequence[float], Sequence[float]],
    synthetic: tuple[Sequence[float], Sequence[float]],
    *,
    horizon: float,
    title: str,
) -> Markup:
    """Two survival curves, each the times and the share after each, from 0 to `horizon` years."""
    width, height = 320, 210
    left, top, right, bottom = plot = frame(width, height)
    lowest = min([*real[1], *synthetic[1], 1.0])
    low = max(0.0, lowest - 0.1 * (1 - lowest) - 0.001)
    x, y = linear(0, horizon, left, right), linear(low, 1, bottom, top)
    x_ticks = [(value, number(value)) for value in ticks(0, horizon)]
    parts = [_axes(x, y, x_ticks, [(value, percent(value)) for value in ticks(low, 1, 4)], plot)]
    for (times, shares), style in ((synthetic, "synthetic"), (real, "real")):
        corners = [(0.0, 1.0)]
        for time, share in zip(times, shares, strict=True):
            if time > horizon:
                break
            corners += [(time, corners[-1][1]), (time, share)]
        corners.append((horizon, corners[-1][1]))
        parts.append(path([(x(time), y(share)) for time, share in corners], f"line {style}"))
    parts.append(text((left + right) / 2, height - 5, "years", "label", "middle"))
    return svg(width, height, title, join(parts))


def heat_map(labels: Sequence[str], values: Sequence[Sequence[float]], *, most: float, title: str) -> Markup:
    """A square of differences from `-most` to `most`: opacity is size, colour is sign; rows are first codes."""
    cell, margin, longest = 22.0, 190.0, 26
    shown = [label if len(label) <= longest else label[: longest - 1].rstrip() + "…" for label in labels]
    width, height = margin + cell * len(labels) + 8, cell * len(labels) + 26
    parts = []
    for row, line in enumerate(values):
        parts.append(text(margin - 6, 20 + cell * row + 15, f"{row + 1}  {shown[row]}", "tick", "end"))
        parts.append(text(margin + cell * row + cell / 2, 14, str(row + 1), "tick", "middle"))
        for column, value in enumerate(line):
            size = min(abs(value) / most, 1.0) if most > 0 else 0.0
            hover = f"{labels[row]} & {labels[column]}: {value * 100:+.2f} points".replace("-", "−")
            style = "more" if value > 0 else "less"
            box = (margin + cell * column, 20 + cell * row, cell - 1, cell - 1)
            parts.append(
                Markup('<g fill-opacity="{:.3f}">{}</g>').format(size, rectangle(*box, f"heat {style}", hover))
            )
            parts.append(rectangle(*box, "cell"))
    return svg(width, height, title, join(parts))


def score_strip(score: float, low: float, high: float) -> Markup:
    """Where a metric stands between marginals alone (0, left) and real patients (1, right), with its interval."""
    width, height, middle = 120.0, 14.0, 7.0
    x = linear(0, 1, 6, width - 14)

    def place(value: float) -> float:
        return min(max(x(value), 2.0), width - 2.0)

    parts = [
        segment(x(0), middle, x(1), middle, "axis"),
        segment(x(1), 1, x(1), height - 1, "real-mark"),
        segment(place(low), middle, place(high), middle, "spread"),
        circle(place(score), middle, 3.6, "fill synthetic"),
    ]
    return svg(width, height, f"score {score:.2f}", join(parts))
