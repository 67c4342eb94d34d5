"""From the arrays of a group of subjects to batches of resources, one batch a resource type and kind of event."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from ehrsim.fhir import identity, people, profiles
from ehrsim.fhir.care import appointments, care_teams, goals, lists, related_persons
from ehrsim.fhir.encounters import Place, encounters, periods
from ehrsim.fhir.financial import claims, coverages
from ehrsim.fhir.findings import adverse_events, devices, family_histories, questionnaire_responses
from ehrsim.fhir.fragments import Fragment, fragment, reference
from ehrsim.fhir.laboratory import Laboratory, laboratory, tested
from ehrsim.fhir.links import Links
from ehrsim.fhir.losses import is_bare_panel
from ehrsim.fhir.medication_use import medication_use, ordered
from ehrsim.fhir.notes import notes
from ehrsim.fhir.patients import Home, PatientLinks, demographics, patient, provenance
from ehrsim.fhir.places import ORGANIZATIONS, PRACTITIONERS_EACH, places
from ehrsim.fhir.record import MOMENT, Batch, Record, moments
from ehrsim.fhir.resources import MAPPINGS, Event, blood_pressure
from ehrsim.fhir.shapes import CODED, ENDED, NUMBER_OF, NUMERIC, TEXT, TIMED, Coded, Shapes, pressure_shape
from ehrsim.fhir.table import Ints, Mask, Objects, Table, date_times, objects


def batches(table: Table, shapes: Shapes, links: Links, types: frozenset[str]) -> Iterator[Batch]:
    """All resources of a table of some types, but for what patients share; none refers to one that comes after it."""
    if "Encounter" not in types:
        links = links._replace(visits=np.full(len(links.visits), None, dtype=object))
    pressures = blood_pressures(table, shapes)
    own = _has_resource(table, shapes, pressures, types)
    ids = np.full(len(table.kind), None, dtype=object)
    ids[own] = identity.uuids(table.lanes[own])
    record = Record(table, shapes, links, types, own, ids)
    periods_of_visits = periods(table)
    yield _patients(record)
    if "RelatedPerson" in types:
        yield related_persons(record)
    teams: list[Fragment] | None = None
    if "CareTeam" in types:
        team, teams = care_teams(record)
        yield team
    yield from _visits(record, *periods_of_visits)
    yield from _kind(record, "condition", [None] * len(record.rows_of("condition")))
    aims: Objects = np.full(len(table.subjects), None, dtype=object)
    if {"Goal", "Condition"} <= types:
        goal, aims = goals(record)
        yield from () if goal is None else (goal,)
    yield from _implied(record)
    for kind in ("procedure", "immunization", "allergy"):
        yield from _kind(record, kind, [None] * len(record.rows_of(kind)))
    if "MedicationRequest" in types:
        yield from _kind(record, "medication", ordered(record, record.rows_of("medication")))
        yield from medication_use(record)
    yield from _observations(record, pressures)
    plans = record.rows_of("care_plan")
    of_plans = [(aims[subject], teams and teams[subject]) for subject in table.subject[plans].tolist()]
    yield from _kind(record, "care_plan", of_plans)
    if "List" in types:
        yield from lists(record)
    if "DocumentReference" in types:
        note = notes(record, *periods_of_visits)
        yield from () if note is None else (note,)
    if {"Coverage", "Claim", "ExplanationOfBenefit"} & types:
        yield from _payments(record, periods_of_visits[1])
    yield _provenances(table, links, shapes)


def _kind(record: Record, kind: str, more: list[Any], rows: Ints | None = None) -> Iterator[Batch]:
    """The resources of a kind of event; `more` is what each has beyond its event."""
    table, mapping = record.table, MAPPINGS[kind]
    rows = record.rows_of(kind) if rows is None else rows
    if len(rows):
        keys = table.shape_keys(rows)
        events = _events(record, rows, keys, more)
        ids: list[str] = record.ids[rows].tolist()
        yield Batch(mapping.resource_type, ids, table.subject[rows], keys, map(mapping.build, events))


def _visits(record: Record, starts: list[str | None], ends: list[str | None]) -> Iterator[Batch]:
    booked: Objects = np.full(len(starts), None, dtype=object)
    if "Appointment" in record.types:
        appointment, booked = appointments(record, starts, ends)
        yield from () if appointment is None else (appointment,)
    if "Encounter" in record.types:
        yield _encounters(record, booked.tolist())


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
    answered: Objects = np.full(len(record.table.kind), None, dtype=object)
    if "QuestionnaireResponse" in record.types:
        response, answered = questionnaire_responses(record)
        yield from () if response is None else (response,)
    if "Observation" in record.types:
        if len(pressures):
            yield _blood_pressures(record, pressures)
        single = record.own.copy()
        single[pressures[pressures >= 0]] = False
        rows = record.table.rows_of("observation")
        rows = rows[single[rows]]
        yield from _kind(record, "observation", tested(record, of_laboratory, answered, rows), rows)
    panels = record.rows_of("panel")
    yield from _kind(record, "panel", _results(record, of_laboratory, panels))


def _payments(record: Record, ends: list[str | None]) -> Iterator[Batch]:
    if "Coverage" in record.types:
        coverage, references = coverages(record)
        yield coverage
        yield from claims(record, references, ends)


def _has_resource(table: Table, shapes: Shapes, pressures: Ints, types: frozenset[str]) -> Mask:
    """Which events give their id to a resource: of a kind that has one, and not the second of a blood pressure."""
    kinds = [NUMBER_OF[kind] for kind, mapping in MAPPINGS.items() if mapping.resource_type in types]
    mask: Mask = np.isin(table.kind, kinds) & ~is_bare_panel(table, shapes)
    mask[pressures[(pressures >= 0).all(axis=1), 1]] = False
    return mask


def _events(record: Record, rows: Ints, keys: Ints, more: list[Any]) -> Iterator[Event]:
    """The events of some rows as their builders see them."""
    table = record.table
    distinct, inverse = np.unique(keys, return_inverse=True)
    return zip(
        record.ids[rows].tolist(),
        objects([record.shapes.shape(key) for key in distinct.tolist()])[inverse].tolist(),
        record.subjects(rows),
        record.visits(rows),
        record.times(rows),
        table.end[rows].tolist(),
        table.value[rows].tolist(),
        table.text[rows].tolist(),
        more,
        strict=True,
    )


def _patients(record: Record) -> Batch:
    table, shapes, links = record.table, record.shapes, record.links
    count = len(table.subjects)
    own = links.practitioner[len(links.visit_ids) :]
    prefix = links.prefix["Organization"]
    organizations = [reference(prefix + place.organization, place.name) for place in places(links.locale)]
    of_subject = [
        PatientLinks(links.practitioners[place, each], organizations[place])
        for place, each in zip(links.place.tolist(), own.tolist(), strict=True)
    ]
    facts = demographics(table, shapes)
    home = Home(links.locale, people.numbering(shapes.labels.source, links.locale))
    words = people.words_of(table.subject_lanes)
    columns = (links.subject_ids, table.subjects.tolist(), words, facts, of_subject)
    resources = map(patient, *columns, [home] * count, [shapes.labels] * count)
    filled = np.array([sum(1 << bit for bit, fact in enumerate(known) if fact is not None) for known in facts])
    return Batch("Patient", links.subject_ids, np.arange(count), filled, resources)


def _encounters(record: Record, booked: list[Fragment | None]) -> Batch:
    table, shapes, links, visits = record.table, record.shapes, record.links, record.table.visits
    place, each = links.place[visits.subject], links.practitioner[: len(visits.subject)]
    shared = objects(
        [_visit_place(number, one, links) for number, one in np.ndindex(ORGANIZATIONS, PRACTITIONERS_EACH)]
    )
    where = shared.reshape(ORGANIZATIONS, PRACTITIONERS_EACH)[place, each].tolist()
    subjects = links.subjects[visits.subject].tolist()
    resources = encounters(table, shapes, links.visit_ids, subjects, where, booked, shapes.labels)
    start, end = visits.start, visits.end
    keys = np.where(start >= 0, table.code[start], -1) * 16 + np.where(end >= 0, table.form[end] & 7, 8)
    return Batch("Encounter", links.visit_ids, visits.subject, keys, resources)


def _visit_place(number: int, practitioner: int, links: Links) -> Place:
    place, prefix = places(links.locale)[number], links.prefix
    individual = {"reference": prefix["Practitioner"] + place.practitioners[practitioner]}
    return Place(
        fragment([{"individual": individual}]),
        fragment([{"location": {"reference": prefix["Location"] + place.location}}]),
        reference(prefix["Organization"] + place.organization, place.name),
    )


def blood_pressures(table: Table, shapes: Shapes) -> Ints:
    """Pairs of rows, shape (n, 2): the systolic and diastolic pressures of one subject, visit and time; -1 for none.

    The systolic row gives the id of the resource, the diastolic one where it stands alone.
    """
    whole = (table.form & (NUMERIC | CODED | TEXT | ENDED | TIMED)) == NUMERIC | TIMED
    millimetres = np.array([unit == profiles.BLOOD_PRESSURE_UNIT for unit in shapes.units], dtype=np.bool_)
    whole &= millimetres[table.unit]
    systolic, diastolic = (
        _numbered(moments(table, np.flatnonzero(whole & _has_code(table, shapes, code)), name))
        for code, name in ((profiles.SYSTOLIC, "systolic"), (profiles.DIASTOLIC, "diastolic"))
    )
    keys = [*MOMENT, "repeat"]
    pairs = systolic.join(diastolic, on=keys, how="full", coalesce=True).select("systolic", "diastolic").fill_null(-1)
    rows: Ints = pairs.to_numpy().astype(np.int64)
    return rows[np.argsort(rows.max(axis=1), kind="stable")]


def _numbered(moments: pl.DataFrame) -> pl.DataFrame:
    """Moments with a number, `repeat`, among those of the same subject, visit and time."""
    if not moments.select(MOMENT).is_duplicated().any():
        return moments.with_columns(repeat=pl.lit(0, pl.Int64))
    return moments.with_columns(repeat=pl.int_range(pl.len()).over(MOMENT))


def _has_code(table: Table, shapes: Shapes, value: str) -> Mask:
    has = [(code.kind, code.system, code.value) == ("observation", "LOINC", value) for code in shapes.codes]
    mask: Mask = np.array(has, dtype=np.bool_)[table.code]
    return mask


def _blood_pressures(record: Record, pairs: Ints) -> Batch:
    table = record.table
    rows = np.where(pairs[:, 0] >= 0, pairs[:, 0], pairs[:, 1])
    pressures = zip(objects([*table.value.tolist(), None])[pairs].tolist(), record.performers(rows), strict=True)
    own: list[str] = record.ids[rows].tolist()
    shape, nothing = [pressure_shape(record.labels)] * len(rows), [None] * len(rows)
    known = (own, shape, record.subjects(rows), record.visits(rows), record.times(rows))
    events = zip(*known, nothing, nothing, nothing, pressures, strict=True)
    forms = -1 - ((pairs[:, 0] < 0) * 4 + (pairs[:, 1] < 0) * 2 + (table.visit[rows] >= 0))
    return Batch("Observation", own, table.subject[rows], forms, map(blood_pressure, events))


def _results(record: Record, of: Laboratory, rows: Ints) -> list[tuple[Any, ...]]:
    """What each panel has beyond its event: the observations of its moment that belong to it, its order, specimens and
    who made it.
    """
    if "Observation" not in record.types:
        nothing = [None] * len(rows)
        return list(zip(nothing, of.order[rows].tolist(), nothing, record.performers(rows), strict=True))
    table, shapes = record.table, record.shapes
    observed = record.rows_of("observation")
    members = _members(shapes, table.code[rows], table.code[observed])
    observed = observed[np.isin(table.code[observed], members["code"].to_numpy())]
    at_panels = moments(table, rows, "panel").with_columns(panel_code=table.code[rows])
    at_observations = moments(table, observed, "observation").with_columns(code=table.code[observed])
    found = at_panels.join(at_observations, on=MOMENT, maintain_order="left_right")
    found = found.join(members, on=["panel_code", "code"], how="semi", maintain_order="left")
    results = found["observation"].to_numpy()
    uuids: list[str] = record.ids[results].tolist()
    specimens: list[Fragment | None] = of.specimen[results].tolist()
    panels = found["panel"].to_numpy()
    bounds = zip(*(np.searchsorted(panels, rows, side=side).tolist() for side in ("left", "right")), strict=True)
    prefix = record.links.prefix["Observation"]
    between = f'"}},{{"reference":"{prefix}'
    lists = [
        (
            Fragment(f'[{{"reference":"{prefix}{between.join(uuids[first:end])}"}}]'),
            list(dict.fromkeys(one for one in specimens[first:end] if one is not None)) or None,
        )
        if end > first
        else (None, None)
        for first, end in bounds
    ]
    performers = record.performers(rows)
    return [
        (results, order, specimens, performer)
        for (results, specimens), order, performer in zip(lists, of.order[rows].tolist(), performers, strict=True)
    ]


def _members(shapes: Shapes, panels: Ints, observations: Ints) -> pl.DataFrame:
    """Which codes of panels hold which codes of observations."""
    pairs = [
        (panel, code)
        for panel in np.unique(panels).tolist()
        for code in np.unique(observations).tolist()
        if _belongs(shapes.codes[panel], shapes.codes[code])
    ]
    return pl.DataFrame(pairs, schema={"panel_code": pl.Int64, "code": pl.Int64}, orient="row")


def _belongs(panel: Coded, code: Coded) -> bool:
    category = profiles.category_of(code.value, None) if code.system == "LOINC" else None
    if code.value == profiles.BLOOD_PRESSURE or panel.system != "LOINC":
        return False
    return profiles.in_panel(panel.value, code.value, category)


def last_moments(table: Table) -> list[str | None]:
    """When the last that each subject's events tell of was, begun or ended, as a FHIR dateTime; None without a time."""
    latest = pl.DataFrame({"subject": table.subject}).with_columns(
        time=pl.max_horizontal(table.frame["time"], table.frame["end_time"])
    )
    last = latest.group_by("subject", maintain_order=True).agg(pl.col("time").max())["time"]
    moments: list[str | None] = date_times(last).tolist()
    return moments


def _provenances(table: Table, links: Links, shapes: Shapes) -> Batch:
    lanes = identity.hashed(identity.key_of("Provenance"), *table.subject_lanes.T)
    ids = identity.uuids(lanes)
    prefix = links.prefix["Organization"]
    organizations = [reference(prefix + place.organization, place.name) for place in places(links.locale)]
    targets = [reference(links.prefix["Patient"] + uuid) for uuid in links.subject_ids]
    whose = [organizations[place] for place in links.place.tolist()]
    columns = (ids, targets, whose, last_moments(table))
    resources = map(provenance, *columns, [shapes.labels] * len(ids))
    return Batch("Provenance", ids, np.arange(len(ids)), np.zeros(len(ids), dtype=np.int64), resources)
