"""One step of every slot: when the next visit is, what it holds, and whether the record ends with it.

Every random number is a hash of (seed, patient, attempt, visit, purpose, place), so that neither the number of slots,
nor their order, nor the number of patients has any influence on a patient. A patient who does not meet the conditions
asked for is drawn again (`attempt`) until one does.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ehrsim.batch import Context, Sizes, Visit
from ehrsim.models.base import At, EventHeads, Heads, Memory, OrderedHead, PatientModel, SetHead, multi_hot, softplus
from ehrsim.sampling.counters import Counters, counters
from ehrsim.sampling.sets import Draw, draw_index, draw_set, join_sets
from ehrsim.sampling.slots import Row, Slots, Tables, blank_visit

Array = jax.Array
YEAR = 365.25 * 86_400.0
BEGINNINGS_A_PIECE = 32
"""Patients begun together: about a tenth of the slots begin one at each step."""
FEWEST_SLOTS = 32
"""Slots that are not worth gathering, where codes are drawn one after the other."""
EVENTS_A_PIECE = 4
"""Events a slot, on average, that are scored together."""


class Purpose(IntEnum):
    """What a random number is for."""

    START = 0
    STEP = 1
    ONCE = 2
    REPEAT = 3
    OFFSET = 4
    OFFSET_WITHIN = 5
    VALUE = 6
    RANK = 7
    DURATION = 8
    DURATION_WITHIN = 9
    CODES = 16
    """Of the first group of codes; those of the others follow."""


class Once(NamedTuple):
    """The numbers (B,) between 0 and 1 that a step takes one of."""

    profile: Array
    offer: Array
    origin: Array
    origin_within: Array
    origin_clock: Array
    first_gap: Array
    first_gap_within: Array
    kind: Array
    gap: Array
    gap_within: Array
    clock: Array
    clock_within: Array
    length: Array
    length_within: Array


def advance(
    model: PatientModel, tables: Tables, seed: Array, end: Array, longest: Array, slots: Slots
) -> tuple[Slots, Row]:
    """Draw one step in every slot.

    `seed` is the run's key; patients from index `end` on are not drawn; a record ends at `longest` steps at the latest.
    """
    sizes = model.sizes
    draws = slots.draws
    once = Once(*draws.uniform(Purpose.ONCE, len(Once._fields)).T)
    first = slots.visit_number == 0
    slots, first_gap = _begin(model, tables, draws, once, first, slots)
    previous = jnp.where(first[:, None], 0.0, multi_hot(slots.visit.codes, sizes.vocabulary))
    memory = Memory(previous=previous, seen=slots.seen)
    noise = draws.normal(Purpose.STEP, model.noise.step)
    state, heads = model.step(noise, slots.state, slots.visit, first, memory)
    visit, time, terminal = _when(heads, tables, sizes, slots, first, first_gap, longest, once)
    drawn = _codes(heads, visit, sizes, draws, terminal)
    visit = _with_history(visit._replace(codes=drawn.codes), slots)
    visit, truncated = _repeat(heads, visit, draws)
    events = heads.events(visit)
    visit = _attributes(events, visit, tables, sizes, draws)
    length = draw_index(events.length(), once.length)
    visit = visit._replace(length=jnp.where((visit.kind > 0) & (visit.kind < sizes.continues), length, 0))
    remembered = _remember(slots, visit)
    accepted = terminal & _accepts(tables, sizes, remembered, visit)
    row = Row(
        patient=slots.patient,
        attempt=slots.attempt,
        origin=slots.origin,
        origin_clock=once.origin_clock,
        statics=slots.context.statics,
        time=time,
        kind=visit.kind,
        clock=visit.clock,
        clock_within=once.clock_within,
        length=visit.length,
        length_within=once.length_within,
        codes=visit.codes,
        offset=visit.offset,
        # By bin, not by place: events of a step in the same bin are of the same moment.
        offset_within=draws.uniform_at(Purpose.OFFSET_WITHIN, jnp.arange(first.shape[0])[:, None], visit.offset),
        value=visit.value,
        rank=visit.rank,
        duration=visit.duration,
        duration_within=draws.uniform(Purpose.DURATION_WITHIN, sizes.places),
        accepted=accepted,
        truncated=(drawn.number > sizes.places) | truncated,
    )
    after = remembered._replace(state=state, visit=visit, time=time)
    return _next(after, terminal, accepted, end, seed), row


def _inside(knots: Array, bins: Array, uniform: Array) -> Array:
    """The whole number at a fraction of a histogram bin."""
    position = uniform * (knots.shape[1] - 1)
    lower = jnp.minimum(position.astype(jnp.int32), knots.shape[1] - 2)
    left, right = knots[bins, lower], knots[bins, lower + 1]
    return jnp.round(left + (position - lower.astype(jnp.float32)) * (right - left)).astype(jnp.int32)


def _begin(
    model: PatientModel, tables: Tables, draws: Counters, once: Once, first: Array, slots: Slots
) -> tuple[Slots, Array]:
    """Slots whose patient is new get a context, a state and an origin; also the bins to the first step."""
    profile = jnp.searchsorted(tables.profile_weight, once.profile * tables.profile_weight[-1], side="right")
    offer = jnp.searchsorted(tables.offer_weight, once.offer * tables.offer_weight[-1], side="right")
    drawn = Context(
        statics=tables.profiles[jnp.minimum(profile, tables.profiles.shape[0] - 1)],
        outcome=jnp.full_like(slots.context.outcome, tables.outcome),
        codes=tables.offered[jnp.minimum(offer, tables.offered.shape[0] - 1)],
        first_age=slots.context.first_age,
    )
    context = jax.tree.map(lambda new, old: _where(first, new, old), drawn, slots.context)
    old_state, structure = jax.tree.flatten(slots.state)

    def fill(slot: Array, _: Array, filled: tuple[Array, ...]) -> tuple[Array, ...]:
        source = jnp.minimum(slot, first.shape[0] - 1)
        noise = Counters(draws.left[source], draws.right[source]).normal(Purpose.START, model.noise.start)
        state, logits = model.start(noise, jax.tree.map(lambda part: part[source], context))
        begun = draw_index(logits.origin, once.origin[source])
        gap = draw_index(logits.first_gap(begun), once.first_gap[source])
        new = (begun, gap, *jax.tree.leaves(state))
        return tuple(old.at[slot].set(part, mode="drop") for old, part in zip(filled, new, strict=True))

    zero = jnp.zeros_like(slots.origin)
    begun, gap, *leaves = _in_pieces(first.astype(jnp.int32), BEGINNINGS_A_PIECE, fill, (zero, zero, *old_state))
    state = jax.tree.unflatten(structure, leaves)
    to_first = _inside(tables.first_gap_knots, gap, once.first_gap_within)
    origin = jnp.where(first, _inside(tables.origin_knots, begun, once.origin_within), slots.origin)
    first_gap = jnp.where(tables.births_known, to_first, 0)
    age, year = _moment(tables, origin, jnp.minimum(origin + first_gap, tables.horizon))
    blank = blank_visit(first.shape[0], slots.visit.codes.shape[1])._replace(age=age, year=year)
    return slots._replace(
        context=context,
        state=state,
        origin=origin,
        time=jnp.where(first, origin, slots.time),
        visit=jax.tree.map(lambda new, old: _where(first, new, old), blank, slots.visit),
        seen=jnp.where(first[:, None], 0.0, slots.seen),
        last_rank=jnp.where(first[:, None], -1.0, slots.last_rank),
        last_time=jnp.where(first[:, None], 0.0, slots.last_time),
    ), first_gap


def _moment(tables: Tables, origin: Array, time: Array) -> tuple[Array, Array]:
    """Age and year of a time bin, as in `Visit`."""
    unit = tables.step_seconds / YEAR
    return (time - origin).astype(jnp.float32) * unit, (time - tables.horizon - 1).astype(jnp.float32) * unit


def _where(mask: Array, new: Array, old: Array) -> Array:
    return jnp.where(mask.reshape(mask.shape + (1,) * (new.ndim - 1)), new, old)


def _when(
    heads: Heads,
    tables: Tables,
    sizes: Sizes,
    slots: Slots,
    first: Array,
    first_gap: Array,
    longest: Array,
    once: Once,
) -> tuple[Visit, Array, Array]:
    """Kind, gap, age and clock of the next step, its time bin, and whether it ends the record."""
    logits = heads.kind()
    impossible = first[:, None] & (jnp.arange(sizes.kinds) == sizes.continues)[None]
    kind = draw_index(jnp.where(impossible, -jnp.inf, logits), once.kind)
    visit = slots.visit._replace(kind=kind)
    gap, bins = _gap(heads.gap(visit), tables, slots.time, once)
    gap, bins = jnp.where(first, 0, gap), jnp.where(first, first_gap, bins)
    time = slots.time + bins
    over = (time > tables.horizon) | (slots.visit_number + 1 >= longest)
    kind = jnp.where(over & (kind < sizes.death), sizes.end, kind)
    time = jnp.minimum(time, jnp.maximum(tables.horizon, slots.time))
    # Where ends of observation are not recorded, a record of the living ends with the step before.
    time = jnp.where((kind == sizes.end) & ~tables.ends_known & ~first, slots.time, time)
    age, year = _moment(tables, slots.origin, time)
    visit = visit._replace(kind=kind, gap=gap, age=age, year=year)
    visit = visit._replace(clock=draw_index(heads.clock(visit), once.clock))
    return visit, time, kind >= sizes.death


def _gap(logits: Array, tables: Tables, time: Array, once: Once) -> tuple[Array, Array]:
    """The bin of the gap after a time bin, and the gap in time bins: up to a year, or to where in the calendar."""
    short = tables.gap_knots.shape[0]
    latest = tables.horizon - tables.landing_knots[:, 0].astype(jnp.int32)
    earliest = time + tables.long_gap + 1
    beyond = jnp.pad(latest[None] < earliest[:, None], ((0, 0), (short, 0)))
    gap = draw_index(jnp.where(beyond, -jnp.inf, logits), once.gap)
    landing = tables.horizon - _inside(tables.landing_knots, jnp.maximum(gap - short, 0), once.gap_within)
    within = _inside(tables.gap_knots, jnp.minimum(gap, short - 1), once.gap_within)
    return gap, jnp.where(gap < short, within, jnp.maximum(landing, earliest) - time)


def _codes(heads: Heads, visit: Visit, sizes: Sizes, draws: Counters, terminal: Array) -> Draw:
    """The codes of a step, none where it is `terminal`."""
    if isinstance(heads.codes, OrderedHead):
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


def _one_after_the_other(head: OrderedHead, visit: Visit, sizes: Sizes, draws: Counters, terminal: Array) -> Draw:
    """Code after code, until every slot has its last one.

    Slots that have theirs go on without being looked at, so once more than half have, those that have not are gathered,
    and again, down to FEWEST_SLOTS.
    """

    def body(carry: _Codes) -> _Codes:
        number = carry.draws.uniform_at(Purpose.CODES, jnp.arange(carry.ended.shape[0]), carry.place)
        code = jnp.where(carry.ended, 0, draw_index(head.logits(carry.prefix), number))
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


def _with_history(visit: Visit, slots: Slots) -> Visit:
    """The visit with the last value of each of its codes."""
    last_rank = jnp.take_along_axis(slots.last_rank, visit.codes, axis=-1)
    last_time = jnp.take_along_axis(slots.last_time, visit.codes, axis=-1)
    known = (visit.codes > 0) & (last_rank >= 0)
    return visit._replace(
        last_rank=jnp.where(known, last_rank, -1.0),
        last_age=jnp.where(known, visit.age[:, None] - last_time, 0.0),
    )


def _in_pieces(
    counts: Array,
    piece: int,
    fill: Callable[[Array, Array, tuple[Array, ...]], tuple[Array, ...]],
    like: tuple[Array, ...],
) -> tuple[Array, ...]:
    """`fill` what each slot has `counts` (B,) of, in pieces of a fixed size, as many as there is need of.

    `fill` is given the slot (B where the piece goes beyond the last) and the number within the slot, each (piece,).
    """
    slots = counts.shape[0]
    upto = jnp.cumsum(counts)

    def body(carry: tuple[Array, tuple[Array, ...]]) -> tuple[Array, tuple[Array, ...]]:
        begin, filled = carry
        number = begin + jnp.arange(piece)
        slot = jnp.searchsorted(upto, number, side="right")
        before = jnp.where(slot > 0, upto[jnp.clip(slot - 1, 0, slots - 1)], 0)
        return begin + piece, fill(slot, number - before, filled)

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

    return _in_pieces((visit.codes > 0).sum(-1), slots * min(EVENTS_A_PIECE, places), fill, like)


def _repeat(heads: Heads, visit: Visit, draws: Counters) -> tuple[Visit, Array]:
    """Give each code as many places as it occurs, and say where there were not enough."""
    places, repeat = visit.codes.shape[1], heads.repeat(visit)

    def once_more(at: At) -> tuple[Array, ...]:
        again = -jnp.log(draws.uniform_at(Purpose.REPEAT, *at)) / jnp.maximum(softplus(-repeat(at)), 1e-6)
        return (1 + jnp.minimum(again, places).astype(jnp.int32),)

    (copies,) = _each_event(visit, once_more, (jnp.zeros_like(visit.codes),))
    upto = jnp.cumsum(copies, axis=-1)
    place = jnp.arange(places)
    source = jnp.minimum((place[None, :, None] >= upto[:, None, :]).sum(-1), places - 1)
    real = place[None, :] < upto[:, -1:]

    def pick(values: Array, empty: float) -> Array:
        return jnp.where(real, jnp.take_along_axis(values, source, axis=1), jnp.asarray(empty, values.dtype))

    spread = visit._replace(
        codes=pick(visit.codes, 0), last_rank=pick(visit.last_rank, -1), last_age=pick(visit.last_age, 0)
    )
    return spread, upto[:, -1] > places


def _attributes(events: EventHeads, visit: Visit, tables: Tables, sizes: Sizes, draws: Counters) -> Visit:
    """Draw offset, duration and value of every event."""

    def draw(at: At) -> tuple[Array, ...]:
        logits = events.attributes(at)
        for_offset, for_duration = (draws.uniform_at(what, *at) for what in (Purpose.OFFSET, Purpose.DURATION))
        duration = jnp.where(tables.ended[visit.codes[at]], draw_index(logits.duration, for_duration), 0)
        return draw_index(logits.offset, for_offset), duration

    whole = jnp.zeros_like(visit.codes)
    offset, duration = _each_event(visit, draw, (whole, whole))
    return _values(events, visit._replace(offset=offset, duration=duration), tables, sizes, draws)


def _values(events: EventHeads, visit: Visit, tables: Tables, sizes: Sizes, draws: Counters) -> Visit:
    """Draw a value for every code that has values, one place after the other.

    Slots stand in order of how many such codes they have, so that those not yet done are always the first ones; once
    they are no more than half, only that half goes on, and again, down to FEWEST_SLOTS.
    """
    slots, places = visit.codes.shape
    valued = tables.valued[visit.codes]
    order = jnp.argsort(~valued, axis=-1, stable=True)
    slot = jnp.argsort(-valued.sum(-1), stable=True)
    number = valued.sum(-1)[slot]
    turn, value, rank = jnp.int32(0), jnp.zeros_like(visit.codes), jnp.zeros_like(visit.rank)
    known = jax.tree.map(lambda part: part[slot], events.before)

    def body(carry: tuple[Array, Array, Array, Any]) -> tuple[Array, Array, Array, Any]:
        turn, value, rank, known = carry
        some = slot[: jax.tree.leaves(known)[0].shape[0]]
        at = (some, order[some, turn])
        drawn = draw_index(events.value(known, at), draws.uniform_at(Purpose.VALUE, *at))
        within = draws.uniform_at(Purpose.RANK, *at)
        drawn_rank = jnp.where(drawn > 0, ((drawn - 1).astype(jnp.float32) + within) / (sizes.values - 1), 0.0)
        there = (some, jnp.where(turn < number[: len(some)], at[1], places))
        after = events.after(known, visit.codes[at], drawn_rank)
        known = jax.tree.map(lambda new, old: _where(drawn > 0, new, old), after, known)
        return turn + 1, value.at[there].set(drawn, mode="drop"), rank.at[there].set(drawn_rank, mode="drop"), known

    while slots:
        fewer = slots // 2 if slots >= 2 * FEWEST_SLOTS else 0

        def unfinished(carry: tuple[Array, Array, Array, Any], fewer: int = fewer) -> Array:
            return (number > carry[0]).sum() > fewer

        turn, value, rank, known = jax.lax.while_loop(unfinished, body, (turn, value, rank, known))
        known, slots = jax.tree.map(lambda part, fewer=fewer: part[:fewer], known), fewer
    return visit._replace(value=value, rank=rank)


def _remember(slots: Slots, visit: Visit) -> Slots:
    """Add the step to what is known of the patient's codes and values."""
    rows = jnp.arange(visit.codes.shape[0])[:, None]
    measured = jnp.where(visit.value > 0, visit.codes, 0)
    age = jnp.broadcast_to(visit.age[:, None], measured.shape)
    return slots._replace(
        seen=slots.seen.at[rows, visit.codes].set(1.0, mode="promise_in_bounds").at[:, 0].set(0.0),
        last_rank=slots.last_rank.at[rows, measured].set(visit.rank, mode="promise_in_bounds").at[:, 0].set(-1.0),
        last_time=slots.last_time.at[rows, measured].set(age, mode="promise_in_bounds"),
        visit_number=slots.visit_number + 1,
    )


def _accepts(tables: Tables, sizes: Sizes, slots: Slots, visit: Visit) -> Array:
    """Whether the record that ends with `visit` meets the conditions."""
    has = slots.seen > 0
    required = (has[:, None, :] & tables.required[None]).any(-1).all(-1)
    excluded = (has & tables.excluded[None]).any(-1)
    in_age = (visit.age >= tables.age_range[0]) & (visit.age < tables.age_range[1])
    outcome = (tables.outcome == 0) | (visit.kind == jnp.where(tables.outcome == 2, sizes.death, sizes.end))
    accepted: Array = required & ~excluded & in_age & outcome
    return accepted


def _next(slots: Slots, terminal: Array, accepted: Array, end: Array, seed: Array) -> Slots:
    """Hand the next patients to the slots whose record was accepted; draw the rejected ones again."""
    order = jnp.cumsum(accepted.astype(jnp.int32))
    fresh = jnp.minimum(slots.waiting + order - 1, end)
    patient = jnp.where(accepted, fresh, slots.patient)
    attempt = jnp.where(accepted, 0, slots.attempt + (terminal & ~accepted).astype(jnp.int32))
    visit_number = jnp.where(terminal, 0, slots.visit_number)
    return slots._replace(
        patient=patient,
        attempt=attempt,
        visit_number=visit_number,
        draws=counters(seed, patient, attempt, visit_number),
        waiting=jnp.minimum(slots.waiting + order[-1], end),
    )
