"""The compiled rules: in step with the packages of HL7, right about its examples, sharp enough for the mutants."""

import gzip
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import orjson
import pytest

from ehrsim.errors import UsageError
from ehrsim.fhir.validation import validate_fhir
from ehrsim.fhir.validation.rules import rules_of

ROOT = Path(__file__).parents[3]
COMPILER = ROOT / "schemas" / "fhir" / "compile.py"
EXAMPLES = {"6.1": ("us_core_610.tgz", 183), "8.0": ("us_core_800.tgz", 228)}
CAUGHT = {("6.1", "fast"): 79, ("6.1", "full"): 84, ("8.0", "fast"): 77, ("8.0", "full"): 81}
"""Of the 89 mutants. Two of the others leave out what need only be supported, one is a value that no patient has, and
two need lists of codes with their displays."""


@pytest.fixture(scope="module")
def packages(shared):
    return shared / "fhir" / "packages"


@pytest.fixture(scope="module")
def corpus(shared, tmp_path_factory):
    """A good bundle, and copies with one defect each."""
    folder = tmp_path_factory.mktemp("corpus")
    subprocess.run([sys.executable, shared / "fhir" / "validators" / "corpus.py", folder], check=True)
    return folder


def test_the_rules_are_those_of_the_packages(packages, tmp_path):
    code = (
        f"import sys; from pathlib import Path; import compile; compile.RULES = Path({str(tmp_path)!r}); compile.main()"
    )
    command = [sys.executable, "-c", code, packages]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(COMPILER.parent)})
    for version in EXAMPLES:
        name = f"us-core-{version}.json.gz"
        made, kept = ((folder / name).read_bytes() for folder in (tmp_path, ROOT / "ehrsim" / "fhir" / "rules"))
        assert gzip.decompress(made) == gzip.decompress(kept), f"{name} is stale: make fhir-rules"
        assert len(kept) < 100_000


@pytest.mark.parametrize("version", EXAMPLES)
def test_every_reference_within_the_rules_leads_somewhere(version):
    rules = rules_of(version)
    wanted = {name.removeprefix("#/$defs/") for name in _references(rules.definitions)}
    assert wanted <= set(rules.definitions)
    assert set(rules.profiles.values()) <= set(rules.definitions)


def test_no_rule_depends_on_the_digits_of_a_value():
    # What `layouts` rests on: the value of a quantity is any number, that of an identifier any text.
    for version in EXAMPLES:
        for name, definition in rules_of(version).definitions.items():
            value = definition.get("properties", {}).get("value", {})
            if value and name not in ("Bundle.link",):
                assert not {"minimum", "maximum", "enum", "const", "pattern"} & set(value), name
                assert value.get("$ref", "").rpartition("/")[2] in ("", "CodeableConcept", "decimal", "string", "uri")


def test_an_unknown_version_is_told():
    with pytest.raises(UsageError, match=r"unknown version `4\.0` of US Core"):
        rules_of("4.0")


@pytest.mark.parametrize(("version", "extent"), [("6.1", "fast"), pytest.param("8.0", "fast", marks=pytest.mark.slow)])
def test_mutants_are_caught_by_the_schema(corpus, version, extent):
    assert _caught(corpus, version, extent) == CAUGHT[version, extent]


@pytest.mark.slow
@pytest.mark.parametrize("version", EXAMPLES)
def test_mutants_are_caught_in_full(corpus, version):
    pytest.importorskip("fhirpathpy")
    assert _caught(corpus, version, "full") == CAUGHT[version, "full"] >= 80


@pytest.mark.slow
@pytest.mark.parametrize("extent", ["fast", "full"])
@pytest.mark.parametrize("version", EXAMPLES)
def test_the_examples_of_us_core_are_valid(packages, tmp_path, version, extent):
    name, count = EXAMPLES[version]
    with tarfile.open(packages / name) as package:
        files = [member for member in package if member.name.startswith("package/example/") and member.isfile()]
        content = {Path(member.name).name: package.extractfile(member).read() for member in files}
    resources = {name: text for name, text in content.items() if b'"resourceType"' in text and name.endswith(".json")}
    checked = 0
    for name, text in resources.items():
        (tmp_path / name).write_bytes(text)
        report = validate_fhir(tmp_path / name, extent, version)
        assert report.ok, report.lines()
        checked += 1
    assert checked == count


def _caught(corpus, version, extent):
    """How many mutants have an error, where the good bundle has none."""
    assert validate_fhir(corpus / "good.json", extent, version).lines()[-1] == "no errors"
    caught = Counter()
    for mutant in orjson.loads((corpus / "manifest.json").read_bytes()):
        report = validate_fhir(corpus / "mutants" / f"{mutant['id']}.json", extent, version)
        caught[mutant["level"]] += not report.ok
        assert all("\n" not in str(finding) for finding in report.findings)
    return caught.total()


def _references(schema):
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for one in schema.values():
            yield from _references(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from _references(one)
