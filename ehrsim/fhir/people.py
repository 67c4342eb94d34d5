"""Names, addresses and numbers of people and places that do not exist, drawn from hashes and plain to see as invented.

They are of a locale, and depend on the run, the seed and the subject, on sex and date of birth, and on nothing else:
who has what illness cannot be told from them. Names end in digits, streets are called synthetic, telephone numbers and
identifiers are of ranges set aside for fiction and tests, and mail goes to a domain that cannot exist (RFC 2606).
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

from ehrsim.fhir import identity
from ehrsim.fhir.fragments import EXTENSIONS, Resource
from ehrsim.fhir.identity import Lanes
from ehrsim.fhir.locales import City, Locale, NumberRange
from ehrsim.fhir.locales.us import UNITED_STATES

MAIL_DOMAIN = "patients.invalid"
_QUALIFIER = f"{EXTENSIONS}iso21090-EN-qualifier"
_STREET_NAME, _HOUSE_NUMBER = f"{EXTENSIONS}iso21090-ADXP-streetName", f"{EXTENSIONS}iso21090-ADXP-houseNumber"


class Draws:
    """Small numbers taken one after another from the words of a hash; a person needs less than four of 64 bits."""

    def __init__(self, words: tuple[int, ...]) -> None:
        self._rest = 0
        for word in reversed(words):
            self._rest = self._rest << 64 | word

    def below(self, bound: int) -> int:
        """The next number from 0 to `bound - 1`."""
        self._rest, number = divmod(self._rest, bound)
        return number


def words_of(lanes: Lanes) -> list[tuple[int, ...]]:
    """Four words to draw from for each of the hashes of some subjects, shape (n, 2)."""
    name, contact = (identity.hashed(identity.key_of("people", what), *lanes.T) for what in ("name", "contact"))
    return [(*of_name, *of_contact) for of_name, of_contact in zip(name.tolist(), contact.tolist(), strict=True)]


def name(draws: Draws, gender: str | None, birth: str | None = None, locale: Locale = UNITED_STATES) -> Resource:
    """A HumanName whose family and given names end in digits; a prefix is of those whose birth is not too late.

    It takes the same draws whatever the gender and the date of birth.
    """
    family = f"{locale.family[draws.below(len(locale.family))]}{100 + draws.below(900)}"
    known = locale.given.get(gender or "") or locale.given["female"] + locale.given["male"]
    first, step = draws.below(len(known)), 1 + draws.below(len(known) - 1)
    given = [f"{known[first]}{100 + draws.below(900)}"]
    another = f"{known[(first + step) % len(known)]}{100 + draws.below(900)}"
    if draws.below(100) < locale.second_given:
        given.append(another)
    members: Resource = {"use": "official", "family": family, "given": given}
    prefix, suffix = (_one(draws, kind.get(gender or "")) for kind in (locale.prefixes, locale.suffixes))
    if prefix and birth and birth < locale.prefixed_before:
        members["prefix"] = [prefix]
        if locale.prefix_qualifier:
            qualifier = {"url": _QUALIFIER, "valueCode": locale.prefix_qualifier}
            members["_prefix"] = [{"extension": [qualifier]}]
    if suffix:
        members["suffix"] = [suffix]
    return members


def _one(draws: Draws, words: tuple[str, ...] | None) -> str:
    number = draws.below(1_000)
    return words[number % len(words)] if words else ""


def address(draws: Draws, locale: Locale = UNITED_STATES) -> tuple[Resource, City]:
    """An Address on a street that does not exist, and its city."""
    city = locale.cities[draws.below(len(locale.cities))]
    house, street = str(1 + draws.below(locale.houses)), locale.streets[draws.below(len(locale.streets))]
    members: Resource = {"type": "both", "line": [locale.line.format(house=house, street=street)]}
    if locale.line_parts:
        parts = ((_STREET_NAME, street), (_HOUSE_NUMBER, house))
        members["_line"] = [{"extension": [{"url": url, "valueString": part} for url, part in parts]}]
    members |= city.members
    members["postalCode"] = city.postal_codes[draws.below(len(city.postal_codes))]
    members["country"] = locale.country
    return members, city


def telephone(draws: Draws, city: City, use: str) -> Resource:
    """A ContactPoint among the numbers of a city that are set aside for fiction."""
    return {"system": "phone", "value": _number(draws, city.telephone), "use": use}


def contacts(draws: Draws, city: City, named: Resource, locale: Locale = UNITED_STATES) -> list[Resource]:
    """The ContactPoints of someone: telephone at home, mobile telephone and mail."""
    home = telephone(draws, city, "home")
    mobiles = locale.mobiles or (city.telephone,)
    mobile = {"system": "phone", "value": _number(draws, mobiles[draws.below(len(mobiles))]), "use": "mobile"}
    local = f"{named['given'][0]}.{named['family']}".lower().translate(locale.transliteration)
    return [home, mobile, {"system": "email", "value": f"{local}@{MAIL_DOMAIN}", "use": "home"}]


def _number(draws: Draws, numbers: NumberRange) -> str:
    return f"{numbers.beginning}{draws.below(10**numbers.digits):0{numbers.digits}d}"


class Numbering(NamedTuple):
    """How the subjects of one export get their national numbers: an affine permutation, which looks random.

    Subjects whose ids differ by less than there are numbers never share one; a hash would let two meet at once.
    """

    factor: int
    offset: int

    def identifier(self, subject: int, locale: Locale) -> Resource | None:
        """The Identifier that the country of a locale gives a subject, None where it gives none."""
        numbers = locale.national_number
        if numbers is None:
            return None
        value = numbers.value((self.factor * subject + self.offset) % numbers.size)
        return {"use": "official", "type": numbers.type, "system": numbers.system, "value": value}


def numbering(export: str, locale: Locale) -> Numbering:
    """The numbering of an export, by what names it."""
    factor, offset = identity.key_of("numbering", export).tolist()
    size = locale.national_number.size if locale.national_number else 1
    while gcd(factor, size) != 1:
        factor += 1
    return Numbering(factor, offset)
