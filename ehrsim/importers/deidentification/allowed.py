"""The allow-list: which codes, texts and units events may hold, judged by themselves alone.

Fail closed: what no list names is not kept. `allowed.toml` is the built-in list; a policy adds to it and takes from it.
"""

from __future__ import annotations

import re
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from ehrsim import codes
from ehrsim.codes.check_digits import mod_10, verhoeff
from ehrsim.errors import InputError
from ehrsim.importers.deidentification.policy import Policy

ALWAYS = frozenset((codes.BIRTH, codes.DEATH, codes.OBSERVATION_END))
"""Codes that say nothing by which to tell people apart."""
UNKNOWN_CLASS = "UNKNOWN"
SMALL_AREA = "000"
ZIP_SYSTEM = "ZIP3"
NOT_ALLOWED = "code of a system that is not allowed"
_CLASSES = ("visit_start", "visit_end")


class _Texts(msgspec.Struct, forbid_unknown_fields=True):
    answers: list[str]
    patterns: list[str]
    units: list[str]


class _Codes(msgspec.Struct, forbid_unknown_fields=True):
    codes: list[str]


class _Geography(msgspec.Struct, forbid_unknown_fields=True):
    small_areas: list[str]
    zip_systems: list[str]


class Lists(msgspec.Struct, forbid_unknown_fields=True):
    """The built-in lists, as `allowed.toml` has them."""

    systems: dict[str, str]
    facts: dict[str, str]
    texts: _Texts
    identifying: _Codes
    geography: _Geography
    ages: _Codes


class Verdict(NamedTuple):
    """What becomes of a code: its new form, None for none, and why it is another one."""

    code: str | None
    reason: str | None = None


@cache
def built_in() -> Lists:
    """The built-in lists."""
    return msgspec.toml.decode(files(__package__).joinpath("allowed.toml").read_bytes(), type=Lists)


class AllowList:
    """The lists of a policy, compiled."""

    def __init__(self, policy: Policy) -> None:
        lists = built_in()
        denied = set(policy.deny.systems)
        self.policy = policy
        self.trusted = frozenset(lists.systems) - denied - set(policy.allow.systems)
        """Systems whose codes have a shape that is known here, so that no other text passes for one of them."""
        systems = {**lists.systems, **policy.allow.systems}
        self._systems = {name: re.compile(shape) for name, shape in systems.items() if name not in denied}
        self._facts = {name: re.compile(shape) for name, shape in lists.facts.items()}
        self._answers = {_folded(text) for text in (*lists.texts.answers, *policy.allow.answers)}
        self._answers -= {_folded(text) for text in policy.deny.answers}
        self._patterns = [re.compile(shape) for shape in (*lists.texts.patterns, *policy.allow.patterns)]
        self._identifying = {*lists.identifying.codes, *policy.deny.codes}
        self._small_areas = frozenset(lists.geography.small_areas)
        self._zip_systems = frozenset(lists.geography.zip_systems)
        self.units = frozenset((*lists.texts.units, *policy.allow.units))
        self.codes_of_ages = frozenset(lists.ages.codes)

    def judge(self, code: str) -> Verdict:
        """What becomes of a code."""
        if code in ALWAYS:
            return Verdict(code)
        kind, system, value = codes.parse(code)
        if kind in codes.SINGLE_PART_KINDS:
            return self._judge_fact(kind, system, value)
        if system in self._zip_systems:
            return self._judge_place(value)
        if code in self._identifying or f"{system}//{value}" in self._identifying:
            return Verdict(None, "code that stands for an identifier")
        if system not in self._systems:
            return Verdict(None, NOT_ALLOWED)
        has_shape = self._has_shape(system, value)
        return Verdict(code) if has_shape else Verdict(None, "code without the shape of its system")

    def _judge_fact(self, kind: codes.Kind, system: str, value: str) -> Verdict:
        if self._facts[system].fullmatch(value):
            return Verdict(codes.join(kind, system, value))
        if kind in _CLASSES:
            return Verdict(
                codes.join(kind, system, UNKNOWN_CLASS), "visit of a class that is not allowed, made UNKNOWN"
            )
        return Verdict(None, "word for a fact that is no code for it")

    def _judge_place(self, value: str) -> Verdict:
        digits = re.fullmatch(r"(\d{3})(\d\d(-?\d{4})?)?", value, re.ASCII)
        if self.policy.geography == "drop" or digits is None:
            return Verdict(None, "geography")
        area = SMALL_AREA if digits.group(1) in self._small_areas else digits.group(1)
        return Verdict(f"{ZIP_SYSTEM}//{area}", None if area == value else "ZIP code cut to three digits, or to 000")

    def _has_shape(self, system: str, value: str) -> bool:
        if self._systems[system].fullmatch(value) is None or not value.isascii():
            return False
        if system == "SNOMED":
            return value[-3:-1] in ("00", "10") and verhoeff(value)
        return system != "LOINC" or value.startswith("L") or mod_10(*value.split("-"))

    def keeps_text(self, text: str) -> bool:
        """Whether a text is a coded answer of an allowed system, a listed answer or of a listed shape."""
        return (
            self.is_coded_answer(text)
            or _folded(text) in self._answers
            or any(pattern.fullmatch(text.strip()) for pattern in self._patterns)
        )

    def is_coded_answer(self, text: str) -> bool:
        """Whether a text is `SYSTEM//code` of an allowed system."""
        system, separator, _ = text.partition("//")
        return bool(separator) and system in self._systems and self.judge(text).code == text

    def is_trusted(self, text: str) -> bool:
        """Whether a text is a code, or coded answer, of a shape that is known here."""
        parsed = codes.parse(text)
        known = text in ALWAYS or parsed.kind in codes.SINGLE_PART_KINDS or parsed.system in self.trusted
        return known and self.judge(text).code == text

    @cached_property
    def displays(self) -> pl.DataFrame:
        """(code, description) of the table that the policy vouches for; raises `InputError` where it is none."""
        if self.policy.displays is None:
            return pl.DataFrame(schema={"code": pl.String, "description": pl.String})
        path = Path(self.policy.displays)
        try:
            parquet = path.suffix.lower() == ".parquet"
            table = pl.read_parquet(path) if parquet else pl.read_csv(path, infer_schema=False)
            return table.select(pl.col("code", "description").cast(pl.String)).drop_nulls().unique("code", keep="first")
        except (pl.exceptions.PolarsError, OSError) as error:
            hint = "expected CSV or Parquet with the columns code and description"
            raise InputError(f"{path} is no table of displays", hint=hint) from error


def _folded(text: str) -> str:
    return " ".join(text.split()).rstrip(".").casefold()
