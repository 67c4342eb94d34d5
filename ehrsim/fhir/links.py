"""The references that the resources of a group share: to patients, encounters, practitioners and organisations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ehrsim.fhir import identity
from ehrsim.fhir.fragments import fragment, reference
from ehrsim.fhir.locales import Locale
from ehrsim.fhir.locales.us import UNITED_STATES
from ehrsim.fhir.places import ORGANIZATIONS, PRACTITIONERS_EACH, places
from ehrsim.fhir.table import Ints, Objects, Table, objects


class Links(NamedTuple):
    """References of a group: encoded once for each subject and each visit."""

    prefix: dict[str, str]
    locale: Locale
    """That of the people and places referred to."""
    subject_ids: list[str]
    visit_ids: list[str]
    subjects: Objects
    visits: Objects
    """One more than there are visits: the last, None, is for events outside any."""
    place: Ints
    """The number of the place of each subject."""
    practitioner: Ints
    """The number among the practitioners of its place, of each visit, then of each subject."""
    practitioners: Objects
    """References to practitioners, shape (places, practitioners)."""
    performers: Objects
    """The same, each in a list."""


def link(table: Table, prefix: dict[str, str], locale: Locale = UNITED_STATES) -> Links:
    """The references that the resources of a table share; `prefix` stands before the id for each resource type."""
    subject_ids, visit_ids = identity.uuids(table.subject_lanes), identity.uuids(table.visits.lanes)
    subjects = [reference(prefix["Patient"] + uuid) for uuid in subject_ids]
    visits = [reference(prefix["Encounter"] + uuid) for uuid in visit_ids]
    chosen = np.concatenate([table.visits.lanes[:, 0], table.subject_lanes[:, 1]]) % np.uint64(PRACTITIONERS_EACH)
    ids = [uuid for place in places(locale) for uuid in place.practitioners]
    practitioners = [reference(prefix["Practitioner"] + uuid) for uuid in ids]
    return Links(
        prefix,
        locale,
        subject_ids,
        visit_ids,
        objects(subjects),
        objects([*visits, None]),
        (table.subject_lanes[:, 0] % np.uint64(ORGANIZATIONS)).astype(np.int64),
        chosen.astype(np.int64),
        objects(practitioners).reshape(ORGANIZATIONS, PRACTITIONERS_EACH),
        objects([fragment([one]) for one in practitioners]).reshape(ORGANIZATIONS, PRACTITIONERS_EACH),
    )
