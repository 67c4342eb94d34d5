"""Uploads held against a real FHIR server: in the end it has what was exported, whatever happened on the way."""

import fcntl
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import orjson
import polars as pl
import pytest

from ehrsim import cli, reference
from ehrsim.errors import ServerError
from ehrsim.fhir import export_fhir, upload, upload_fhir
from ehrsim.fhir.writers import SHARED_TYPES

SERVER = "sekmet-fhir==0.1.1"
SUBJECTS = 500
WORKERS = 4
PART = 12
"""Entries of a bundle: few, so that most patients come in parts that refer to those before."""
UNKNOWN = ("CareTeam",)
"""Types that this server stores and does not list."""
OWN_TYPES = {"Basic"}
"""What the server keeps for itself, and the export has none of."""
UPLOAD = "import sys; from ehrsim import cli; sys.exit(cli.run(sys.argv[1:]))"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def program() -> Path:
    """The server's program, in a virtual environment of its own; installed where it is not."""
    work = Path(os.environ.get("FHIR_WORK", Path.home() / ".cache" / "fhir-validators"))
    work.mkdir(parents=True, exist_ok=True)
    python, found = work / "server" / "bin" / "python", work / "server" / "bin" / "sekmet"
    with (work / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Tests run in several processes.
        if not found.exists():
            commands = [sys.executable, "-m", "venv", work / "server"], [python, "-m", "pip", "install", "-q", SERVER]
            for command in commands:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    pytest.skip(f"{SERVER} cannot be installed: {(done.stderr or done.stdout).strip()[-200:]}")
    return found


@contextmanager
def serving(program: Path, folder: Path) -> Iterator[str]:
    """A server with an empty data base in `folder`, on loopback only; the base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/fhir"
    settings = {
        "base_url": url,
        "host": "127.0.0.1",
        "port": port,
        "data_dir": str(folder / "data"),
        "simulator": {"enabled": False},
        "log_inbound": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.yaml").write_bytes(orjson.dumps(settings))  # JSON is YAML.
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen([program, "serve", "-c", "settings.yaml"], cwd=folder, stdout=log, stderr=log)
        try:
            _wait_for(url, process, folder / "log.txt")
            yield url
        finally:
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, log.read_text()[-2_000:]
        try:
            if httpx.get(f"{url}/metadata").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError(f"no answer from {url}: {log.read_text()[-2_000:]}")


@pytest.fixture
def url(program, tmp_path) -> Iterator[str]:
    with serving(program, tmp_path / "server") as url:
        assert on_server(url) == ({}, {})
        yield url


class Exported(NamedTuple):
    """The same patients as lines and as bundles, and what a server is to have of them: name -> resource."""

    lines: Path
    bundles: Path
    resources: dict[str, dict]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Exported:
    """Five hundred patients with their first visits."""
    folder = tmp_path_factory.mktemp("export")
    visit = pl.col("visit_id")
    population = reference.population(SUBJECTS, seed=5).filter(visit.is_null() | (visit < 2))
    report = export_fhir(population, folder / "lines", exclude=UNKNOWN, validate="none")
    export_fhir(population, folder / "bundles", format="transaction", entries=PART, exclude=UNKNOWN, validate="none")
    lines = [line for path in sorted((folder / "lines").glob("*.ndjson")) for line in path.read_bytes().splitlines()]
    resources = {_name(resource): resource for resource in map(orjson.loads, lines)}
    assert len(resources) == len(lines) == sum(report.resources.values()) > 10 * SUBJECTS
    return Exported(folder / "lines", folder / "bundles", resources)


def _name(resource: dict) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def on_server(url: str) -> tuple[dict[str, dict], dict[str, int]]:
    """All that a server has: resources by name, without the members of `meta` that are the server's, and versions."""
    resources, versions = {}, {}
    with httpx.Client(timeout=120) as client:
        types = [one["type"] for one in client.get(f"{url}/metadata").json()["rest"][0]["resource"]]
        for resource_type in sorted(set(types) - OWN_TYPES):
            total, found, page = 0, 0, f"{url}/{resource_type}?_count=1000"
            while page:
                bundle = client.get(page).json()
                total = bundle["total"]
                for entry in bundle.get("entry", []):
                    resource, found = entry["resource"], found + 1
                    versions[_name(resource)] = int(resource["meta"].pop("versionId"))
                    del resource["meta"]["lastUpdated"]
                    resources[_name(resource)] = resource
                page = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), None)
            assert found == total
    return resources, versions


def by_type(names) -> Counter:
    return Counter(name.partition("/")[0] for name in names)


def same(found: dict[str, dict], expected: dict[str, dict]) -> None:
    """Assert that both are the same, and say little if they are not."""
    assert by_type(found) == by_type(expected)
    different = [name for name, resource in expected.items() if found[name] != resource]
    assert not different, (len(different), found[different[0]], expected[different[0]])


def everything(resources: dict[str, dict], patient: str) -> set[str]:
    """The patient, what refers to it, and what these refer to."""
    own = {name for name, one in resources.items() if f'"{patient}"'.encode() in orjson.dumps(one)} | {patient}
    texts = (orjson.dumps(resources[name]).decode() for name in own)
    return own | {reference for text in texts for reference in re.findall(r'"reference":"(\w+/[^"]+)"', text)}


def test_everything_is_there_as_it_was_exported_and_sent_again_changes_nothing(url, exported):
    report = upload_fhir(exported.bundles, url, workers=WORKERS)
    assert (report.created, report.updated) == (len(exported.resources), 0)
    found, versions = on_server(url)
    same(found, exported.resources)
    assert set(versions.values()) == {1}

    patients = sorted(name for name in exported.resources if name.startswith("Patient/"))[:: SUBJECTS // 20]
    for patient in patients:
        bundle = httpx.get(f"{url}/{patient}/$everything", timeout=120).json()
        names = {_name(entry["resource"]) for entry in bundle["entry"]}
        assert names == everything(exported.resources, patient)
        assert set(SHARED_TYPES) - {"PractitionerRole"} < set(by_type(names)), "what a patient leads to"

    report = upload_fhir(exported.bundles, url, workers=WORKERS)
    assert (report.bundles, report.skipped) == (0, len(list(exported.bundles.iterdir())))
    assert on_server(url)[1] == versions
    # What is sent all the same is what is there already; this server calls every PUT a new version.
    report = upload_fhir(exported.bundles, url, workers=WORKERS, again=True)
    assert (report.created, report.updated) == (0, len(exported.resources))
    found, versions = on_server(url)
    same(found, exported.resources)
    assert set(versions.values()) == {2}


def test_an_upload_that_was_killed_goes_on_where_it_was(url, exported, tmp_path):
    """The process gets no chance to tidy up: the journal and the server have what they have."""
    folder = tmp_path / "bundles"
    folder.symlink_to(exported.bundles)
    units = len(list(folder.iterdir()))
    command = [sys.executable, "-c", UPLOAD, "upload", folder, "--server", url, "--workers", str(WORKERS)]
    journal = upload._journal_path(folder, url)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not journal.exists() or journal.read_bytes().count(b"\n") < units // 3:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    noted = journal.read_bytes().count(b"\n")
    assert units // 3 <= noted < units
    between, _ = on_server(url)
    assert 0 < len(between) < len(exported.resources)

    report = upload_fhir(folder, url, workers=WORKERS)
    assert (report.skipped, report.bundles) == (noted, units - noted)
    found, versions = on_server(url)
    same(found, exported.resources)
    # Only bundles that were under way may have been accepted without a note, and are sent again.
    again = sum(version > 1 for version in versions.values())
    assert again == report.updated <= WORKERS * PART


def test_lines_arrive_like_bundles(url, exported, capsys):
    assert cli.run(["upload", str(exported.lines), "--server", url]) == 0
    assert f"{len(exported.resources):,} resources created, 0 updated" in capsys.readouterr().out
    found, versions = on_server(url)
    same(found, exported.resources)
    assert set(versions.values()) == {1}


def test_what_the_server_refuses_is_named_in_its_words(url, exported, tmp_path):
    """A reference that leads nowhere in the first part of a patient: that patient is left out whole, the others not."""
    folder = tmp_path / "bundles"
    folder.mkdir()
    parts = sorted(path for path in exported.bundles.iterdir() if re.match(r"1\d\b", path.name))
    for path in (*parts, exported.bundles / "shared.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    broken = folder / next(path.name for path in parts if path.name.endswith("-001.json"))
    rest = sum(path.name.startswith(broken.name.partition("-")[0]) for path in parts)
    bundle = broken.read_bytes()
    patient = next(one["request"]["url"] for one in orjson.loads(bundle)["entry"])
    assert patient.startswith("Patient/")
    broken.write_bytes(
        bundle.replace(patient.replace("Patient/", '"reference":"urn:uuid:').encode(), b'"reference":"urn:uuid:0')
    )
    words = rf"refused {rest} of {len(parts) + 1} bundles; first {broken.name}: HTTP 400 .*unresolved reference"
    with pytest.raises(ServerError, match=words):
        upload_fhir(folder, url)
    found, _ = on_server(url)
    assert patient not in found
    assert by_type(found)["Patient"] == 9
    same(found, {name: exported.resources[name] for name in found})
