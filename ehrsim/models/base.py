"""What every model of patients is: the protocol, the heads through which it speaks of one visit, and their likelihood.

A model carries a state along the visits of a patient. From the state it offers *heads*: functions that give logits for
each part of the next visit, in clinical order, each told the parts already drawn. Sampling draws from them; the
likelihood of a known visit is what they give to it. Both are the same for every model and stand outside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp

from ehrsim.batch import PAST, Batch, Context, Moment, Sizes, Visit
from ehrsim.models import values
from ehrsim.models.layers import softplus
from ehrsim.models.shift import Shift

Array = jax.Array
Tree = TypeVar("Tree")
State = Any
"""A model's own pytree with the slots or rows as leading axis."""


class Memory(NamedTuple):
    """What is remembered of a patient outside the model: the source of the copy terms."""

    previous: Array
    """(..., V) float32, 1 for codes of the step before."""
    seen: Array
    """(..., V) float32, 1 for codes of any step before."""
    wanted: Array
    """(..., V) float32, 1 for codes that the patient is to have at some time and has not had yet."""
    clock: Array
    """(...) int32 clock of the step before, past the last one if there is none."""
    first_clock: Array
    """(...) int32 that of the first step."""
    statics: Array
    """(..., statics) float32, 1 for what is known of the patient once and for all."""


At = tuple[Array, ...]
"""Chosen places: index arrays (M,) into the axes of `Visit.codes`; most places are empty, so not all are scored."""


class Attributes(NamedTuple):
    """Logits of the offset and duration bins of events."""

    offset: Array
    """(..., offsets)"""
    duration: Array
    """(..., durations)"""


class Measured(NamedTuple):
    """What a value is asked for: a code, and its values before as in `Visit`; arrays of one shape.

    A value is told those before in its own step as well (`following`), everything else only those of earlier steps.
    """

    code: Array
    last_rank: Array
    last_age: Array
    measurements: Array
    mean_rank: Array


class EventHeads(NamedTuple):
    """Heads of the events of a visit.

    They speak of one event of each visit at a time: given a state, and what is measured. Values come one after the
    other, each told those before: what is measured together goes together.
    """

    state: Any
    """of each visit before its first value: a pytree with the leading axes of the visit"""
    repeat: Callable[[Any, Measured], Array]
    """-> (...) that the code occurs once more"""
    attributes: Callable[[Any, Measured], Attributes]
    value: Callable[[Any, Measured], Array]
    """-> (..., values)"""
    after: Callable[[Any, Array, Array, Array], Any]
    """state, and code, rank and last rank (-1 without) of a value (...) -> the state after it"""
    length: Callable[[], Array]
    """() -> (..., lengths) of the visit"""


class SetHead(NamedTuple):
    """Codes of a group as independent Bernoullis."""

    logits: Callable[[int, Visit], Array]
    """of a group, given kind, gap, age, year and the codes of earlier groups -> (..., codes of the group)"""


class OrderedHead(NamedTuple):
    """Codes one after the other in ascending order; index 0 stands for "no more"."""

    begin: Callable[[Visit], Any]
    """given kind, gap, age and year -> the prefix before the first code, a pytree whose leading axes are those of the
    visit"""
    logits: Callable[[Any], Array]
    """prefix -> (..., V) of the next code, -inf for those it cannot be"""
    after: Callable[[Any, Array], Any]
    """prefix and code (...) -> prefix"""
    score: Callable[[Visit], Callable[[At, Array], Array]]
    """given all codes -> at places, K included, and the codes there (M,) -> (M,) their log-probability, told those at
    the places before"""
    scored: int
    """Logits that it takes to score a place."""


class TwoLevelHead(NamedTuple):
    """Codes one after the other in ascending order, each in two draws: a block of the vocabulary, then a code of it."""

    begin: Callable[[Visit], Any]
    """as in `OrderedHead`, like those below of the same name"""
    blocks: Callable[[Any], Array]
    """prefix -> (..., blocks) of the block of the next code; the first one stands for "no more" """
    within: Callable[[Any, Array], Array]
    """prefix and block (...) -> (..., widest block) of the next code if it is of this block"""
    code: Callable[[Array, Array], Array]
    """block (...) and place in it -> code (...)"""
    after: Callable[[Any, Array], Any]
    score: Callable[[Visit], Callable[[At, Array], Array]]
    scored: int


class Heads(NamedTuple):
    """Logits of the next visit; each function reads only the fields of `visit` drawn before it."""

    kind: Callable[[], Array]
    """() -> (..., kinds)"""
    gap: Callable[[Visit], Array]
    """given the kind -> (..., gaps)"""
    clock: Callable[[Visit], Array]
    """given kind and gap -> (..., clocks)"""
    codes: SetHead | OrderedHead | TwoLevelHead
    events: Callable[[Visit], EventHeads]
    """given all codes, each of them once"""


class Origin(NamedTuple):
    """Logits of a patient's beginning."""

    origin: Array
    """(N, origins)"""
    first_gap: Callable[[Array], Array]
    """given the bin of the origin (N,) -> (N, first_gaps)"""


class Noise(NamedTuple):
    """Standard normal numbers that a model takes: all that is random in it when patients are drawn."""

    start: int = 0
    """Numbers a patient, and `step` numbers a visit."""
    step: int = 0


class PatientModel(Protocol):
    """A generative model of patients. Arrays only: no events, no frames, no files."""

    sizes: Sizes

    def loss(self, batch: Batch, key: Array, progress: Array) -> tuple[Array, dict[str, Array]]:
        """The training objective (a mean per step) and figures to log; `progress` in [0, 1] is the time trained."""

    def log_likelihood(self, batch: Batch, key: Array) -> Array:
        """(N,) log-likelihood of each patient in nats, or a lower bound of it."""

    def shifted(self, shift: Shift) -> Any:
        """The model with logits shifted; itself if it is never raked."""

    def calibrated(self) -> Any:
        """For each array, in a tree like the model, whether it is a bias that is calibrated when the rest is done."""

    @property
    def noise(self) -> Noise:
        """How many random numbers `start` and `step` take."""

    def origin(self, context: Context) -> Origin:
        """When N patients are born and when their records begin."""

    def start(self, noise: Array, context: Context, beginning: Moment) -> State:
        """The state before the first visit of N patients at a moment (N,), from `noise` (N, noise.start)."""

    def step(self, noise: Array, state: State, previous: Visit, first: Array, memory: Memory) -> tuple[State, Heads]:
        """Take in the previous visit and offer heads for the next one, from `noise` (N, noise.step).

        Where `first` there is none; then `previous` has nothing but the moment of the first visit.
        """

    def resume(self, noise: Array, batch: Batch) -> State:
        """The state before the last visit of N patients is taken in: for `step` with that visit as `previous`.

        The last step of each record, its end, is not looked at. `noise` (D, N, noise.start) is for D draws of what is
        not known of a patient from the record so far; the state has leading axes (D, N).
        """


def measured_at(visit: Visit, at: At) -> Measured:
    """The codes at chosen places with their values before, each (M,)."""
    return Measured(visit.codes[at], *(getattr(visit, name)[at] for name in PAST))


def following(asked: Measured, before: Measured, value: Array, rank: Array) -> tuple[Measured, Measured]:
    """What is known of a code that occurs more than once, from one place to the next; arrays of one shape.

    `asked` is what steps before tell of the code at a place, `before` what is known after the place before. Returns
    what is known at the place, and after its `value` at `rank`.
    """
    known = where(asked.code == before.code, before, asked)
    told = (known.measurements * known.mean_rank + rank) / (known.measurements + 1)
    told_by = Measured(known.code, rank, jnp.zeros_like(rank), known.measurements + 1, told)
    return known, where(value > 0, told_by, known)


def nothing_measured(like: Array) -> Measured:
    """What is known before the first place, for arrays of the shape of `like`."""
    nothing = jnp.zeros(like.shape)
    return Measured(jnp.zeros(like.shape, jnp.int32), nothing - 1, nothing, nothing, nothing)


def where(mask: Array, new: Tree, old: Tree) -> Tree:
    """`new` where `mask` (...), else `old`: pytrees whose leading axes are those of the mask."""

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (new.ndim - mask.ndim)), new, old)

    chosen: Tree = jax.tree.map(choose, new, old)
    return chosen


def log_probability(logits: Array, index: Array) -> Array:
    """Log-probability of `index` (...) under a softmax of `logits` (..., n)."""
    chosen = jnp.take_along_axis(logits, index[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def sum_embeddings(table: Array, codes: Array, scale: Array | None = None) -> Array:
    """Sum over the places of rows of `table` (V, d): `codes` (..., K) -> (..., d), each row times its `scale` (..., K).

    Place by place: gathering (..., K, d) first and then summing takes 35 times as long on a CPU. Eight places at a time
    where a place is little work (sampling): XLA would gather all places before the first addition if they were not in a
    loop. Training compiles faster with one at a time.
    """
    places = [jnp.moveaxis(codes, -1, 0)] if scale is None else [jnp.moveaxis(part, -1, 0) for part in (codes, scale)]

    def add(total: Array, place: list[Array]) -> tuple[Array, None]:
        rows = table.at[place[0]].get(mode="promise_in_bounds")
        return total + (rows if scale is None else rows * place[1][..., None]), None

    zero = jnp.zeros((*codes.shape[:-1], table.shape[-1]), table.dtype)
    return jax.lax.scan(add, zero, places, unroll=8 if codes.size <= 1 << 14 else 1)[0]


def multi_hot(codes: Array, size: int) -> Array:
    """(..., V) float32, 1 at each code of (..., K); index 0 is always 0."""
    flat = codes.reshape(-1, codes.shape[-1])
    rows = jnp.arange(flat.shape[0])[:, None]
    hot = jnp.zeros((flat.shape[0], size), jnp.float32).at[rows, flat].set(1.0, mode="promise_in_bounds")
    return hot.at[:, 0].set(0.0).reshape(*codes.shape[:-1], size)


def visit_log_probability(heads: Heads, batch: Batch, sizes: Sizes) -> dict[str, Array]:
    """Log-probability of each step's parts under the heads: name -> (R, T), 0 at padding."""
    visit, used = batch.visit, batch.used
    terminal = visit.kind >= sizes.death
    inner = used & ~terminal
    is_visit = inner & (visit.kind > 0) & (visit.kind < sizes.continues)
    has_clock = used & ((visit.kind != sizes.end) | batch.timed)
    parts = {
        "kind": jnp.where(used, log_probability(heads.kind(), visit.kind), 0.0),
        "gap": jnp.where(batch.timed, log_probability(heads.gap(visit), visit.gap), 0.0),
        "clock": jnp.where(has_clock, log_probability(heads.clock(visit), visit.clock), 0.0),
    }
    if isinstance(heads.codes, SetHead):
        codes = jnp.zeros(used.shape)
        for group in range(len(sizes.groups)):
            codes = codes + set_log_probability(heads.codes.logits(group, visit), visit.codes, sizes.groups[group])
    else:
        codes = _ordered_log_probability(heads.codes, batch)
    parts["codes"] = jnp.where(inner, codes, 0.0)
    events = heads.events(visit._replace(codes=jnp.where(is_distinct(visit.codes), visit.codes, 0)))
    parts["length"] = jnp.where(is_visit, log_probability(events.length(), visit.length), 0.0)
    return parts | _events_log_probability(events, batch)


def set_log_probability(logits: Array, codes: Array, bounds: tuple[int, int]) -> Array:
    """Bernoulli log-probability (...) of the set of a group's codes, from `logits` (..., V_g) and `codes` (..., K)."""
    first, last = bounds
    if first == last:
        return jnp.zeros(codes.shape[:-1])
    distinct = is_distinct(codes) & (codes >= first) & (codes < last)
    at = jnp.take_along_axis(logits, jnp.clip(codes - first, 0, last - first - 1), axis=-1)
    return jnp.where(distinct, at, 0.0).sum(-1) - softplus(logits).sum(-1)


LOGITS_AT_ONCE = 1 << 22
"""Logits of an ordered head that training holds at a time; more are made in pieces, and made again for the gradient."""


def _ordered_log_probability(head: OrderedHead | TwoLevelHead, batch: Batch) -> Array:
    """(R, T) log-probability of the codes of each step one after the other, and of there being no more."""
    codes = batch.visit.codes
    rows, steps, places = codes.shape
    row, step = (index.reshape(-1) for index in jnp.indices((rows, steps), jnp.int32))
    count = (codes > 0).sum(-1, dtype=jnp.int32).reshape(-1)
    at = tuple(jnp.concatenate(part) for part in zip(batch.events, (row, step, count), strict=True))
    counted = jnp.concatenate([batch.real_event & is_distinct(codes)[batch.events], jnp.ones(rows * steps, bool)])
    score = head.score(batch.visit)

    def scored(at: At) -> Array:
        *place, last = at
        return score(at, jnp.where(last < places, codes[(*place, jnp.minimum(last, places - 1))], 0))

    piece = max(LOGITS_AT_ONCE // head.scored, 1)
    total = len(at[0])
    if total <= piece:
        nats = scored(at)
    else:
        padded = [jnp.pad(part, (0, -total % piece)).reshape(-1, piece) for part in at]
        nats = jax.lax.map(jax.checkpoint(scored), tuple(padded)).reshape(-1)[:total]
    found = jnp.where(counted, nats, 0.0)
    return jnp.zeros(codes.shape[:2]).at[at[0], at[1]].add(found, mode="promise_in_bounds")


def is_distinct(codes: Array) -> Array:
    """(..., K) bool: the first place of each code in places sorted by code."""
    before = jnp.concatenate([jnp.zeros_like(codes[..., :1]), codes[..., :-1]], axis=-1)
    return (codes > 0) & (codes != before)


def _events_log_probability(events: EventHeads, batch: Batch) -> dict[str, Array]:
    """Log-probability (R, T) of repetitions, offsets, values and durations, summed over the events of each step."""
    visit, at = batch.visit, batch.events
    *step, place = at
    measured = measured_at(visit, at)
    distinct = is_distinct(visit.codes)
    last = jnp.concatenate([distinct[..., 1:] | (visit.codes[..., 1:] == 0), jnp.ones_like(distinct[..., :1])], axis=-1)
    state = jax.tree.map(lambda part: part[tuple(step)], events.state)
    repeat = events.repeat(state, measured)
    once_more = -jnp.where(distinct[at], 0.0, softplus(-repeat)) - jnp.where(last[at], softplus(repeat), 0.0)
    attributes = events.attributes(state, measured)
    before, known = jax.tree.map(lambda part: part[(place, *step)], _before_values(events, visit))
    of_event = {
        "repeat": once_more,
        "offset": log_probability(attributes.offset, visit.offset[at]),
        "value": values.log_probability(events.value(before, known), visit.value[at], visit.rank[at], known.last_rank),
        "duration": log_probability(attributes.duration, visit.duration[at]),
    }
    nothing = jnp.zeros(batch.used.shape)
    return {
        name: nothing.at[at[0], at[1]].add(jnp.where(batch.real_event, scored, 0.0), mode="promise_in_bounds")
        for name, scored in of_event.items()
    }


def _before_values(events: EventHeads, visit: Visit) -> tuple[Any, Measured]:
    """The state before the value at each place, and what is measured there: leading axes (K, R, T)."""

    def add(carry: tuple[Any, Measured], place: tuple[Array, ...]) -> tuple[tuple[Any, Measured], tuple[Any, Measured]]:
        (state, before), (value, rank, *asked) = carry, place
        known, told = following(Measured(*asked), before, value, rank)
        after = where(value > 0, events.after(state, known.code, rank, known.last_rank), state)
        return (after, told), (state, known)

    columns = (visit.value, visit.rank, visit.codes, *(getattr(visit, name) for name in PAST))
    by_place = tuple(jnp.moveaxis(part, -1, 0) for part in columns)
    before: tuple[Any, Measured] = jax.lax.scan(add, (events.state, nothing_measured(visit.kind)), by_place)[1]
    return before


def origin_log_probability(origin: Origin, batch: Batch) -> Array:
    """(N,) log-probability of each patient's origin and first gap."""
    known = batch.first_gap >= 0
    first = log_probability(origin.first_gap(batch.origin), jnp.maximum(batch.first_gap, 0))
    return jnp.where(batch.real, log_probability(origin.origin, batch.origin) + jnp.where(known, first, 0.0), 0.0)
