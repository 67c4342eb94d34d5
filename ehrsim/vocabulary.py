"""The vocabulary: which codes a model knows, in which order, and what becomes of the rare ones.

An *entry* is a code together with its textual answer and unit, so that a smoking status "never", or the same test in
two units, are different entries. Entries are numbered from 1 (0 is padding) and sorted by *group*, the clinical order
in which a visit is emitted: reasons and conditions, then procedures and medications, then measurements; within a group
the commonest comes first. Entries seen in fewer than `min_patients` patients lose their text, then roll up to their
parents, then drop; the report says which.
Visit types and statics are held to the same number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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


UNSTATED_VISIT = Entry("VISIT", None, None)
"""The visit type of visits whose start no event tells: data with visit ids alone."""


class Vocabulary(msgspec.Struct, frozen=True, dict=True):
    """What a model can emit.

    `entries[i]` has index i + 1. `visit_types` are the visit starts (code, text), index 1 …, 0 being "no visit"; the
    last may be `UNSTATED_VISIT`. `visit_ends[i]` is the usual end of `visit_types[i]`. `statics` are the untimed facts,
    index 1 …. `descriptions` are displays of any code named in the others.
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

    def lookup_type(self, entry: Entry) -> int | None:
        """The index of a visit type, or of the same without its text; None if there is neither."""
        return self.type_index.get(entry, self.type_index.get(entry._replace(text=None)))

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
    """What became of rare codes: events kept as they are, kept under a broader entry, and dropped.

    Births, deaths, ends of observation and visit ends, which every vocabulary can express, are not counted.
    """

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
    counts = _count(events)
    resolved = _resolve(counts.timed, _rare_subjects(events, counts.timed, min_patients), min_patients, parents)
    kept = set(filter(None, resolved.values()))
    visit_types = sorted(filter(_is_visit_start, kept), key=lambda entry: (-counts.events(entry), _order(entry)))
    occurrences: Counter[Entry] = Counter()
    for entry, new in resolved.items():
        if new:
            occurrences[new] += counts.events(entry)
    commonest = sorted(kept.difference(visit_types), key=lambda entry: (-occurrences[entry], _order(entry)))
    entries = sorted(commonest, key=lambda entry: group_of(entry.code))
    if _unstated_visits(events) >= min_patients:
        visit_types.append(UNSTATED_VISIT)
    if not entries and not all(map(_is_visit_start, counts.timed)):
        raise InputError(
            f"no code occurs in {min_patients} patients or more", hint="use more patients, or lower min_patients"
        )
    resolved_statics = {entry: entry if n >= min_patients else None for entry, (n, _) in counts.static.items()}
    statics = sorted(filter(None, resolved_statics.values()), key=_order)
    vocabulary = Vocabulary(
        entries=entries,
        visit_types=visit_types,
        visit_ends=_usual_ends(visit_types, counts.ends, min_patients),
        statics=statics,
        descriptions=_descriptions(events, [*entries, *visit_types, *statics]),
        parents=parents,
        min_patients=min_patients,
    )
    fates = [(entry, new, counts.events(entry)) for entry, new in resolved.items()]
    fates += [(entry, new, counts.static[entry][1]) for entry, new in resolved_statics.items()]
    return vocabulary, _report(fates)


def _order(entry: Entry) -> tuple[int, str, str, str]:
    return group_of(entry.code), entry.code, entry.text or "", entry.unit or ""


Patients = dict[Entry, tuple[int, int]]
"""Patients and events of each entry."""


class _Counts(NamedTuple):
    """The entries of a table: those with a time (visit starts among them), visit ends, and statics."""

    timed: Patients
    ends: Patients
    static: Patients

    def events(self, entry: Entry) -> int:
        """Number of timed events of an entry."""
        return self.timed.get(entry, (0, 0))[1]


def _count(events: pl.LazyFrame) -> _Counts:
    keys = ["code", "text_value", "unit", pl.col("time").is_null().alias("static")]
    grouped = events.group_by(keys).agg(pl.col("subject_id").n_unique().alias("patients"), pl.len().alias("events"))
    counts = _Counts({}, {}, {})
    for code, text, unit, is_static, patients, number in (
        grouped.sort("code", "text_value", "unit").collect(engine="streaming").iter_rows()
    ):
        if is_static:
            counts.static[Entry(code, text, unit)] = (patients, number)
        elif codes.parse(code).kind == "visit_end":
            counts.ends[Entry(code, text, unit)] = (patients, number)
        elif code not in STRUCTURAL:
            counts.timed[Entry(code, text, unit)] = (patients, number)
    return counts


def _is_visit_start(entry: Entry) -> bool:
    return codes.parse(entry.code).kind == "visit_start"


def _unstated_visits(events: pl.LazyFrame) -> int:
    """The number of patients with events in a visit whose start no event tells."""
    key = ["subject_id", "visit_id"]
    timed = events.filter(pl.col("time").is_not_null() & pl.col("visit_id").is_not_null())
    starts = timed.filter(pl.col("code").str.starts_with("VISIT_START//")).select(key).unique()
    unstated = timed.select(key).unique().join(starts, on=key, how="anti")
    return int(unstated.select(pl.col("subject_id").n_unique()).collect(engine="streaming").item())


def _usual_ends(visit_types: list[Entry], ends: Patients, min_patients: int) -> list[Entry]:
    """For each visit type the commonest end of the same class, with its text and unit if they are frequent enough."""
    usual = []
    for start in visit_types:
        code = start.code.replace("VISIT_START//", "VISIT_END//", 1)
        fits = {entry: n for entry, (patients, n) in ends.items() if patients >= min_patients}
        same = [(n, entry) for entry, n in fits.items() if start == UNSTATED_VISIT or entry.code == code]
        usual.append(max(same, key=lambda item: item[0])[1] if same else Entry(code, None, None))
    return usual


def _rare_subjects(events: pl.LazyFrame, timed: Patients, min_patients: int) -> dict[Entry, set[int]]:
    """The patients of each timed entry that has fewer than `min_patients` of them."""
    rare = [entry for entry, (n, _) in timed.items() if n < min_patients]
    keys = ["code", "text_value", "unit"]
    table = pl.DataFrame(rare, schema=dict.fromkeys(keys, pl.String), orient="row").lazy()
    rows = events.filter(pl.col("time").is_not_null()).select(*keys, "subject_id").unique()
    rows = rows.join(table, on=keys, how="semi", nulls_equal=True)
    subjects: dict[Entry, set[int]] = {entry: set() for entry in rare}
    for code, text, unit, subject in rows.collect(engine="streaming").iter_rows():
        subjects[Entry(code, text, unit)].add(subject)
    return subjects


def _resolve(
    timed: Patients, rare: dict[Entry, set[int]], min_patients: int, parents: Mapping[str, str]
) -> dict[Entry, Entry | None]:
    """The entry that each raw entry becomes: itself, a broader one, or None.

    Whatever stands for too few patients gives way to its next fallback, the most specific first, until all that remains
    stands for enough. `Vocabulary.lookup` goes down the same list, so the counts hold for what is encoded.
    """
    chains = {entry: _fallbacks(entry, parents) for entry in rare}
    gone: set[Entry] = set()
    while True:
        resolved = {entry: next((one for one in chain if one not in gone), None) for entry, chain in chains.items()}
        pooled: dict[Entry, set[int]] = {}
        for entry, target in resolved.items():
            if target is not None and (target in rare or target not in timed):
                pooled.setdefault(target, set()).update(rare[entry])
        few = {target for target, subjects in pooled.items() if len(subjects) < min_patients}
        if not few:
            return {entry: resolved.get(entry, entry) for entry in timed}
        broader = {broad for target in few for broad in _fallbacks(target, parents)[1:]}
        gone |= few - broader or few


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
    """Displays of the codes of entries, and of coded answers that stand in their texts."""
    wanted = {entry.code for entry in entries} | {entry.text for entry in entries if entry.text}
    if DESCRIPTION not in events.collect_schema():
        return {}
    table = events.select("code", DESCRIPTION).drop_nulls().group_by("code").agg(pl.col(DESCRIPTION).min())
    known = dict(table.collect(engine="streaming").iter_rows())
    named = {code: known[code] for code in sorted(wanted) if code in known}
    titles = {code: title for code in sorted(wanted - named.keys()) if (title := codes.chapter_title(code))}
    return named | titles


def _report(fates: list[tuple[Entry, Entry | None, int]]) -> VocabularyReport:
    """The report from what each entry became, and its number of events."""
    moved = [(old, new, number) for old, new, number in fates if new is not None and new != old]
    gone = [(old, number) for old, new, number in fates if new is None]
    return VocabularyReport(
        events_kept=sum(number for old, new, number in fates if new == old),
        events_rolled_up=sum(number for _, _, number in moved),
        events_dropped=sum(number for _, number in gone),
        rolled_up={_name(old): _name(new) for old, new, _ in moved},
        dropped=[_name(old) for old, _ in gone],
    )


def _name(entry: Entry) -> str:
    return " ".join(part for part in entry if part)
