"""A group of subjects with all that is known of their resources before the first of them is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl

from ehrsim.fhir import identity
from ehrsim.fhir.columns import CHUNK, Among, Builder, Column, Each, Ints, distinct_numbers, gathered, lines, quoted
from ehrsim.fhir.fragments import Labels, Resource
from ehrsim.fhir.identity import Lanes
from ehrsim.fhir.links import Links
from ehrsim.fhir.shapes import FORMS, Shapes
from ehrsim.fhir.table import Mask, Table


class Batch(NamedTuple):
    """Resources of one type, made as they are asked for, with the arrays that say whose they are."""

    resource_type: str
    ids: pl.Series
    subjects: Ints
    """Index of the subject of each."""
    shapes: Ints
    """A number of its shape for each, the same in all batches of an export."""
    lines: Iterator[pl.Series]
    """The resources as JSON, so many at a time."""


class Record(NamedTuple):
    """A group of subjects; all arrays have an element an event."""

    table: Table
    shapes: Shapes
    links: Links
    types: frozenset[str]
    """The types of resource to write."""
    own: Mask
    """Which events have a resource of their own, that is to be written."""
    ids: pl.Series
    """The id of the resource of each event, if it has one."""

    @property
    def labels(self) -> Labels:
        """What labels every resource."""
        return self.shapes.labels

    def batch(
        self, resource_type: str, ids: pl.Series, subjects: Ints, build: Builder, columns: Iterable[Column]
    ) -> Batch:
        """The resources that a builder makes of an id and columns, one argument a column."""
        made = lines(build, [quoted(ids), *columns], self.shapes.templates)
        return Batch(resource_type, ids, subjects, made.numbers, made.chunks())

    def rows_of(self, kind: str) -> Ints:
        """The rows of a kind of event that have a resource of their own."""
        rows = self.table.rows_of(kind)
        return rows[self.own[rows]]

    def subjects(self, rows: Ints) -> Each:
        """References to the Patients of some events."""
        return self.links.to_subjects(self.table.subject[rows])

    def visits(self, rows: Ints) -> Each:
        """References to the Encounters of some events, null for events outside any."""
        return self.to_visits(self.table.visit[rows])

    def to_visits(self, visits: Ints) -> Each:
        """References to the Encounters that some visits are, null for -1, and where there are none to be written."""
        if "Encounter" not in self.types:
            visits = np.full(len(visits), -1)
        return self.links.to("Encounter", gathered(self.links.visits, visits))

    def practitioners(self, rows: Ints) -> Each:
        """References to who attends each event: the practitioner of its visit, or else of its subject."""
        return self.links.attending(self.table.subject[rows], self.table.visit[rows])

    def times(self, rows: Ints) -> Each:
        """The times of some events as FHIR dateTimes."""
        return quoted(self.table.time.gather(rows))

    def dates(self, rows: Ints) -> Each:
        """The days of some events as FHIR dates."""
        return quoted(self.table.time.gather(rows).str.slice(0, 10))

    def concepts(self, rows: Ints) -> Each:
        """The CodeableConcepts of some events."""
        return Each(self.shapes.concepts().gather(self.table.code[rows]))

    def codes(self, rows: Ints) -> Among:
        """The codes of some events."""
        return Among(self.table.code[rows], self.shapes.codes)

    def shapes_of(self, rows: Ints) -> Among:
        """The shapes of the resources of some events."""
        table, units = self.table, len(self.shapes.units)
        numbers = (table.code[rows] * units + table.unit[rows]) * FORMS + table.form[rows]
        distinct, index = distinct_numbers(numbers, len(self.shapes.codes) * units * FORMS)
        codes_and_units, form = np.divmod(distinct, FORMS)
        code, unit = np.divmod(codes_and_units, units)
        return Among(index, list(map(self.shapes.shape, code.tolist(), unit.tolist(), form.tolist())))

    def has(self, rows: Ints, codes: Mask) -> Ints:
        """Those of some rows whose code is among those marked in `codes`, by number of the code."""
        found: Ints = rows[codes[self.table.code[rows]]]
        return found

    def references(self, resource_type: str, rows: Ints) -> Each:
        """References to the resources of some events."""
        return self.links.to(resource_type, self.ids.gather(rows))


def moment_ids(name: str, record: Record, rows: Ints, *more: Any) -> pl.Series:
    """Ids of resources of the moments of some events, whichever of the events of a moment they are."""
    table = record.table
    of_visits = np.concatenate([table.visits.lanes, np.zeros((1, 2), np.uint64)])[table.visit[rows]]
    time = table.frame["time"].to_physical().fill_null(np.iinfo(np.int64).min + 1).gather(rows).to_numpy()
    return derived_ids(name, table.subject_lanes[table.subject[rows]], *of_visits.T, time, *more)


def derived_ids(name: str, lanes: Lanes, *more: Any) -> pl.Series:
    """Ids of resources that follow from others, whose hashes are given; `more` columns tell apart several of one."""
    return identity.uuids(identity.hashed(identity.key_of(name), *lanes.T, *more))


def single(resource_type: str, ids: pl.Series, shapes: Ints, resources: Iterable[Resource]) -> Batch:
    """One resource a subject, in the order of the subjects, each made by itself."""
    return Batch(resource_type, ids, np.arange(len(ids)), shapes, _encoded(iter(resources)))


def _encoded(resources: Iterator[Resource]) -> Iterator[pl.Series]:
    while some := [orjson.dumps(resource).decode() for resource in islice(resources, CHUNK)]:
        yield pl.Series(some)


def items(each: Each, group: Ints, size: int) -> Each:
    """What each of `size` groups has of some columns, in order, as items of a list; null for groups without any."""
    frame = pl.DataFrame({"group": group, "text": each.texts})
    joined = frame.group_by("group", maintain_order=True).agg(pl.col("text").str.join(f"{each.after},{each.before}"))
    number = np.full(size, -1)
    number[joined["group"].to_numpy()] = np.arange(len(joined))
    return each._replace(texts=gathered(joined["text"], number))


def with_visit(resource: Resource, visit: Any, name: str = "encounter") -> Resource:
    """The resource with a reference to an Encounter, where there is one."""
    if visit is not None:
        resource[name] = visit
    return resource
