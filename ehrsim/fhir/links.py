"""What the resources of a group refer to beside one another: patients, encounters, practitioners and organisations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from ehrsim.fhir import identity
from ehrsim.fhir.columns import Each, Ints, referring
from ehrsim.fhir.fragments import Resource
from ehrsim.fhir.locales import Locale
from ehrsim.fhir.locales.us import UNITED_STATES
from ehrsim.fhir.places import ORGANIZATIONS, PRACTITIONERS_EACH, places
from ehrsim.fhir.table import Table


class Links(NamedTuple):
    """The ids of what a group refers to."""

    prefix: dict[str, str]
    """What stands before an id in a reference, by type of resource."""
    locale: Locale
    """That of the people and places referred to."""
    subjects: pl.Series
    visits: pl.Series
    place: Ints
    """The number of the place of each subject."""
    practitioner: Ints
    """The number among the practitioners of its place, of each visit, then of each subject."""
    practitioners: pl.Series
    """Those of the first place, of the next, and so on."""

    def to(self, resource_type: str, ids: pl.Series) -> Each:
        """References to the resources of some ids."""
        return referring(self.prefix[resource_type], ids)

    def to_subjects(self, subjects: Ints) -> Each:
        """References to the Patients that some subjects are."""
        return self.to("Patient", self.subjects.gather(subjects))

    def attending(self, subjects: Ints, visits: Ints) -> Each:
        """References to who attends each visit of a subject, or where that is -1 the subject itself."""
        own = self.practitioner[np.where(visits >= 0, visits, len(self.visits) + subjects)]
        return self.to("Practitioner", self.practitioners.gather(self.place[subjects] * PRACTITIONERS_EACH + own))

    def organizations(self) -> list[Resource]:
        """References to the organisations of all places."""
        prefix = self.prefix["Organization"]
        return [{"reference": prefix + place.organization, "display": place.name} for place in places(self.locale)]


def link(table: Table, prefix: dict[str, str], locale: Locale = UNITED_STATES) -> Links:
    """What the resources of a table refer to; `prefix` stands before the id for each resource type."""
    chosen = np.concatenate([table.visits.lanes[:, 0], table.subject_lanes[:, 1]]) % np.uint64(PRACTITIONERS_EACH)
    return Links(
        prefix,
        locale,
        identity.uuids(table.subject_lanes),
        identity.uuids(table.visits.lanes),
        (table.subject_lanes[:, 0] % np.uint64(ORGANIZATIONS)).astype(np.int64),
        chosen.astype(np.int64),
        pl.Series([uuid for place in places(locale) for uuid in place.practitioners]),
    )
