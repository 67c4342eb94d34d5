"""One patient's life as a drawing: visits by class, conditions and medications as bars, measurements as curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl
from markupsafe import Markup

from ehrsim import codes
from ehrsim.evaluate.charts import (
    Frame,
    Scale,
    circle,
    join,
    linear,
    number,
    path,
    rectangle,
    segment,
    svg,
    text,
    ticks,
    unit_text,
)
from ehrsim.evaluate.prevalence import kind_of
from ehrsim.evaluate.records import DAYS_PER_YEAR, years
from ehrsim.events import DESCRIPTION

RICHNESS = 0.75
"""The patient shown has more distinct conditions than this share of those who have any."""
MOST_CONDITIONS, MOST_MEDICATIONS, MOST_COURSES = 14, 10, 8
VISIT_CLASSES = {
    "AMB": "Ambulatory",
    "VR": "Virtual",
    "HH": "At home",
    "EMER": "Emergency",
    "OBSENC": "Observation stay",
    "SS": "Short stay",
    "ACUTE": "Inpatient, acute",
    "IMP": "Inpatient",
}
"""Names of the HL7 v3 ActCode classes of visits, in the order of their rows."""


class Span(NamedTuple):
    """Something that lasted from one age to another, in years; `end` is None where none is recorded."""

    start: float
    end: float | None


class Row(NamedTuple):
    """A named row of spans in order of their start."""

    label: str
    spans: list[Span]


class Course(NamedTuple):
    """The values of one measurement over age."""

    label: str
    unit: str
    points: list[tuple[float, float]]


class Timeline(NamedTuple):
    """A patient's record from `start` to `end` (ages in years); `unseen` counts the rows left out of each list."""

    subject: int
    sex: str | None
    start: float
    end: float
    died: bool
    visits: list[Row]
    conditions: list[Row]
    medications: list[Row]
    courses: list[Course]
    unseen: dict[str, int]


def typical(events: pl.LazyFrame, richness: float = RICHNESS) -> int | None:
    """The patient to show: the one at `richness` when those with a birth are ordered by their distinct conditions.

    Equal ones stand in the order of their ids. Patients without conditions are passed over, unless nobody has any.
    """
    names = events.select(pl.col("code").unique()).collect()["code"]
    conditions = names.filter(kind_of(names) == "condition")
    number = pl.col("code").filter(pl.col("code").is_in(conditions.implode())).n_unique()
    patients = events.group_by("subject_id").agg(richness=number, born=(pl.col("code") == codes.BIRTH).any())
    ordered = patients.filter("born").sort("richness", "subject_id").collect()
    with_any = ordered.filter(pl.col("richness") > 0)
    chosen = with_any if with_any.height else ordered
    return int(chosen["subject_id"][int(richness * (chosen.height - 1))]) if chosen.height else None


def timeline(events: pl.LazyFrame, subject: int) -> Timeline:
    """The record of one patient, who has a birth, on an axis of age."""
    frame = events.filter(pl.col("subject_id") == subject).collect()
    if DESCRIPTION not in frame.columns:
        frame = frame.with_columns(pl.lit(None, pl.String).alias(DESCRIPTION))
    born = frame.filter(pl.col("code") == codes.BIRTH)["time"].min()
    sexes = frame.filter(pl.col("code").str.starts_with("GENDER//"))["code"]
    timed = frame.filter(pl.col("time").is_not_null()).with_columns(
        kind_of(frame.filter(pl.col("time").is_not_null())["code"]),
        age=years(pl.col("time") - born),
        end_age=years(pl.col("end_time") - born),
        label=pl.coalesce(DESCRIPTION, pl.col("code").str.split("//").list.last()),
    )
    seen = timed.filter(pl.col("kind") != "birth")["age"]
    end = float(timed["age"].max() or 0.0)  # type: ignore[arg-type]
    conditions, unseen_conditions = _rows(timed, "condition", MOST_CONDITIONS, end)
    medications, unseen_medications = _rows(timed, "medication", MOST_MEDICATIONS, end)
    courses, unseen_courses = _courses(timed)
    return Timeline(
        subject=subject,
        sex=sexes[0].removeprefix("GENDER//") if len(sexes) else None,
        start=float(seen.min() or 0.0),  # type: ignore[arg-type]
        end=end,
        died=codes.DEATH in timed["code"],
        visits=_visits(timed),
        conditions=conditions,
        medications=medications,
        courses=courses,
        unseen={"conditions": unseen_conditions, "medications": unseen_medications, "measurements": unseen_courses},
    )


def _visits(timed: pl.DataFrame) -> list[Row]:
    """A row a class of visit; one row of days with events where the data marks no visits."""
    starts = timed.filter(pl.col("kind") == "visit_start")
    if starts.is_empty():
        days = timed.filter(~pl.col("kind").is_in(["birth", "death"])).unique(pl.col("time").dt.date()).sort("age")
        return [Row("Days with events", [Span(age, None) for age in days["age"]])] if days.height else []
    ends = timed.filter(pl.col("kind") == "visit_end").group_by("visit_id").agg(left=pl.col("age").max())
    stays = starts.join(ends, on="visit_id", how="left", maintain_order="left")
    rows: dict[str, list[Span]] = {}
    for code, age, left in stays.select("code", "age", "left").iter_rows():
        rows.setdefault(codes.parse(code).value, []).append(Span(age, left))
    order = {name: place for place, name in enumerate(VISIT_CLASSES)}
    classes = sorted(rows, key=lambda name: (order.get(name, len(order)), name))
    return [Row(VISIT_CLASSES.get(name, name.capitalize()), rows[name]) for name in classes]


def _rows(timed: pl.DataFrame, kind: str, most: int, end: float) -> tuple[list[Row], int]:
    """The `most` codes of a kind that lasted longest, by first onset; and how many others there are."""
    rows = []
    for (label,), spans in timed.filter(pl.col("kind") == kind).group_by("label", maintain_order=True):
        pairs = spans.sort("age").select("age", "end_age").iter_rows()
        rows.append(Row(str(label), [Span(*pair) for pair in pairs]))

    def duration(row: Row) -> float:
        return sum(min(end if span.end is None else span.end, end) - span.start for span in row.spans)

    kept = sorted(rows, key=lambda row: (-duration(row), row.label))[:most]
    return sorted(kept, key=lambda row: (row.spans[0].start, row.label)), len(rows) - len(kept)


def _courses(timed: pl.DataFrame) -> tuple[list[Course], int]:
    """The measurements taken most often, at least twice; and how many others there are."""
    measured = timed.filter(pl.col("numeric_value").is_not_null() & (pl.col("kind") == "observation")).sort("age")
    courses = []
    for (label, unit), values in measured.group_by("label", "unit", maintain_order=True):
        points = [(age, value) for age, value in values.select("age", "numeric_value").iter_rows()]
        if len(points) > 1:
            courses.append(Course(str(label), unit_text(unit), points))
    courses.sort(key=lambda course: (-len(course.points), course.label))
    return courses[:MOST_COURSES], max(0, len(courses) - MOST_COURSES)


_WIDTH, _LABELS, _VALUES = 1080.0, 250.0, 120.0
_ROW, _COURSE, _HEADING = 19.0, 36.0, 34.0
_LONGEST_LABEL = 34
_SHORT, _SHORTEST = 0.5, 1 / DAYS_PER_YEAR


def draw(patient: Timeline, whose: str = "simulated") -> Markup:
    """The drawing of a timeline, rows under one axis of age; `whose` says what kind of patient it is."""
    plot = Frame(_LABELS, 26, _WIDTH - _VALUES, _height(patient))
    x = linear(min(patient.start, patient.end - _SHORTEST), patient.end, plot.left, plot.right)
    parts, y = [_axis(x, patient, plot)], plot.top
    sections = (
        ("Visits", patient.visits, "visit"),
        ("Conditions", patient.conditions, "condition"),
        ("Medications", patient.medications, "medication"),
    )
    for heading, rows, style in sections:
        if not rows:
            continue
        y += _HEADING
        parts.append(text(8, y - 12, heading, "heading"))
        for row in rows:
            parts.append(_row(row, x, y, style, patient.end))
            y += _ROW
    if patient.courses:
        y += _HEADING + 10
        parts.append(text(8, y - 22, "Measurements", "heading"))
        for course in patient.courses:
            parts.append(_course(course, x, y, plot))
            y += _COURSE
    return svg(_WIDTH, plot.bottom + 8, f"Timeline of {whose} patient {patient.subject}", join(parts))


def _height(patient: Timeline) -> float:
    lists: Sequence[Sequence[object]] = (patient.visits, patient.conditions, patient.medications, patient.courses)
    rows = sum(len(rows) for rows in lists[:3])
    return 36 + _HEADING * sum(1 for rows in lists if rows) + _ROW * rows + _COURSE * len(patient.courses)


def _axis(x: Scale, patient: Timeline, plot: Frame) -> Markup:
    """Ages in years or, for a record of less than `_SHORT` years, days since its beginning."""
    first = min(patient.start, patient.end - _SHORTEST)
    if patient.end - first < _SHORT:
        title, days = "Days since the first event", ticks(0, (patient.end - first) * DAYS_PER_YEAR, 10)
        marks = [(first + day / DAYS_PER_YEAR, number(day)) for day in days]
    else:
        title, marks = "Age in years", [(age, number(age)) for age in ticks(first, patient.end, 10)]
    parts = [text(8, 14, title, "label")]
    for age, label in marks:
        parts.append(segment(x(age), plot.top - 4, x(age), plot.bottom, "grid"))
        parts.append(text(x(age), plot.top - 10, label, "tick", "middle"))
    parts.append(segment(x(patient.end), plot.top - 4, x(patient.end), plot.bottom, "end"))
    verb = "died" if patient.died else "record ends"
    parts.append(text(x(patient.end) + 6, 16, f"{verb} at {patient.end:.0f}", "label"))
    return join(parts)


def _row(row: Row, x: Scale, y: float, style: str, end: float) -> Markup:
    """Spans as bars of at least two units; one without an end as a faint bar to the end of the record."""
    parts = [text(16, y + 4, _shortened(row.label), "row"), segment(_LABELS, y, x(end), y, "grid")]
    for span in row.spans:
        if span.end is None and style != "visit":
            hover = f"{row.label}: from age {span.start:.1f}, no end recorded"
            parts.append(rectangle(x(span.start), y - 4, x(end) - x(span.start), 8, f"open {style}", hover))
            parts.append(circle(x(span.start), y, 3.5, f"onset {style}", hover))
        else:
            stop = span.start if span.end is None else span.end
            hover = f"{row.label}: age {span.start:.1f}" + (f" to {stop:.1f}" if stop - span.start >= 0.1 else "")
            stop = min(stop, end)
            parts.append(
                rectangle(x(span.start) - 1, y - 5, max(x(stop) - x(span.start), 2), 10, f"bar {style}", hover)
            )
    return join(parts)


def _course(course: Course, x: Scale, y: float, plot: Frame) -> Markup:
    values = [value for _, value in course.points]
    low, high = min(values), max(values)
    height = linear(low, high, y + _COURSE / 2 - 6, y - _COURSE / 2 + 8)
    places = [(x(age), height(value)) for age, value in course.points]
    last = course.points[-1]
    parts = [text(16, y + 4, _shortened(course.label), "row"), path(places, "spark")]
    parts += [
        circle(*place, 1.8, "dot", f"{course.label}: {number(value)} {course.unit} at age {age:.1f}")
        for place, (age, value) in zip(places, course.points, strict=True)
    ]
    parts.append(text(plot.right + 8, y, f"{number(last[1])} {course.unit}", "row"))
    parts.append(text(plot.right + 8, y + 13, f"{number(low)} to {number(high)}", "tick"))
    return join(parts)


def _shortened(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1].rstrip() + "…"
