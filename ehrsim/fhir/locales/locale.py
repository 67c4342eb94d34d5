"""What a country decides of invented people and places: names, addresses, telephone numbers, identifiers, profiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class NumberRange(NamedTuple):
    """Telephone numbers that the regulator sets aside for fiction: a beginning and how many digits follow it."""

    beginning: str
    digits: int


class City(NamedTuple):
    """A city that exists."""

    members: dict[str, str]
    """Of its Address: `city`, and what the country has of `district` and `state`."""
    postal_codes: tuple[str, ...]
    telephone: NumberRange


class NationalNumber(NamedTuple):
    """A number that a country gives each of its patients, in a range that it never gives out."""

    system: str
    type: dict[str, Any]
    """CodeableConcept of the kind of identifier."""
    size: int
    """How many there are in the range."""
    value: Callable[[int], str]
    """The number of a position from 0 to `size - 1`, another for each, with its check digits."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Locale:
    """A country's people and places; nothing in it depends on what befalls a patient.

    The words of `family` and `given` get digits at their end, so lists need no name that does not exist.
    """

    code: str
    """Its name in `LOCALES`."""
    country: str
    """ISO 3166-1 alpha-2."""
    us_core: bool = False
    """Whether resources claim US Core profiles and Patients have its extensions; without, they are plain FHIR R4."""
    language: str | None = None
    """BCP 47 tag of what patients speak of whom the events do not say; None leaves it open."""

    family: tuple[str, ...]
    given: dict[str, tuple[str, ...]]
    """By gender, `female` and `male`; people of any other gender have names of both lists."""
    second_given: int
    """How many people of a hundred have a second given name."""
    prefixes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By gender, drawn alike; an empty one stands for none."""
    prefix_qualifier: str | None = None
    """Code of iso21090-EN-qualifier that says what kind of prefix they are."""
    prefixed_before: str = ""
    """Who is born in this year or later is too young for a prefix."""
    suffixes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    transliteration: dict[int, str] = field(default_factory=dict)
    """For mail addresses: what stands for letters beyond a to z, as `str.maketrans` has it."""

    streets: tuple[str, ...]
    """Of which none exists; the words say so."""
    line: str
    """The order of `{house}` and `{street}` in a line of an address."""
    houses: int
    """The highest house number."""
    line_parts: bool = False
    """Whether a line also names street and house number apart, in the extensions of ISO 21090."""
    cities: tuple[City, ...]
    mobiles: tuple[NumberRange, ...] = ()
    """None where mobile numbers look like others."""

    national_number: NationalNumber | None = None
    provider_identifier: Callable[[int], dict[str, Any]] | None = None
    """Identifier of the organisation or practitioner of a number below 10,000."""
    other_gender: dict[str, Any] | None = None
    """The `_gender` of a Patient whose gender is `other`."""
    places: tuple[str, ...]
    """Names of the organisations."""
