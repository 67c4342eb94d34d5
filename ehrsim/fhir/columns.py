"""Resources written whole columns at a time, as lines of JSON.

A builder makes one resource of a few arguments, and asks of most of them only whether they are there. It is called once
for each combination of what is there, with holes instead of ids, times and numbers; that gives a line with holes, a
template. All resources of a template are its pieces with the texts of columns between them, which polars joins at the
speed of memory: a builder that is plain Python costs nothing however many resources there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

Ints = npt.NDArray[np.int64]
Resource = dict[str, Any]
Builder = Callable[..., Resource]

CHUNK = 1 << 13
"""Lines that are joined at once: some ten megabytes."""
_LARGEST_LOOKUP = 1 << 22
_HOLE = re.compile(r"\x00([0-9]+)\x00")
"""A hole in a line. The encoder escapes this character, so that no text of a resource can look like a hole."""


class Each(NamedTuple):
    """An argument that differs from resource to resource: JSON in `texts`, with what stands around all of them.

    The builder sees an encoded fragment in its place, or None where the text is null.
    """

    texts: pl.Series
    before: str = ""
    after: str = ""

    def within(self, before: str, after: str) -> Each:
        """The same with more around it."""
        return Each(self.texts, before + self.before, self.after + after)

    def gather(self, rows: Ints) -> Each:
        """The arguments at some rows, null for row -1."""
        return self._replace(texts=gathered(self.texts, rows))


class Among(NamedTuple):
    """An argument that is one of few values: the builder sees the value itself."""

    numbers: Ints
    """Index in `values`, for each resource."""
    values: Sequence[Any]


Column = Each | Among


def quoted(texts: pl.Series) -> Each:
    """Texts that need no escaping, as JSON strings."""
    return Each(texts, '"', '"')


def referring(prefix: str, ids: pl.Series) -> Each:
    """References to the resources of some ids; `prefix` stands before each id."""
    return Each(ids, f'{{"reference":"{prefix}', '"}')


def nothing(size: int) -> pl.Series:
    """Texts that are all null."""
    return pl.repeat(None, size, dtype=pl.String, eager=True)


def gathered(texts: pl.Series, rows: Ints) -> pl.Series:
    """The texts at some rows, null for row -1."""
    missing = rows < 0
    if not missing.any():
        return texts[rows]
    if missing.all():
        return nothing(len(rows))
    found = texts[np.where(missing, 0, rows)]
    return found.to_frame("text").select(pl.when(pl.Series(~missing)).then(pl.col("text"))).to_series()


def distinct_numbers(numbers: Ints, size: int) -> tuple[Ints, Ints]:
    """The distinct ones among some numbers below `size`, ascending, and the index of each number among them."""
    if size > _LARGEST_LOOKUP:
        distinct, index = np.unique(numbers, return_inverse=True)
        return distinct, index.astype(np.int64)
    present = np.zeros(size, dtype=np.bool_)
    present[numbers] = True
    distinct = np.flatnonzero(present)
    index = (np.cumsum(present) - 1)[numbers]
    return distinct, index


def grouped(numbers: Ints, size: int) -> tuple[Ints, Ints]:
    """Where each distinct one of some numbers below `size` comes first, ascending; and for each number which it is."""
    places = np.arange(len(numbers))
    first = np.empty(size, dtype=np.int64)
    first[numbers[::-1]] = places[::-1]
    own_first = first[numbers]
    is_first = own_first == places
    group: Ints = (np.cumsum(is_first) - 1)[own_first]
    return np.flatnonzero(is_first), group


class Template(NamedTuple):
    """A line with holes."""

    number: int
    pieces: tuple[str, ...]
    holes: tuple[int, ...]
    """The column of each hole, one fewer than there are pieces."""


class Templates:
    """The templates met so far in one export, by number: what all resources of one share is decided once."""

    def __init__(self) -> None:
        self._known: dict[str, Template] = {}

    def template(self, line: str) -> Template:
        """The template of a line with holes."""
        found = self._known.get(line)
        if found is None:
            pieces = _HOLE.split(line)
            holes = tuple(int(number) for number in pieces[1::2])
            found = self._known[line] = Template(len(self._known), tuple(pieces[::2]), holes)
        return found


class Lines(NamedTuple):
    """Resources as lines of JSON that are yet to be joined."""

    columns: Sequence[Column]
    templates: list[Template]
    which: Ints
    """Index in `templates`, for each resource."""

    @property
    def numbers(self) -> Ints:
        """The number of the template of each resource."""
        numbers: Ints = np.array([template.number for template in self.templates], dtype=np.int64)[self.which]
        return numbers

    def chunks(self) -> Iterator[pl.Series]:
        """The lines in order, so many at a time."""
        sequences = list(dict.fromkeys(template.holes for template in self.templates))
        of_template = np.array([sequences.index(template.holes) for template in self.templates], dtype=np.int64)
        pieces = [self._pieces(of_template, number) for number in range(len(sequences))]
        for begin in range(0, len(self.which), CHUNK):
            which = self.which[begin : begin + CHUNK]
            sequence = of_template[which]
            parts, rows = [], []
            for number, holes in enumerate(sequences):
                own = np.flatnonzero(sequence == number) if len(sequences) > 1 else np.arange(len(which))
                if len(own):
                    rows.append(own)
                    parts.append(self._joined(holes, pieces[number], which[own], begin + own))
            lines = pl.concat(parts)
            yield lines if len(parts) == 1 else lines[np.argsort(np.concatenate(rows))]

    def _pieces(self, of_template: Ints, number: int) -> pl.DataFrame:
        """The pieces of the templates with one sequence of holes, a column a place; empty for other templates."""
        own = [
            template.pieces if sequence == number else None
            for template, sequence in zip(self.templates, of_template.tolist(), strict=True)
        ]
        places = len(next(pieces for pieces in own if pieces is not None))
        return pl.DataFrame(
            {str(place): [pieces[place] if pieces else "" for pieces in own] for place in range(places)}
        )

    def _joined(self, holes: tuple[int, ...], pieces: pl.DataFrame, which: Ints, rows: Ints) -> pl.Series:
        """The lines of some rows whose templates have the same holes."""
        first, *others = pieces[which].get_columns()
        parts = [first]
        for number, (column, piece) in enumerate(zip(holes, others, strict=True)):
            parts += [self._texts(column)[rows].alias(f"hole {number}"), piece]
        return pl.DataFrame(parts).select(pl.concat_str(pl.all())).to_series()

    def _texts(self, number: int) -> pl.Series:
        column = self.columns[number]
        if isinstance(column, Among):
            raise TypeError(f"column {number} has values and no texts")
        return column.texts


def lines(build: Builder, columns: Sequence[Column], templates: Templates) -> Lines:
    """The resources that a builder makes of columns, one argument a column."""
    size = len(columns[0].texts) if isinstance(columns[0], Each) else len(columns[0].numbers)
    which, combinations = np.zeros(size, dtype=np.int64), np.zeros((1, 0), dtype=np.int64)
    for column in columns:
        if isinstance(column, Among):
            numbers, count = column.numbers, len(column.values)
        elif column.texts.null_count():
            numbers, count = column.texts.is_not_null().to_numpy().astype(np.int64), 2
        else:
            numbers, count = None, 1
        if numbers is None:
            added = np.ones((len(combinations), 1), dtype=np.int64)
        else:
            both, which = distinct_numbers(which * count + numbers, len(combinations) * count)
            combinations, added = combinations[both // count], (both % count)[:, None]
        combinations = np.concatenate([combinations, added], axis=1)
    made = []
    for combination in combinations.tolist():
        arguments = map(_argument, range(len(columns)), columns, combination)
        made.append(templates.template(orjson.dumps(build(*arguments)).decode()))
    return Lines(columns, made, which)


def _argument(number: int, column: Column, one: int) -> Any:
    """What a builder sees of a column: a value, a hole, or None."""
    if isinstance(column, Among):
        return column.values[one]
    return orjson.Fragment(f"{column.before}\x00{number}\x00{column.after}") if one else None
