"""How a drug is taken, as far as its name tells: the route, by the dose form. Doses come from the events."""

from __future__ import annotations

from functools import lru_cache

from ehrsim import codes
from ehrsim.fhir.fragments import Resource, concept

_ROUTES = (
    ("inhal", "447694001", "Respiratory tract route"),
    ("nasal", "46713006", "Nasal route"),
    ("ophthalmic", "54485002", "Ophthalmic route"),
    ("topical", "6064005", "Topical route"),
    ("cream", "6064005", "Topical route"),
    ("transdermal", "45890007", "Transdermal route"),
    ("pen injector", "34206005", "Subcutaneous route"),
    ("insulin", "34206005", "Subcutaneous route"),
    ("injection", "47625008", "Intravenous route"),
    ("injectable", "47625008", "Intravenous route"),
    ("sublingual", "37839007", "Sublingual route"),
    ("oral", "26643006", "Oral route"),
    ("tablet", "26643006", "Oral route"),
    ("capsule", "26643006", "Oral route"),
)


@lru_cache(maxsize=4_096)
def dosage(drug: str) -> Resource:
    """A Dosage of the drug of that name, without a dose."""
    name = drug.casefold()
    found = next(((code, display) for word, code, display in _ROUTES if word in name), None)
    if found is None:
        return {"text": "As directed"}
    code, display = found
    return {
        "text": f"As directed, by {display[0].lower()}{display[1:]}",
        "route": concept(codes.uri("SNOMED"), code, display),
    }
