"""References between resources: what they point at, and the ids of subjects and visits that follow from it.

The id of a subject is a hash of its Patient's id, so a reference is resolved without having seen its target. What must
be known beforehand is gathered in a first pass, in 16 bytes a resource: which Patients there are, and the Patients and
Encounters that state an id of ours in an identifier. The codes of Medications are gathered with them.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ehrsim import codes, events
from ehrsim.importers.fhir.elements import Element, Meaning, UnusableResource, child, children, meaning, text
from ehrsim.importers.fhir.sources import Found

SUBJECT_SYSTEM = f"{codes.URI_BASE}/identifier/subject"
VISIT_SYSTEM = f"{codes.URI_BASE}/identifier/visit"
TARGETS = re.compile(rb'"resourceType"\s*:\s*"(?:Patient|Encounter|Medication)"')
"""What the JSON of a resource that others refer to holds."""
_INTEGER = re.compile(r"-?\d{1,19}", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)

Ids = npt.NDArray[np.int64]


class Target(NamedTuple):
    """What a reference points at: a resource type, empty where the reference does not say, and the hash of an id."""

    type: str
    key: int


class IdMap(NamedTuple):
    """A map of 64-bit ids in two arrays, sorted by key."""

    keys: Ids
    values: Ids

    def contains(self, keys: Ids) -> npt.NDArray[np.bool_]:
        """Which of `keys` are in the map."""
        if not len(self.keys):
            return np.zeros(len(keys), dtype=np.bool_)
        found: npt.NDArray[np.bool_] = self.keys[self._places(keys)] == keys
        return found

    def translate(self, keys: Ids) -> Ids:
        """The values of `keys`; a key that is not in the map stands for itself."""
        if not len(self.keys):
            return keys
        return np.where(self.contains(keys), self.values[self._places(keys)], keys)

    def _places(self, keys: Ids) -> npt.NDArray[np.intp]:
        return np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)


def id_map(pairs: array[int]) -> IdMap:
    """An `IdMap` of keys and values that alternate in `pairs`; of several values of one key the first counts."""
    table = np.frombuffer(pairs, dtype=np.int64).reshape(-1, 2)
    keys, places = np.unique(table[:, 0], return_index=True)
    return IdMap(keys, table[places, 1])


class Identities(NamedTuple):
    """What the first pass learns: of subjects, of visits, and of the Medications that requests refer to."""

    subjects: IdMap
    """Every Patient, by the hash of its id, with the id of its subject."""
    repeated: frozenset[int]
    """The Patients that are given more than once, by the hash of their id."""
    visits: IdMap
    """The Encounters that state the id of their visit."""
    medications: dict[int, Meaning]


def identities(found: Iterable[Found]) -> Identities:
    """Gather the identities of all resources that others refer to; unusable ones are left to the second pass."""
    subjects, visits = array("q"), array("q")
    medications: dict[int, Meaning] = {}
    for resource in found:
        try:
            _gather(resource.resource, subjects, visits, medications)
        except UnusableResource:
            continue
    keys, counts = np.unique(np.frombuffer(subjects, dtype=np.int64)[::2], return_counts=True)
    return Identities(id_map(subjects), frozenset(keys[counts > 1].tolist()), id_map(visits), medications)


def _gather(resource: Element, subjects: array[int], visits: array[int], medications: dict[int, Meaning]) -> None:
    match resource["resourceType"]:
        case "Patient":
            key = key_of(resource)
            own = _own_id(resource, SUBJECT_SYSTEM)
            subjects.extend((key, key if own is None else own))
        case "Encounter":
            own = _own_id(resource, VISIT_SYSTEM)
            if own is not None:
                visits.extend((key_of(resource), own))
        case "Medication":
            drug = meaning(child(resource, "code"), "medication")
            if drug is not None:
                medications.setdefault(key_of(resource), drug)


def _own_id(resource: Element, system: str) -> int | None:
    """The 64-bit id that an identifier of ours states, None if there is none."""
    for identifier in children(resource, "identifier"):
        if identifier.get("system") == system:
            value = text(identifier, "value")
            if value is not None and _INTEGER.fullmatch(value) and -(1 << 63) <= int(value) < 1 << 63:
                return int(value)
    return None


def key_of(resource: Element) -> int:
    """The hash of the id of a resource."""
    identity = text(resource, "id")
    if identity is None:
        raise UnusableResource("no id")
    return events.stable_id_of(identity)


def target(reference: Element, links: dict[str, str]) -> Target | None:
    """What a Reference points at outside its own resource, None where that cannot be told.

    `links` are the full URLs of the bundle around it. Understood are `Type/id`, absolute URLs that end so, with or
    without `/_history/version`, and `urn:uuid:…`.
    """
    written = text(reference, "reference")
    if written is None:
        return None
    return _target(links.get(written, written))


@lru_cache(maxsize=1 << 16)
def _target(written: str) -> Target | None:
    if written.startswith("urn:"):
        return Target("", events.stable_id_of(written.rpartition(":")[2]))
    parts = written.partition("/_history/")[0].split("/")
    if len(parts) < 2 or not _ID.fullmatch(parts[-1]):
        return None
    return Target(parts[-2], events.stable_id_of(parts[-1]))


def contained(resource: Element, reference: Element) -> Element | None:
    """The contained resource that a Reference such as `#drug` points at, None if it points elsewhere."""
    written = text(reference, "reference")
    if written is None or not written.startswith("#"):
        return None
    return next((part for part in children(resource, "contained") if part.get("id") == written[1:]), None)
