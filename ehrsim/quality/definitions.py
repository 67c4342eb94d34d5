"""Definitions of quality measures, as TOML: lists of codes, and measures whose populations are criteria on them.

`measures.toml` beside this file holds the built-in ones. They follow common clinical goals in words and codes of our
own; they are no implementation of a programme's measures, and their scores say how simulated patients were made.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ehrsim import codes
from ehrsim.errors import FormatError, InputError

_SCHEMA = "see schemas/quality-measures.schema.json"
Months = Annotated[int, msgspec.Meta(ge=1, le=1_200)]
Age = Annotated[int, msgspec.Meta(ge=0, le=150)]


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a number must be; those in another unit are as if they were not there."""

    unit: str
    """In UCUM."""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None


class Criterion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event that a record has: of one of some codes, before the reference date."""

    codes: str
    """The name of a list of codes."""
    months: Months | None = None
    """In so many months before the reference date, from their first moment up to, not including, that date; an event
    that began earlier counts where it had not ended. None: at any time before that date, or without a time."""
    ongoing: bool = False
    """An event without an end goes on: an order in force, for example."""
    latest: Value | None = None
    """What the latest of these values is."""
    or_none: bool = False
    """Holds as well where there is no such value."""


class Measure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A proportion of patients. All criteria of the denominator and numerator must hold, any of the exclusion."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9-]{1,63}$")]
    title: str
    description: str
    improvement: Literal["increase", "decrease"]
    """Whether a higher or a lower proportion is better."""
    kind: Literal["process", "outcome"]
    ages: tuple[Age, Age]
    """In years at the reference date, from the first up to, not including, the second."""
    numerator: Annotated[list[Criterion], msgspec.Meta(min_length=1)]
    denominator: list[Criterion] = []
    exclusion: list[Criterion] = []
    version: str = "1.0.0"

    def criteria(self) -> list[Criterion]:
        """All criteria, in order."""
        return [*self.denominator, *self.exclusion, *self.numerator]


class Library(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Measures, and the lists of codes that they name; a code that ends in `*` stands for all that begin so."""

    codes: dict[str, Annotated[list[str], msgspec.Meta(min_length=1)]]
    measure: Annotated[list[Measure], msgspec.Meta(min_length=1)]


def load_measures(path: str | Path | None = None) -> Library:
    """The measures of a TOML file, or the built-in ones.

    Raises `InputError` for a file that cannot be read, `FormatError` for one that does not fit, naming the key.
    """
    if path is None:
        return _built_in()
    try:
        return parse(Path(path).read_text("utf-8"), str(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8: {error}", hint="save it as UTF-8") from error


@lru_cache(maxsize=1)
def _built_in() -> Library:
    return parse((resources.files("ehrsim.quality") / "measures.toml").read_text("utf-8"), "measures.toml")


def parse(text: str, name: str) -> Library:
    """Measures from their TOML text; raises `FormatError` naming `name` and the key."""
    try:
        library = msgspec.convert(tomllib.loads(text), Library)
    except tomllib.TOMLDecodeError as error:
        raise FormatError(f"{name} is not TOML: {error}", hint=_SCHEMA) from error
    except msgspec.ValidationError as error:
        raise FormatError(f"{name}: {error}", hint=_SCHEMA) from error
    problems = _problems(library)
    if problems:
        more = f"{len(problems)} problems in all" if problems[1:] else _SCHEMA
        raise FormatError(f"{name}: {problems[0]}", hint=more)
    return library


def _problems(library: Library) -> list[str]:
    """What the types do not say: names that are defined, windows and bounds that can be met."""
    names = Counter(measure.name for measure in library.measure)
    problems = [f"measure {name} is defined twice" for name, count in names.items() if count > 1]
    for listed, values in library.codes.items():
        problems += [f"codes.{listed} has an empty code" for value in values if not value.strip("* ")]
        problems += [
            f"codes.{listed}: `{value}` is of no known code system, expected one as in LOINC//4548-4"
            for value in values
            if value.strip("* ") and not codes.is_known_system(codes.parse(value).system)
        ]
    for measure in library.measure:
        if measure.ages[0] >= measure.ages[1]:
            problems.append(f"measure {measure.name}: ages are {list(measure.ages)}, expected the lower one first")
        for criterion in measure.criteria():
            if criterion.codes not in library.codes:
                problems.append(f"measure {measure.name}: codes `{criterion.codes}` are nowhere listed")
            if criterion.latest is not None and not _bounds(criterion.latest):
                problems.append(f"measure {measure.name}: latest `{criterion.codes}` has no bound, such as above = 9.0")
            if criterion.or_none and criterion.latest is None:
                problems.append(f"measure {measure.name}: or_none of `{criterion.codes}` goes with latest only")
    return problems


def _bounds(value: Value) -> list[float]:
    return [bound for bound in (value.at_least, value.above, value.at_most, value.below) if bound is not None]
