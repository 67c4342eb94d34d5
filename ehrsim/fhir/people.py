"""Names, addresses and numbers of people and places that do not exist, drawn from hashes and plain to see as invented.

Names end in digits, telephone numbers are the 555-01xx set aside for fiction, streets are called Synthetic, and
National Provider Identifiers start 99999, which is not assigned, yet pass the Luhn check.
"""

from __future__ import annotations

from typing import NamedTuple

from ehrsim.fhir.fragments import Resource

_FEMALE = """Abigail Adela Alma Beatrice Carmen Clara Dalia Edith Elena Fatima Grace Hanna Ingrid Irene Jasmine Josefa
Keiko Laura Leila Lucia Mabel Maria Mei Nadia Naomi Olga Paula Priya Rosa Ruth Sofia Tamara Thea Uma Vera Wanda Yara
Yvonne Zelda Zoe""".split()  # noqa: SIM905
_MALE = """Adam Ahmed Albert Andres Boris Carlos Cyrus Daniel Diego Edwin Emil Felix Frank Gustav Hassan Henry Hugo
Ibrahim Ivan Jacob Jorge Kenji Leon Luis Malik Mario Martin Nathan Oscar Pablo Peter Quentin Rafael Samuel Simon Tariq
Theo Victor Walter Xavier""".split()  # noqa: SIM905
_FAMILY = """Abbott Acosta Alvarez Baker Barlow Bennett Castillo Chen Cooper Dalton Diaz Dixon Ellis Estrada Farley
Fischer Garcia Gibson Haddad Harper Hayes Ibarra Jensen Keller Khan Kowalski Larsen Lopez Marsh Mendoza Meyer Nakamura
Nguyen Norris Ortega Osborne Patel Pereira Quinn Ramos Reyes Rossi Santos Schultz Sharma Singh Sutton Torres Tran Ueda
Vargas Vogel Wagner Walsh Weber Wong Yamada Young Zamora Zimmer""".split()  # noqa: SIM905
_STREETS = ("Avenue", "Boulevard", "Court", "Drive", "Lane", "Place", "Road", "Square", "Street", "Terrace", "Way")


class City(NamedTuple):
    """A city with its state, a postal code of it and its telephone area."""

    name: str
    state: str
    postal_code: str
    area: str


CITIES = (
    City("Albany", "NY", "12207", "518"),
    City("Atlanta", "GA", "30303", "404"),
    City("Augusta", "ME", "04330", "207"),
    City("Austin", "TX", "78701", "512"),
    City("Boise", "ID", "83702", "208"),
    City("Boston", "MA", "02108", "617"),
    City("Columbus", "OH", "43215", "614"),
    City("Concord", "NH", "03301", "603"),
    City("Denver", "CO", "80202", "303"),
    City("Des Moines", "IA", "50309", "515"),
    City("Hartford", "CT", "06103", "860"),
    City("Helena", "MT", "59601", "406"),
    City("Honolulu", "HI", "96813", "808"),
    City("Jackson", "MS", "39201", "601"),
    City("Lansing", "MI", "48933", "517"),
    City("Lincoln", "NE", "68508", "402"),
    City("Madison", "WI", "53703", "608"),
    City("Nashville", "TN", "37219", "615"),
    City("Olympia", "WA", "98501", "360"),
    City("Phoenix", "AZ", "85007", "602"),
    City("Raleigh", "NC", "27601", "919"),
    City("Richmond", "VA", "23219", "804"),
    City("Sacramento", "CA", "95814", "916"),
    City("Salem", "OR", "97301", "503"),
    City("Santa Fe", "NM", "87501", "505"),
    City("Springfield", "IL", "62701", "217"),
)


class Draws:
    """Small numbers taken one after another from a hash."""

    def __init__(self, lanes: tuple[int, int]) -> None:
        self._rest = lanes[0] | (lanes[1] << 64)

    def below(self, bound: int) -> int:
        """The next number from 0 to `bound - 1`."""
        self._rest, number = divmod(self._rest, bound)
        return number


def name(draws: Draws, gender: str | None) -> Resource:
    """A HumanName whose parts end in digits."""
    given = {"female": _FEMALE, "male": _MALE}.get(gender or "", _FEMALE + _MALE)
    family = f"{_FAMILY[draws.below(len(_FAMILY))]}{100 + draws.below(900)}"
    return {"use": "official", "family": family, "given": [f"{given[draws.below(len(given))]}{100 + draws.below(900)}"]}


def address(draws: Draws) -> tuple[Resource, City]:
    """An Address on a street that does not exist, and its city."""
    city = CITIES[draws.below(len(CITIES))]
    line = f"{1 + draws.below(999)} Synthetic {_STREETS[draws.below(len(_STREETS))]}"
    members = {"line": [line], "city": city.name, "state": city.state, "postalCode": city.postal_code, "country": "US"}
    return members, city


def telephone(draws: Draws, city: City, use: str) -> Resource:
    """A ContactPoint among the numbers set aside for fiction."""
    return {"system": "phone", "value": f"{city.area}-555-01{draws.below(100):02d}", "use": use}


def national_provider_identifier(number: int) -> Resource:
    """An Identifier of 99999, four digits of `number` and the Luhn check digit (over 80840 and the number, CMS)."""
    digits = f"99999{number % 10_000:04d}"
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[::-2])
    check = -(24 + doubled + sum(int(digit) for digit in digits[-2::-2])) % 10
    return {"system": "http://hl7.org/fhir/sid/us-npi", "value": f"{digits}{check}"}
