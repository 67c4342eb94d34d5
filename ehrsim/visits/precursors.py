"""Precursors: codes after which the first of another code comes more often, or less, than it does without them.

A drug follows its disease, a complication its cause. Where both are rare, what a model gains in likelihood by knowing
it is lost among all else that it learns, so the strongest of these relations are looked for in counts, and the model is
given a weight for each, which begins at the log odds ratio found here.

For each code, steps with the first of it are set beside steps of the same kind of other patients who have not had it
(risk-set sampling: Langholz & Goldstein 1996, "Risk set sampling in epidemiologic cohort studies"). Codes are taken in
one by one, each the one with the largest score statistic given those before (Rao 1948), in a logistic regression that
always has age, the number of steps, the years so far and since the step before: what just goes with age is no
precursor. Odds ratios are the same among so chosen steps as among all. They are told apart for the very step in which a
precursor comes: some drugs begin with their disease, and some never before the next visit.

Codes of one group that share a precursor make a *class*: what is given for one disease. All are looked through once
more with the classes beside the codes, since who has one drug of a class seldom begins another, and what follows any
drug of a class is seen better of all of them together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

from ehrsim.batch import Precursor, Sizes, Visit
from ehrsim.visits.regression import WIDE, Floats, logistic_regression
from ehrsim.visits.sequences import Int64
from ehrsim.visits.table import Table

MOST = 6
"""Precursors of a code."""
LEADING = 256
"""Codes that are the precursors of others: a model has a product with so many more numbers, the width of a layer."""
LEAST_SCORE = 15.0
"""Score statistic, a chi-squared of one degree of freedom: one pair of ten thousand has so much by chance."""
LEAST_EVENTS = 10
"""First occurrences of a code that are looked at at all, and those that a precursor makes or takes away."""
CASES, CONTROLS = 1_000, 20
"""Steps with the first of a code that are looked at, and others for each."""
PATIENTS = 20_000
"""Patients who are looked at; no more of them are needed to find what is strong."""
SOON = 0.01
"""Years between steps that count as no less."""


class Firsts(NamedTuple):
    """First occurrences, by patient and then by code."""

    offsets: Int64
    """(P + 1,) of each patient in the other two"""
    code: Int64
    step: Int64
    """The step, as a row of the table."""


def first_occurrences(steps: Table, size: int) -> Firsts:
    """The first step with each code of each patient of a table; `size` is that of the vocabulary."""
    owner = np.repeat(np.arange(steps.patients), np.diff(steps.step_offsets))
    row, place = np.nonzero(steps.visit.codes)
    # Rows ascend, so the first of the equal keys is the first step with the code.
    key, index = np.unique(owner[row] * size + steps.visit.codes[row, place], return_index=True)
    return Firsts(np.searchsorted(key, np.arange(steps.patients + 1) * size), key % size, row[index])


def with_precursors(sizes: Sizes, steps: Table) -> Sizes:
    """The sizes with the precursors of all codes of a table, and with the classes among them."""
    search = _Search(_some(steps), sizes)
    classes = _classes(search.precursors(()), sizes)
    found = search.precursors(classes)
    strength = np.zeros(sizes.vocabulary + len(classes))
    np.add.at(strength, [pair.before for pair, _ in found], [score for _, score in found])
    kept = set(np.argsort(-strength, kind="stable")[:LEADING].tolist())
    used = [
        index
        for index in range(len(classes))
        if sizes.vocabulary + index in kept and strength[sizes.vocabulary + index]
    ]
    renamed = {sizes.vocabulary + index: sizes.vocabulary + number for number, index in enumerate(used)}
    pairs = [pair._replace(before=renamed.get(pair.before, pair.before)) for pair, _ in found if pair.before in kept]
    return sizes._replace(precursors=tuple(pairs), classes=tuple(classes[index] for index in used))


def _some(steps: Table) -> Table:
    """The first PATIENTS of a table, as far as the search looks at them."""
    some = min(steps.patients, PATIENTS)
    rows = slice(0, int(steps.step_offsets[some]))
    return steps._replace(
        step_offsets=steps.step_offsets[: some + 1],
        outcome=steps.outcome[:some],
        visit=Visit(*(part[rows] for part in steps.visit)),
    )


def _classes(found: list[tuple[Precursor, float]], sizes: Sizes) -> tuple[tuple[int, ...], ...]:
    """Codes of one group that share a precursor, where they are several; the same codes make one class only."""
    group = np.searchsorted([last for _, last in sizes.groups], np.arange(sizes.vocabulary), side="right")
    alike: dict[tuple[int, int], list[int]] = {}
    for pair, _ in found:
        if pair.weight > 0:
            alike.setdefault((int(group[pair.code]), pair.before), []).append(pair.code)
    return tuple(dict.fromkeys(tuple(codes) for codes in alike.values() if len(codes) > 1))


class _Search:
    """A table laid out so that steps are drawn, and what came before them is looked up, quickly."""

    def __init__(self, steps: Table, sizes: Sizes) -> None:
        self.size = sizes.vocabulary
        self.firsts = first_occurrences(steps, self.size)
        self.owner = np.repeat(np.arange(steps.patients), np.diff(steps.step_offsets))
        self.key = np.repeat(np.arange(steps.patients), np.diff(self.firsts.offsets)) * self.size + self.firsts.code
        self.by_code = np.argsort(self.firsts.code, kind="stable")
        self.begin = np.searchsorted(self.firsts.code[self.by_code], np.arange(self.size + 1))
        visit = steps.visit
        self.kind = visit.kind
        self.of_kind = np.argsort(self.kind, kind="stable")
        self.kind_begins = np.searchsorted(self.kind[self.of_kind], np.arange(sizes.kinds + 1))
        age, years = visit.age / 50, np.maximum(visit.elapsed, 0)
        # What comes at so many a year is rare in a step soon after another.
        since = np.log(np.maximum(visit.since, SOON))
        always = [np.ones(len(age)), age, age**2, np.log1p(visit.steps), np.log1p(years), since]
        self.always = np.stack(always, axis=1).astype(np.float64)

    def precursors(self, classes: tuple[tuple[int, ...], ...]) -> list[tuple[Precursor, float]]:
        """The precursors of all codes with their score statistics, of each code the strongest first."""
        members = np.zeros((self.size, len(classes)))
        for index, codes in enumerate(classes):
            members[list(codes), index] = 1
        of_classes = sparse.csc_matrix(members)
        found = []
        for code in range(1, self.size):
            generator = np.random.Generator(np.random.Philox(key=[0, code]))
            found += self._precursors_of(code, of_classes, generator)
        return found

    def _precursors_of(
        self, code: int, of_classes: sparse.csc_matrix, generator: np.random.Generator
    ) -> list[tuple[Precursor, float]]:
        cases = self.firsts.step[self.by_code[self.begin[code] : self.begin[code + 1]]]
        if len(cases) < LEAST_EVENTS:
            return []
        if len(cases) > CASES:
            cases = generator.choice(cases, CASES, replace=False)
        begins, ends = (self.kind_begins[self.kind[cases] + number] for number in (0, 1))
        drawn = generator.integers(begins[:, None], ends[:, None], (len(cases), CONTROLS)).ravel()
        controls = self._not_yet(self.of_kind[drawn], code)
        rows = np.concatenate([cases, controls])
        happened = np.arange(len(rows)) < len(cases)
        earlier, known = (
            sparse.hstack([of, ((of @ of_classes) > 0).astype(np.float64)], "csc") for of in self._known(rows, code)
        )
        chosen = _chosen(known, self.always[rows], happened.astype(np.float64))
        columns = [column for column, _ in chosen]
        weights = _weights(
            known[:, columns].toarray(), earlier[:, columns].toarray(), self.always[rows], happened.astype(np.float64)
        )
        return [
            (Precursor(code, column, weight, at_once), score)
            for (column, score), weight, at_once in zip(chosen, *weights, strict=True)
        ]

    def _not_yet(self, rows: Int64, code: int) -> Int64:
        """Those steps whose patient has not had the code by then, nor in the step."""
        wanted = self.owner[rows] * self.size + code
        place = np.minimum(np.searchsorted(self.key, wanted), len(self.key) - 1)
        had = (self.key[place] == wanted) & (self.firsts.step[place] <= rows)
        usable: Int64 = rows[~had]
        return usable

    def _known(self, rows: Int64, code: int) -> tuple[sparse.csc_matrix, sparse.csc_matrix]:
        """(rows, V) each 1 for codes of steps before, and for those as well that come before `code` in the step."""
        owner = self.owner[rows]
        begin, number = self.firsts.offsets[owner], np.diff(self.firsts.offsets)[owner]
        row = np.repeat(np.arange(len(rows)), number)
        entry = np.arange(len(row)) - np.repeat(number.cumsum() - number, number) + begin[row]
        step, other = self.firsts.step[entry], self.firsts.code[entry]
        earlier = step < rows[row]
        known = earlier | ((step == rows[row]) & (other < code))
        each = [(np.ones(int(of.sum())), (row[of], other[of])) for of in (earlier, known)]
        return sparse.csc_matrix(each[0], (len(rows), self.size)), sparse.csc_matrix(each[1], (len(rows), self.size))


def _chosen(before: sparse.csc_matrix, always: Floats, happened: Floats) -> list[tuple[int, float]]:
    """Columns of `before` taken in one by one, and their score statistics when they were."""
    chosen: list[int] = []
    scores: list[float] = []
    design, weights = always, np.zeros(always.shape[1])
    transposed = before.T.tocsr()
    for _ in range(MOST):
        weights, chance = logistic_regression(design, happened, weights, always.shape[1])
        variance = chance * (1 - chance)
        surplus = transposed @ (happened - chance)
        # The information of a column that is left when those already in are accounted for.
        shared = transposed @ (design * variance[:, None])
        inner = np.linalg.inv(design.T @ (design * variance[:, None]) + np.eye(design.shape[1]) / WIDE**2)
        information = transposed @ variance - np.einsum("vi,ij,vj->v", shared, inner, shared)
        score = np.where(abs(surplus) >= LEAST_EVENTS, surplus**2 / np.maximum(information, 1.0), 0.0)
        score[[0, *chosen]] = 0.0
        if score.max() < LEAST_SCORE:
            break
        chosen.append(int(score.argmax()))
        scores.append(float(score.max()))
        design = np.column_stack([design, before[:, [chosen[-1]]].toarray()])
        weights = np.append(weights, 0.0)
    return list(zip(chosen, scores, strict=True))


def _weights(known: Floats, earlier: Floats, always: Floats, happened: Floats) -> tuple[list[float], list[float]]:
    """Log odds ratios of the columns of `known`, and what is added where that is not so of `earlier` steps."""
    design = np.column_stack([always, known, known - earlier])
    free, number = always.shape[1], known.shape[1]
    weights, _ = logistic_regression(design, happened, np.zeros(design.shape[1]), free)
    ratios = [round(float(weight), 3) for weight in weights[free:]]
    return ratios[:number], ratios[number:]
