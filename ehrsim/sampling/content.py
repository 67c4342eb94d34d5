"""What a step holds: its codes, how often each occurs, and the time, end and value of each event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ehrsim.batch import PAST, Sizes, Visit
from ehrsim.models.base import (
    At,
    EventHeads,
    Heads,
    Measured,
    OrderedHead,
    SetHead,
    TwoLevelHead,
    following,
    measured_at,
    nothing_measured,
    where,
)
from ehrsim.models.layers import softplus
from ehrsim.models.values import rank_at
from ehrsim.sampling.counters import Counters, Purpose
from ehrsim.sampling.sets import Draw, draw_index, draw_set, join_sets
from ehrsim.sampling.slots import Tables

Array = jax.Array
FEWEST_SLOTS = 32
"""Slots that are not worth gathering, where codes are drawn one after the other."""
EVENTS_A_PIECE = 4
"""Events a slot, on average, that are scored together."""


def draw_codes(heads: Heads, visit: Visit, sizes: Sizes, draws: Counters, terminal: Array) -> Draw:
    """The codes of a step, none where it is `terminal`."""
    if not isinstance(heads.codes, SetHead):
        return _one_after_the_other(heads.codes, visit, sizes, draws, terminal)
    drawn = _group_by_group(heads.codes, visit, sizes, draws)
    return Draw(jnp.where(terminal[:, None], 0, drawn.codes), jnp.where(terminal, 0, drawn.number))


def _group_by_group(head: SetHead, visit: Visit, sizes: Sizes, draws: Counters) -> Draw:
    drawn: list[Draw] = []
    starts: list[int] = []
    so_far = Draw(jnp.zeros_like(visit.codes), jnp.zeros_like(visit.kind))
    for group, (start, stop) in enumerate(sizes.groups):
        if start == stop:
            continue
        logits = head.logits(group, visit._replace(codes=so_far.codes))
        drawn.append(draw_set(logits, draws.bits(Purpose.CODES + group, stop - start), sizes.places))
        starts.append(start)
        so_far = join_sets(drawn, starts, sizes.places)
    return so_far


def _next_code(head: OrderedHead | TwoLevelHead, prefix: Any, draws: Counters, place: Array) -> Array:
    """(B,) the code after the prefixes, which is to stand at `place`."""
    number = draws.uniform_at(Purpose.CODES, jnp.arange(draws.left.shape[0]), place)
    if isinstance(head, OrderedHead):
        return draw_index(head.logits(prefix), number)
    block = draw_index(head.blocks(prefix), number)
    number = draws.uniform_at(Purpose.CODES + 1, jnp.arange(draws.left.shape[0]), place)
    return head.code(block, draw_index(head.within(prefix, block), number))


def _one_after_the_other(
    head: OrderedHead | TwoLevelHead, visit: Visit, sizes: Sizes, draws: Counters, terminal: Array
) -> Draw:
    """Code after code, until every slot has its last one.

    Slots that have theirs go on without being looked at, so once more than half have, those that have not are gathered,
    and again, down to FEWEST_SLOTS.
    """

    def body(carry: _Codes) -> _Codes:
        code = jnp.where(carry.ended, 0, _next_code(head, carry.prefix, carry.draws, carry.place))
        return carry._replace(
            place=carry.place + 1,
            codes=carry.codes.at[:, carry.place].set(code, mode="drop"),
            ended=carry.ended | (code == 0),
            prefix=head.after(carry.prefix, code),
        )

    def draw(carry: _Codes) -> _Codes:
        slots = carry.ended.shape[0]
        fewer = slots // 2 if slots >= 2 * FEWEST_SLOTS else 0

        def unfinished(carry: _Codes) -> Array:
            return (carry.place <= sizes.places) & ((~carry.ended).sum() > fewer)

        carry = jax.lax.while_loop(unfinished, body, carry)
        if not fewer:
            return carry
        chosen = jnp.argsort(carry.ended, stable=True)[:fewer]
        taken = jax.tree.map(lambda part: part[chosen], carry._replace(place=jnp.broadcast_to(carry.place, slots)))
        rest = draw(taken._replace(place=carry.place))
        return carry._replace(
            codes=carry.codes.at[chosen].set(rest.codes), ended=carry.ended.at[chosen].set(rest.ended)
        )

    drawn = draw(_Codes(jnp.int32(0), jnp.zeros_like(visit.codes), terminal, head.begin(visit), draws))
    return Draw(drawn.codes, (drawn.codes > 0).sum(-1, dtype=jnp.int32) + (~drawn.ended).astype(jnp.int32))


class _Codes(NamedTuple):
    """Codes in the making."""

    place: Array
    """() int32"""
    codes: Array
    ended: Array
    prefix: Any
    draws: Counters


def in_pieces(
    counts: Array,
    most: int,
    piece: int,
    fill: Callable[[Array, Array, tuple[Array, ...]], tuple[Array, ...]],
    like: tuple[Array, ...],
) -> tuple[Array, ...]:
    """`fill` what each slot has `counts` (B,) of, in pieces of a fixed size, as many as there is need of.

    `fill` is given the slot (B where the piece goes beyond the last) and the number within the slot, each (piece,).
    No slot has more than `most`.
    """
    slots = counts.shape[0]
    upto = jnp.cumsum(counts)
    before = upto - counts
    size = slots * most
    slot_of = jnp.cumsum(jnp.zeros(size + -size % piece, jnp.int32).at[upto].add(1, mode="drop"))

    def body(carry: tuple[Array, tuple[Array, ...]]) -> tuple[Array, tuple[Array, ...]]:
        begin, filled = carry
        slot = jax.lax.dynamic_slice(slot_of, (begin,), (piece,))
        number = begin + jnp.arange(piece) - before[jnp.minimum(slot, slots - 1)]
        return begin + piece, fill(slot, number, filled)

    return jax.lax.while_loop(lambda carry: carry[0] < upto[-1], body, (jnp.int32(0), like))[1]


def _each_event(visit: Visit, score: Callable[[At], tuple[Array, ...]], like: tuple[Array, ...]) -> tuple[Array, ...]:
    """`score` at the places that hold a code, written over `like`, each (B, K).

    Codes fill the first places of a slot, and most places are empty: scoring the filled ones alone is several times as
    fast as scoring all.
    """
    slots, places = visit.codes.shape

    def fill(slot: Array, place: Array, filled: tuple[Array, ...]) -> tuple[Array, ...]:
        scored = score((jnp.minimum(slot, slots - 1), jnp.clip(place, 0, places - 1)))
        return tuple(old.at[slot, place].set(new, mode="drop") for old, new in zip(filled, scored, strict=True))

    return in_pieces((visit.codes > 0).sum(-1), places, slots * min(EVENTS_A_PIECE, places), fill, like)


def repeat(events: EventHeads, visit: Visit, draws: Counters) -> tuple[Visit, Array]:
    """Give each code as many places as it occurs, and say where there were not enough."""
    places = visit.codes.shape[1]

    def once_more(at: At) -> tuple[Array, ...]:
        logits = events.repeat(_of(events.state, at[0]), measured_at(visit, at))
        again = -jnp.log(draws.uniform_at(Purpose.REPEAT, *at)) / jnp.maximum(softplus(-logits), 1e-6)
        return (1 + jnp.minimum(again, places).astype(jnp.int32),)

    (copies,) = _each_event(visit, once_more, (jnp.zeros_like(visit.codes),))
    upto = jnp.cumsum(copies, axis=-1)
    place = jnp.arange(places)
    source = jnp.minimum((place[None, :, None] >= upto[:, None, :]).sum(-1), places - 1)
    real = place[None, :] < upto[:, -1:]

    def pick(values: Array, empty: float) -> Array:
        return jnp.where(real, jnp.take_along_axis(values, source, axis=1), jnp.asarray(empty, values.dtype))

    past = {name: pick(getattr(visit, name), -1 if name == "last_rank" else 0) for name in PAST}
    spread = visit._replace(codes=pick(visit.codes, 0), **past)
    return spread, upto[:, -1] > places


def draw_attributes(events: EventHeads, visit: Visit, tables: Tables, sizes: Sizes, draws: Counters) -> Visit:
    """Draw offset, duration and value of every event."""

    def draw(at: At) -> tuple[Array, ...]:
        logits = events.attributes(_of(events.state, at[0]), measured_at(visit, at))
        for_offset, for_duration = (draws.uniform_at(what, *at) for what in (Purpose.OFFSET, Purpose.DURATION))
        duration = jnp.where(tables.ended[visit.codes[at]], draw_index(logits.duration, for_duration), 0)
        return draw_index(logits.offset, for_offset), duration

    whole = jnp.zeros_like(visit.codes)
    offset, duration = _each_event(visit, draw, (whole, whole))
    return _values(events, visit._replace(offset=offset, duration=duration), tables, sizes, draws)


def _values(events: EventHeads, visit: Visit, tables: Tables, sizes: Sizes, draws: Counters) -> Visit:
    """Draw a value for every code that has values, one after the other in each slot."""
    slots, places = visit.codes.shape
    valued = tables.valued[visit.codes]
    upto = jnp.cumsum(valued.astype(jnp.int32), axis=-1)
    slot = jnp.argsort(-upto[:, -1], stable=True)
    nth = jnp.minimum((upto[:, None, :] <= jnp.arange(places)[None, :, None]).sum(-1), places - 1)

    def by_turn(part: Array) -> Array:
        """(K, B) of the n-th code with values in each slot, from (B, K) by place."""
        return jnp.take_along_axis(part, nth, axis=-1)[slot].T

    measured = Measured(by_turn(visit.codes), *(by_turn(getattr(visit, name)) for name in PAST))
    uniforms = jnp.stack([draws.uniform(what, places)[slot].T for what in (Purpose.VALUE, Purpose.RANK)], axis=1)
    nothing = jnp.zeros((places, slots), jnp.int32)
    before = _Values(
        jnp.int32(0), nothing, nothing.astype(jnp.float32), nothing_measured(slot), _of(events.state, slot)
    )
    drawn = _one_value_after_the_other(events, measured, uniforms, upto[slot, -1], before, sizes)

    def by_place(part: Array) -> Array:
        there = jnp.zeros_like(part.T).at[slot].set(part.T)
        return jnp.where(valued, jnp.take_along_axis(there, jnp.maximum(upto - 1, 0), axis=-1), 0)

    return visit._replace(value=by_place(drawn.value), rank=by_place(drawn.rank))


class _Values(NamedTuple):
    """Values in the making, by turn."""

    turn: Array
    """() int32"""
    value: Array
    """(K, B)"""
    rank: Array
    latest: Measured
    """of the slots that still have values to come, like `state`: what is known of the code of the turn before"""
    state: Any


def _one_value_after_the_other(
    events: EventHeads, measured: Measured, uniforms: Array, number: Array, rest: _Values, sizes: Sizes
) -> _Values:
    """Values of `measured` (K, B) by turn, slots in descending order of the `number` (B,) they have of them.

    Those not yet done are always the first ones; once they are no more than half, only that half goes on, and again,
    down to FEWEST_SLOTS. `uniforms` (K, 2, B) decide on the bin and on the place in it.
    """
    left = len(number)
    while left:
        fewer = left // 2 if left >= 2 * FEWEST_SLOTS else 0

        def unfinished(carry: _Values, fewer: int = fewer) -> Array:
            return (number > carry.turn).sum() > fewer

        def draw(carry: _Values, left: int = left) -> _Values:
            asked = jax.tree.map(lambda part: part[carry.turn, :left], measured)
            for_bin, within = uniforms[carry.turn, :, :left]
            known = where(asked.code == carry.latest.code, carry.latest, asked)
            value = draw_index(events.value(carry.state, known), for_bin)
            rank = rank_at(value, within, known.last_rank, sizes)
            after = events.after(carry.state, known.code, rank, known.last_rank)
            return _Values(
                turn=carry.turn + 1,
                value=carry.value.at[carry.turn, :left].set(value),
                rank=carry.rank.at[carry.turn, :left].set(rank),
                latest=following(asked, carry.latest, value, rank)[1],
                state=where(value > 0, after, carry.state),
            )

        drawn = jax.lax.while_loop(unfinished, draw, rest)
        latest, state = _of((drawn.latest, drawn.state), slice(fewer))
        rest, left = drawn._replace(latest=latest, state=state), fewer
    return rest


def _of(state: Any, slots: Array | slice) -> Any:
    return jax.tree.map(lambda part: part[slots], state)
