"""Ticks, numbers, scales, and the geometry of the drawings."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from ehrsim.evaluate import charts
from ehrsim.evaluate.charts import Line, Point


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (36.2, 38.1, [36.5, 37, 37.5, 38]),
        (0, 4999, [0, 1000, 2000, 3000, 4000]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == pytest.approx(expected)


def test_numbers_have_three_digits_and_no_exponent() -> None:
    assert [charts.number(value) for value in (0, 1e-7, 999.9, 1e6, -2.5, float("nan"))] == [
        "0",
        "0.0000001",
        "1,000",
        "1,000,000",
        "−2.5",
        "–",
    ]


def test_scales_map_ends_and_put_nought_apart() -> None:
    assert charts.linear(0, 10, 100, 200)(5) == 150
    assert charts.linear(3, 3, 100, 200)(3) == 150
    scale = charts.logarithmic(0.01, 1, 0, 100, -20)
    assert [scale(value) for value in (0.01, 0.1, 1, 0, 0.001)] == pytest.approx([0, 50, 100, -20, 0])


def test_a_point_lies_where_its_shares_are_and_says_what_it_is() -> None:
    points = [Point(0.1, 1.0, 'sugar <b>"5"</b>: real 10 %', "point"), Point(0.0, 0.01, "never", "point")]
    drawing = charts.prevalence_scatter(points, lambda x: (x / 2, x * 2), low=0.01, title="t")
    marks = [dict(node.attrib, text=node[0].text or "") for node in ElementTree.fromstring(drawing).iter("circle")]
    plot = charts.frame(300, 310)
    assert float(marks[0]["cy"]) == 24
    assert float(marks[0]["cx"]) == pytest.approx((plot.left + 28 + plot.right) / 2, abs=0.1)
    assert float(marks[1]["cx"]) == plot.left
    assert marks[0]["text"] == 'sugar <b>"5"</b>: real 10 %'
    assert "<b>" not in drawing


def test_bars_of_a_histogram_are_as_high_as_their_shares() -> None:
    edges, real, synthetic = np.array([0.0, 1, 2]), np.array([0.5, 0.5]), np.array([0.25, 0.75])
    drawing = charts.histogram(edges, real, synthetic, title="t", x_label="x", medians=(1, 1))
    heights = [float(node.attrib["height"]) for node in ElementTree.fromstring(drawing).iter("rect")]
    assert heights[1] == pytest.approx(3 * heights[0], rel=0.01)


def test_a_single_training_step_can_be_drawn() -> None:
    drawing = charts.curves([Line("tuning", "synthetic", [50], [3.5])], title="t", x_label="step", marked=(50, 3.5))
    assert not re.search("nan|inf", drawing)
    ElementTree.fromstring(drawing)


def test_close_names_are_moved_apart() -> None:
    assert charts._apart([100, 101, 50], 15) == [100, 115, 50]
