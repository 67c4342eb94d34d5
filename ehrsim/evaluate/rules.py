"""Clinical rules: what no record should hold, as data (`clinical_rules.toml`), and who breaks them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import polars as pl

from ehrsim import codes
from ehrsim.codes import Kind
from ehrsim.errors import InputError
from ehrsim.evaluate.records import records, years
from ehrsim.evaluate.resampling import Floats, block_of, blocks, subjects

BUILT_IN = Path(__file__).with_name("clinical_rules.toml")
OLDEST = 122.0
DAY = pl.duration(days=1)
When = Literal["after-death", "before-birth", "ends-before-start", "too-old"]


class Rule(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What is wrong in a record: a code in a sex, at an age, or without another; or what `when` names."""

    name: str
    says: str
    codes: list[str] = []
    """SYSTEM//VALUE, with * for anything"""
    words: list[str] = []
    """further codes, by words of their descriptions"""
    kinds: list[Kind] = []
    """kinds that those found by words must be of; any if empty"""
    sex: Literal["male", "female"] | None = None
    younger_than: float | None = None
    older_than: float | None = None
    without: list[str] = []
    without_words: list[str] = []
    when: When | None = None


class RuleSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of rules."""

    rule: list[Rule]


class Broken(NamedTuple):
    """Who breaks a rule, by block of patients."""

    patients: Floats
    """(blocks,) who break it"""
    everyone: Floats
    """(blocks,)"""


def load(path: Path = BUILT_IN) -> list[Rule]:
    """The rules of a file; raises `InputError` naming what is wrong in it."""
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=RuleSet).rule
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no file of clinical rules: {error}") from None
    for rule in found:
        if bool(rule.when) == bool(rule.codes or rule.words):
            raise InputError(f"{path}: rule {rule.name} needs either `when`, or `codes` or `words`")
    return found


class Meanings(NamedTuple):
    """The codes of some cohorts, with what rules ask of them."""

    code: list[str]
    plain: list[str]
    """SYSTEM//VALUE without a kind"""
    kind: list[str]
    text: list[str]
    """lower case: description, else the code itself"""


def meanings(code: pl.Series, described: dict[str, str]) -> Meanings:
    """What the rules must know of the codes of some cohorts."""
    parsed = [codes.parse(name) for name in code]
    plain = [f"{one.system}//{one.value}" for one in parsed]
    text = [described.get(name, name).lower() for name in code]
    return Meanings(code.to_list(), plain, [one.kind for one in parsed], text)


def found(known: Meanings, globs: Sequence[str], words: Sequence[str], kinds: Sequence[str] = ()) -> list[str]:
    """The codes that match one of the patterns, or have one of the words in their meaning, as a whole."""
    exact = {glob for glob in globs if "*" not in glob}
    spoken = re.compile(rf"\b({'|'.join(map(re.escape, words))})\b") if words else None
    open_ended = [glob for glob in globs if "*" in glob]
    return [
        code
        for code, plain, kind, text in zip(*known, strict=True)
        if plain in exact
        or any(fnmatchcase(plain, glob) for glob in open_ended)
        or (spoken is not None and (not kinds or kind in kinds) and spoken.search(text) is not None)
    ]


def broken(events: pl.LazyFrame, rule: Rule, known: Meanings) -> Broken:
    """Count the patients of a cohort who break a rule."""
    everyone = subjects(events)
    breaking = _dated(events, rule.when) if rule.when else _coded(events, rule, known)
    place = everyone.search_sorted(breaking.unique().sort()).to_numpy().astype(np.int64)
    size = blocks(len(everyone))
    counted = [np.bincount(block_of(part), minlength=size) for part in (place, np.arange(len(everyone)))]
    return Broken(*(part.astype(np.float64) for part in counted))


def share(cohort: Broken, weights: Floats) -> Floats:
    """(rows,) the share of patients who break the rule, by row of weights (rows, blocks)."""
    return np.asarray(weights @ cohort.patients / np.maximum(weights @ cohort.everyone, 1.0))


def _coded(events: pl.LazyFrame, rule: Rule, known: Meanings) -> pl.Series:
    """The subjects with a code of a rule where it is wrong."""
    wrong = found(known, rule.codes, rule.words, rule.kinds)
    rows = events.filter(pl.col("code").is_in(wrong))
    if rule.sex:
        sexes = records(events).filter(pl.col("sex") == rule.sex).select("subject_id").lazy()
        rows = rows.join(sexes, on="subject_id", how="semi")
    if rule.younger_than is not None or rule.older_than is not None:
        age = years(pl.col("time") - pl.col("born"))
        outside = pl.lit(False)
        if rule.younger_than is not None:
            outside = outside | (age < rule.younger_than)
        if rule.older_than is not None:
            outside = outside | (age > rule.older_than)
        rows = rows.join(_moment(events, codes.BIRTH, "born"), on="subject_id").filter(outside)
    if rule.without or rule.without_words:
        right = events.filter(pl.col("code").is_in(found(known, rule.without, rule.without_words)))
        rows = rows.join(right.select("subject_id").unique(), on="subject_id", how="anti")
    return rows.select("subject_id").collect()["subject_id"]


def _dated(events: pl.LazyFrame, when: When) -> pl.Series:
    """The subjects with an event whose time is wrong."""
    time = pl.col("time")
    if when == "ends-before-start":
        rows = events.filter(pl.col("end_time") < time)
    elif when == "after-death":
        rows = events.join(_moment(events, codes.DEATH, "died"), on="subject_id").filter(time > pl.col("died") + DAY)
    else:
        born = events.join(_moment(events, codes.BIRTH, "born"), on="subject_id")
        too_old = years(time - pl.col("born")) > OLDEST
        rows = born.filter(time.dt.date() < pl.col("born").dt.date() if when == "before-birth" else too_old)
    return rows.select("subject_id").collect()["subject_id"]


def _moment(events: pl.LazyFrame, code: str, name: str) -> pl.LazyFrame:
    """When each subject has a code first."""
    return events.filter(pl.col("code") == code).group_by("subject_id").agg(pl.col("time").min().alias(name))
