"""Which patient is shown, and where the marks of a record stand."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from datetime import datetime, timedelta

import polars as pl
import pytest

from ehrsim.evaluate.timeline import Span, draw, timeline, typical
from ehrsim.events import conform

BIRTH = datetime(1950, 1, 1)


def at(age: float) -> datetime:
    return BIRTH + timedelta(days=age * 365.25)


def frame(rows: list[tuple[object, ...]]) -> pl.LazyFrame:
    columns = ["subject_id", "time", "code", "numeric_value", "unit", "visit_id", "end_time", "description"]
    return conform(pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)).lazy()


def life(subject: int, conditions: int, *, born: bool = True) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [(subject, BIRTH, "MEDS_BIRTH", None, None, None, None, None)] if born else []
    return rows + [
        (subject, at(30 + number), f"ICD10CM//A{number:02}", None, None, None, None, None)
        for number in range(conditions)
    ]


RECORD = frame(
    [
        (7, None, "GENDER//female", None, None, None, None, None),
        (7, BIRTH, "MEDS_BIRTH", None, None, None, None, None),
        (7, at(10), "VISIT_START//AMB", None, None, 1, None, None),
        (7, at(10), "ICD10CM//I10", None, None, 1, None, "Hypertension"),
        (7, at(10), "LOINC//1", 5.0, "mm[Hg]", 1, None, "Pressure"),
        (7, at(10.1), "VISIT_END//AMB", None, None, 1, None, None),
        (7, at(20), "VISIT_START//IMP", None, None, 2, None, None),
        (7, at(20), "ICD10CM//J18.9", None, None, 2, at(20.5), "Pneumonia"),
        (7, at(20), "RxNorm//1", None, None, 2, at(90), "A & <b>drug</b>"),
        (7, at(20), "LOINC//1", 9.0, "mm[Hg]", 2, None, "Pressure"),
        (7, at(21), "VISIT_END//IMP", None, None, 2, None, None),
        (7, at(40), "MEDS_DEATH", None, None, None, None, None),
    ]
)


def test_the_patient_shown_is_at_the_third_quartile_of_conditions() -> None:
    rows = [row for subject, number in enumerate([0, 1, 2, 3, 4, 5], 1) for row in life(subject, number)]
    assert typical(frame(rows)) == 5  # of 1, 2, 3, 4, 5 conditions the fourth


def test_patients_without_a_birth_are_passed_over() -> None:
    assert typical(frame(life(1, 5, born=False))) is None
    assert typical(frame(life(1, 5, born=False) + life(2, 0))) == 2


def test_a_record_is_put_on_an_axis_of_age() -> None:
    patient = timeline(RECORD, 7)
    assert (patient.sex, patient.died) == ("female", True)
    assert (patient.start, patient.end) == pytest.approx((10, 40), abs=0.01)
    assert [(row.label, len(row.spans)) for row in patient.visits] == [("Ambulatory", 1), ("Inpatient", 1)]
    assert patient.visits[1].spans[0] == pytest.approx(Span(20, 21), abs=0.01)
    assert [(row.label, row.spans[0].end is None) for row in patient.conditions] == [
        ("Hypertension", True),
        ("Pneumonia", False),
    ]
    assert [course.unit for course in patient.courses] == ["mmHg"]
    assert [value for _, value in patient.courses[0].points] == [5, 9]


def test_rows_beyond_the_most_are_counted_as_unseen() -> None:
    assert timeline(frame(life(1, 20)), 1).unseen == {"conditions": 6, "medications": 0, "measurements": 0}
    assert len(timeline(frame(life(1, 20)), 1).conditions) == 14


def test_no_bar_passes_the_end_of_the_record_and_text_is_escaped() -> None:
    drawing = draw(timeline(RECORD, 7))
    root = ElementTree.fromstring(drawing)
    edge = max(float(node.attrib["x1"]) for node in root.iter("line") if node.attrib["class"] == "end")
    bars = list(root.iter("rect"))
    assert len(bars) == 5  # two visits, two conditions (one open), one medication
    assert all(float(bar.attrib["x"]) + float(bar.attrib["width"]) <= edge + 2 for bar in bars)
    assert "<b>" not in drawing


@pytest.mark.parametrize("rows", [life(1, 0), life(1, 1)])
def test_the_barest_records_can_be_drawn(rows: list[tuple[object, ...]]) -> None:
    drawing = ElementTree.fromstring(draw(timeline(frame(rows), 1)))
    assert drawing.tag.endswith("svg")
    assert any(node.text for node in drawing.iter("text")), "even an empty life has an axis"


def test_a_short_stay_is_told_in_days() -> None:
    stay = [(1, at(60 + day / 365.25), "LOINC//1", 1.0 * day, "kg", None, None, "Weight") for day in range(1, 6)]
    drawing = draw(timeline(frame(life(1, 0) + stay), 1))
    assert "Days since the first event" in drawing
    ticks = [node.text for node in ElementTree.fromstring(drawing).iter("text") if node.attrib["class"] == "tick"]
    assert ticks[:9] == ["0", "0.5", "1", "1.5", "2", "2.5", "3", "3.5", "4"]
    assert "Age in years" in draw(timeline(RECORD, 7))
