"""What the events say and FHIR does not carry: counted by reason, so that nothing is left out in silence."""

from __future__ import annotations

import numpy as np

from ehrsim.fhir import profiles
from ehrsim.fhir.columns import Ints
from ehrsim.fhir.encounters import TIME_UNITS, ends_in_order
from ehrsim.fhir.patients import DEMOGRAPHICS, GENDERS, US_CORE_FACTS, repeated
from ehrsim.fhir.report import ExportReport
from ehrsim.fhir.resources import MAPPINGS
from ehrsim.fhir.shapes import CODED, ENDED, KINDS, NUMBER_OF, NUMERIC, TEXT, TIMED, Shapes
from ehrsim.fhir.table import Mask, Table
from ehrsim.groups import example

_VISIT_PARTS = ("visit_type", "reason")
_OF_VISITS = ("visit_start", "visit_end", *_VISIT_PARTS)
_COLUMNS: dict[str, tuple[int, frozenset[str]]] = {
    "time": (TIMED, frozenset(KINDS) - set(DEMOGRAPHICS) | {"birth", "death"}),
    "end time": (ENDED, frozenset(("condition", "procedure", "medication", "observation", "care_plan"))),
    "numeric value": (NUMERIC, frozenset(("medication", "observation", "visit_end"))),
    "text": (TEXT | CODED, frozenset(KINDS) - set(DEMOGRAPHICS) - set(_VISIT_PARTS)),
}
"""Columns by the bits of a form that say they are filled, with the kinds of event whose resource has a place for it."""


def count_losses(table: Table, shapes: Shapes, report: ExportReport, types: frozenset[str]) -> None:
    """Count in `report` what of a table its resources, of some types, do not carry."""
    whole = _whole_events(table, shapes) | _left_out(table, types)
    lost = np.zeros(len(table.kind), dtype=np.bool_)
    for reason, rows in whole.items():
        _omit(table, report, reason, rows)
        lost[rows] = True
    for column, (bits, kinds) in _COLUMNS.items():
        placeless = ~np.isin(table.kind, [NUMBER_OF[kind] for kind in kinds])
        rows = np.flatnonzero(placeless & ((table.form & bits) != 0) & ~lost)
        for kind in np.unique(table.kind[rows]):
            _omit(table, report, f"{column} of {_named(KINDS[kind])} events", rows[table.kind[rows] == kind])
    outside = np.isin(table.kind, [NUMBER_OF[kind] for kind in DEMOGRAPHICS]) & (table.visit >= 0) & ~lost
    _omit(table, report, "visit of a demographic fact, birth or death", np.flatnonzero(outside))
    unitless = (table.unit > 0) & ((table.form & NUMERIC) == 0) & ~lost
    _omit(table, report, "unit without a numeric value", np.flatnonzero(unitless))
    _count_visits(table, shapes, report)
    _count_codes(table, shapes, report)


def count_mapped(table: Table, shapes: Shapes, report: ExportReport, types: frozenset[str]) -> None:
    """Count in `report` the events that have a further code by a crosswalk in their resources, of some types."""
    kinds = [NUMBER_OF[kind] for kind, mapping in MAPPINGS.items() if mapping.resource_type in types]
    kinds += [NUMBER_OF[kind] for kind in _VISIT_PARTS if "Encounter" in types]
    mapped = np.array([code.mapped for code in shapes.codes], dtype=np.bool_)
    report.mapped_events += int((mapped[table.code] & np.isin(table.kind, kinds)).sum())
    report.mapped_codes = len({(code.system, code.value) for code in shapes.codes if code.mapped})


def _whole_events(table: Table, shapes: Shapes) -> dict[str, Ints]:
    """Rows of events that have no place at all, by reason."""
    visits = table.visits
    starts, ends = table.rows_of("visit_start"), table.rows_of("visit_end")
    parts = np.concatenate([table.rows_of(kind) for kind in _VISIT_PARTS])
    carried_ends = visits.end[ends_in_order(table)]
    genders = table.rows_of("gender")
    again = repeated(table)
    us_core_only = np.concatenate([table.rows_of(kind) for kind in US_CORE_FACTS])
    if shapes.labels.us_core:
        us_core_only = us_core_only[:0]
    known = np.array([shapes.codes[code].value in GENDERS for code in table.code[genders]], dtype=np.bool_)
    birth_and_death = np.concatenate([table.rows_of("birth"), table.rows_of("death")])
    return {
        "end of follow-up": table.rows_of("observation_end"),
        "demographic fact beyond the first of its kind": again,
        "race or ethnicity, for which only US Core has a place": np.setdiff1d(us_core_only, again),
        "birth or death without a time": birth_and_death[(table.form[birth_and_death] & TIMED) == 0],
        "gender that is not male, female or other": genders[~known],
        "second start of a visit": np.setdiff1d(starts, visits.start),
        "end of a visit that has no start, an earlier end, or no later time": np.setdiff1d(ends, carried_ends),
        "type or reason outside any visit": parts[table.visit[parts] < 0],
        "blood pressure panel as an observation of its own": _bare_panels(table, shapes),
    }


def _left_out(table: Table, types: frozenset[str]) -> dict[str, Ints]:
    """Rows of events whose type of resource is not asked for, by reason."""
    kinds = {kind: mapping.resource_type for kind, mapping in MAPPINGS.items()}
    kinds |= dict.fromkeys(_OF_VISITS, "Encounter")
    return {
        f"{_named(kind)} events, as {name} is left out": table.rows_of(kind)
        for kind, name in kinds.items()
        if name not in types
    }


def is_bare_panel(table: Table, shapes: Shapes) -> Mask:
    """Which events observe the blood pressure panel itself, which FHIR allows only with its components."""
    bare = [
        (code.kind, code.system, code.value) == ("observation", "LOINC", profiles.BLOOD_PRESSURE)
        for code in shapes.codes
    ]
    mask: Mask = np.array(bare, dtype=np.bool_)[table.code]
    return mask


def _bare_panels(table: Table, shapes: Shapes) -> Ints:
    return np.flatnonzero(is_bare_panel(table, shapes))


def _count_visits(table: Table, shapes: Shapes, report: ExportReport) -> None:
    """Count what of visits is carried in part only."""
    visits = table.visits
    parts = np.concatenate([table.rows_of(kind) for kind in _VISIT_PARTS])
    parts = parts[table.visit[parts] >= 0]
    starts = visits.start[table.visit[parts]]
    times = table.frame["time"]
    same = times.gather(parts).eq_missing(times.gather(np.maximum(starts, 0))).to_numpy()
    _change(table, report, "type or reason of a visit moved to its start", parts[(starts >= 0) & ~same])
    paired = np.flatnonzero(ends_in_order(table))
    start, end = visits.start[paired], visits.end[paired]
    values = zip(table.code[start].tolist(), table.code[end].tolist(), strict=True)
    differs = np.array([shapes.codes[one].value != shapes.codes[other].value for one, other in values], dtype=np.bool_)
    _change(table, report, "end of a visit named like its start", end[differs])
    timed = np.array([unit in TIME_UNITS for unit in shapes.units], dtype=np.bool_)
    numeric = end[(table.form[end] & NUMERIC) != 0]
    _omit(table, report, "numeric value of a visit end that is no length of time", numeric[~timed[table.unit[numeric]]])
    numberless = visits.start[~visits.numbered]
    _change(table, report, "visit without a number got one", numberless)


def _count_codes(table: Table, shapes: Shapes, report: ExportReport) -> None:
    """Count codes that are written as others."""
    placeless = () if shapes.labels.us_core else US_CORE_FACTS
    coded = [code for code in shapes.codes if code.change and code.kind not in placeless]
    for reason in sorted({code.change for code in coded if code.change}):
        changed = np.array([code.change == reason and code.kind not in placeless for code in shapes.codes], np.bool_)
        _change(table, report, reason, np.flatnonzero(changed[table.code]))


def _named(kind: str) -> str:
    return kind.replace("_", " ")


def _omit(table: Table, report: ExportReport, reason: str, rows: Ints) -> None:
    if len(rows):
        report.omit(reason, len(rows), example(table.frame, int(rows[0])))


def _change(table: Table, report: ExportReport, reason: str, rows: Ints) -> None:
    if len(rows):
        report.change(reason, len(rows), example(table.frame, int(rows[0])))
