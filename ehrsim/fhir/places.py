"""The organisations, locations and practitioners that care for the patients: a small fixed set, chosen from by hash."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ehrsim.fhir import identity, people
from ehrsim.fhir.fragments import HL7, Labels, Resource, concept
from ehrsim.fhir.locales import Locale
from ehrsim.fhir.locales.us import UNITED_STATES

ORGANIZATIONS = 8
PRACTITIONERS_EACH = 4


PAYER, PAYER_NAME = identity.uuid_of("Organization", "payer"), "Synthetic Health Plan"
"""The organisation that pays for all patients."""


class Place(NamedTuple):
    """An organisation with its location and its practitioners, by UUID."""

    organization: str
    location: str
    practitioners: tuple[str, ...]
    roles: tuple[str, ...]
    """Of the practitioners, in their order."""
    name: str


@lru_cache(maxsize=8)
def places(locale: Locale = UNITED_STATES) -> tuple[Place, ...]:
    """The fixed set of a locale; the same in every export, so that uploads to one server share it."""
    each = range(PRACTITIONERS_EACH)
    return tuple(
        Place(
            identity.uuid_of("Organization", locale.code, number),
            identity.uuid_of("Location", locale.code, number),
            tuple(identity.uuid_of("Practitioner", locale.code, number, one) for one in each),
            tuple(identity.uuid_of("PractitionerRole", locale.code, number, one) for one in each),
            name,
        )
        for number, name in enumerate(locale.places[:ORGANIZATIONS])
    )


def place_resources(
    number: int, labels: Labels, prefix: dict[str, str], locale: Locale = UNITED_STATES
) -> list[Resource]:
    """The resources of one place; `prefix` stands before an id in a reference to each type of resource."""
    place = places(locale)[number]
    draws = _draws(locale, number)
    address, city = people.address(draws, locale)
    phone = people.telephone(draws, city, "work")
    managing = {"reference": prefix["Organization"] + place.organization, "display": place.name}
    organization: Resource = {
        "resourceType": "Organization",
        "id": place.organization,
        "meta": labels.meta("us-core-organization"),
        **_identifier(locale, number),
        "active": True,
        "type": [concept(f"{HL7}organization-type", "prov", "Healthcare Provider")],
        "name": place.name,
        "telecom": [phone],
        "address": [address],
    }
    location: Resource = {
        "resourceType": "Location",
        "id": place.location,
        "meta": labels.meta("us-core-location"),
        "status": "active",
        "name": f"{place.name}, {address['line'][0]}",
        "telecom": [phone],
        "address": address,
        "managingOrganization": managing,
    }
    practitioners = [
        {
            "resourceType": "Practitioner",
            "id": uuid,
            "meta": labels.meta("us-core-practitioner"),
            **_identifier(locale, 1_000 + number * PRACTITIONERS_EACH + each),
            "active": True,
            "name": [people.name(_draws(locale, number, each), None, locale=locale)],
            "telecom": [phone],
            "address": [address],
        }
        for each, uuid in enumerate(place.practitioners)
    ]
    roles = [
        _role(place, uuid, role, labels, prefix) for uuid, role in zip(place.practitioners, place.roles, strict=True)
    ]
    return [organization, location, *practitioners, *roles]


def _role(place: Place, practitioner: str, uuid: str, labels: Labels, prefix: dict[str, str]) -> Resource:
    return {
        "resourceType": "PractitionerRole",
        "id": uuid,
        "meta": labels.meta("us-core-practitionerrole"),
        "active": True,
        "practitioner": {"reference": prefix["Practitioner"] + practitioner},
        "organization": {"reference": prefix["Organization"] + place.organization, "display": place.name},
        "code": [concept("http://nucc.org/provider-taxonomy", "208D00000X", "General Practice Physician")],
        "specialty": [concept("http://nucc.org/provider-taxonomy", "208D00000X", "General Practice Physician")],
        "location": [{"reference": prefix["Location"] + place.location}],
        "telecom": [{"system": "email", "value": f"practice-{uuid[:8]}@ehrsim.invalid", "use": "work"}],
    }


def payer_resource(labels: Labels, locale: Locale = UNITED_STATES) -> Resource:
    """The organisation that pays."""
    draws = people.Draws(tuple(identity.key_of("payer", locale.code).tolist()))
    address, city = people.address(draws, locale)
    return {
        "resourceType": "Organization",
        "id": PAYER,
        "meta": labels.meta("us-core-organization"),
        "active": True,
        "type": [concept(f"{HL7}organization-type", "pay", "Payer")],
        "name": PAYER_NAME,
        "telecom": [people.telephone(draws, city, "work")],
        "address": [address],
    }


def _draws(locale: Locale, *numbers: int) -> people.Draws:
    return people.Draws(tuple(identity.key_of("place", locale.code, *numbers).tolist()))


def _identifier(locale: Locale, number: int) -> Resource:
    """The member of a provider's identifier, where the country has one that is set aside for tests."""
    return {"identifier": [locale.provider_identifier(number)]} if locale.provider_identifier else {}
