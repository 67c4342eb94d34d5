"""Files of FHIR JSON: which ones a source has, and the resources in them with their places.

NDJSON (one resource or bundle a line) is read line by line; any other file is one JSON document, a resource or bundle.
Either may be compressed with gzip. A file that cannot be read to its end is one `InputError` naming file and line.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ehrsim.errors import FormatError, InputError
from ehrsim.importers.fhir.elements import Element, UnusableResource, children, text
from ehrsim.importers.report import ImportReport, name_of

LONGEST_LINE = 64 << 20
"""Bytes of the longest line of NDJSON that is read; resources are far shorter, even with attachments."""
LARGEST_DOCUMENT = 1 << 30
"""Bytes of the largest JSON document that is read, since it is parsed as a whole."""

_LINES = re.compile(r"\.(ndjson|jsonl)(\.gz)?$", re.IGNORECASE)
_DOCUMENT = re.compile(r"\.json(\.gz)?$", re.IGNORECASE)
_NO_DATA = re.compile(r"^(log|manifest|.*[-_.]manifest|dataset)\.(json|ndjson)(\.gz)?$", re.IGNORECASE)
"""Files that stand beside the data: logs and manifests of Bulk Data exports, the description of a MEDS data set."""
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BUFFER = 1 << 18
NO_LINKS: dict[str, str] = {}


class Found(NamedTuple):
    """A resource, where it stands, and the `Type/id` that each full URL of its bundle stands for."""

    resource: Element
    path: Path
    line: int | None
    """Counted from 1; None in a document that is no NDJSON."""
    links: dict[str, str]

    def __str__(self) -> str:
        identity = self.resource.get("id")
        of_type = f"{self.resource['resourceType']}/{identity}" if identity else self.resource["resourceType"]
        return f"{_at(name_of(self.path), self.line)} {of_type}"


def is_fhir_file(path: Path) -> bool:
    """Whether a file has a name that FHIR data has."""
    return bool(_LINES.search(path.name) or _DOCUMENT.search(path.name)) and not _is_beside(path)


def _is_beside(path: Path) -> bool:
    return path.name.startswith(".") or bool(_NO_DATA.match(path.name))


def find_files(source: Path, report: ImportReport) -> list[Path]:
    """The files of a source in a fixed order; other files in its folder are counted as findings."""
    if source.is_file():
        return [source]
    files = sorted(path for path in source.rglob("*") if path.is_file())
    chosen = [path for path in files if is_fhir_file(path)]
    if not chosen:
        raise FormatError(f"{source} holds no FHIR file", hint="expected *.json or *.ndjson, plain or gzipped")
    for path in files:
        if not is_fhir_file(path):
            report.find("file that holds no FHIR data", 1, name_of(path))
    return chosen


def resources(path: Path, report: ImportReport, only: re.Pattern[bytes] | None = None) -> Iterator[Found]:
    """Yield the resources of a file; with `only`, no line of NDJSON and no document that it is not found in.

    What is no resource is counted in `report`. Raises `InputError` if the file is not readable JSON.
    """
    for line, content in _contents(path):
        if only is None or only.search(content):
            value = _parse(content, path, line)
            if type(value.get("resourceType")) is not str:
                report.skip("JSON object without a resourceType", 1, _at(name_of(path), line))
            elif value["resourceType"] == "Bundle":
                yield from _entries(value, path, line, report)
            else:
                yield Found(value, path, line, NO_LINKS)


def _contents(path: Path) -> Iterator[tuple[int | None, bytes]]:
    """The JSON texts of a file with their line numbers."""
    if _LINES.search(path.name):
        yield from _lines(path)
        return
    content = _document(path)
    if _holds_lines(content):
        yield from _lines(path)
    else:
        yield None, content


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    found = False
    with _opened(path) as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise InputError(f"{path} line {number} is longer than {LONGEST_LINE:,} bytes", hint="expected NDJSON")
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if not line.isspace():
                found = True
                yield number, line
    if not found:
        raise InputError(f"{path} is empty", hint="expected a FHIR resource on each line")


def _document(path: Path) -> bytes:
    with _opened(path) as file:
        content: bytes = file.read(LARGEST_DOCUMENT + 1)
    if len(content) > LARGEST_DOCUMENT:
        raise InputError(
            f"{path} is longer than {LARGEST_DOCUMENT:,} bytes", hint="split it, or make it NDJSON and name it *.ndjson"
        )
    if not content or content.isspace():
        raise InputError(f"{path} is empty", hint="expected a FHIR bundle or resource")
    return content.removeprefix(_BYTE_ORDER_MARK)


def _holds_lines(content: bytes) -> bool:
    """Whether a document is NDJSON under another name: its first line is JSON of its own, and more follows."""
    head, _, rest = content.partition(b"\n")
    if not head.rstrip().endswith(b"}") or not rest or rest.isspace():
        return False
    try:
        orjson.loads(head)
    except orjson.JSONDecodeError:
        return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A binary stream of a file, plain or gzipped; what goes wrong in reading it becomes an `InputError`."""
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            if compressed:
                with gzip.GzipFile(fileobj=raw) as unpacked, io.BufferedReader(unpacked, _BUFFER) as file:
                    yield file
            elif path.suffix.lower() == ".gz" and path.stat().st_size:
                raise InputError(f"{path} is not gzip data", hint="rename it without .gz, or compress it again")
            else:
                yield raw
    except EOFError as error:
        raise InputError(f"{path} ends in the middle of its gzip data", hint="copy or download it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} holds corrupt gzip data: {error}", hint="copy or download it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _parse(content: bytes, path: Path, line: int | None) -> Element:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise _no_json(content, _at(str(path), line), error) from error
    if type(value) is not dict:
        kind = "array" if isinstance(value, list) else "value"
        raise FormatError(f"{_at(str(path), line)} holds a JSON {kind}", hint="expected a FHIR resource, an object")
    return value


def _no_json(content: bytes, place: str, error: orjson.JSONDecodeError) -> FormatError:
    try:
        content.decode()
    except UnicodeDecodeError as undecoded:
        found = content[undecoded.start]
        return FormatError(f"{place} is not UTF-8 text: byte {found:#04x} at {undecoded.start}")
    return FormatError(f"{place} is not JSON: {error.msg} at character {error.pos}")


def _at(path: str, line: int | None) -> str:
    return path if line is None else f"{path} line {line}"


def _entries(bundle: Element, path: Path, line: int | None, report: ImportReport) -> Iterator[Found]:
    """The resources of a bundle; one without an id takes the last part of its full URL."""
    place = _at(name_of(path), line)
    try:
        entries, kind = children(bundle, "entry"), text(bundle, "type")
    except UnusableResource as problem:
        report.skip(f"Bundle: {problem.reason}", 1, f"{place}: {problem.found}")
        return
    if kind == "history":
        report.skip("Bundle of type history: it holds versions, not a record", 1, place)
        return
    links: dict[str, str] = {}
    found = []
    for entry in entries:
        resource, url = entry.get("resource"), entry.get("fullUrl")
        if type(resource) is not dict or type(resource.get("resourceType")) is not str:
            report.skip("bundle entry without a resource", 1, place)
            continue
        if type(url) is str:
            identity = resource.setdefault("id", re.split("[/:]", url)[-1])
            links[url] = f"{resource['resourceType']}/{identity}"
        found.append(resource)
    for resource in found:
        if resource["resourceType"] == "Bundle":
            yield from _entries(resource, path, line, report)
        else:
            yield Found(resource, path, line, links)
