"""Exports held against HL7's own validator, in Java: R4 and every US Core 6.1 profile that a resource claims.

It runs without a network and so without a terminology server: codes of systems that are not in the packages give
warnings ("cannot be validated"). Race and ethnicity are bound so strictly that they would give errors; so their code
system and value sets are handed to it. Nothing that it calls an error is left out.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import orjson
import polars as pl
import pytest

import ehrsim
from ehrsim import reference
from ehrsim.fhir import export_fhir
from ehrsim.importers import import_events

JAVA = Path(__file__).parent / "java"
HEAP = "-Xmx3g"
CDC, NULL = "urn:oid:2.16.840.1.113883.6.238", "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
_RACES, _ETHNICITIES = ("1002-5", "2028-9", "2054-5", "2076-8", "2106-3"), ("2135-2", "2186-5")
VALUE_SETS = {
    "2.16.840.1.114222.4.11.836": (CDC, _RACES),
    "2.16.840.1.113883.3.2074.1.1.3": (CDC, _RACES),
    "2.16.840.1.114222.4.11.837": (CDC, _ETHNICITIES),
    "2.16.840.1.113883.1.11.14914": (CDC, "1000-9"),
    "2.16.840.1.114222.4.11.877": (CDC, "2133-7"),
    "2.16.840.1.113762.1.4.1021.102": (NULL, ("UNK", "ASKU")),
    "2.16.840.1.113762.1.4.1021.103": (NULL, ("UNK", "ASKU", "OTH")),
    "2.16.840.1.113762.1.4.1": ("http://terminology.hl7.org/CodeSystem/v3-AdministrativeGender", ("F", "M")),
}
"""Value sets of race, ethnicity and sex at birth that US Core 6.1 takes from NLM: a code system with codes, or all
below one code. US Core 3.1.1 spells the same ones out."""
MIME_TYPES = {
    "resourceType": "CodeSystem",
    "id": "mime-types",
    "url": "urn:ietf:bcp:13",
    "name": "MimeTypes",
    "status": "active",
    "content": "complete",
    "concept": [{"code": "text/plain"}],
}
"""The only type of content that is written; the code system itself is a grammar (BCP 13)."""

pytestmark = pytest.mark.slow


class Found(NamedTuple):
    """Messages by level and id, one error of each file and id in full, and how long it took."""

    messages: Counter
    errors: dict[tuple[str, str], str]
    files: int
    starting: float
    seconds: float
    """CPU seconds, without those of starting."""


@pytest.fixture(scope="session")
def work() -> Path:
    """The folder with the validator's jars, gathered by Maven where they are not."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    digest = hashlib.blake2b((JAVA / "pom.xml").read_bytes(), digest_size=4).hexdigest()
    root = Path(os.environ.get("FHIR_WORK", Path.home() / ".cache" / "fhir-validators"))
    folder = root / f"java-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        "mvn",
        "-q",
        "-B",
        "-f",
        JAVA / "pom.xml",
        "dependency:copy-dependencies",
        f"-DoutputDirectory={folder}/lib",
    ]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Tests run in several processes.
        if not (folder / "complete").exists():
            # Without asking anybody first: what Maven has had once it need not look for again.
            tries = [
                subprocess.run([*command, *more], capture_output=True, text=True, check=False) for more in (["-o"], [])
            ]
            if tries[-1].returncode:
                pytest.skip(f"Maven cannot get the validator: {tries[-1].stdout.strip()[:300]}")
            (folder / "complete").touch()
    return folder


@pytest.fixture(scope="session")
def terminology(shared, tmp_path_factory) -> Path:
    """A folder with what a terminology server would say of race, ethnicity, sex at birth and types of content."""
    folder = tmp_path_factory.mktemp("terminology")
    (folder / "CodeSystem-mime-types.json").write_bytes(orjson.dumps(MIME_TYPES))
    with tarfile.open(shared / "fhir" / "packages" / "us_core_311.tgz") as package:
        system = package.extractfile("package/CodeSystem-cdcrec.json")
        assert system is not None
        (folder / "CodeSystem-cdcrec.json").write_bytes(system.read())
    for oid, (system, wanted) in VALUE_SETS.items():
        included: dict = {"system": system}
        if isinstance(wanted, str):
            included["filter"] = [{"property": "concept", "op": "is-a", "value": wanted}]
        else:
            included["concept"] = [{"code": code} for code in wanted]
        value_set = {
            "resourceType": "ValueSet",
            "id": oid,
            "url": f"http://cts.nlm.nih.gov/fhir/ValueSet/{oid}",
            "name": f"ValueSet{oid.replace('.', '')}",
            "status": "active",
            "compose": {"include": [included]},
        }
        (folder / f"ValueSet-{oid}.json").write_bytes(orjson.dumps(value_set))
    return folder


@pytest.fixture(scope="session")
def judge(work, shared, terminology):
    """A function that holds all bundles of a folder against the validator."""
    packages = [shared / "fhir" / "packages" / name for name in ("hl7.fhir.r4.core.tgz", "us_core_610.tgz")]

    def run(folder: Path) -> Found:
        files = sorted(folder.glob("*.json"))
        arguments = [JAVA / "JudgeExport.java", *packages, terminology, *files]
        with (work / "run.lock").open("w") as lock:  # One at a time: each takes 3 GB.
            fcntl.flock(lock, fcntl.LOCK_EX)
            command = ["java", HEAP, f"-Duser.home={work}", "-cp", f"{work}/lib/*", *arguments]
            done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2_000:]
        *messages, last = map(orjson.loads, done.stdout.splitlines())
        errors = {(one["file"], one["id"]): f"{one['path']}: {one['text']}" for one in messages if _is_error(one)}
        counted = Counter(("error" if _is_error(one) else one["level"], one["id"]) for one in messages)
        assert last["files"] == len(files)
        return Found(counted, errors, len(files), float(last["starting"]), float(last["seconds"]))

    return run


def _is_error(message: dict) -> bool:
    return message["level"] in ("error", "fatal")


def _report(name: str, found: Found) -> None:
    """Print what was found (shown with -s)."""
    pace = found.seconds / found.files
    print(f"\n{name}: {found.files} bundles, {found.starting:.0f} s to start, {pace:.2f} s a bundle")
    for (level, kind), count in sorted(found.messages.items()):
        if level != "information":
            print(f"  {count:6,} {level} {kind}")


def test_reference_patients_have_no_error(judge, tmp_path):
    """Two hundred patients, each with the first visits and every sixteenth later one."""
    visit = pl.col("visit_id")
    population = reference.population(200, seed=5).filter(visit.is_null() | (visit < 4) | (visit % 16 == 3))
    export_fhir(population, tmp_path / "out", format="collection")
    found = judge(tmp_path / "out")
    _report("reference", found)
    assert found.files == 200
    assert not found.errors


@pytest.mark.parametrize("name", ["synthea_stu3_1461", "nafld_mayo_17549", "diabetes130_71518"])
def test_real_data_has_no_error(name, judge, event_sets, tmp_path):
    import_events(event_sets / name, tmp_path / "events")
    events = ehrsim.read_events(tmp_path / "events").collect()
    chosen = events["subject_id"].unique().sort().head(50)
    export_fhir(
        events.filter(pl.col("subject_id").is_in(chosen.implode())),
        tmp_path / "out",
        format="collection",
    )
    found = judge(tmp_path / "out")
    _report(name, found)
    assert found.files == 50
    assert not found.errors


# FHIR R4 has no place for a systolic pressure in another unit than mmHg: the profile of its code fixes the unit.
FITTING = ~((pl.col("code") == "LOINC//8480-6") & (pl.col("unit") == "kPa"))


def test_every_row_of_the_mapping_has_no_error(judge, every_row, tmp_path):
    export_fhir(every_row.filter(FITTING.fill_null(True)), tmp_path / "out", format="collection")
    assert judge(tmp_path / "out").errors == {}


DEFECTS = {
    "a member that the type has not": (b'"status":"final"', b'"statuses":"final"'),
    "a race that is none": (b'"code":"2106-3"', b'"code":"2106-4"'),
    "a reference that leads nowhere": (b'"encounter":{"reference":"urn:uuid:', b'"encounter":{"reference":"urn:uuid:0'),
    "a name that the code has not": (b'"Assessment and Plan of Treatment"', b'"Assessment and Plan"'),
    "an oral temperature alone": (b',{"system":"http://loinc.org","code":"8310-5","display":"Body temperature"}', b""),
    "a status that the value set has not": (b'"status":"finished"', b'"status":"done"'),
    "a unit that the profile has not": (
        b'"unit":"Cel","system":"http://unitsofmeasure.org","code":"Cel"',
        b'"unit":"Cel"',
    ),
}


def test_the_validator_finds_every_defect(judge, every_row, tmp_path):
    """Each in a bundle of its own, which has no error without it (as another test says)."""
    export_fhir(every_row.filter(FITTING.fill_null(True)), tmp_path / "sound", format="collection")
    (tmp_path / "broken").mkdir()
    bundles = [path.read_bytes() for path in sorted((tmp_path / "sound").iterdir())]
    for number, (right, wrong) in enumerate(DEFECTS.values()):
        broken = next(bundle.replace(right, wrong, 1) for bundle in bundles if right in bundle)
        (tmp_path / "broken" / f"{number}.json").write_bytes(broken)
    told = {int(file.partition(".")[0]) for file, _ in judge(tmp_path / "broken").errors}
    assert [name for number, name in enumerate(DEFECTS) if number not in told] == []
