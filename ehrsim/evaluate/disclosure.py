"""Singling out, linkability and attribute inference: what synthetic data tells of a training patient beyond others.

The three risks of the Article 29 Working Party's opinion 05/2014 on anonymisation, measured as by Giomi et al. (2023,
"A Unified Framework for Quantifying Privacy Risk in Synthetic Data", PoPETs 2023:2), whose formulas alone are used. The
threat model: the attacker has the synthetic records alone (and not the run folder), and of a target what each attack
says. Every attack is made on members (training patients) and on non-members of the same source. What succeeds on both
is what the data tells of the population, which is what it was made for; only the excess among members is leakage.

Figures hold for these attackers: one who knows more of a target, or guesses otherwise, may do better.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from ehrsim import codes, events
from ehrsim.errors import InputError, MissingExtraError
from ehrsim.evaluate import histories
from ehrsim.evaluate.exact import Rate, Risk, excess, rate
from ehrsim.evaluate.histories import MOST_PATIENTS, Histories, Tokens, code_counts, matrices, nearest
from ehrsim.evaluate.patterns import vocabulary
from ehrsim.evaluate.resampling import Indices

PREDICATES, MOST_PARTS = 2_000, 8
NEIGHBOURS = 1
GUESSED_CODES = 10
GUESSED_KINDS = ("condition", "medication", "procedure")
RARE, COMMON = 0.02, 0.3
"""Shares of patients between which a code is worth guessing."""
_SALT = np.uint64(1_000_003)
"""Keys of different ways to see a record are kept apart by it."""


class SinglingOut(msgspec.Struct, frozen=True):
    """How often a predicate found in synthetic data is true of exactly one real patient, who is a member.

    The attacker knows nothing of anybody. A predicate isolates a member if it holds for them and for no other real
    patient, member or not. The control are non-members isolated, times members over non-members: as many would be
    isolated among members if the data were of other people.
    """

    univariate: Risk
    """Predicates of one part that holds for exactly one synthetic patient: a code, its age of onset, a value"""
    multivariate: Risk
    """Parts of one synthetic record taken at random, as many as single it out among synthetic patients, up to 8"""


class Linkability(msgspec.Struct, frozen=True):
    """How often two halves of a record are found to belong together, as both are like one synthetic patient.

    The attacker has the codes of a target, with ages of onset, in two parts without a name, as from two hospitals. They
    are linked where the nearest `neighbours` synthetic patients of both have one in common.
    """

    neighbours: int
    risk: Risk


class Guess(msgspec.Struct, frozen=True):
    """How often a target who is guessed to have a code has it: the attacker knows all other codes of the target."""

    code: str
    attack: str
    """`nearest`: the most similar synthetic patient has it; `classifier`: logistic regression of synthetic patients"""
    risk: Risk
    """of members beyond non-members: leakage"""
    prevalence: float
    """Share of the non-members who have it: the success of a guess that knows nothing"""
    learned: float | None
    """Success on non-members beyond the prevalence: what the data tells of anybody, which is no leak"""


class AttributeInference(msgspec.Struct, frozen=True):
    """Guesses of codes, and of each attack all together, one guess a target so that they do not depend on another."""

    overall: dict[str, Risk]
    guesses: list[Guess]


class Disclosure(msgspec.Struct, frozen=True):
    """The three risks; each value is 0 where members fare as non-members do, 1 where the attack always succeeds."""

    members: int
    non_members: int
    synthetic: int
    singling_out: SinglingOut
    linkability: Linkability
    attribute_inference: AttributeInference


class Targets(NamedTuple):
    """The records an attack is made on, and those it learns from."""

    members: Histories
    others: Histories
    synthetic: Histories


def disclosure(
    members: pl.LazyFrame,
    non_members: pl.LazyFrame,
    synthetic: pl.LazyFrame,
    *,
    guessed: list[str] | None = None,
    most: int = MOST_PATIENTS,
    seed: int = 0,
) -> Disclosure:
    """Make the three attacks; `guessed` are codes to infer, else those conditions, medications and procedures that most
    synthetic patients have, but not more than 30 % of them.

    At most `most` patients of each table are looked at. Raises `InputError` for an empty table or a code that no
    synthetic patient has, `MissingExtraError` without scikit-learn.
    """
    tables = [histories.some(table, most, seed=seed) for table in (members, non_members, synthetic)]
    known = vocabulary(*tables)
    targets = Targets(*(histories.histories(table, known) for table in tables))
    for name, history in targets._asdict().items():
        if not history.visits.codes.nnz:
            raise InputError(f"the {name} have no codes in visits", hint="expected events of at least one visit")
    return Disclosure(
        targets.members.patients,
        targets.others.patients,
        targets.synthetic.patients,
        singling_out(targets, seed=seed),
        linkability(targets, seed=seed),
        attribute_inference(targets, guessed, seed=seed),
    )


def singling_out(targets: Targets, *, predicates: int = PREDICATES, seed: int = 0) -> SinglingOut:
    """Draw predicates from the synthetic records, and count whom they isolate."""
    held = _binary([_parts(history) for history in targets])
    real = sparse.vstack(held[:2], format="csr")
    synthetic = held[2]
    rng = np.random.Generator(np.random.Philox(key=[seed, 4]))
    having = np.bincount(synthetic.indices, minlength=synthetic.shape[1])
    single = np.flatnonzero(having == 1)
    one = rng.permutation(single)[:predicates]
    many = _conjunctions(synthetic, predicates, rng)
    members = targets.members.patients
    return SinglingOut(_isolation([np.array([part]) for part in one], real, members), _isolation(many, real, members))


def _parts(history: Histories) -> Tokens:
    """What predicates are made of: codes, codes with age of onset, values, sex, race and year of birth."""
    person = history.person
    facts = person.select("sex", "race", born=pl.col("born").dt.year().cast(pl.String)).with_row_index("patient")
    rows = facts.unpivot(index="patient", variable_name="of").drop_nulls()
    key = np.array([events.stable_id_of(f"{of}={value}") for _, of, value in rows.iter_rows()], np.uint64)
    told = Tokens(rows["patient"].cast(pl.Int64).to_numpy(), key, np.ones(rows.height), history.patients)
    kinds = [histories.code_tokens(history), histories.onset_tokens(history), histories.value_tokens(history), told]
    return Tokens(
        np.concatenate([tokens.patient for tokens in kinds]),
        np.concatenate([tokens.key * _SALT + np.uint64(number) for number, tokens in enumerate(kinds)]),
        np.concatenate([tokens.weight for tokens in kinds]),
        history.patients,
    )


def _binary(cohorts: list[Tokens]) -> list[sparse.csr_matrix]:
    """(patients, parts) 1 where the patient has the part, over common columns."""
    known, column = np.unique(np.concatenate([tokens.key for tokens in cohorts]), return_inverse=True)
    found, begin = [], 0
    for tokens in cohorts:
        place = column[begin : begin + len(tokens.key)]
        begin += len(tokens.key)
        shape = (tokens.patients, len(known))
        matrix = sparse.csr_matrix((np.ones(len(place), np.float32), (tokens.patient, place)), shape)
        matrix.data[:] = 1
        found.append(matrix)
    return found


def _conjunctions(synthetic: sparse.csr_matrix, number: int, rng: np.random.Generator) -> list[Indices]:
    """Parts of synthetic records that only one synthetic record has together; each is of a record drawn at random."""
    holders = synthetic.tocsc()
    found = []
    for patient in rng.integers(0, synthetic.shape[0], number).tolist():
        own = synthetic.indices[synthetic.indptr[patient] : synthetic.indptr[patient + 1]]
        chosen = rng.permutation(own)[:MOST_PARTS]
        left: NDArray[np.int32] | None = None
        for count, part in enumerate(chosen.tolist(), start=1):
            having = holders.indices[holders.indptr[part] : holders.indptr[part + 1]]
            left = having if left is None else np.intersect1d(left, having, assume_unique=True)
            if len(left) == 1 and count > 1:
                found.append(chosen[:count])
                break
    return found


def _isolation(predicates: list[Indices], real: sparse.csr_matrix, members: int) -> Risk:
    """How many predicates hold for exactly one real patient; the first `members` rows are members."""
    others = real.shape[0] - members
    row = np.repeat(np.arange(len(predicates)), [len(parts) for parts in predicates])
    column = np.concatenate(predicates) if predicates else np.zeros(0, np.int64)
    asked = sparse.csr_matrix((np.ones(len(row), np.float32), (row, column)), (len(predicates), real.shape[1]))
    held = (asked @ real.T).tocoo()
    needed = np.array([len(parts) for parts in predicates], np.float32)
    true = held.data == needed[held.row]
    number = np.bincount(held.row[true], minlength=len(predicates))
    who = np.zeros(len(predicates), np.int64)
    who[held.row[true]] = held.col[true]
    isolated = number == 1
    attack = rate(int((isolated & (who < members)).sum()), len(predicates))
    control = rate(int((isolated & (who >= members)).sum()), len(predicates))
    return excess(attack, _scaled(control, members / others))


def _scaled(one: Rate, factor: float) -> Rate:
    """A rate and its bounds times a factor, 1 at most; successes are as counted."""
    value = None if one.value is None else min(one.value * factor, 1.0)
    return Rate(one.successes, one.trials, value, min(one.low * factor, 1.0), min(one.high * factor, 1.0))


def linkability(targets: Targets, *, neighbours: int = NEIGHBOURS, seed: int = 0) -> Linkability:
    """Split the codes of every target into two halves at random, the same for all, and link them."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 5]))
    first = rng.random(len(targets.synthetic.codes)) < 0.5
    tokens = [histories.onset_tokens(history) for history in targets]
    found = []
    for half in (first, ~first):
        kept = [_of_codes(one, half) for one in tokens]
        members, others, synthetic = matrices(*kept)
        found.append([nearest(queries, synthetic, neighbours) for queries in (members, others)])
    linked = []
    for left, right in zip(*found, strict=True):
        same = left.place[:, :, None] == right.place[:, None, :]
        alike = (left.similarity > 0)[:, :, None] & (right.similarity > 0)[:, None, :]
        linked.append((same & alike).any(axis=(1, 2)))
    attack, control = (rate(int(one.sum()), len(one)) for one in linked)
    return Linkability(neighbours, excess(attack, control))


def _of_codes(tokens: Tokens, kept: NDArray[np.bool_]) -> Tokens:
    """The onsets of some codes."""
    inside = kept[(tokens.key // histories.AGES).astype(np.int64)]
    return Tokens(tokens.patient[inside], tokens.key[inside], tokens.weight[inside], tokens.patients)


def attribute_inference(targets: Targets, guessed: list[str] | None = None, *, seed: int = 0) -> AttributeInference:
    """Guess codes of the targets from all their other codes."""
    counts = [code_counts(history) for history in targets]
    columns = _guessed(targets.synthetic, counts[2], guessed)
    shown = matrices(*(histories.code_tokens(history) for history in targets))
    names = targets.synthetic.codes.gather(columns).to_list()
    has = [(one[:, columns] > 0).toarray() for one in counts]
    called: dict[str, list[list[NDArray[np.bool_]]]] = {"nearest": [], "classifier": []}
    used = np.unique(np.concatenate([histories.code_tokens(history).key for history in targets])).astype(np.int64)
    for number, column in enumerate(columns.tolist()):
        # The column of the matrices that tells the code itself is hidden, and what is left made of unit length again.
        hidden = [_without(matrix, int(np.searchsorted(used, column))) for matrix in shown]
        carriers = has[2][:, number]
        called["nearest"].append([carriers[nearest(one, hidden[2]).place[:, 0]] for one in hidden[:2]])
        called["classifier"].append(_classified(hidden, carriers))
    prevalence = has[1].mean(axis=0)
    guesses = [
        _guess(name, attack, calls[number], [one[:, number] for one in has[:2]], float(prevalence[number]))
        for number, name in enumerate(names)
        for attack, calls in called.items()
    ]
    rng = np.random.Generator(np.random.Philox(key=[seed, 6]))
    overall = {attack: _one_each(calls, has[:2], rng) for attack, calls in called.items()}
    return AttributeInference(overall, guesses)


def _guessed(synthetic: Histories, counts: sparse.csr_matrix, guessed: list[str] | None) -> Indices:
    """The columns of the codes to guess."""
    share = np.asarray((counts > 0).mean(axis=0)).ravel()
    if guessed is not None:
        place = {code: column for column, code in enumerate(synthetic.codes.to_list())}
        for code in guessed:
            if code not in place or not share[place[code]]:
                raise InputError(f"no synthetic patient has the code `{code}`", hint="name codes of the synthetic data")
        return np.array([place[code] for code in guessed], np.int64)
    kind = np.array([codes.parse(code).kind for code in synthetic.codes])
    fit = np.isin(kind, GUESSED_KINDS) & (share >= RARE) & (share <= COMMON)
    ordered = np.argsort(-np.where(fit, share, -1.0), kind="stable")[: min(GUESSED_CODES, int(fit.sum()))]
    return ordered.astype(np.int64)


def _without(matrix: sparse.csr_matrix, column: int) -> sparse.csr_matrix:
    """Rows of unit length without a column."""
    keep = np.ones(matrix.shape[1], np.float32)
    keep[column] = 0
    left = matrix @ sparse.diags_array(keep)
    length = np.sqrt(np.asarray(left.multiply(left).sum(axis=1)).ravel())
    unit: sparse.csr_matrix = (sparse.diags_array(1 / np.maximum(length, 1e-6)) @ left).astype(np.float32).tocsr()
    return unit


def _classified(shown: list[sparse.csr_matrix], carriers: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The members and the others that a classifier of synthetic patients takes for carriers.

    They are those above the score that as many synthetic patients exceed as are carriers.
    """
    if carriers.all() or not carriers.any():
        return [np.full(one.shape[0], carriers.any()) for one in shown[:2]]
    model = _logistic().fit(shown[2], carriers)
    limit = np.quantile(model.decision_function(shown[2]), 1 - carriers.mean())
    return [model.decision_function(one) > limit for one in shown[:2]]


def _logistic() -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtraError("attribute inference", "evaluate") from error
    return LogisticRegression(C=10.0, max_iter=500)


def _guess(
    code: str, attack: str, calls: list[NDArray[np.bool_]], has: list[NDArray[np.bool_]], prevalence: float
) -> Guess:
    right = [rate(int((call & truth).sum()), int(call.sum())) for call, truth in zip(calls, has, strict=True)]
    other = right[1].value
    learned = None if other is None or prevalence == 1 else (other - prevalence) / (1 - prevalence)
    return Guess(code, attack, excess(right[0], right[1]), prevalence, learned)


def _one_each(calls: list[list[NDArray[np.bool_]]], has: list[NDArray[np.bool_]], rng: np.random.Generator) -> Risk:
    """The risk over all codes, of one guess at random a target: several of one target depend on each other."""
    rates = []
    for cohort, truth in enumerate(has):
        called = np.stack([call[cohort] for call in calls], axis=1) if calls else np.zeros((len(truth), 1), bool)
        turn = np.where(called, rng.random(called.shape), -1.0)
        chosen = turn.argmax(axis=1)
        rows = np.flatnonzero(called.any(axis=1))
        rates.append(rate(int(truth[rows, chosen[rows]].sum()) if calls else 0, len(rows)))
    return excess(rates[0], rates[1])
