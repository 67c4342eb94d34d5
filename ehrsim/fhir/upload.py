"""The verb `upload_fhir`: an export to a FHIR server, as often as needed, with the same result.

Every resource is put under its own id, so what is sent twice is there once. What the server has accepted is noted in a
journal beside the export; after an interruption, or a refusal that was mended, the same command sends the rest.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import orjson

from ehrsim.errors import FormatError, InputError, MissingExtraError, ServerError, UsageError
from ehrsim.fhir.inspection import fhir_files, open_lines
from ehrsim.fhir.writers import COHORT_FILE, ENTRIES, SHARED_FILE, SHARED_TYPES, TYPES
from ehrsim.progress import Progress, silent

TOKEN = "EHRSIM_TOKEN"
"""Environment variable with a bearer token for the server."""
TRANSIENT = frozenset((408, 425, 429, 500, 502, 503, 504))
"""HTTP statuses after which the same request may succeed."""
FORBIDDEN = frozenset((401, 403))
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before an attempt is repeated: twice as long each time, or as long as the server asks for."""
TIMEOUT = 300.0
_PART = re.compile(r"(.+?)(-\d{3,})?\.json")
_JSON = "application/fhir+json"


class UploadReport(msgspec.Struct):
    """What was sent and what became of it; `bundles` are those sent, `skipped` those accepted before."""

    bundles: int = 0
    skipped: int = 0
    created: int = 0
    updated: int = 0
    """Resources that the server says it had already."""
    repeated: int = 0
    """Requests sent again after a transient failure."""
    refused: int = 0
    """Bundles that the server did not take."""
    first_refusal: str = ""

    def lines(self) -> list[str]:
        """The report for people, a line each."""
        lines = [f"sent {self.bundles:,} bundles: {self.created:,} resources created, {self.updated:,} updated"]
        if self.skipped:
            lines.append(f"{self.skipped:,} bundles had been accepted before and were not sent again")
        if self.repeated:
            lines.append(f"{self.repeated:,} requests were repeated")
        return lines


class Unit(NamedTuple):
    """What is sent in one request."""

    name: str
    source: bytes | Path
    """A bundle, or its file, which is read when it is sent."""

    def read(self) -> bytes:
        """The bundle."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


class Stage(NamedTuple):
    """Chains of units that may be sent side by side, the units of each in order; stages come one after the other."""

    chains: Iterable[list[Unit]]
    units: int


def upload_fhir(
    folder: str | Path,
    server: str,
    *,
    workers: int = 4,
    attempts: int = 6,
    again: bool = False,
    progress: Progress = silent,
) -> UploadReport:
    """Send the export in `folder` (NDJSON, transactions or batches) to the FHIR R4 server with that base URL.

    So many `workers` send at a time, what patients share before all else. Requests that fail for a while (429, 5xx, no
    connection) are repeated `attempts` times at most, later each time. A bearer token is taken from the environment
    variable EHRSIM_TOKEN. Where an earlier upload left off, this one goes on; `again` sends everything.

    Raises `FormatError` for a folder that is no such export, `UsageError` for a URL that will not do, `ServerError` for
    a server that cannot be reached, is no FHIR R4 server, or refuses anything; what it accepted is kept and noted.
    """
    folder, server = Path(folder), server.rstrip("/")
    for name, number in (("workers", workers), ("attempts", attempts)):
        if number < 1:
            raise UsageError(f"{name} is `{number}`, expected 1 or more")
    token = os.environ.get(TOKEN)
    _check_url(server, token)
    stages = _stages(folder)
    with _Connection(server, token, workers, attempts) as connection:
        connection.check()
        with _Journal(_journal_path(folder, server), again=again) as journal:
            work = _Upload(connection, journal, progress, sum(stage.units for stage in stages))
            for stage in stages:
                _side_by_side(stage.chains, work.send, workers)
                if work.report.refused:
                    break  # What comes later rests on it.
    report = work.report
    report.repeated = connection.repeated
    if report.refused:
        raise ServerError(
            f"{server} refused {report.refused:,} of {report.bundles + report.refused:,} bundles; "
            f"first {report.first_refusal}",
            hint="the same command sends again what was not accepted",
        )
    return report


def _check_url(server: str, token: str | None) -> None:
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise UsageError(f"--server is `{server}`", hint="write the base URL, as in https://host/fhir")
    if parts.username or parts.password:
        raise UsageError("the URL of the server holds a password", hint=f"put a bearer token into {TOKEN}")
    if token and parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise UsageError(f"{TOKEN} would be sent unencrypted to {parts.hostname}", hint="use https")


def _stages(folder: Path) -> list[Stage]:
    """What is to be sent, in order."""
    files = fhir_files(folder)
    if not files:
        raise FormatError(f"{folder} holds no FHIR to upload", hint="name a folder that ehrsim export has written")
    if any(path.suffix == ".json" for path in files):
        return _bundles([path for path in files if path.suffix == ".json"])
    by_type: dict[str, list[Path]] = {}
    for path in files:
        by_type.setdefault(path.name.partition(".")[0], []).append(path)
    known = [*SHARED_TYPES, *TYPES]
    ordered = sorted(by_type, key=lambda name: (known.index(name) if name in known else len(known), name))
    return [Stage(_groups(by_type[name]), sum(map(_number_of_groups, by_type[name]))) for name in ordered]


def _bundles(files: list[Path]) -> list[Stage]:
    """Bundles: that with what patients share, then those of each patient in order, then those on all together."""
    shared = [path for path in files if path.name == SHARED_FILE]
    if not shared:
        raise FormatError(
            f"{files[0].parent} has no {SHARED_FILE}, so it holds no bundles to upload",
            hint="export with --format transaction, batch or ndjson",
        )
    chains: dict[str, list[Unit]] = {}
    for path in files:
        if path.name != SHARED_FILE and (found := _PART.fullmatch(path.name)):
            chains.setdefault(found[1], []).append(Unit(path.name, path))
    first = [Unit(path.name, path) for path in shared]
    last = chains.pop(COHORT_FILE, [])
    stages = [Stage([first], 1), Stage(list(chains.values()), sum(map(len, chains.values())))]
    return [*stages, Stage([last], len(last))] if last else stages


def _groups(files: list[Path]) -> Iterator[list[Unit]]:
    """The lines of NDJSON files in groups of ENTRIES, each a transaction."""
    for path in files:
        with open_lines(path) as lines:
            number = 0
            while group := list(islice(lines, ENTRIES)):
                body = _transaction([line for line in group if line.strip()], f"{path.name} line {number + 1} on")
                yield [Unit(f"{path.name}:{number}", body)]
                number += len(group)


def _number_of_groups(path: Path) -> int:
    with open_lines(path) as lines:
        return -(-sum(1 for _ in lines) // ENTRIES)


def _transaction(lines: list[bytes], where: str) -> bytes:
    entries = []
    for line in lines:
        try:
            resource = orjson.loads(line)
            name = f"{resource['resourceType']}/{resource['id']}"
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f"{where}: a line is no resource with an id: {error}") from error
        request = {"method": "PUT", "url": name}
        full_url = f"urn:uuid:{resource['id']}"
        entries.append({"fullUrl": full_url, "resource": orjson.Fragment(line), "request": request})
    return orjson.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})


def _side_by_side(chains: Iterable[list[Unit]], send: Callable[[list[Unit]], None], workers: int) -> None:
    """Send chains, only a few more at hand than are being sent; the first error ends it."""
    with ThreadPoolExecutor(workers) as pool:
        pending: set[Future[None]] = set()
        try:
            for chain in chains:
                if len(pending) >= 2 * workers:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                pending.add(pool.submit(send, chain))
            for future in pending:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Refused(Exception):
    """A request that the server does not take, however often it is sent."""


class _Upload:
    """Sends chains and keeps count; its methods may be called from several threads."""

    def __init__(self, connection: _Connection, journal: _Journal, progress: Progress, total: int) -> None:
        self._connection, self._journal = connection, journal
        self._progress, self._total = progress, total
        self._lock, self._over = threading.Lock(), threading.Event()
        self._done = 0
        self.report = UploadReport()

    def send(self, chain: list[Unit]) -> None:
        """Send the units of a chain; where one is refused, those after it would refer to what is not there.

        Where the server cannot be reached, no other chain is begun or gone on with.
        """
        try:
            self._send(chain)
        except BaseException:
            self._over.set()
            raise

    def _send(self, chain: list[Unit]) -> None:
        for position, unit in enumerate(chain):
            if self._over.is_set():
                return
            body = unit.read()
            digest = hashlib.blake2b(body, digest_size=16).hexdigest()
            if (unit.name, digest) in self._journal:
                self._count(UploadReport(skipped=1), 1)
                continue
            try:
                created, updated = self._connection.post(body)
            except _Refused as error:
                rest = len(chain) - position
                self._count(UploadReport(refused=rest, first_refusal=f"{unit.name}: {error}"), rest)
                return
            self._journal.note(unit.name, digest)
            self._count(UploadReport(bundles=1, created=created, updated=updated), 1)

    def _count(self, more: UploadReport, units: int) -> None:
        with self._lock:
            report = self.report
            for name in ("bundles", "skipped", "created", "updated", "refused"):
                setattr(report, name, getattr(report, name) + getattr(more, name))
            report.first_refusal = report.first_refusal or more.first_refusal
            self._done += units
            self._progress("upload", self._done, self._total, "bundles")


def _journal_path(folder: Path, server: str) -> Path:
    """One journal for each server, beside the export, which stays as it is."""
    return folder.parent / f"{folder.name}.{hashlib.blake2b(server.encode(), digest_size=4).hexdigest()}.upload.jsonl"


class _Journal:
    """Bundles that the server has accepted, by name and digest, one a line; a torn last line counts for nothing."""

    def __init__(self, path: Path, *, again: bool) -> None:
        self._path, self._lock = path, threading.Lock()
        self._accepted: set[tuple[str, str]] = set()
        if again:
            path.unlink(missing_ok=True)
        if path.is_file():
            whole = path.read_bytes()
            whole = whole[: whole.rfind(b"\n") + 1]
            try:
                self._accepted = {(name, digest) for name, digest in map(orjson.loads, whole.splitlines())}
            except (orjson.JSONDecodeError, ValueError, TypeError) as error:
                raise InputError(f"{path} is no journal of an upload", hint="--again begins anew") from error
            path.write_bytes(whole)

    def __enter__(self) -> _Journal:
        try:
            self._file = self._path.open("ab")
        except OSError as error:
            raise InputError(f"cannot write the journal {self._path}: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, unit: tuple[str, str]) -> bool:
        return unit in self._accepted

    def note(self, name: str, digest: str) -> None:
        """Note that a bundle was accepted; it is on its way to the disk when this returns."""
        with self._lock:
            self._file.write(orjson.dumps([name, digest]) + b"\n")
            self._file.flush()


class _Connection:
    """Requests to one server, repeated where that may help."""

    def __init__(self, server: str, token: str | None, workers: int, attempts: int) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingExtraError("uploading", "upload") from error
        headers = {"Accept": _JSON, "Content-Type": _JSON, **({"Authorization": f"Bearer {token}"} if token else {})}
        self._server, self._attempts = server, attempts
        self._failure = httpx.TransportError
        limits = httpx.Limits(max_connections=workers)
        self._client = httpx.Client(headers=headers, timeout=TIMEOUT, limits=limits)
        self._lock = threading.Lock()
        self.repeated = 0

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def check(self) -> None:
        """Raise `ServerError` if this is no FHIR R4 server that can be reached."""
        try:
            statement = self._sent("GET", f"{self._server}/metadata")
        except _Refused as error:
            raise ServerError(f"{self._server} is no FHIR server: {error}", hint="give its base URL") from error
        version = statement.get("fhirVersion")
        if statement.get("resourceType") != "CapabilityStatement" or not str(version).startswith("4.0"):
            raise ServerError(f"{self._server} is no FHIR R4 server: its FHIR version is {version}, expected 4.0")

    def post(self, body: bytes) -> tuple[int, int]:
        """Post a bundle; returns how many resources were created and updated, or raises `_Refused`."""
        answer = self._sent("POST", self._server, body)
        statuses = [str(entry.get("response", {}).get("status", "")) for entry in answer.get("entry", [])]
        failed = next((index for index, status in enumerate(statuses) if not status.startswith("2")), None)
        if failed is not None:
            outcome = answer["entry"][failed].get("response", {}).get("outcome", {})
            raise _Refused(f"entry {failed}: {statuses[failed]} {_told(outcome)}")
        created = sum(status.startswith("201") for status in statuses)
        return created, len(statuses) - created

    def _sent(self, method: str, url: str, body: bytes | None = None) -> dict[str, Any]:
        """The answer to a request, as JSON."""
        pause, told = FIRST_WAIT, ""
        for attempt in range(self._attempts):
            if attempt:
                with self._lock:
                    self.repeated += 1
            try:
                answer = self._client.request(method, url, content=body)
            except self._failure as error:
                told, asked = str(error) or type(error).__name__, ""
            else:
                if answer.status_code not in TRANSIENT:
                    return self._read(answer.status_code, answer.content)
                told, asked = f"HTTP {answer.status_code}", answer.headers.get("Retry-After", "")
            if attempt + 1 < self._attempts:
                time.sleep(min(float(asked) if asked.isdigit() else pause, LONGEST_WAIT))
                pause *= 2
        raise ServerError(
            f"{self._server} cannot be reached: {told}, {self._attempts} times",
            hint="the same command goes on where this one left off",
        )

    def _read(self, status: int, content: bytes) -> dict[str, Any]:
        try:
            answer = orjson.loads(content)
        except orjson.JSONDecodeError:
            answer = None
        if status in FORBIDDEN:
            raise ServerError(f"{self._server} answers HTTP {status}", hint=f"put a bearer token into {TOKEN}")
        if not 200 <= status < 300:
            raise _Refused(f"HTTP {status} {_told(answer)}")
        if not isinstance(answer, dict):
            raise ServerError(f"{self._server} is no FHIR server: it answers with something else than JSON")
        return answer


def _told(outcome: Any) -> str:
    """What an OperationOutcome says of the first error."""
    issues = outcome.get("issue", []) if isinstance(outcome, dict) else []
    for issue in issues:
        text = issue.get("diagnostics") or issue.get("details", {}).get("text") or issue.get("code")
        if text:
            return str(text)[:300]
    return ""
