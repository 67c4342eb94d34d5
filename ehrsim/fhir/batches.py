"""From the arrays of a group of subjects to batches of resources, one batch a resource type and kind of event."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ehrsim.fhir import identity, profiles
from ehrsim.fhir.encounters import Place, encounters
from ehrsim.fhir.fragments import Fragment, Labels, Resource, fragment, reference
from ehrsim.fhir.links import Links
from ehrsim.fhir.losses import is_bare_panel
from ehrsim.fhir.patients import PatientLinks, demographics, patient, provenance
from ehrsim.fhir.places import ORGANIZATIONS, PRACTITIONERS_EACH, places
from ehrsim.fhir.resources import MAPPINGS, Event, blood_pressure
from ehrsim.fhir.shapes import CODED, ENDED, NUMBER_OF, NUMERIC, TEXT, TIMED, Coded, Shapes, pressure_shape
from ehrsim.fhir.table import Ints, Mask, Objects, Table, date_times, objects


class Batch(NamedTuple):
    """Resources of one type, made as they are asked for, with the arrays that say whose they are."""

    resource_type: str
    ids: list[str]
    subjects: Ints
    """Index of the subject of each."""
    shapes: Ints
    """A number of its shape for each, to pick one of every shape."""
    resources: Iterator[Resource]


def batches(table: Table, shapes: Shapes, links: Links) -> Iterator[Batch]:
    """All resources of a table, but for the places."""
    yield _patients(table, shapes, links)
    yield _encounters(table, shapes, links)
    pressures = blood_pressures(table, shapes)
    own = _has_resource(table, shapes, pressures)
    ids = np.full(len(table.kind), None, dtype=object)
    ids[own] = identity.uuids(table.lanes[own])
    if len(pressures):
        yield _blood_pressures(table, pressures, ids, links, shapes.labels)
    single = own.copy()
    single[pressures[pressures >= 0]] = False
    for kind, mapping in MAPPINGS.items():
        rows = table.rows_of(kind)
        rows = rows[single[rows]]
        if len(rows):
            keys = table.shape_keys(rows)
            more = (
                _results(table, shapes, rows, own, ids, links)
                if kind == "panel"
                else _practitioners(table, rows, links)
            )
            events = _events(table, shapes, rows, ids, keys, links, more)
            yield Batch(
                mapping.resource_type, ids[rows].tolist(), table.subject[rows], keys, map(mapping.build, events)
            )
    yield _provenances(table, links, shapes.labels)


def _has_resource(table: Table, shapes: Shapes, pressures: Ints) -> Mask:
    """Which events give their id to a resource: of a kind that has one, and not the second of a blood pressure."""
    mask: Mask = np.isin(table.kind, [NUMBER_OF[kind] for kind in MAPPINGS]) & ~is_bare_panel(table, shapes)
    mask[pressures[(pressures >= 0).all(axis=1), 1]] = False
    return mask


def _events(
    table: Table, shapes: Shapes, rows: Ints, ids: Objects, keys: Ints, links: Links, more: list[Any]
) -> Iterator[Event]:
    """The events of some rows as their builders see them."""
    distinct, inverse = np.unique(keys, return_inverse=True)
    return zip(
        ids[rows].tolist(),
        objects([shapes.shape(key) for key in distinct.tolist()])[inverse].tolist(),
        links.subjects[table.subject[rows]].tolist(),
        links.visits[table.visit[rows]].tolist(),
        table.time[rows].tolist(),
        table.end[rows].tolist(),
        table.value[rows].tolist(),
        table.text[rows].tolist(),
        more,
        strict=True,
    )


def _practitioners(table: Table, rows: Ints, links: Links) -> list[Fragment]:
    """References to who attends each event: the practitioner of its visit, or else of its subject."""
    subject, visit = table.subject[rows], table.visit[rows]
    attending = links.practitioner[np.where(visit >= 0, visit, len(links.visit_ids) + subject)]
    references: list[Fragment] = links.practitioners[links.place[subject], attending].tolist()
    return references


def _patients(table: Table, shapes: Shapes, links: Links) -> Batch:
    count = len(table.subjects)
    own = links.practitioner[len(links.visit_ids) :]
    prefix = links.prefix["Organization"]
    organizations = [reference(prefix + place.organization, place.name) for place in places()]
    of_subject = [
        PatientLinks(links.practitioners[place, each], organizations[place])
        for place, each in zip(links.place.tolist(), own.tolist(), strict=True)
    ]
    facts = demographics(table, shapes)
    lanes = [(int(one), int(other)) for one, other in table.subject_lanes.tolist()]
    columns = (links.subject_ids, table.subjects.tolist(), lanes, facts, of_subject)
    resources = map(patient, *columns, [shapes.labels] * count)
    filled = np.array([sum(1 << bit for bit, fact in enumerate(known) if fact is not None) for known in facts])
    return Batch("Patient", links.subject_ids, np.arange(count), filled, resources)


def _encounters(table: Table, shapes: Shapes, links: Links) -> Batch:
    visits = table.visits
    place, each = links.place[visits.subject], links.practitioner[: len(visits.subject)]
    shared = objects(
        [_visit_place(number, one, links) for number, one in np.ndindex(ORGANIZATIONS, PRACTITIONERS_EACH)]
    )
    where = shared.reshape(ORGANIZATIONS, PRACTITIONERS_EACH)[place, each].tolist()
    subjects = links.subjects[visits.subject].tolist()
    resources = encounters(table, shapes, links.visit_ids, subjects, where, shapes.labels)
    start, end = visits.start, visits.end
    keys = np.where(start >= 0, table.code[start], -1) * 16 + np.where(end >= 0, table.form[end] & 7, 8)
    return Batch("Encounter", links.visit_ids, visits.subject, keys, resources)


def _visit_place(number: int, practitioner: int, links: Links) -> Place:
    place, prefix = places()[number], links.prefix
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
        _numbered(_moments(table, np.flatnonzero(whole & _has_code(table, shapes, code)), name))
        for code, name in ((profiles.SYSTOLIC, "systolic"), (profiles.DIASTOLIC, "diastolic"))
    )
    keys = ["subject", "visit", "time", "repeat"]
    pairs = systolic.join(diastolic, on=keys, how="full", coalesce=True).select("systolic", "diastolic").fill_null(-1)
    rows: Ints = pairs.to_numpy().astype(np.int64)
    return rows[np.argsort(rows.max(axis=1), kind="stable")]


def _moments(table: Table, rows: Ints, name: str) -> pl.DataFrame:
    """Rows, named `name`, with the subject, visit and time of each."""
    return pl.DataFrame(
        {
            name: rows,
            "subject": table.subject[rows],
            "visit": table.visit[rows],
            "time": table.frame["time"].to_physical().gather(rows),
        }
    )


def _numbered(moments: pl.DataFrame) -> pl.DataFrame:
    """Moments with a number, `repeat`, among those of the same subject, visit and time."""
    keys = ["subject", "visit", "time"]
    if not moments.select(keys).is_duplicated().any():
        return moments.with_columns(repeat=pl.lit(0, pl.Int64))
    return moments.with_columns(repeat=pl.int_range(pl.len()).over(keys))


def _has_code(table: Table, shapes: Shapes, value: str) -> Mask:
    has = [(code.kind, code.system, code.value) == ("observation", "LOINC", value) for code in shapes.codes]
    mask: Mask = np.array(has, dtype=np.bool_)[table.code]
    return mask


def _blood_pressures(table: Table, pairs: Ints, ids: Objects, links: Links, labels: Labels) -> Batch:
    rows = np.where(pairs[:, 0] >= 0, pairs[:, 0], pairs[:, 1])
    subject, visit = table.subject[rows], table.visit[rows]
    pressures = objects([*table.value.tolist(), None])[pairs].tolist()
    own, shape, nothing = ids[rows].tolist(), [pressure_shape(labels)] * len(rows), [None] * len(rows)
    subjects, visits, times = links.subjects[subject].tolist(), links.visits[visit].tolist(), table.time[rows].tolist()
    events = zip(own, shape, subjects, visits, times, nothing, nothing, nothing, pressures, strict=True)
    forms = -1 - ((pairs[:, 0] < 0) * 4 + (pairs[:, 1] < 0) * 2 + (visit >= 0))
    return Batch("Observation", own, subject, forms, map(blood_pressure, events))


def _results(table: Table, shapes: Shapes, rows: Ints, own: Mask, ids: Objects, links: Links) -> list[Fragment | None]:
    """Lists of references to the results of each panel: the observations of its moment that belong to it.

    `own` says which events have an id in `ids`.
    """
    observed = table.rows_of("observation")
    observed = observed[own[observed]]
    members = _members(shapes, table.code[rows], table.code[observed])
    observed = observed[np.isin(table.code[observed], members["code"].to_numpy())]
    at_panels = _moments(table, rows, "panel").with_columns(panel_code=table.code[rows])
    at_observations = _moments(table, observed, "observation").with_columns(code=table.code[observed])
    found = at_panels.join(at_observations, on=["subject", "visit", "time"], maintain_order="left_right")
    found = found.join(members, on=["panel_code", "code"], how="semi", maintain_order="left")
    uuids: list[str] = ids[found["observation"].to_numpy()].tolist()
    panels = found["panel"].to_numpy()
    bounds = zip(*(np.searchsorted(panels, rows, side=side).tolist() for side in ("left", "right")), strict=True)
    prefix = links.prefix["Observation"]
    between = f'"}},{{"reference":"{prefix}'
    return [
        Fragment(f'[{{"reference":"{prefix}{between.join(uuids[first:end])}"}}]') if end > first else None
        for first, end in bounds
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


def _provenances(table: Table, links: Links, labels: Labels) -> Batch:
    lanes = identity.hashed(identity.key_of("Provenance"), *table.subject_lanes.T)
    ids = identity.uuids(lanes)
    organizations = [reference(links.prefix["Organization"] + place.organization, place.name) for place in places()]
    targets = [reference(links.prefix["Patient"] + uuid) for uuid in links.subject_ids]
    whose = [organizations[place] for place in links.place.tolist()]
    columns = (ids, targets, whose, last_moments(table))
    resources = map(provenance, *columns, [labels] * len(ids))
    return Batch("Provenance", ids, np.arange(len(ids)), np.zeros(len(ids), dtype=np.int64), resources)
