"""The vocabulary: which codes a model knows, in which order, and what becomes of the rare ones.

An *entry* is a code together with its textual answer and unit, so that a smoking status "never", or the same test in
two units, are different entries. Entries are numbered from 1 (0 is padding) and sorted by *group*, the clinical order
in which a visit is emitted: reasons and conditions, then procedures and medications, then measurements. Entries seen in
fewer than `min_patients` patients lose their text, then roll up to their parents, then drop; the report says which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from ehrsim import codes
from ehrsim.errors import InputError, RunError
from ehrsim.events import DESCRIPTION

GROUPS: tuple[tuple[codes.Kind, ...], ...] = (
    ("visit_type", "reason", "condition", "allergy"),
    ("procedure", "care_plan", "immunization", "medication"),
    ("panel", "observation"),
)
"""Kinds by group. Kinds not listed (stray visit ends, untimed facts with a time …) go to the last group."""

STRUCTURAL = (codes.BIRTH, codes.DEATH, codes.OBSERVATION_END)
DEFAULT_MIN_PATIENTS = 11
"""Fewest patients behind a published cell, the customary small-cell rule of US health agencies (CMS: 11)."""

_GROUP_OF_KIND = {kind: index for index, kinds in enumerate(GROUPS) for kind in kinds}


class Entry(NamedTuple):
    """A code with its textual answer and the unit of its value."""

    code: str
    text: str | None
    unit: str | None


class Vocabulary(msgspec.Struct, frozen=True, dict=True):
    """What a model can emit.

    `entries[i]` has index i + 1. `visit_types` are the visit starts (code, text), index 1 …, 0 being "no visit".
    `visit_ends[i]` is the usual end of `visit_types[i]`. `statics` are the untimed facts, index 1 …. `descriptions`
    are displays of any code named in the others.
    """

    entries: list[Entry]
    visit_types: list[Entry]
    visit_ends: list[Entry]
    statics: list[Entry]
    descriptions: dict[str, str]
    parents: dict[str, str]
    min_patients: int

    @property
    def size(self) -> int:
        """Number of indices, padding included."""
        return len(self.entries) + 1

    @cached_property
    def group_bounds(self) -> tuple[tuple[int, int], ...]:
        """First index and index past the last of each group."""
        groups = np.array([group_of(entry.code) for entry in self.entries], dtype=np.int64)
        starts = np.searchsorted(groups, np.arange(len(GROUPS) + 1)) + 1
        return tuple((int(first), int(last)) for first, last in pairwise(starts))

    @cached_property
    def index(self) -> dict[Entry, int]:
        """Index of each entry."""
        return {entry: position for position, entry in enumerate(self.entries, start=1)}

    @cached_property
    def static_index(self) -> dict[Entry, int]:
        """Index of each static."""
        return {entry: position for position, entry in enumerate(self.statics, start=1)}

    @cached_property
    def type_index(self) -> dict[Entry, int]:
        """Index of each visit type; 0 means "no visit"."""
        return {entry: position for position, entry in enumerate(self.visit_types, start=1)}

    def lookup(self, entry: Entry) -> int:
        """The index of an entry, of the same without its text, or of its nearest known parent; 0 if there is none."""
        for candidate in _fallbacks(entry, self.parents):
            if candidate in self.index:
                return self.index[candidate]
        return 0

    def matching(self, pattern: str) -> NDArray[np.int64]:
        """Indices of entries whose code is `pattern`, lies below it, or starts with it when it ends in `*`.

        >>> Vocabulary([Entry("ICD10CM//E11.9", None, None)], [], [], [], {}, {}, 1).matching("ICD10CM//E11").tolist()
        [1]
        """
        prefix = pattern.removesuffix("*")
        chosen = [
            position
            for position, (code, _, _) in enumerate(self.entries, start=1)
            if code == prefix or prefix in codes.parents(code) or (pattern.endswith("*") and code.startswith(prefix))
        ]
        return np.array(chosen, dtype=np.int64)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote; raises `RunError` if it is anything else."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise RunError(f"{path} is not a vocabulary: {error}") from error


class VocabularyReport(msgspec.Struct, frozen=True):
    """What became of rare entries: events kept as they are, kept under a broader entry, and dropped."""

    events_kept: int
    events_rolled_up: int
    events_dropped: int
    rolled_up: dict[str, str]
    dropped: list[str]


def group_of(code: str) -> int:
    """The group a code is emitted in."""
    return _GROUP_OF_KIND.get(codes.parse(code).kind, len(GROUPS) - 1)


def fit(
    events: pl.LazyFrame,
    *,
    min_patients: int = DEFAULT_MIN_PATIENTS,
    parents: Mapping[str, str] | None = None,
) -> tuple[Vocabulary, VocabularyReport]:
    """The vocabulary of the training events; `parents` adds parent codes to those that ICD codes imply.

    Raises `InputError` if not one code is frequent enough.
    """
    parents = dict(parents or {})
    has_description = DESCRIPTION in events.collect_schema()
    raw = _count_raw(events)
    starts, ends, timed, static = _partition(raw)
    resolved = _resolve(timed, _entry_patients(events), min_patients, parents)
    entries = sorted(set(filter(None, resolved.values())), key=_order)
    if not entries and timed:
        raise InputError(
            f"no code occurs in {min_patients} patients or more", hint="use more patients, or lower min_patients"
        )
    visit_types = [entry for entry, _ in starts]
    vocabulary = Vocabulary(
        entries=entries,
        visit_types=visit_types,
        visit_ends=_usual_ends(visit_types, ends),
        statics=[
            entry
            for entry, (patients, _) in sorted(static.items(), key=lambda item: _order(item[0]))
            if patients >= min_patients
        ],
        descriptions=_descriptions(events, entries) if has_description else {},
        parents=parents,
        min_patients=min_patients,
    )
    return vocabulary, _report(timed, resolved)


def _order(entry: Entry) -> tuple[int, str, str, str]:
    return group_of(entry.code), entry.code, entry.text or "", entry.unit or ""


Counts = dict[Entry, tuple[int, int]]
"""Patients and events of each entry."""


def _count_raw(events: pl.LazyFrame) -> pl.DataFrame:
    keys = ["code", "text_value", "unit", pl.col("time").is_null().alias("static")]
    counts = events.group_by(keys).agg(pl.col("subject_id").n_unique().alias("patients"), pl.len().alias("events"))
    return counts.sort("code", "text_value", "unit").collect(engine="streaming")


def _partition(raw: pl.DataFrame) -> tuple[list[tuple[Entry, int]], Counts, Counts, Counts]:
    """Visit starts by frequency, visit ends, other timed entries, statics."""
    starts: list[tuple[Entry, int]] = []
    ends: Counts = {}
    timed: Counts = {}
    static: Counts = {}
    for code, text, unit, is_static, patients, count in raw.iter_rows():
        entry = Entry(code, text, unit)
        kind = codes.parse(code).kind
        if is_static:
            static[entry] = (patients, count)
        elif kind == "visit_start":
            starts.append((entry, count))
        elif kind == "visit_end":
            ends[entry] = (patients, count)
        elif code not in STRUCTURAL:
            timed[entry] = (patients, count)
    return sorted(starts, key=lambda item: (-item[1], item[0].code, item[0].text or "")), ends, timed, static


def _usual_ends(visit_types: list[Entry], ends: Counts) -> list[Entry]:
    """For each visit type the commonest end of the same class, with its unit."""
    usual = []
    for start in visit_types:
        code = start.code.replace("VISIT_START//", "VISIT_END//", 1)
        same = [(count, entry) for entry, (_, count) in ends.items() if entry.code == code]
        usual.append(max(same, key=lambda item: item[0])[1] if same else Entry(code, None, None))
    return usual


def _entry_patients(events: pl.LazyFrame) -> Callable[[dict[Entry, Entry]], Counts]:
    """A function that counts the distinct patients of entries after some have been merged into others."""

    def count(merged: dict[Entry, Entry]) -> Counts:
        rows = [(*old, *new) for old, new in merged.items()]
        names = ["code", "text_value", "unit", "new_code", "new_text", "new_unit"]
        table = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row").lazy()
        joined = events.filter(pl.col("time").is_not_null()).join(
            table, on=["code", "text_value", "unit"], how="inner", nulls_equal=True
        )
        counted = joined.group_by("new_code", "new_text", "new_unit").agg(
            pl.col("subject_id").n_unique().alias("patients"), pl.len().alias("events")
        )
        result = counted.collect(engine="streaming")
        return {Entry(code, text, unit): (patients, n) for code, text, unit, patients, n in result.iter_rows()}

    return count


def _resolve(
    timed: Counts,
    count: Callable[[dict[Entry, Entry]], Counts],
    min_patients: int,
    parents: Mapping[str, str],
) -> dict[Entry, Entry | None]:
    """The entry that each raw entry becomes: itself, a broader one, or None.

    Rare entries climb one step of their fallbacks a round until what they merge into is frequent enough.
    """
    resolved: dict[Entry, Entry | None] = {entry: entry for entry, (n, _) in timed.items() if n >= min_patients}
    climbing = {entry: _fallbacks(entry, parents)[1:] for entry, (n, _) in timed.items() if n < min_patients}
    while climbing:
        resolved.update(dict.fromkeys((entry for entry, chain in climbing.items() if not chain), None))
        climbing = {entry: chain for entry, chain in climbing.items() if chain}
        targets = {entry: chain[0] for entry, chain in climbing.items()}
        pooled = count(targets) if targets else {}
        for entry, target in targets.items():
            if pooled[target][0] >= min_patients or timed.get(target, (0, 0))[0] >= min_patients:
                resolved[entry] = target
                del climbing[entry]
            else:
                climbing[entry] = climbing[entry][1:]
    return resolved


def _fallbacks(entry: Entry, parents: Mapping[str, str]) -> list[Entry]:
    """An entry and its ever broader stand-ins: without text, then each parent code."""
    chain = [entry]
    if entry.text is not None:
        chain.append(entry._replace(text=None))
    ancestors = list(codes.parents(entry.code))
    code = entry.code
    while not ancestors and (parent := parents.get(code)) is not None and len(chain) < 16:
        chain.append(Entry(parent, None, entry.unit))
        code = parent
    chain.extend(Entry(ancestor, None, entry.unit) for ancestor in ancestors)
    return chain


def _descriptions(events: pl.LazyFrame, entries: list[Entry]) -> dict[str, str]:
    """Displays of all codes kept, and of coded answers that stand in texts."""
    table = (
        events.select("code", DESCRIPTION)
        .drop_nulls()
        .group_by("code")
        .agg(pl.col(DESCRIPTION).min())
        .collect(engine="streaming")
    )
    known = dict(table.iter_rows())
    wanted = {entry.code for entry in entries} | {entry.text for entry in entries if entry.text}
    structural = {code for code in known if codes.parse(code).kind in ("visit_start", "race", "ethnicity")}
    named = {code: known[code] for code in sorted(wanted | structural) if code in known}
    titles = {code: title for code in wanted - named.keys() if (title := codes.chapter_title(code))}
    return named | titles


def _report(timed: Counts, resolved: dict[Entry, Entry | None]) -> VocabularyReport:
    kept = sum(n for entry, (_, n) in timed.items() if resolved[entry] == entry)
    dropped = sum(n for entry, (_, n) in timed.items() if resolved[entry] is None)
    total = sum(n for _, n in timed.values())
    moved = {_name(old): _name(new) for old, new in resolved.items() if new is not None and new != old}
    gone = [_name(entry) for entry, new in resolved.items() if new is None]
    return VocabularyReport(kept, total - kept - dropped, dropped, moved, gone)


def _name(entry: Entry) -> str:
    return " ".join(part for part in entry if part)
