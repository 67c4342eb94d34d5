"""Exports held against the rules while they are written: every byte, before it may be a file.

See `layouts` for how all lines are held against the schema, at the speed of arrays. What resources say of one another
is checked by group of subjects: ids are unique, references lead to a resource of the right type that is written, of
the same patient where it is one of a patient, periods do not end before they start, nothing is before birth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, NoReturn
from uuid import UUID
from zlib import crc32

import numpy as np
import orjson
import polars as pl

from ehrsim.errors import GateError
from ehrsim.fhir.fragments import Resource
from ehrsim.fhir.record import Batch
from ehrsim.fhir.report import ExportReport
from ehrsim.fhir.validation.cross_resource import AFTER_DEATH, OUTSIDE
from ehrsim.fhir.validation.facts import CLINICAL, WITHIN_ENCOUNTER, Facts, disorder, facts_of
from ehrsim.fhir.validation.findings import Problem, shown
from ehrsim.fhir.validation.in_full import problems_in_full
from ehrsim.fhir.validation.layouts import (
    TIME,
    Bytes,
    Form,
    Hole,
    Ints,
    Layout,
    Reference,
    When,
    Words,
    form_of,
    holes_of,
    layout_of,
    masked,
    same,
    times_in,
    uuids_in,
)
from ehrsim.fhir.validation.rules import rules_of
from ehrsim.fhir.validation.times import ZONES, span

Validate = Literal["none", "fast", "full"]
LAYOUTS = 1 << 13
"""Layouts that are kept: some 8 kB each."""
TRIED = 6
"""Layouts of one shape and length that are tried on all lines before lines are looked up one by one."""
SAMPLE_RATE = 4_096
"""One resource in so many is checked in full, beside the first of every shape."""
LARGEST_SAMPLE = 500
BEFORE_BIRTH = "times before birth"
DEATH_FIRST = "deaths before birth"
PEOPLE = ("Patient", "RelatedPerson")
"""Types whose resources have words of their own: names and addresses."""
WRITTEN = re.compile(r"(?:urn:uuid:|[A-Z][A-Za-z]+/)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""A reference by UUID."""
ALTERED = -2
"""The shape of resources that were altered since they were checked."""
SHARED = -1
"""The subject of what patients share."""
NEVER = np.iinfo(np.int64)


class _Ids(NamedTuple):
    """Ids of resources, with the numbers of their types and of their subjects."""

    words: Words
    kinds: Ints
    subjects: Ints


class _Links(NamedTuple):
    """References of one element, or the resources that they stand in where `words` are of these."""

    words: list[Words]
    subjects: list[Ints]


class _Times(NamedTuple):
    """Times within encounters: of an Encounter its start and end, of others the time twice."""

    words: list[Words]
    first: list[Ints]
    last: list[Ints]


class _Group:
    """What the resources of a group of subjects say of one another, as it is gathered."""

    def __init__(self, shared: list[_Ids]) -> None:
        self.ids = list(shared)
        self.links: dict[tuple[str, Reference], _Links] = {}
        self.stays = _Times([], [], [])
        self.moments = _Times([], [], [])
        self.born: Ints = np.empty(0, dtype=np.int64)
        self.dead: Ints = np.empty(0, dtype=np.int64)


class Validator:
    """Holds an export against the rules; the same export has the same outcome."""

    def __init__(self, extent: Validate, report: ExportReport, us_core: str = "6.1") -> None:
        self._extent, self._report, self._rules = extent, report, rules_of(us_core)
        self._numbers: dict[str, int] = {}
        self._forms: dict[tuple[str, bytes], Form] = {}
        self._layouts: dict[tuple[str, int, bytes], Layout] = {}
        self._recent: dict[tuple[str, int, int], list[Layout]] = {}
        self._seen: set[tuple[str, int]] = set()
        self._drawn = 0
        self._shared: list[_Ids] = []
        self._group = _Group([])

    def check(self, resources: Iterable[Resource]) -> None:
        """Check what patients share; raises `GateError` for what is not valid."""
        if self._extent == "none":
            return
        for resource in resources:
            self._check(resource["resourceType"], [orjson.dumps(resource)], np.full(1, SHARED), np.full(1, SHARED))
        self._resolve(self._group)
        self._shared = self._group.ids
        self._group = _Group(self._shared)

    def checked(self, batch: Batch) -> Iterator[pl.Series]:
        """The lines of a batch, each checked before it passes; raises `GateError` for one that is not valid."""
        begin = 0
        for some in batch.lines:
            if self._extent != "none":
                until = begin + len(some)
                lines = some.cast(pl.Binary).to_list()
                self._check(batch.resource_type, lines, batch.subjects[begin:until], batch.shapes[begin:until])
                begin = until
            yield some

    def check_bundle(self, bundle: Resource, altered: list[bytes]) -> None:
        """Check a bundle whose entries hold their `resourceType` only, and resources altered since they were checked.

        These are held against the schema alone: who alters only how a reference is written says where it leads.
        """
        if self._extent == "none":
            return
        shell = orjson.loads(orjson.dumps(bundle))
        for problem in self._rules.problems(shell):
            self._refuse("Bundle", problem)
        urls = [entry["fullUrl"] for entry in shell["entry"]]
        if len(set(urls)) < len(urls):
            self._refuse("Bundle", Problem("entry.fullUrl", "one twice", "a URL that no other entry has (bdl-7)"))
        by_type = dict[tuple[str, int], list[bytes]]()
        for line in altered:
            by_type.setdefault((_type_of(line), len(line)), []).append(line)
        for (kind, length), lines in by_type.items():
            matrix = np.frombuffer(b"".join(lines), dtype=np.uint8).reshape(len(lines), length)
            self._by_layout((kind, ALTERED, length), lines, matrix, None)

    def checked_alone(self, resources: Iterable[Resource]) -> Iterator[Resource]:
        """Resources on all patients together, each checked before it passes, as far as it can be wrong alone.

        They lead to patients of all groups, whose ids are not kept: who makes them says that these are there.
        """
        for resource in resources:
            if self._extent != "none":
                self._check_alone(orjson.loads(orjson.dumps(resource)))
            yield resource

    def _check_alone(self, resource: Resource) -> None:
        kind = resource["resourceType"]
        problems = self._rules.problems(resource)
        if not problems:
            facts = facts_of(resource, self._rules)
            problems = [*facts.problems, *disorder(facts.periods)]
        if not problems and self._extent == "full":
            problems = problems_in_full(resource, self._rules)
            self._report.in_full += 1
        for problem in problems:
            self._refuse(f"{kind}/{resource.get('id')}", problem)
        self._report.validated[kind] = self._report.validated.get(kind, 0) + 1

    def end_group(self) -> None:
        """Check what the resources of a group of subjects say of one another."""
        if self._extent != "none":
            self._resolve(self._group)
            self._group = _Group(self._shared)

    def _check(self, kind: str, lines: list[bytes], subjects: Ints, shapes: Ints) -> None:
        """Check lines of one type, by shape and length."""
        if kind == "Patient":
            self._note_lives(lines)
        counts = self._report.validated
        counts[kind] = counts.get(kind, 0) + len(lines)
        if kind in PEOPLE and self._extent != "full":
            self._check_people(kind, lines, subjects)
            return
        lengths = np.fromiter(map(len, lines), dtype=np.int64, count=len(lines))
        order = np.lexsort((lengths, shapes))
        changes = (np.diff(lengths[order]) != 0) | (np.diff(shapes[order]) != 0)
        for rows in np.split(order, np.flatnonzero(changes) + 1):
            length, shape = int(lengths[rows[0]]), int(shapes[rows[0]])
            some = [lines[row] for row in rows.tolist()]
            if self._extent == "full":
                self._check_in_full(kind, shape, some)
            matrix = np.frombuffer(b"".join(some), dtype=np.uint8).reshape(len(some), length)
            self._by_layout((kind, shape, length), some, matrix, subjects[rows])

    def _check_people(self, kind: str, lines: list[bytes], subjects: Ints) -> None:
        """Check lines that have words of their own one by one: hardly any two of them would be of one layout."""
        own, links = list[str](), dict[Reference, list[tuple[str, int]]]()
        for line, subject in zip(lines, subjects.tolist(), strict=True):
            resource = orjson.loads(line)
            facts = self._facts(kind, resource)
            own.append(resource["id"])
            for one in facts.references:
                reference = Reference(0, one.path, one.kinds)
                links.setdefault(reference, []).append((one.text[-36:], subject))
        number = self._numbers.setdefault(kind, len(self._numbers))
        self._group.ids.append(_Ids(_words_of(own), np.full(len(own), number), subjects))
        for reference, found in links.items():
            gathered = self._group.links.setdefault((kind, reference), _Links([], []))
            gathered.words.append(_words_of([uuid for uuid, _ in found]))
            gathered.subjects.append(np.array([subject for _, subject in found], dtype=np.int64))

    def _problems(self, kind: str, resource: Resource) -> list[Problem]:
        """What is wrong with a resource by itself."""
        if resource["resourceType"] != kind:
            return [Problem("resourceType", shown(resource["resourceType"]), kind)]
        return self._rules.problems(resource)

    def _facts(self, kind: str, resource: Resource) -> Facts:
        """What a resource that is held against the rules says of others; raises `GateError` for one not valid."""
        problems = self._problems(kind, resource)
        if not problems:
            facts = facts_of(resource, self._rules)
            problems = [*facts.problems, *disorder(facts.periods)]
            by_uuid = [(one, WRITTEN.fullmatch(one.text)) for one in facts.references]
            problems += [Problem(one.path, one.text, "a reference by UUID") for one, found in by_uuid if not found]
        for problem in problems:
            self._refuse(f"{kind}/{resource.get('id')}", problem)
        return facts

    def _by_layout(
        self, bucket: tuple[str, int, int], lines: list[bytes], matrix: Bytes, subjects: Ints | None
    ) -> None:
        """Check lines of one length: all that are of a layout at once, until none is left."""
        recent = self._recent.setdefault(bucket, [])
        left = np.arange(len(lines))
        for layout in list(recent):
            left = self._take(bucket[0], layout, lines, matrix, subjects, left)
        while len(left) and len(recent) < TRIED:
            recent.append(self._layout(bucket[0], lines[left[0]]))
            left = self._take(bucket[0], recent[-1], lines, matrix, subjects, left)
        if len(left):
            keys: dict[bytes, list[int]] = {}
            for row in left.tolist():
                keys.setdefault(masked(lines[row], holes_of(lines[row])), []).append(row)
            for rows in keys.values():
                some = np.array(rows)
                while len(some):
                    layout = self._layout(bucket[0], lines[some[0]])
                    some = self._take(bucket[0], layout, lines, matrix, subjects, some)

    def _take(
        self, kind: str, layout: Layout, lines: list[bytes], matrix: Bytes, subjects: Ints | None, left: Ints
    ) -> Ints:
        """Check those of the lines that are left that are of a layout; returns the others.

        Without `subjects`, what the lines say of others was taken in before.
        """
        if not len(left):
            return left
        whole = len(left) == len(lines)
        block = matrix if whole else matrix[left]
        fits = same(block, layout)
        words, well_formed = uuids_in(block, layout)
        fits &= well_formed
        if subjects is None:
            return left[~fits]
        if fits.all():
            self._gather(kind, layout, block, words, subjects[left])
        elif fits.any():
            self._gather(kind, layout, block[fits], words[fits], subjects[left[fits]])
        return left[~fits]

    def _layout(self, kind: str, line: bytes) -> Layout:
        """The layout of a line, which is held against the rules if it is the first of its form."""
        holes = holes_of(line)
        text = masked(line, holes)
        key = kind, len(line), text
        known = self._layouts.get(key)
        if known is not None and same(np.frombuffer(line, dtype=np.uint8)[None, :], known).all():
            return known
        form = self._forms.get((kind, text))
        if form is None:
            form = self._form(kind, line, holes)
            self._forms[kind, text] = form
        if len(self._layouts) >= LAYOUTS:
            self._layouts.clear()
            self._recent.clear()
            self._forms = {(kind, text): form}
        layout = self._layouts[key] = layout_of(line, holes, form)
        return layout

    def _form(self, kind: str, line: bytes, holes: list[Hole]) -> Form:
        """The form of a line that is held against the rules; raises `GateError` for one that is not valid."""
        resource = orjson.loads(line)
        problems = self._problems(kind, resource)
        if not problems:
            form = form_of(line, holes, self._rules)
            facts = form.written_out
            problems = [*facts.problems, *disorder(facts.periods)]
            problems += [Problem(one.path, one.text, "a reference by UUID") for one in facts.references]
        for problem in problems:
            self._refuse(f"{kind}/{resource.get('id')}", problem)
        return form

    def _check_in_full(self, kind: str, shape: int, lines: list[bytes]) -> None:
        """The thorough checks, on the first resource of a shape and on a sample."""
        picked = [] if (kind, shape) in self._seen else [0]
        self._seen.add((kind, shape))
        # A pick by content is the same in whatever order and groups the lines come.
        drawn = [number for number, line in enumerate(lines) if crc32(line) % SAMPLE_RATE == 0]
        drawn = drawn[: LARGEST_SAMPLE - self._drawn]
        self._drawn += len(drawn)
        for number in dict.fromkeys([*picked, *drawn]):
            resource = orjson.loads(lines[number])
            for problem in problems_in_full(resource, self._rules):
                self._refuse(f"{kind}/{resource.get('id')}", problem)
            self._report.in_full += 1

    def _note_lives(self, lines: list[bytes]) -> None:
        """From when to when each patient lives; patients come first, in the order of the subjects."""
        lives = np.empty((len(lines), 2), dtype=np.int64)
        for number, line in enumerate(lines):
            patient = orjson.loads(line)
            birth, death = (span(patient.get(name) or "") for name in ("birthDate", "deceasedDateTime"))
            lives[number] = int(birth.first - ZONES) if birth else NEVER.min, int(death.last) if death else NEVER.max
            self._unlikely(DEATH_FIRST, bool(birth and death and death.before(birth)))
        group = self._group
        group.born, group.dead = np.append(group.born, lives[:, 0]), np.append(group.dead, lives[:, 1])

    def _gather(self, kind: str, layout: Layout, lines: Bytes, words: Words, subjects: Ints) -> None:
        """Take in the ids, references and times of lines of one layout."""
        group, form = self._group, layout.form
        own = words[:, form.uuids[form.own]]
        number = self._numbers.setdefault(kind, len(self._numbers))
        group.ids.append(_Ids(own, np.full(len(own), number), subjects))
        for reference in form.references:
            links = group.links.setdefault((kind, reference._replace(hole=0)), _Links([], []))
            links.words.append(words[:, form.uuids[reference.hole]])
            links.subjects.append(subjects)
        if form.clocks:
            times, good = times_in(lines, layout)
            if not good.all():
                row, which = (int(place[0]) for place in np.nonzero(~good))
                found = _text(lines[row], layout.begins[list(form.clocks)[which]])
                self._refuse(f"{kind}/{_written(own[row])}", Problem("", found, "a time of the calendar"))
            self._gather_times(kind, layout, lines, words, subjects, times)

    def _gather_times(self, kind: str, layout: Layout, lines: Bytes, words: Words, subjects: Ints, times: Ints) -> None:
        form = layout.form
        own = words[:, form.uuids[form.own]]
        for path, start, end in form.periods:
            late = times[:, form.clocks[start]] > times[:, form.clocks[end]]
            if late.any():
                row = int(np.flatnonzero(late)[0])
                texts = [_text(lines[row], layout.begins[hole]) for hole in (start, end)]
                found = " to ".join(texts)
                self._refuse(f"{kind}/{_written(own[row])}", Problem(path, found, "a start not after the end (per-1)"))
            if kind == "Encounter" and path == "period":
                _extend(self._group.stays, own, times[:, form.clocks[start]], times[:, form.clocks[end]])
        for when in form.times:
            seconds = times[:, form.clocks[when.hole]]
            self._live(when, seconds, subjects)
            if form.encounter >= 0 and when.name in WITHIN_ENCOUNTER:
                _extend(self._group.moments, words[:, form.uuids[form.encounter]], seconds, seconds)

    def _live(self, when: When, seconds: Ints, subjects: Ints) -> None:
        """Count times before birth and after death."""
        if subjects[0] == SHARED:
            return
        self._unlikely(BEFORE_BIRTH, int((seconds < self._group.born[subjects]).sum()))
        if when.name in CLINICAL:
            self._unlikely(AFTER_DEATH, int((seconds > self._group.dead[subjects]).sum()))

    def _resolve(self, group: _Group) -> None:
        """Check that ids are unique, that references lead to what is there, and that times lie in the encounter."""
        ids = _sorted(group.ids)
        repeated = (ids.words[1:] == ids.words[:-1]).all(axis=1)
        if repeated.any():
            self._refuse("?", Problem("id", _written(ids.words[1:][repeated][0]), "one that no other resource has"))
        for (kind, reference), links in group.links.items():
            words, subjects = np.concatenate(links.words), np.concatenate(links.subjects)
            fresh = np.r_[True, (words[1:] != words[:-1]).any(axis=1) | (subjects[1:] != subjects[:-1])]
            self._lead(kind, reference, words[fresh], subjects[fresh], ids)
        if group.stays.words and group.moments.words:
            stays, starts, ends = (np.concatenate(part) for part in group.stays)
            order = np.argsort(stays[:, 0], kind="stable")
            within, times, _ = (np.concatenate(part) for part in group.moments)
            at = order[np.minimum(np.searchsorted(stays[order, 0], within[:, 0]), len(order) - 1)]
            outside = (stays[at] == within).all(axis=1) & ((times < starts[at]) | (times > ends[at]))
            self._unlikely(OUTSIDE, int(outside.sum()))

    def _lead(self, kind: str, reference: Reference, words: Words, subjects: Ints, ids: _Ids) -> None:
        at = np.minimum(np.searchsorted(ids.words[:, 0], words[:, 0]), len(ids.words) - 1)
        there = (ids.words[at] == words).all(axis=1)
        allowed = [self._numbers[name] for name in reference.targets if name in self._numbers]
        right = there & (np.isin(ids.kinds[at], allowed) if reference.targets else True)
        right &= (ids.subjects[at] == subjects) | (ids.subjects[at] == SHARED)
        if not right.all():
            first = int(np.flatnonzero(~right)[0])
            expected = f"a {' or '.join(sorted(reference.targets)) or 'resource'} of this export and of this patient"
            self._refuse(kind, Problem(reference.path, _written(words[first]), expected))

    def _unlikely(self, what: str, count: int) -> None:
        if count:
            self._report.unlikely[what] = self._report.unlikely.get(what, 0) + count

    def _refuse(self, resource: str, problem: Problem) -> NoReturn:
        raise GateError(
            f"{resource} is not valid FHIR: {problem.path or 'resource'}: found {problem.found}, "
            f"expected {problem.expected}",
            hint="this is a defect of ehrsim; please report it with the event that the resource was made from",
        )


def _type_of(line: bytes) -> str:
    """The type of a resource as ehrsim writes it: the first member."""
    found = re.match(rb'\{"resourceType":"([A-Za-z]+)"', line)
    return found[1].decode() if found else "?"


def _words_of(uuids: list[str]) -> Words:
    """The words of some UUIDs, shape (n, 2)."""
    digits = bytes.fromhex("".join(uuids).replace("-", ""))
    return np.frombuffer(digits, dtype=">u8").astype(np.uint64).reshape(len(uuids), 2)


def _text(line: Bytes, offset: int) -> str:
    """The time at an offset of a line."""
    return line[offset : offset + TIME].tobytes().decode()


def _extend(times: _Times, words: Words, first: Ints, last: Ints) -> None:
    times.words.append(words)
    times.first.append(first)
    times.last.append(last)


def _sorted(parts: list[_Ids]) -> _Ids:
    """Ids in the order of their first words."""
    words, kinds, subjects = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(words[:, 0], kind="stable")
    return _Ids(words[order], kinds[order], subjects[order])


def _written(words: Words) -> str:
    """A UUID as text."""
    return str(UUID(int=(int(words[0]) << 64) | int(words[1])))
