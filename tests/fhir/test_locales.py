"""Identifiers with their check digits, the registry, and exports of every locale."""

import re

import numpy as np
import polars as pl
import pytest

from ehrsim import codes, events, reference
from ehrsim.cli import run
from ehrsim.errors import UsageError
from ehrsim.fhir import export_fhir, inspect_fhir, people
from ehrsim.fhir.locales import LOCALES
from ehrsim.fhir.locales.check_digits import insured_person, luhn, modulus_11
from ehrsim.fhir.locales.us import national_provider_identifier
from ehrsim.importers import import_events

NATIONAL = {
    "gb": ("https://fhir.nhs.uk/Id/nhs-number", r"999\d{7}"),
    "de": ("http://fhir.de/sid/gkv/kvid-10", r"X110\d{6}"),
}


@pytest.fixture(scope="module")
def population() -> pl.DataFrame:
    return reference.population(50, seed=9)


def _is_luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def _is_nhs(digits: str) -> bool:
    """All ten digits, the check digit among them, weighted 10 to 1: a multiple of 11."""
    return sum(int(digit) * (10 - place) for place, digit in enumerate(digits)) % 11 == 0


def _is_insured_person(value: str) -> bool:
    """In words: the digits of all products, put in a row and added up, end in the check digit."""
    digits = f"{'ABCDEFGHIJKLMNOPQRSTUVWXYZ'.index(value[0]) + 1:02d}{value[1:-1]}"
    products = "".join(str(int(digit) * weight) for digit, weight in zip(digits, [1, 2] * 5, strict=True))
    return str(sum(map(int, products)))[-1] == value[-1]


def test_luhn_of_published_examples():
    """CMS: provider 123456789 has the check digit 3; ISO/IEC 7812-1: 7992739871 has 3."""
    assert luhn("80840" + "123456789") == 3
    assert luhn("7992739871") == 3
    assert _is_luhn("80840" + "1234567893")


@pytest.mark.parametrize("number", ["9434765919", "9876543210", "4010232137"])
def test_modulus_11_of_published_examples(number):
    """Numbers that the NHS shows in its documents."""
    assert modulus_11(number[:9]) == int(number[9])
    assert _is_nhs(number)


def test_a_number_without_a_check_digit():
    """Six times the weight 2 leaves 1 of 11, and 11 - 1 is no digit."""
    assert modulus_11("000000006") == 10


@pytest.mark.parametrize("number", ["A000500015", "C000500021", "T012345678", "X110411319", "X110411675"])
def test_insured_persons_of_published_examples(number):
    """The examples of annex 1 of § 290 SGB V, one of KBV, and two of gematik's test cards."""
    assert insured_person(number[:9]) == int(number[9])
    assert _is_insured_person(number)


@pytest.mark.parametrize("number", [0, 1, 42, 999, 1_031, 9_999])
def test_provider_identifiers_pass_luhn_and_are_not_assigned(number):
    value = national_provider_identifier(number)["value"]
    assert re.fullmatch(r"99999\d{5}", value)
    assert _is_luhn("80840" + value)


@pytest.mark.parametrize(("name", "is_valid"), [("gb", _is_nhs), ("de", _is_insured_person)])
def test_national_numbers_are_valid_of_the_test_range_and_never_the_same(name, is_valid):
    national = LOCALES[name].national_number
    positions = [*range(0, national.size, 97), national.size - 1]
    values = [national.value(position) for position in positions]
    assert all(re.fullmatch(NATIONAL[name][1], value) and is_valid(value) for value in values)
    dense = [national.value(position) for position in range(20_000)]
    assert len(set(dense)) == len(dense)
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", NATIONAL)
def test_no_two_subjects_of_a_run_share_a_number(name):
    """As many hashes would: of 20,000 in 900,000, some two hundred."""
    locale = LOCALES[name]
    found = {}
    for export in ("urn:a", "urn:b"):
        numbering = people.numbering(export, locale)
        found[export] = [numbering.identifier(subject, locale)["value"] for subject in range(-5, 20_000)]
        assert len(set(found[export])) == len(found[export])
    assert np.mean([one == other for one, other in zip(*found.values(), strict=True)]) < 0.001


def test_an_unknown_locale_is_answered_with_the_list(tmp_path, every_row, capsys):
    with pytest.raises(UsageError, match=r"locale.*xx.*us, gb, de, fr"):
        export_fhir(every_row, tmp_path / "out", locale="xx")
    every_row.write_parquet(tmp_path / "events.parquet")
    command = ["export", str(tmp_path / "events.parquet"), "--out", str(tmp_path / "out"), "--locale"]
    assert run([*command, "xx"]) == 2
    assert "us, gb, de, fr" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run([*command, "gb"]) == 0
    assert b"nhs-number" in (tmp_path / "out" / "Patient.ndjson").read_bytes()


def test_the_registry_is_by_code():
    assert [locale.code for locale in LOCALES.values()] == list(LOCALES)
    assert [name for name, locale in LOCALES.items() if locale.us_core] == ["us"]


@pytest.mark.parametrize("name", LOCALES)
@pytest.mark.parametrize("format", ["ndjson", "transaction", "batch", "collection"])
def test_everything_a_table_can_hold_is_valid_in_every_locale(name, format, every_row, tmp_path):
    report = export_fhir(every_row, tmp_path / "out", format=format, validate="full", locale=name)
    found = inspect_fhir(tmp_path / "out")
    assert found.resources == report.resources
    assert (found.dangling, found.unlabelled, found.patients) == (0, 0, 2)


@pytest.mark.parametrize("name", LOCALES)
def test_fifty_patients_are_valid_and_of_their_country(name, population, resources_in, tmp_path):
    facts = pl.col("code").str.contains("^(MEDS_|GENDER|RACE|ETHNICITY|MARITAL|LANGUAGE)")
    report = export_fhir(population.filter(facts), tmp_path / "out", validate="full", locale=name)
    assert report.validated["Patient"] == 50
    patients = [one for one in resources_in(tmp_path / "out") if one["resourceType"] == "Patient"]
    for patient in patients:
        usual, *national = patient["identifier"]
        assert usual["type"]["coding"][0]["code"] == "MR"
        assert [(one["system"], bool(re.fullmatch(NATIONAL[name][1], one["value"]))) for one in national] == (
            [(NATIONAL[name][0], True)] if name in NATIONAL else []
        )
        assert {one["country"] for one in patient["address"]} == {name.upper()}
    assert len({patient["telecom"][0]["value"] for patient in patients}) > 45


def test_only_the_united_states_have_us_core(every_row, tmp_path):
    """Race and ethnicity have no place in plain FHIR: both are counted."""
    for name in LOCALES:
        report = export_fhir(every_row, tmp_path / name, locale=name)
        written = b"".join(path.read_bytes() for path in sorted((tmp_path / name).iterdir()))
        assert (b"/us/core/" in written, b"us-npi" in written) == ((True, True) if name == "us" else (False, False))
        left_out = {reason: count.count for reason, count in report.not_carried.items()}
        expected = {} if name == "us" else {"race or ethnicity, for which only US Core has a place": 4}
        assert left_out == expected
        assert not any("race" in reason for reason in report.changed)


def test_sex_of_us_core_is_that_of_the_events(every_row, resources_in, tmp_path):
    """Nothing is known of gender identity, nor of the sex at birth where the gender is `other`."""
    export_fhir(every_row, tmp_path / "us")
    found = {
        patient["identifier"][0]["value"]: [
            part["valueCode"] for part in patient["extension"] if part["url"].endswith("us-core-birthsex")
        ]
        for patient in resources_in(tmp_path / "us")
        if patient["resourceType"] == "Patient"
    }
    assert found == {"1": ["F"], "2": []}


def test_other_genders_are_divers_in_germany_alone(every_row, resources_in, tmp_path):
    for name in LOCALES:
        export_fhir(every_row, tmp_path / name, locale=name)
        patients = [one for one in resources_in(tmp_path / name) if one["resourceType"] == "Patient"]
        extended = [one["gender"] for one in patients if "_gender" in one]
        assert extended == (["other"] if name == "de" else [])


def test_patients_speak_what_the_events_say_else_the_language_of_their_country(resources_in, tmp_path):
    table = pl.DataFrame(
        [
            {"subject_id": 1, "time": None, "code": "LANGUAGE//es"},
            {"subject_id": 1, "time": None, "code": "GENDER//male"},
            {"subject_id": 2, "time": None, "code": "GENDER//male"},
        ]
    )
    spoken = {}
    for name in LOCALES:
        export_fhir(table, tmp_path / name, locale=name)
        patients = [one for one in resources_in(tmp_path / name) if one["resourceType"] == "Patient"]
        spoken[name] = [
            [one["language"]["coding"][0]["code"] for one in patient.get("communication", [])] for patient in patients
        ]
    assert spoken == {"us": [["es"], []], "gb": [["es"], ["en-GB"]], "de": [["es"], ["de"]], "fr": [["es"], ["fr"]]}


@pytest.mark.parametrize("name", LOCALES)
def test_what_a_locale_carries_comes_back(name, population, tmp_path):
    table = population.filter(pl.col("subject_id") < 6)
    export_fhir(table, tmp_path / "fhir", locale=name)
    import_events(tmp_path / "fhir", tmp_path / "events", identified=True)
    back = events.sort(events.read_events(tmp_path / "events").select(list(events.SCHEMA))).collect()
    kept = table.lazy().select(list(events.SCHEMA))
    if name != "us":
        kept = kept.filter(~pl.col("code").str.contains("^(RACE|ETHNICITY)//"))
    assert back.equals(events.sort(kept).collect())


@pytest.mark.parametrize("name", LOCALES)
def test_bytes_do_not_depend_on_order_or_subset(name, population, tmp_path):
    table = population.filter(pl.col("subject_id") < 6)
    export_fhir(table, tmp_path / "all", format="collection", locale=name)
    shuffled = table.sample(fraction=1, shuffle=True, seed=1)
    export_fhir(shuffled.filter(pl.col("subject_id").is_in([2, 5])), tmp_path / "few", format="collection", locale=name)
    for number in ("2.json", "5.json"):
        assert (tmp_path / "few" / number).read_bytes() == (tmp_path / "all" / number).read_bytes()


def test_the_demographic_events_are_those_this_file_knows():
    """A new kind of demographic fact asks what each locale makes of it."""
    assert {kind for kind in codes.SINGLE_PART_KINDS if not kind.startswith("visit")} == {
        "gender",
        "race",
        "ethnicity",
        "marital",
        "language",
    }
