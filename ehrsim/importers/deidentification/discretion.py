"""Messages without values of the source: what importers say, cut down to the words that are ehrsim's own.

Importers quote what they found, in errors and as examples in reports, and so do the libraries that they use. Rather
than trust each of a hundred messages to hold back, one place lets pass only phrases that stand as constants in the code
of the importers, with line and row numbers; whatever lies between, a file name or a cell, becomes `…`. A file of the
source is named by its place among all of them, in the order of their paths.
"""

from __future__ import annotations

import importlib.util
import pkgutil
import re
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from importlib.abc import InspectLoader
from pathlib import Path
from types import CodeType
from typing import TypeVar

import polars as pl

from ehrsim import counts
from ehrsim.errors import EhrsimError, InputError, MissingExtraError, UsageError
from ehrsim.importers.deidentification.residual import IdentifierFound
from ehrsim.importers.report import ImportReport

Result = TypeVar("Result")

WITHHELD = "…"
_PACKAGES = ("ehrsim.importers", "ehrsim.events")
_MODULES = ("ehrsim.outputs", "ehrsim.counts")
_WITH_WORDS_OF_ANSWERS = ("ehrsim.importers.people", "ehrsim.importers.deidentification")
"""Modules whose constants hold words that cells of a source hold too."""
_PLACE = re.compile("[\ue000\ue001](\\d+)[\ue000\ue001]|\ue002")
_FHIR = "ehrsim.importers.fhir"
_NAME = re.compile(r"[a-z]+(?:_[a-z0-9]+)+|[a-z]{6,}")
_FHIR_NAME = re.compile(r"[a-z]+(?:[A-Z][a-z]+)+|(?:[A-Z][a-z]+)+|[a-z]+(?:-[a-z]+)+")
_NUMBER = re.compile(r"\d+")
_NUMBER_AFTER = re.compile(r"(?:\bline|\brow|\bcharacter|\bcolumn) $")


class DiscreetReport(ImportReport):
    """An import report that keeps no example and no name of the source."""

    def skip(self, reason: str, count: int = 1, example: object = "") -> None:
        """Count rows that are left out."""
        counts.add(self.skipped, without_values(reason), count, "")

    def change(self, reason: str, count: int = 1, example: object = "") -> None:
        """Count rows that are kept in an altered form."""
        counts.add(self.changed, without_values(reason), count, "")

    def find(self, what: str, count: int = 1, example: object = "") -> None:
        """Count oddities that are kept as they are."""
        counts.add(self.findings, without_values(what), count, "")


def discreetly(source: Path, work: Callable[[], Result]) -> Result:
    """The result of `work` on `source`; an error of it becomes one that says what is wrong where, without any value.

    The new error has neither cause nor context, since a traceback would print theirs: it is raised when the old one is
    dealt with, which no context manager can do. What is no `EhrsimError` becomes an `InputError` with the place in the
    code alone.
    """
    try:
        return work()
    except (UsageError, MissingExtraError, IdentifierFound):
        raise
    except EhrsimError as error:
        hint = without_values(_placed(error.hint, source)) if error.hint else None
        told = type(error)(without_values(_placed(error.message, source)), hint=hint)
    except (Exception, pl.exceptions.PanicException) as error:
        told = InputError(
            f"the source cannot be imported: {type(error).__name__} in {_where(error)}",
            hint="values are withheld; repeat it with --identified where they may be seen",
        )
    raise told


def _placed(message: str, source: Path) -> str:
    """The message with every path in the source replaced by a mark that holds its number."""
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else []
    named = {str(source): "\ue002", source.name: "\ue002"}
    for number, path in enumerate(files, start=1):
        mark = f"\ue000{number}\ue001"
        named |= {str(path): mark, "/".join(path.parts[-2:]): mark, path.name: mark}
    for name in sorted(filter(None, named), key=len, reverse=True):
        message = message.replace(name, named[name])
    return message


@lru_cache(maxsize=4096)
def without_values(message: str) -> str:
    """The message with all that is not ehrsim's own wording withheld."""
    phrases, names = _own_wording()
    own = bytearray(len(message))
    spans = [(start, start + len(text)) for text in phrases for start in _starts(text, message)]
    spans += [match.span() for match in names.finditer(message)]
    for start, end in spans:
        own[start:end] = b"\x01" * (end - start)
    kept, end = "", 0
    while end < len(message):
        place, number = _PLACE.match(message, end), _NUMBER.match(message, end)
        if place:
            kept, end = kept + (f"file {place.group(1)}" if place.group(1) else "the source"), place.end()
        elif own[end]:
            kept, end = kept + message[end], end + 1
        elif number and _NUMBER_AFTER.search(kept):
            kept, end = kept + number.group(), number.end()
        else:
            kept, end = kept + ("" if kept.endswith(WITHHELD) else WITHHELD), end + 1
    return kept


def _starts(text: str, message: str) -> Iterator[int]:
    start = message.find(text)
    while start >= 0:
        yield start
        start = message.find(text, start + 1)


@cache
def _own_wording() -> tuple[frozenset[str], re.Pattern[str]]:
    """Every phrase, and a pattern for every name of a column, table or element, in the code of the importers."""
    phrases = {": ", ", ", "; "}
    names: set[str] = set()
    for module in _modules():
        constants = set(_constants(module))
        # A space within, so that no single word of a cell passes for wording; letters, so that no bare number does.
        phrases |= {text for text in constants if " " in text and re.search("[A-Za-z]{2}", text)}
        shape = _FHIR_NAME if module.startswith(_FHIR) else _NAME
        if not module.startswith(_WITH_WORDS_OF_ANSWERS):
            names |= {text for text in constants if shape.fullmatch(text)}
    longest_first = sorted(names, key=lambda text: (-len(text), text))
    return frozenset(phrases), re.compile(rf"(?<![\w.@-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w@-])")


def _modules() -> Iterator[str]:
    for package in _PACKAGES:
        yield package
        found = importlib.import_module(package)
        yield from (module.name for module in pkgutil.walk_packages(found.__path__, f"{package}."))
    yield from _MODULES


def _constants(module: str) -> Iterator[str]:
    """Every text constant in the compiled code of a module, parts of f-strings among them."""
    spec = importlib.util.find_spec(module)
    if spec is not None and isinstance(spec.loader, InspectLoader):
        yield from _texts(spec.loader.get_code(module))


def _texts(constant: object) -> Iterator[str]:
    if isinstance(constant, str):
        yield constant
    elif isinstance(constant, CodeType):
        for part in constant.co_consts:
            yield from _texts(part)
    elif isinstance(constant, tuple | frozenset):
        for part in constant:
            yield from _texts(part)


def _where(error: BaseException) -> str:
    """The innermost place in ehrsim's code that an error has passed."""
    place, traceback = "ehrsim", error.__traceback__
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if module.startswith("ehrsim."):
            place = f"{module} line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place
