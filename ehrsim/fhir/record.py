"""A group of subjects with all that is known of their resources before the first of them is made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ehrsim.fhir import identity
from ehrsim.fhir.fragments import Fragment, Labels, Resource
from ehrsim.fhir.identity import Lanes
from ehrsim.fhir.links import Links
from ehrsim.fhir.shapes import Shapes
from ehrsim.fhir.table import Ints, Mask, Objects, Table, objects


class Batch(NamedTuple):
    """Resources of one type, made as they are asked for, with the arrays that say whose they are."""

    resource_type: str
    ids: list[str]
    subjects: Ints
    """Index of the subject of each."""
    shapes: Ints
    """A number of its shape for each, to pick one of every shape."""
    resources: Iterator[Resource]


class Record(NamedTuple):
    """A group of subjects; all arrays have an element an event."""

    table: Table
    shapes: Shapes
    links: Links
    types: frozenset[str]
    """The types of resource to write."""
    own: Mask
    """Which events have a resource of their own, that is to be written."""
    ids: Objects
    """The id of the resource of each event, None where it has none."""

    @property
    def labels(self) -> Labels:
        """What labels every resource."""
        return self.shapes.labels

    def rows_of(self, kind: str) -> Ints:
        """The rows of a kind of event that have a resource of their own."""
        rows = self.table.rows_of(kind)
        return rows[self.own[rows]]

    def subjects(self, rows: Ints) -> list[Fragment]:
        """References to the Patients of some events."""
        references: list[Fragment] = self.links.subjects[self.table.subject[rows]].tolist()
        return references

    def visits(self, rows: Ints) -> list[Fragment | None]:
        """References to the Encounters of some events, None for events outside any."""
        references: list[Fragment | None] = self.links.visits[self.table.visit[rows]].tolist()
        return references

    def practitioners(self, rows: Ints) -> list[Fragment]:
        """References to who attends each event: the practitioner of its visit, or else of its subject."""
        return self._attending(self.links.practitioners, rows)

    def performers(self, rows: Ints) -> list[Fragment]:
        """As `practitioners`, each in a list."""
        return self._attending(self.links.performers, rows)

    def _attending(self, references: Objects, rows: Ints) -> list[Fragment]:
        subject, visit = self.table.subject[rows], self.table.visit[rows]
        attending = self.links.practitioner[np.where(visit >= 0, visit, len(self.links.visit_ids) + subject)]
        found: list[Fragment] = references[self.links.place[subject], attending].tolist()
        return found

    def times(self, rows: Ints) -> list[str | None]:
        """The times of some events as FHIR dateTimes."""
        times: list[str | None] = self.table.time[rows].tolist()
        return times

    def concepts(self, rows: Ints) -> list[Fragment]:
        """The CodeableConcepts of some events."""
        concepts = objects([code.concept for code in self.shapes.codes])
        gathered: list[Fragment] = concepts[self.table.code[rows]].tolist()
        return gathered

    def has(self, rows: Ints, codes: Mask) -> Ints:
        """Those of some rows whose code is among those marked in `codes`, by number of the code."""
        found: Ints = rows[codes[self.table.code[rows]]]
        return found

    def references(self, resource_type: str, rows: Ints) -> list[Fragment]:
        """References to the resources of some events."""
        prefix = self.links.prefix[resource_type]
        return [Fragment(f'{{"reference":"{prefix}{uuid}"}}') for uuid in self.ids[rows].tolist()]


MOMENT = ("subject", "visit", "time")
"""The columns of `moments` that tell one moment from another."""


def moments(table: Table, rows: Ints, name: str) -> pl.DataFrame:
    """Rows, named `name`, with the subject, visit and time of each."""
    time = table.frame["time"].to_physical().gather(rows)
    return pl.DataFrame({name: rows, "subject": table.subject[rows], "visit": table.visit[rows], "time": time})


def moment_ids(name: str, record: Record, rows: Ints, *more: Any) -> list[str]:
    """Ids of resources of the moments of some events, whichever of the events of a moment they are."""
    table = record.table
    of_visits = np.concatenate([table.visits.lanes, np.zeros((1, 2), np.uint64)])[table.visit[rows]]
    time = table.frame["time"].to_physical().fill_null(np.iinfo(np.int64).min + 1).gather(rows).to_numpy()
    return derived_ids(name, table.subject_lanes[table.subject[rows]], *of_visits.T, time, *more)


def derived_ids(name: str, lanes: Lanes, *more: Any) -> list[str]:
    """Ids of resources that follow from others, whose hashes are given; `more` columns tell apart several of one."""
    return identity.uuids(identity.hashed(identity.key_of(name), *lanes.T, *more))


def batch(
    resource_type: str, ids: list[str], subjects: Ints, shapes: Ints | int, resources: Iterator[Resource]
) -> Batch:
    """A batch, whose shapes are one number where all are of one shape."""
    numbers = np.full(len(ids), shapes) if isinstance(shapes, int) else shapes
    return Batch(resource_type, ids, subjects, numbers.astype(np.int64), resources)


def with_visit(resource: Resource, visit: Fragment | None, name: str = "encounter") -> Resource:
    """The resource with a reference to an Encounter, where there is one."""
    if visit is not None:
        resource[name] = visit
    return resource
