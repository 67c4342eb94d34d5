"""The de-identification of one import: steps that the writer of events calls in turn.

`screen` judges each batch by itself, so that nothing but allowed codes, texts and units, and no id of the source, ever
reaches the disk. `study` gives every part of whole subjects its new times, and learns what is rare. `finish` then gives
each part its final form, and `conclude` the report.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl

from ehrsim import codes, events
from ehrsim.errors import UsageError
from ehrsim.importers.deidentification.allowed import ALWAYS, NOT_ALLOWED, AllowList
from ehrsim.importers.deidentification.disclosure import Disclosure
from ehrsim.importers.deidentification.policy import Policy, key_of
from ehrsim.importers.deidentification.pseudonyms import Pseudonyms
from ehrsim.importers.deidentification.rare import PatientCounts
from ehrsim.importers.deidentification.report import DeidentificationReport
from ehrsim.importers.deidentification.residual import Scan
from ehrsim.importers.deidentification.times import OLDEST, deidentify_times

LONGEST_NUMBER = 1e6
"""A whole number from here on that has no unit may be a telephone or record number."""
_YEARS_OF_AGE, _MONTHS_OF_AGE = "a", "mo"
_BETWEEN = "\n"
"""Between a code and its text where both are counted together; neither holds it."""
_COMMON_KINDS = frozenset(("birth", "death", "visit_start", "visit_end"))


class Deidentifier:
    """One de-identification: its lists, its key, and what it has learnt so far."""

    def __init__(self, policy: Policy, seed: int | str | None = None, mapping: Path | None = None) -> None:
        if mapping is not None and mapping.exists():
            raise UsageError(f"the mapping {mapping} exists already", hint="name another file")
        key = key_of(policy, seed)
        self.policy, self.mapping = policy, mapping
        self.allowed = AllowList(policy)
        self.pseudonyms = Pseudonyms(key, remember=mapping is not None)
        self.report = DeidentificationReport(policy.name, policy.basis, policy.min_patients)
        self._scan = Scan(self.allowed)
        self._codes, self._answers = PatientCounts(policy.min_patients), PatientCounts(policy.min_patients)
        self._ends: Counter[object] = Counter()
        self._rolled: dict[str, str | None] | None = None
        self._rare_answers: set[str] = set()
        self._disclosure = Disclosure(policy.risk, self.pseudonyms.subject(0))
        self._subjects: list[pl.Series] = []

    # Batches

    def screen(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The allowed part of a batch of events, under pseudonyms; times are not changed yet."""
        frame = frame.with_columns(self.pseudonyms.subjects(frame["subject_id"]).alias("subject_id"))
        frame = self._units(self._texts(self._allowed_codes(frame)))
        ends = frame.filter(pl.col("code") == codes.OBSERVATION_END).select("subject_id", day=pl.col("time").dt.date())
        self._ends.update(ends.unique()["day"].drop_nulls().to_list())
        return self._numbers(self._described(frame))

    def _allowed_codes(self, frame: pl.DataFrame) -> pl.DataFrame:
        counts = frame["code"].value_counts()
        verdicts = {code: self._verdict(code) for code in counts["code"]}
        for code, count in counts.iter_rows():
            new, reason = verdicts[code]
            if reason is not None:
                (self.report.drop if new is None else self.report.change)(reason, count)
        kept = {code: new for code, (new, _) in verdicts.items()}
        code = pl.col("code").replace_strict(kept, return_dtype=pl.String)
        return frame.with_columns(code).drop_nulls("code")

    def _verdict(self, code: str) -> tuple[str | None, str | None]:
        new, reason = self.allowed.judge(code)
        kind = codes.parse(code).kind
        if reason == NOT_ALLOWED and self.policy.other_codes == "hash":
            return codes.join(kind, "HASHED", self.pseudonyms.word(code)), f"{NOT_ALLOWED}, hashed"
        return new, reason

    def _texts(self, frame: pl.DataFrame) -> pl.DataFrame:
        unique = frame["text_value"].drop_nulls().unique()
        dropped = [text for text in unique if not self.allowed.keeps_text(text)]
        return self._without(frame, "text_value", dropped, "text that is no allowed answer removed")

    def _units(self, frame: pl.DataFrame) -> pl.DataFrame:
        dropped = [unit for unit in frame["unit"].drop_nulls().unique() if unit not in self.allowed.units]
        return self._without(frame, "unit", dropped, "unit that is not allowed removed")

    def _without(self, frame: pl.DataFrame, column: str, dropped: list[str], what: str) -> pl.DataFrame:
        if not dropped:
            return frame
        gone = frame[column].is_in(dropped).fill_null(False)
        self.report.change(what, int(gone.sum()))
        return frame.with_columns(pl.when(~gone).then(column))

    def _numbers(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Numbers that may be identifiers removed, ages capped."""
        value, unit = pl.col("numeric_value"), pl.col("unit")
        long = (value.abs() >= LONGEST_NUMBER) & (value == value.floor()) & unit.is_null()
        aged = (unit == _YEARS_OF_AGE) | (pl.col("code").is_in(list(self.allowed.codes_of_ages)) & unit.is_null())
        months = unit == _MONTHS_OF_AGE
        old = (aged & (value >= OLDEST)) | (months & (value >= OLDEST * 12))
        flags = frame.select(long=long.fill_null(False), old=old.fill_null(False))
        self.report.change("long number without a unit removed", int(flags["long"].sum()))
        self.report.change(f"age of {OLDEST} or more made {OLDEST}", int(flags["old"].sum()))
        most = pl.when(months).then(OLDEST * 12.0).otherwise(float(OLDEST)).cast(pl.Float32)
        return frame.with_columns(
            pl.when(old).then(most).when(~long.fill_null(False)).then(value).alias("numeric_value")
        )

    def _described(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What codes are called: by the table that the policy vouches for, else by the source if that is trusted."""
        if events.DESCRIPTION not in frame.columns:
            frame = frame.with_columns(pl.lit(None, pl.String).alias(events.DESCRIPTION))
        own = pl.col(events.DESCRIPTION)
        if self.policy.descriptions == "none":
            self.report.change("description removed", frame[events.DESCRIPTION].count())
            own = pl.lit(None, pl.String)
        else:
            trusted = [code for code in frame["code"].unique() if self.allowed.is_trusted(code)]
            own = pl.when(pl.col("code").is_in(trusted)).then(own)
        vouched = self.allowed.displays.rename({events.DESCRIPTION: "vouched"})
        frame = frame.join(vouched, on="code", how="left", maintain_order="left")
        frame = frame.with_columns(pl.coalesce("vouched", own).alias(events.DESCRIPTION)).drop("vouched")
        like = [text for text in frame[events.DESCRIPTION].drop_nulls().unique() if self._scan.looks_like(text)]
        return self._without(frame, events.DESCRIPTION, like, "description that looks like an identifier removed")

    # Parts

    def study(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A part of whole subjects with its new times, from which it is learnt which codes and answers are rare."""
        draws = self.pseudonyms.draws(frame["subject_id"].unique().sort())
        common = [day for day, count in self._ends.items() if count >= self.policy.min_patients]
        ends = pl.Series(common, dtype=pl.Date)
        frame = deidentify_times(frame, draws, ends, self.policy.times, self._count_time)
        frame = _numbered_visits(frame, draws)
        rolled = [code for code in frame["code"].unique() if self._may_be_rare(code)]
        self._codes.add(frame.filter(pl.col("code").is_in(rolled)).select("subject_id", value="code"))
        self._answers.add(frame.drop_nulls("text_value").select("subject_id", value=_answer()))
        return frame.select(*events.COLUMNS, events.DESCRIPTION)

    @staticmethod
    def _may_be_rare(code: str) -> bool:
        return code not in ALWAYS and codes.parse(code).kind not in _COMMON_KINDS

    def finish(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A studied part in its final form, unsorted; raises `IdentifierFound` if it still holds identifiers."""
        frame = self._without_rare(frame)
        self._scan.check(frame)
        self._disclosure.add(frame)
        self._subjects.append(frame["subject_id"].unique())
        return frame

    def _count_time(self, reason: str, count: int) -> None:
        (self.report.drop if reason.endswith("left out") else self.report.change)(reason, count)

    def _without_rare(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rare codes rolled up or dropped, rare answers removed."""
        if self._rolled is None:
            self._rolled = self._codes.rolled_up(codes.parents)
            self._rare_answers = self._answers.rare()
            self.report.rare_codes = len(self._rolled)
            self.report.rolled_up_codes = sum(new is not None for new in self._rolled.values())
        rare = frame["code"].is_in(list(self._rolled))
        new = pl.col("code").replace(self._rolled)
        answer = pl.when(~_answer().is_in(list(self._rare_answers))).then("text_value")
        before = frame["text_value"].count()
        frame = frame.with_columns(answer, rare=rare).with_columns(
            new.alias("code"), pl.when(~pl.col("rare")).then(events.DESCRIPTION)
        )
        self.report.change("answer of too few patients removed", before - frame["text_value"].count())
        dropped = frame.filter(pl.col("code").is_null()).height
        self.report.drop("code of too few patients", dropped)
        self.report.change("code of too few patients rolled up", int(rare.sum()) - dropped)
        return frame.drop_nulls("code").drop("rare")

    # The end

    def splits(self, given: dict[int, str]) -> dict[int, str]:
        """The splits of a source by pseudonym."""
        return {self.pseudonyms.subject(subject): split for subject, split in given.items()}

    def conclude(self) -> DeidentificationReport:
        """Complete the report, and write the mapping if one was asked for."""
        self.report.scanned_texts = self._scan.texts
        self.report.likeness, self.report.knowledge = self._disclosure.likeness(), self._disclosure.knowledge()
        if self.mapping is not None:
            self.pseudonyms.write_mapping(self.mapping, pl.concat(self._subjects).to_list() if self._subjects else [])
        return self.report


def _answer() -> pl.Expr:
    return pl.col("code") + _BETWEEN + pl.col("text_value")


def _numbered_visits(frame: pl.DataFrame, draws: pl.DataFrame) -> pl.DataFrame:
    """Visits counted from 1 within each subject, in the order of their first event; those at once in random order."""
    key = ["subject_id", "visit_id"]
    visits = frame.drop_nulls("visit_id").group_by(key).agg(first=pl.col("time").min())
    visits = visits.join(draws.select("subject_id", "order"), on="subject_id", how="left")
    with np.errstate(over="ignore"):
        keyed = pl.Series((visits["visit_id"].to_numpy().view(np.uint64) ^ visits["order"].to_numpy()).view(np.int64))
    visits = visits.with_columns(tie=pl.Series(events.mixed(keyed))).sort("subject_id", "first", "tie")
    visits = visits.select(*key, number=pl.int_range(1, pl.len() + 1).over("subject_id"))
    numbered = frame.join(visits, on=key, how="left", maintain_order="left")
    return numbered.with_columns(visit_id=pl.col("number").cast(pl.Int64)).drop("number")
