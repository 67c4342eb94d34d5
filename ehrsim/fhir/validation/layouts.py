"""Lines of JSON that differ in ids, times and numbers only, held against the rules together.

Resources of an export come from some thousands of shapes, so of most lines all but some ids, times and numbers was
there before. A layout is a line with holes in these places. Its first line is held against all rules; of every other
line of that layout each byte outside the holes is the same, and those in the holes are hexadecimal digits of a UUID,
a time of the calendar, digits of the `value` of a quantity or an identifier, or whole groups of the `data` of a base64
text. No rule of the schema depends on which ones these are (ids, references, identifiers and base64 are of a lexical
form, times have the same parts, values are numbers of any size), so what is true of the first line is true of all. That
takes a microsecond a line instead of thirty. Nor does a rule depend on how long numbers and texts are: lines of several
layouts are of one form, which is held against the rules once.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from ehrsim.fhir.validation.facts import Facts, Period, encounter_of, facts_of, whose
from ehrsim.fhir.validation.rules import Rules

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]

UUID, TIME = 36, 19
"""Characters of an id, and of a time without parts of seconds and zone."""
_HOLES = re.compile(
    # The sign before a hole comes first: few places have one, so few are looked at.
    rb"(?P<sign>[\"/:])(?:"
    rb"(?P<uuid>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
    rb"|(?P<time>[12][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9])(?=Z\"|\.[0-9]{1,6}Z\")"
    rb"|(?<=\"value\":)-?(?P<number>(?:0|[1-9][0-9]*)(?:\.[0-9]+)?)(?=[,}])"
    rb"|(?<=\"value\":\")(?P<digits>[1-9][0-9]*)(?=\")"
    rb"|(?<=\"data\":\")(?P<data>(?:[A-Za-z0-9+/]{4})+)(?=\"|[A-Za-z0-9+/=]{4}\"))"
)
_DASHES = (8, 13, 18, 23)
_HEXADECIMAL = np.array([place for place in range(UUID) if place not in _DASHES])
_NIBBLES = np.full(256, 255, dtype=np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", dtype=np.uint8)] = np.arange(16, dtype=np.uint8)
_BASE64 = np.zeros(256, dtype=np.bool_)
_BASE64[np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", dtype=np.uint8)] = True
_DIGITS = np.array([0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18])
"""The places of the digits in a time."""
_MONTHS = np.arange(np.datetime64("1000-01"), np.datetime64("3001-01"))
_MONTH_STARTS = _MONTHS.astype("datetime64[D]").astype(np.int64)
_MONTH_LENGTHS = np.diff(_MONTH_STARTS)


class Hole(NamedTuple):
    """A place of a line where others may differ."""

    kind: str
    begin: int
    end: int


class Reference(NamedTuple):
    """A hole that is the id in a reference."""

    hole: int
    path: str
    targets: frozenset[str]
    """Types that it may lead to; none: any."""


class When(NamedTuple):
    """A hole that is a time."""

    hole: int
    path: str
    name: str
    """The element of the resource, empty where it says nothing of the patient's life."""


class Form(NamedTuple):
    """What is the same in all lines that differ in holes only, however long these are; holes go by number."""

    uuids: dict[int, int]
    """The holes that are ids, and the number of each among them."""
    clocks: dict[int, int]
    """The holes that are times, and the number of each among them."""
    own: int
    """The id of the resource; -1 where it has none."""
    patient: int
    """The id of its patient."""
    encounter: int
    references: list[Reference]
    times: list[When]
    periods: list[tuple[str, int, int]]
    """Path, start and end."""
    written_out: Facts
    """References and times that are not in holes: the same in all lines."""


class Layout(NamedTuple):
    """The lines of a form that have the same holes in the same places."""

    form: Form
    begins: list[int]
    """Where each hole begins."""
    template: Bytes
    """The line, zero in the holes."""
    fixed: Bytes
    """255 where a byte is fixed, 0 in the holes."""
    hexadecimal: Places
    """Where the digits of ids stand, 32 for each."""
    clock: Places
    """Where the digits of times stand, 14 for each."""
    digits: Places
    """Where digits of numbers stand."""
    leading: Places
    """Where a digit is not 0, since it is the first of many."""
    encoded: list[slice]
    """Where whole groups of base64 stand."""


def holes_of(line: bytes) -> list[Hole]:
    """The holes of a line."""
    found = ((str(match.lastgroup), match) for match in _HOLES.finditer(line))
    return [Hole(kind, *match.span(kind)) for kind, match in found]


def masked(line: bytes, holes: list[Hole]) -> bytes:
    """A line without what is in its holes: lines that have the same text left are of one form."""
    ends = [0, *(hole.end for hole in holes)]
    begins = [*(hole.begin for hole in holes), len(line)]
    return b"\0".join(line[end:begin] for end, begin in zip(ends, begins, strict=True))


def form_of(line: bytes, holes: list[Hole], rules: Rules) -> Form:
    """The form of a line; the line is valid JSON of a resource."""
    marked, names, end = bytearray(), dict[str, int](), 0
    for number, hole in enumerate(holes):
        marker = line[hole.begin : hole.end]
        if hole.kind == "uuid":
            marker = b"%08x-0000-4000-8000-000000000000" % number
        elif hole.kind == "time":
            marker = b"%04d-01-01T00:00:00" % (1000 + number)
        if hole.kind in ("uuid", "time"):
            names[marker.decode()] = number
        marked += line[end : hole.begin] + marker
        end = hole.end
    resource = orjson.loads(bytes(marked + line[end:]))
    return _described(holes, resource, names, facts_of(resource, rules))


def _described(holes: list[Hole], resource: Any, names: dict[str, int], facts: Facts) -> Form:
    """A form from the facts of a resource whose ids and times are names of holes."""
    written_out = Facts([], [], [], facts.problems)
    references, times, periods = list[Reference](), list[When](), list[tuple[str, int, int]]()
    for reference in facts.references:
        hole = names.get(reference.text[-UUID:])
        if hole is None:
            written_out.references.append(reference)
        else:
            references.append(Reference(hole, reference.path, reference.kinds))
    for moment in facts.moments:
        hole = names.get(moment.text[:TIME])
        if hole is None:
            written_out.moments.append(moment)
        else:
            times.append(When(hole, moment.path, moment.name))
    for path, start, end in facts.periods:
        if start[:TIME] in names and end[:TIME] in names:
            periods.append((path, names[start[:TIME]], names[end[:TIME]]))
        else:
            written_out.periods.append(Period(path, start, end))
    patient, encounter = (names.get((text or "")[-UUID:], -1) for text in (whose(resource), encounter_of(resource)))
    of_kind = {kind: [number for number, hole in enumerate(holes) if hole.kind == kind] for kind in ("uuid", "time")}
    return Form(
        {hole: number for number, hole in enumerate(of_kind["uuid"])},
        {hole: number for number, hole in enumerate(of_kind["time"])},
        names.get(str(resource.get("id", "")), -1),
        patient,
        encounter,
        references,
        times,
        periods,
        written_out,
    )


def layout_of(line: bytes, holes: list[Hole], form: Form) -> Layout:
    """The layout of a line of a form."""
    fixed = np.full(len(line), 255, dtype=np.uint8)
    digits, leading, encoded = list[int](), list[int](), list[slice]()
    for kind, begin, end in holes:
        if kind == "data":
            encoded.append(slice(begin, end))
            fixed[begin:end] = 0
        elif kind in ("number", "digits"):
            places = [place for place in range(begin, end) if line[place] != ord(".")]
            whole = line[begin:end].partition(b".")[0]
            # What begins with 0 is `0` or `0.5`: another digit there is as good, but a second one would not be.
            leading += places[:1] if len(whole) > 1 else []
            digits += places
    hexadecimal, clock = (
        (np.array([holes[hole].begin for hole in own], dtype=np.intp)[:, None] + places).ravel()
        for own, places in ((form.uuids, _HEXADECIMAL), (form.clocks, _DIGITS))
    )
    for places in (hexadecimal, clock, digits):
        fixed[places] = 0
    return Layout(
        form,
        [hole.begin for hole in holes],
        np.frombuffer(line, dtype=np.uint8) & fixed,
        fixed,
        hexadecimal,
        clock,
        np.array(digits, dtype=np.intp),
        np.array(leading, dtype=np.intp),
        encoded,
    )


BLOCK = 1 << 18
"""Bytes compared at once: what stays in the cache of a core."""


def same(lines: Bytes, layout: Layout) -> Mask:
    """Which lines, shape (n, length), are of a layout outside its holes, with digits where numbers have them."""
    found = np.empty(len(lines), dtype=np.bool_)
    step = max(1, BLOCK // max(1, lines.shape[1]))
    for begin in range(0, len(lines), step):
        block = lines[begin : begin + step]
        found[begin : begin + step] = ((block & layout.fixed) == layout.template).all(axis=1)
    if len(layout.digits):
        # Below 0 wraps around, so that one comparison does for both ends.
        found &= (lines[:, layout.digits] - np.uint8(48) <= 9).all(axis=1)
    if len(layout.leading):
        found &= (lines[:, layout.leading] != 48).all(axis=1)
    for part in layout.encoded:
        found &= _BASE64[lines[:, part]].all(axis=1)
    return found


def uuids_in(lines: Bytes, layout: Layout) -> tuple[Words, Mask]:
    """The UUIDs in each line of a layout, shape (n, UUIDs, 2), and which lines have none but well-formed ones."""
    nibbles = _NIBBLES[lines[:, layout.hexadecimal]]
    packed = np.ascontiguousarray((nibbles[:, ::2] << 4) | nibbles[:, 1::2])
    words: Words = packed.view(">u8").astype(np.uint64).reshape(len(lines), len(layout.form.uuids), 2)
    good: Mask = np.all(nibbles <= 15, axis=1)
    return words, good


def times_in(lines: Bytes, layout: Layout) -> tuple[Ints, Mask]:
    """Seconds since 1970 of the times in each line, and which are times of the calendar; shape (n, times)."""
    numerals = (lines[:, layout.clock] - np.uint8(48)).reshape(len(lines), len(layout.form.clocks), 14)
    good = (numerals <= 9).all(axis=2)
    parts = (numerals[:, :, ::2] * np.uint8(10) + numerals[:, :, 1::2]).astype(np.int64)
    century, years, month, day, hour, minute, second = np.moveaxis(parts, 2, 0)
    year = century * 100 + years
    good &= (year >= 1000) & (year <= 3000) & (month >= 1) & (month <= 12) & (hour < 24) & (minute < 60) & (second < 60)
    number = np.where(good, (year - 1000) * 12 + month - 1, 0)
    good &= (day >= 1) & (day <= _MONTH_LENGTHS[number])
    seconds: Ints = ((_MONTH_STARTS[number] + day - 1) * 24 + hour) * 3600 + minute * 60 + second
    return seconds, good
