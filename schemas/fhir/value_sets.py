"""The codes of FHIR value sets, where the packages at hand list them."""

from __future__ import annotations

from typing import Any

Pairs = frozenset[tuple[str, str]]
"""Codes with their systems."""

_RACE = "urn:oid:2.16.840.1.113883.6.238"
_VSAC = "http://cts.nlm.nih.gov/fhir/ValueSet/"
_NULLS = frozenset(("http://terminology.hl7.org/CodeSystem/v3-NullFlavor", code) for code in ("ASKU", "OTH", "UNK"))
NAMED_ONLY: dict[str, Pairs] = {
    f"{_VSAC}2.16.840.1.114222.4.11.836": frozenset(
        (_RACE, code) for code in ("1002-5", "2028-9", "2054-5", "2076-8", "2106-3", "2131-1")
    ),
    f"{_VSAC}2.16.840.1.114222.4.11.837": frozenset((_RACE, code) for code in ("2135-2", "2186-5")),
    f"{_VSAC}2.16.840.1.113762.1.4.1": frozenset(
        ("http://terminology.hl7.org/CodeSystem/v3-AdministrativeGender", code) for code in ("F", "M")
    ),
    f"{_VSAC}2.16.840.1.113883.4.642.2.575": _NULLS.union(
        (_RACE, code) for code in ("1002-5", "2028-9", "2054-5", "2076-8", "2106-3", "2131-1")
    ),
    f"{_VSAC}2.16.840.1.113762.1.4.1021.24": _NULLS.union(
        ("http://terminology.hl7.org/CodeSystem/v3-AdministrativeGender", code) for code in ("F", "M")
    ),
    f"{_VSAC}2.16.840.1.113762.1.4.1021.102": _NULLS,
    f"{_VSAC}2.16.840.1.113762.1.4.1021.103": _NULLS,
}
"""Value sets that US Core only names, with the codes that its pages give for them: races and ethnicities of the OMB,
administrative sex, and what stands for unknown ones (here all three, wherever one is allowed)."""


class ValueSets:
    """Expands value sets by URL; `None` for one that needs a code system that is not in the packages."""

    def __init__(self, value_sets: dict[str, Any], code_systems: dict[str, Any]) -> None:
        self._value_sets, self._code_systems = value_sets, code_systems
        self._known: dict[str, Pairs | None] = dict(NAMED_ONLY)

    def expanded(self, url: str) -> Pairs | None:
        """All codes of a value set."""
        if url not in self._known:
            self._known[url] = None  # of a value set that holds itself
            compose = self._value_sets.get(url, {}).get("compose")
            self._known[url] = self._composed(compose) if compose else None
        return self._known[url]

    def _composed(self, compose: Any) -> Pairs | None:
        included = [self._part(part) for part in compose["include"]]
        excluded = [self._part(part) for part in compose.get("exclude", [])]
        if any(part is None for part in included + excluded):
            return None
        return Pairs().union(*(part for part in included if part)).difference(*(part for part in excluded if part))

    def _part(self, part: Any) -> Pairs | None:
        """The codes of one `include`: those of its system that are also in all of its value sets."""
        sets = [self.expanded(url.partition("|")[0]) for url in part.get("valueSet", [])]
        if "system" in part:
            sets.append(self._of_system(part))
        if any(one is None for one in sets):
            return None
        known = [one for one in sets if one is not None]
        return known[0].intersection(*known[1:]) if known else None

    def _of_system(self, part: Any) -> Pairs | None:
        system = part["system"]
        if "concept" in part:
            return frozenset((system, concept["code"]) for concept in part["concept"])
        above = self._ancestors(system)
        if above is None:
            return None
        codes = set(above)
        for condition in part.get("filter", []):
            kind, value = condition["op"], condition["value"]
            if condition["property"] != "concept" or kind not in ("is-a", "descendent-of"):
                return None
            codes &= {code for code in above if value in above[code] or (kind == "is-a" and code == value)}
        return frozenset((system, code) for code in codes)

    def _ancestors(self, system: str) -> dict[str, set[str]] | None:
        """The codes of a code system, each with those above it."""
        known = self._code_systems.get(system)
        if not known or known.get("content") != "complete" or "concept" not in known:
            return None
        ancestors: dict[str, set[str]] = {}
        waiting: list[tuple[Any, set[str]]] = [(concept, set()) for concept in known["concept"]]
        while waiting:
            concept, above = waiting.pop()
            ancestors.setdefault(concept["code"], set()).update(above)
            waiting += [(child, above | {concept["code"]}) for child in concept.get("concept", [])]
        for concept in known["concept"]:
            parents = [one["valueCode"] for one in concept.get("property", []) if one["code"] == "subsumedBy"]
            ancestors[concept["code"]].update(parents)
        return ancestors
