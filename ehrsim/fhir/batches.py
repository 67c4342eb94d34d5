"""From the arrays of a group of subjects to batches of resources, one batch a resource type and kind of event."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import polars as pl

from ehrsim.fhir import identity, profiles
from ehrsim.fhir.care import appointments, care_teams, goals, lists, related_persons
from ehrsim.fhir.columns import Column, Each, Ints, gathered, nothing, quoted
from ehrsim.fhir.encounters import encounters, periods
from ehrsim.fhir.financial import payments
from ehrsim.fhir.findings import adverse_events, devices, family_histories, questionnaire_responses
from ehrsim.fhir.fragments import Resource
from ehrsim.fhir.laboratory import Laboratory, laboratory, tested
from ehrsim.fhir.links import Links
from ehrsim.fhir.losses import is_bare_panel
from ehrsim.fhir.medication_use import medication_use, ordered
from ehrsim.fhir.notes import notes
from ehrsim.fhir.patients import patients, provenances
from ehrsim.fhir.record import Batch, Record, items
from ehrsim.fhir.resources import MAPPINGS, Event, blood_pressure
from ehrsim.fhir.shapes import CODED, ENDED, NUMBER_OF, NUMERIC, TEXT, TIMED, Coded, Shapes, pressure_shape
from ehrsim.fhir.table import Mask, Table


def batches(table: Table, shapes: Shapes, links: Links, types: frozenset[str]) -> Iterator[Batch]:
    """All resources of a table of some types, but for what patients share; none refers to one that comes after it."""
    pressures = blood_pressures(table, shapes)
    own = _has_resource(table, shapes, pressures, types)
    record = Record(table, shapes, links, types, own, identity.uuids(table.lanes))
    starts, ends = periods(table)
    yield patients(record)
    if "RelatedPerson" in types:
        yield related_persons(record)
    teams = nothing(len(table.subjects))
    if "CareTeam" in types:
        team = care_teams(record)
        teams = team.ids
        yield team
    booked = nothing(len(starts))
    if "Appointment" in types:
        appointment, booked = appointments(record, starts, ends)
        yield from appointment
    if "Encounter" in types:
        yield encounters(record, starts, ends, booked)
    yield from _kind(record, "condition")
    aims = Each(nothing(len(table.subjects)))
    if {"Goal", "Condition"} <= types:
        goal, aims = goals(record)
        yield from goal
    yield from _implied(record)
    for kind in ("procedure", "immunization", "allergy"):
        yield from _kind(record, kind)
    if "MedicationRequest" in types:
        yield from _kind(record, "medication", *ordered(record, record.rows_of("medication")))
        yield from medication_use(record)
    yield from _observations(record, pressures)
    plans = table.subject[record.rows_of("care_plan")]
    yield from _kind(record, "care_plan", aims.gather(plans), links.to("CareTeam", teams.gather(plans)))
    if "List" in types:
        yield from lists(record)
    if "DocumentReference" in types:
        yield from notes(record, starts, ends)
    if "Coverage" in types:
        yield from payments(record, ends)
    yield provenances(record)


def _kind(record: Record, kind: str, *more: Column, rows: Ints | None = None) -> Iterator[Batch]:
    """The resources of a kind of event; `more` is what each has beyond its event."""
    rows = record.rows_of(kind) if rows is None else rows
    if not len(rows):
        return
    table, mapping = record.table, MAPPINGS[kind]
    columns = (
        record.shapes_of(rows),
        record.subjects(rows),
        record.visits(rows),
        record.times(rows),
        quoted(table.end.gather(rows)),
        Each(table.value.gather(rows)),
        Each(table.text.gather(rows)),
        Each(table.answer.gather(rows)),
    )

    def of_event(uuid: Any, *arguments: Any) -> Resource:
        own, beyond = arguments[: len(columns)], arguments[len(columns) :]
        return mapping.build(Event(uuid, *own), *beyond)

    ids = record.ids.gather(rows)
    yield record.batch(mapping.resource_type, ids, table.subject[rows], of_event, (*columns, *more))


def _implied(record: Record) -> Iterator[Batch]:
    """What conditions and procedures tell of beside themselves."""
    if "Device" in record.types:
        yield from devices(record)
    if {"AdverseEvent", "Condition"} <= record.types:
        yield from adverse_events(record)
    if "FamilyMemberHistory" in record.types:
        yield from family_histories(record)


def _observations(record: Record, pressures: Ints) -> Iterator[Batch]:
    """Observations and reports, with the orders, specimens and answers that they rest on."""
    of_laboratory = laboratory(record)
    yield from of_laboratory.batches
    responses = Each(nothing(len(record.table.kind)))
    if "QuestionnaireResponse" in record.types:
        response, responses = questionnaire_responses(record)
        yield from response
    if "Observation" in record.types:
        if len(pressures):
            yield _blood_pressures(record, pressures)
        alone = record.own.copy()
        alone[pressures[pressures >= 0]] = False
        rows = record.table.rows_of("observation")
        rows = rows[alone[rows]]
        yield from _kind(record, "observation", *tested(record, of_laboratory, rows), responses.gather(rows), rows=rows)
    panels = record.rows_of("panel")
    yield from _kind(record, "panel", *_reported(record, of_laboratory, panels))


def _has_resource(table: Table, shapes: Shapes, pressures: Ints, types: frozenset[str]) -> Mask:
    """Which events give their id to a resource: of a kind that has one, and not the second of a blood pressure."""
    kinds = [NUMBER_OF[kind] for kind, mapping in MAPPINGS.items() if mapping.resource_type in types]
    mask: Mask = np.isin(table.kind, kinds) & ~is_bare_panel(table, shapes)
    mask[pressures[(pressures >= 0).all(axis=1), 1]] = False
    return mask


def blood_pressures(table: Table, shapes: Shapes) -> Ints:
    """Pairs of rows, shape (n, 2): the systolic and diastolic pressures of one subject, visit and time; -1 for none.

    The systolic row gives the id of the resource, the diastolic one where it stands alone.
    """
    whole = (table.form & (NUMERIC | CODED | TEXT | ENDED | TIMED)) == NUMERIC | TIMED
    millimetres = np.array([unit == profiles.BLOOD_PRESSURE_UNIT for unit in shapes.units], dtype=np.bool_)
    whole &= millimetres[table.unit]
    systolic, diastolic = (
        _numbered(table, np.flatnonzero(whole & _has_code(table, shapes, code)), name)
        for code, name in ((profiles.SYSTOLIC, "systolic"), (profiles.DIASTOLIC, "diastolic"))
    )
    keys = ["moment", "repeat"]
    pairs = systolic.join(diastolic, on=keys, how="full", coalesce=True).select("systolic", "diastolic").fill_null(-1)
    rows: Ints = pairs.to_numpy().astype(np.int64)
    return rows[np.argsort(rows.max(axis=1), kind="stable")]


def _numbered(table: Table, rows: Ints, name: str) -> pl.DataFrame:
    """Rows, named `name`, with their moment and a number, `repeat`, among those of the same one."""
    found = pl.DataFrame({name: rows, "moment": table.moment[rows]})
    if not found["moment"].is_duplicated().any():
        return found.with_columns(repeat=pl.lit(0, pl.Int64))
    return found.with_columns(repeat=pl.int_range(pl.len()).over("moment"))


def _has_code(table: Table, shapes: Shapes, value: str) -> Mask:
    has = [(code.kind, code.system, code.value) == ("observation", "LOINC", value) for code in shapes.codes]
    mask: Mask = np.array(has, dtype=np.bool_)[table.code]
    return mask


def _blood_pressures(record: Record, pairs: Ints) -> Batch:
    table, shape = record.table, pressure_shape(record.labels)
    rows = np.where(pairs[:, 0] >= 0, pairs[:, 0], pairs[:, 1])

    def of_moment(uuid: Any, subject: Any, visit: Any, time: Any, *beyond: Any) -> Resource:
        return blood_pressure(Event(uuid, shape, subject, visit, time, None, None, None, None), *beyond)

    columns = (
        record.subjects(rows),
        record.visits(rows),
        record.times(rows),
        Each(gathered(table.value, pairs[:, 0])),
        Each(gathered(table.value, pairs[:, 1])),
        record.practitioners(rows),
    )
    return record.batch("Observation", record.ids.gather(rows), table.subject[rows], of_moment, columns)


def _reported(record: Record, of: Laboratory, rows: Ints) -> tuple[Column, ...]:
    """What each panel has beyond its event: the observations of its moment that belong to it, its order, their
    specimens and who made it.
    """
    results, specimens = Each(nothing(len(rows))), Each(nothing(len(rows)))
    if "Observation" in record.types:
        number, observed = _members(record, rows)
        results = items(record.references("Observation", observed), number, len(rows))
        used = pl.DataFrame({"panel": number, "specimen": of.specimen[observed]})
        used = used.filter(pl.col("specimen") >= 0).unique(maintain_order=True)
        specimens = items(of.specimens.gather(used["specimen"].to_numpy()), used["panel"].to_numpy(), len(rows))
    return results, of.order.gather(rows), specimens, record.practitioners(rows)


def _members(record: Record, rows: Ints) -> tuple[Ints, Ints]:
    """The observations that belong to some panels and are of their moment: which panel, and the row of each."""
    table, codes = record.table, record.shapes.codes
    observed = record.rows_of("observation")
    belongs: Mask = np.zeros((len(codes), len(codes)), dtype=np.bool_)
    for panel, code in product(np.unique(table.code[rows]).tolist(), np.unique(table.code[observed]).tolist()):
        belongs[panel, code] = _belongs(codes[panel], codes[code])
    used: Mask = np.array(belongs.any(axis=0), dtype=np.bool_)
    observed = record.has(observed, used)
    timed = np.flatnonzero((table.form[rows] & TIMED) != 0)
    at_panels = pl.DataFrame({"panel": timed, "moment": table.moment[rows[timed]]})
    at_observations = pl.DataFrame({"observation": observed, "moment": table.moment[observed]})
    found = at_panels.join(at_observations, on="moment", maintain_order="left_right")
    panel, observation = found["panel"].to_numpy(), found["observation"].to_numpy()
    kept = belongs[table.code[rows[panel]], table.code[observation]]
    return panel[kept], observation[kept]


def _belongs(panel: Coded, code: Coded) -> bool:
    category = profiles.category_of(code.value, None) if code.system == "LOINC" else None
    if code.value == profiles.BLOOD_PRESSURE or panel.system != "LOINC":
        return False
    return profiles.in_panel(panel.value, code.value, category)
