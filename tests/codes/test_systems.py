"""Codes: taking apart and putting together are inverse, kinds and URIs are those of the standards."""

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrsim import codes

PART = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=12)
KINDS = typing.get_args(codes.Kind)


@given(st.sampled_from(KINDS), st.sampled_from([*codes.SYSTEMS, "D130", "DRUG", "LOCAL"]) | PART, PART)
def test_what_is_joined_comes_apart_as_it_was(kind, system, value):
    code = codes.join(kind, system, value)
    found = codes.parse(code)
    assert found.kind == kind
    if kind in ("birth", "death"):
        assert code in (codes.BIRTH, codes.DEATH)
    elif kind in codes.SINGLE_PART_KINDS:
        assert found == (kind, codes.PREFIX_OF[kind], value)
    elif system not in codes.PREFIXES:
        assert found == (kind, system, value)
    assert codes.join(*found) == code, "the canonical form is a fixed point"


@given(st.lists(PART, min_size=1, max_size=4).map("//".join))
def test_canonical_form_is_stable(code):
    once = codes.join(*codes.parse(code))
    assert codes.join(*codes.parse(once)) == once


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("LOINC//4548-4", "observation"),
        ("ICD10CM//E11.9", "condition"),
        ("ICD10PCS//0DTJ4ZZ", "procedure"),
        ("SNOMED//44054006", "condition"),
        ("RxNorm//860975", "medication"),
        ("NDC//00093-1048", "medication"),
        ("CVX//140", "immunization"),
        ("HCPCS//G0008", "procedure"),
        ("CPT//99213", "procedure"),
        ("DRUG//insulin", "medication"),
        ("DIAGNOSIS//x", "condition"),
        ("VISIT_START//IMP", "visit_start"),
        ("VISIT_TYPE//SNOMED//185345009", "visit_type"),
        ("ALLERGY//SNOMED//419263009", "allergy"),
        ("CAREPLAN//SNOMED//698360004", "care_plan"),
        ("LANGUAGE//en", "language"),
        ("MEDS_BIRTH", "birth"),
        ("OBSERVATION_END", "observation"),
        ("anything", "observation"),
    ],
)
def test_kinds_follow_from_systems_and_prefixes(code, kind):
    assert codes.parse(code).kind == kind


@pytest.mark.parametrize(
    ("given_code", "canonical"),
    [
        ("CONDITION//SNOMED//44054006", "SNOMED//44054006"),
        ("OBSERVATION//LOINC//1", "LOINC//1"),
        ("ACT//AMB", "VISIT_START//AMB"),
        ("CDCREC//2106-3", "RACE//2106-3"),
        ("PROCEDURE//LOINC//1", "PROCEDURE//LOINC//1"),
    ],
)
def test_prefixes_that_say_nothing_new_go(given_code, canonical):
    assert codes.join(*codes.parse(given_code)) == canonical


def test_uris_and_names_are_inverse_and_unique():
    uris = [uri for system in codes.SYSTEMS.values() for uri in (system.uri, *system.aliases)]
    assert len(uris) == len(set(uris))
    for system in codes.SYSTEMS.values():
        for uri in (system.uri, *system.aliases, system.uri + "/"):
            assert codes.system_of_uri(uri) == system.name
        assert codes.uri(system.name) == system.uri
        assert codes.is_known_system(system.name)


def test_uris_are_those_of_fhir():
    assert codes.uri("LOINC") == "http://loinc.org"
    assert codes.uri("SNOMED") == "http://snomed.info/sct"
    assert codes.uri("RxNorm") == "http://www.nlm.nih.gov/research/umls/rxnorm"
    assert codes.uri("ICD10CM") == "http://hl7.org/fhir/sid/icd-10-cm"
    assert codes.uri("ICD9CM") == "http://hl7.org/fhir/sid/icd-9-cm"
    assert codes.uri("CVX") == "http://hl7.org/fhir/sid/cvx"
    assert codes.uri("NDC") == "http://hl7.org/fhir/sid/ndc"
    assert codes.uri("CDCREC") == "urn:oid:2.16.840.1.113883.6.238"
    assert codes.UCUM_URI == "http://unitsofmeasure.org"


def test_local_systems_have_uris_that_lead_back():
    assert codes.uri("D130").startswith(codes.URI_BASE)
    assert codes.system_of_uri(codes.uri("D130")) == "D130"
    assert not codes.is_known_system("D130")
    foreign = codes.system_of_uri("https://hospital.test/codes for labs?x=1")
    assert "/" not in foreign
    assert codes.system_of_uri(codes.uri(foreign)) == foreign
    assert codes.system_of_uri("") == "LOCAL"
