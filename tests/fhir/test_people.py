import re
from datetime import datetime

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrsim import reference
from ehrsim.fhir import export_fhir, identity, people
from ehrsim.fhir.fragments import Labels
from ehrsim.fhir.locales import LOCALES
from ehrsim.fhir.places import ORGANIZATIONS, PRACTITIONERS_EACH, place_resources, places
from ehrsim.fhir.validation.in_full import problems_in_full
from ehrsim.fhir.validation.rules import rules_of
from ehrsim.fhir.writers import Layout

NAMES = st.sampled_from(sorted(LOCALES))
WORDS = st.tuples(*[st.integers(0, 2**64 - 1)] * 4)
TELEPHONES = {
    "us": r"[2-9]\d\d-555-01\d\d",
    "gb": r"01(1[3-8]|[2-6]1) 496 0\d{3}|0191 498 0\d{3}|020 7946 0\d{3}|028 9649 6\d{3}|029 2018 0\d{3}|01632 960\d{3}"
    r"|07700 900\d{3}",
    "de": r"(030 23125|069 90009|040 66969|0221 4710|089 99998)\d{3}|(0171 39200|0176 040690)\d{2}",
    "fr": r"(01 99 00|02 61 91|03 53 01|04 65 71|05 36 49|06 39 98) \d\d \d\d",
}
"""What the regulators set aside: NANPA (555-0100 to 0199), Ofcom (numbers for drama), Bundesnetzagentur (148/2021),
Arcep (2018-0881)."""
POSTAL_CODES = {"us": r"\d{5}", "gb": r"[A-Z]{1,2}\d{1,2} \dZZ", "de": r"\d{5}", "fr": r"\d{5}"}
STREETS = {
    "us": r"\d+ Synthetic .+",
    "gb": r"\d+ Synthetic .+",
    "de": r"Synthetische.? .+ \d+",
    "fr": r"\d+ [a-zé]+ Synthétique des .+",
}
STATES = {"us": r"[A-Z]{2}", "gb": "England|Scotland|Wales|Northern Ireland", "de": r"DE-[A-Z]{2}", "fr": r"[\w' -]+"}


@pytest.fixture(scope="module")
def population() -> pl.DataFrame:
    return reference.population(10, seed=4)


@given(NAMES, WORDS, st.sampled_from(["female", "male", "other", "unknown", None]))
def test_people_are_plain_to_see_as_invented(name, words, gender):
    locale, draws = LOCALES[name], people.Draws(words)
    named = people.name(draws, gender, "1950-01-01T00:00:00Z", locale)
    assert all(re.fullmatch(r"[^\W\d]+\d{3}", part) for part in (named["family"], *named["given"]))
    assert len(named["given"]) == len(set(named["given"])) <= 2
    address, city = people.address(draws, locale)
    assert re.fullmatch(STREETS[name], address["line"][0])
    assert re.fullmatch(POSTAL_CODES[name], address["postalCode"])
    assert re.fullmatch(STATES[name], address["state"])
    assert address["country"] == name.upper()
    *phones, mail = people.contacts(draws, city, named, locale)
    assert [phone["use"] for phone in phones] == ["home", "mobile"]
    assert all(re.fullmatch(TELEPHONES[name], phone["value"]) for phone in phones)
    assert re.fullmatch(r"[a-z]+\d{3}\.[a-z]+\d{3}@patients\.invalid", mail["value"])


@pytest.mark.parametrize("name", LOCALES)
def test_lists_are_long_and_cities_are_whole(name):
    locale = LOCALES[name]
    assert len(set(locale.family)) == len(locale.family) >= 300
    for names in locale.given.values():
        assert len(set(names)) == len(names) >= 150
    assert len({city.members["city"] + city.members["state"] for city in locale.cities}) == len(locale.cities) >= 30
    assert len(set(locale.places)) == len(locale.places) == ORGANIZATIONS
    assert all(city.telephone.digits > 1 and city.postal_codes for city in locale.cities)


@pytest.mark.parametrize("name", LOCALES)
def test_people_do_not_look_alike(name):
    """Of ten thousand, the names without their digits are nearly all different, and all of the lists are used."""
    locale = LOCALES[name]
    lanes = identity.hashed(identity.key_of("test"), np.arange(10_000))
    named = [
        people.name(people.Draws(words), gender, None, locale)
        for words, gender in zip(people.words_of(lanes), ["female", "male"] * 5_000, strict=True)
    ]
    whole = {(one["family"], *one["given"]) for one in named}
    bare = {re.sub(r"\d", "", f"{one['family']} {' '.join(one['given'])}") for one in named}
    assert len(whole) == 10_000
    assert len(bare) > 9_700
    assert {one["family"][:-3] for one in named} == set(locale.family)
    assert {one["given"][0][:-3] for one in named} == set(locale.given["female"] + locale.given["male"])
    second = np.mean([len(one["given"]) == 2 for one in named])
    assert abs(second - locale.second_given / 100) < 0.02


@pytest.mark.parametrize("name", LOCALES)
def test_a_person_needs_less_than_the_words_of_a_hash(name):
    """Otherwise the last that is drawn would be the same for all."""
    locale, draws, bounds = LOCALES[name], people.Draws((0,) * 4), []
    draws.below = lambda bound: bounds.append(bound) or 0
    people.contacts(draws, people.address(draws, locale)[1], people.name(draws, None, None, locale), locale)
    assert 60 < sum(np.log2(bounds)) < 256 - 64


@pytest.mark.parametrize("name", LOCALES)
def test_prefixes_are_of_adults_and_draws_of_all(name):
    locale = LOCALES[name]
    prefixes = set()
    for seed in range(300):
        words = tuple(identity.key_of(seed, "a").tolist() + identity.key_of(seed, "b").tolist())
        young, old, unborn = (
            people.name(people.Draws(words), "female", birth, locale) for birth in ("2015-02-03", "1940-02-03", None)
        )
        prefixes.add(old.pop("prefix", ("",))[0])
        qualifier = old.pop("_prefix", None)
        assert young == old == unborn
        if qualifier:
            assert qualifier[0]["extension"][0]["url"].endswith("iso21090-EN-qualifier")
    assert prefixes == set(locale.prefixes["female"])


@pytest.mark.parametrize("name", LOCALES)
def test_places_are_valid_and_distinct(name):
    locale = LOCALES[name]
    labels, prefix = Labels("urn:test", "6.1" if locale.us_core else None), Layout("ndjson").prefixes()
    made = [one for number in range(ORGANIZATIONS) for one in place_resources(number, labels, prefix, locale)]
    for resource in made:
        written, rules = orjson.loads(orjson.dumps(resource)), rules_of("6.1")
        assert (rules.problems(written) or problems_in_full(written, rules)) == []
        assert (b'"profile"' in orjson.dumps(resource)) == locale.us_core
    assert len({resource["id"] for resource in made}) == len(made) == ORGANIZATIONS * (2 + 2 * PRACTITIONERS_EACH)
    numbers = [resource["identifier"][0]["value"] for resource in made if "identifier" in resource]
    assert len(set(numbers)) == len(numbers) == (ORGANIZATIONS * (1 + PRACTITIONERS_EACH) if name == "us" else 0)
    doctors = [resource["name"][0] for resource in made if resource["resourceType"] == "Practitioner"]
    assert len({doctor["family"] for doctor in doctors}) == len(doctors)
    assert not any("prefix" in doctor or "qualification" in doctor for doctor in doctors)
    assert places(locale) is places(locale)


def test_places_of_locales_never_meet():
    ids = [place.organization for locale in LOCALES.values() for place in places(locale)]
    assert len(set(ids)) == len(ids)


def _patients(events, folder, resources_in, **options):
    export_fhir(events, folder, overwrite=True, **options)
    return {one["identifier"][0]["value"]: one for one in resources_in(folder) if one["resourceType"] == "Patient"}


INVENTED = ("name", "telecom", "address", "identifier")


@pytest.mark.parametrize("name", LOCALES)
def test_who_has_what_cannot_be_told_from_a_person(name, population, resources_in, tmp_path):
    """Without any illness, or with another's, name, address and numbers are the same: only sex and birth count."""
    whole = _patients(population, tmp_path / "whole", resources_in, locale=name)
    static = pl.col("code").str.contains("^(MEDS_BIRTH|GENDER//)")
    bare = _patients(population.filter(static), tmp_path / "bare", resources_in, locale=name)
    turned = population.filter(~static).with_columns(subject_id=11 - pl.col("subject_id"))
    other = _patients(pl.concat([population.filter(static), turned]), tmp_path / "other", resources_in, locale=name)
    for number, patient in whole.items():
        for member in INVENTED:
            assert patient[member] == bare[number][member] == other[number][member]


@pytest.mark.parametrize("name", LOCALES)
def test_the_sex_and_the_run_do_count(name, resources_in, tmp_path):
    events = pl.DataFrame(
        [
            {"subject_id": subject, "time": time, "code": code}
            for subject in range(40)
            for time, code in ((datetime(1970, 1, 2), "MEDS_BIRTH"), (None, "GENDER//female"))
        ],
        schema={"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String},
    )
    male = events.with_columns(pl.col("code").replace("GENDER//female", "GENDER//male"))
    women = _patients(events, tmp_path / "a", resources_in, locale=name)
    men = _patients(male, tmp_path / "b", resources_in, locale=name)
    again = _patients(events, tmp_path / "c", resources_in, locale=name, seed=1)
    for found, sex in ((women, "female"), (again, "female"), (men, "male")):
        given = {one["name"][0]["given"][0][:-3] for one in found.values()}
        assert given <= set(LOCALES[name].given[sex])
    assert all(women[number]["name"] != again[number]["name"] for number in women)
    assert all(women[number]["name"][0]["family"] == men[number]["name"][0]["family"] for number in women)
