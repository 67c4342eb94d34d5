import re

import orjson
import pytest

from ehrsim.fhir import people
from ehrsim.fhir.fragments import Labels, encoded
from ehrsim.fhir.places import ORGANIZATIONS, place_resources, places
from ehrsim.fhir.validation.in_full import problems_in_full
from ehrsim.fhir.validation.rules import rules_of
from ehrsim.fhir.writers import Layout


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def test_the_check_digit_of_the_published_example():
    """The example of the CMS standard: 123456789 has the check digit 3."""
    assert _luhn("80840" + "1234567893")


@pytest.mark.parametrize("number", [0, 1, 42, 999, 1_031, 9_999])
def test_provider_identifiers_pass_luhn_and_are_not_assigned(number):
    value = people.national_provider_identifier(number)["value"]
    assert re.fullmatch(r"99999\d{5}", value)
    assert _luhn("80840" + value)


@pytest.mark.parametrize("seed", range(50))
def test_people_are_plain_to_see_as_invented(seed):
    draws = people.Draws((seed * 0x9E3779B97F4A7C15 % 2**64, seed * 0xC2B2AE3D27D4EB4F % 2**64))
    name = people.name(draws, "female")
    assert all(re.fullmatch(r"[A-Z][a-z]+\d{3}", part) for part in (name["family"], *name["given"]))
    address, city = people.address(draws)
    assert "Synthetic" in address["line"][0]
    assert re.fullmatch(r"[A-Z]{2}", address["state"])
    assert re.fullmatch(r"\d{5}", address["postalCode"])
    assert re.fullmatch(r"\d{3}-555-01\d\d", people.telephone(draws, city, "home")["value"])


def test_places_are_valid_and_distinct():
    labels = Labels("urn:test")
    made = [
        one for number in range(ORGANIZATIONS) for one in place_resources(number, labels, Layout("ndjson").prefixes())
    ]
    for resource in made:
        written, rules = orjson.loads(encoded(resource)), rules_of("6.1")
        assert (rules.problems(written) or problems_in_full(written, rules)) == []
    assert len({resource["id"] for resource in made}) == len(made) == ORGANIZATIONS * 6
    numbers = [resource["identifier"][0]["value"] for resource in made if "identifier" in resource]
    assert len(set(numbers)) == len(numbers)
    assert places() is places()
