"""One step of every slot: when the next visit is, what it holds, and whether the record ends with it.

Every random number comes from the key of (seed, patient, attempt, visit), so that neither the number of slots, nor
their order, nor the number of patients has any influence on a patient. A patient who does not meet the conditions asked
for is drawn again (`attempt`) until one does.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ehrsim.batch import Context, Sizes, Visit
from ehrsim.models.base import At, Heads, Memory, PatientModel, multi_hot, softplus
from ehrsim.sampling.sets import Draw, draw_index, draw_set, join_sets, uniforms_needed
from ehrsim.sampling.slots import Row, Slots, Tables, blank_visit

Array = jax.Array
YEAR = 365.25 * 86_400.0
EPOCH_2000 = 946_684_800.0
SINGLE = 14
"""Uniforms a step that are drawn once for the whole step."""
BEGINNINGS_A_PIECE = 32
"""Patients begun together: about a tenth of the slots begin one at each step."""
EVENTS_A_PIECE = 4
"""Events a slot, on average, that are scored together."""


def advance(
    model: PatientModel, tables: Tables, seed: Array, end: Array, longest: Array, slots: Slots
) -> tuple[Slots, Row]:
    """Draw one step in every slot.

    `seed` is the run's key; patients from index `end` on are not drawn; a record ends at `longest` steps at the latest.
    """
    sizes = model.sizes
    keys = jax.vmap(lambda p, a, v: _fold(seed, p, a, v))(slots.patient, slots.attempt, slots.visit_number)
    uniform = _Uniforms(jax.vmap(lambda key: jax.random.uniform(key, (_needed(sizes),), minval=1e-7))(keys), sizes)
    first = slots.visit_number == 0
    slots, first_gap = _begin(model, tables, keys, first, slots, uniform)
    previous = jnp.where(first[:, None], 0.0, multi_hot(slots.visit.codes, sizes.vocabulary))
    memory = Memory(previous=previous, seen=slots.seen)
    state, heads = model.step(_purpose(keys, 1), slots.state, slots.visit, first, memory)
    visit, time, terminal = _when(heads, tables, sizes, slots, first, first_gap, longest, uniform)
    drawn = _codes(heads, visit, sizes, keys, uniform)
    codes = jnp.where(terminal[:, None], 0, drawn.codes)
    visit = _with_history(visit._replace(codes=codes), slots)
    visit, truncated = _repeat(heads, visit, uniform.places(0, sizes.places))
    visit = _attributes(heads, visit, tables, sizes, uniform)
    length = draw_index(heads.length(visit), uniform.one(2))
    visit = visit._replace(length=jnp.where((visit.kind > 0) & (visit.kind < sizes.continues), length, 0))
    remembered = _remember(slots, visit)
    accepted = terminal & _accepts(tables, sizes, remembered, visit)
    row = Row(
        patient=slots.patient,
        attempt=slots.attempt,
        origin=slots.origin,
        origin_clock=uniform.one(8),
        statics=slots.context.statics,
        time=time,
        kind=visit.kind,
        clock=visit.clock,
        clock_within=uniform.one(3),
        length=visit.length,
        length_within=uniform.one(4),
        codes=visit.codes,
        offset=visit.offset,
        offset_within=jnp.take_along_axis(uniform.places(4, sizes.offsets), visit.offset, axis=-1),
        value=visit.value,
        rank=visit.rank,
        duration=visit.duration,
        duration_within=uniform.places(5, sizes.places),
        accepted=accepted,
        truncated=(drawn.number > sizes.places) | truncated,
    )
    return _next(remembered._replace(state=state, visit=visit, time=time), terminal, accepted, end), row


def _fold(seed: Array, patient: Array, attempt: Array, visit: Array) -> Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(seed, patient), attempt), visit)


def _purpose(keys: Array, purpose: int) -> Array:
    return jax.vmap(lambda key: jax.random.fold_in(key, purpose))(keys)


def _needed(sizes: Sizes) -> int:
    return SINGLE + len(sizes.groups) * uniforms_needed() + 5 * sizes.places + sizes.offsets


class _Uniforms:
    """The uniforms of one step of every slot, by purpose: single ones, those of each set, and those of the places."""

    def __init__(self, numbers: Array, sizes: Sizes) -> None:
        self._numbers, self._sizes = numbers, sizes

    def one(self, purpose: int) -> Array:
        """(B,) one number a slot."""
        return self._numbers[:, purpose]

    def set(self, group: int) -> Array:
        """(B, uniforms_needed()) numbers of a group of codes."""
        first = SINGLE + group * uniforms_needed()
        return self._numbers[:, first : first + uniforms_needed()]

    def places(self, purpose: int, count: int) -> Array:
        """(B, count): purposes 0 to 3 and 5 have K numbers each, purpose 4 has as many as there are offset bins."""
        first = SINGLE + len(self._sizes.groups) * uniforms_needed()
        first += 4 * self._sizes.places if purpose == 4 else purpose * self._sizes.places
        first += self._sizes.offsets - self._sizes.places if purpose == 5 else 0
        return self._numbers[:, first : first + count]


def _inside(knots: Array, bins: Array, uniform: Array) -> Array:
    """The whole number at a fraction of a histogram bin."""
    position = uniform * (knots.shape[1] - 1)
    lower = jnp.minimum(position.astype(jnp.int32), knots.shape[1] - 2)
    left, right = knots[bins, lower], knots[bins, lower + 1]
    return jnp.round(left + (position - lower.astype(jnp.float32)) * (right - left)).astype(jnp.int32)


def _begin(
    model: PatientModel, tables: Tables, keys: Array, first: Array, slots: Slots, uniform: _Uniforms
) -> tuple[Slots, Array]:
    """Slots whose patient is new get a context, a state and an origin; also the bins to the first step."""
    profile = jnp.searchsorted(tables.profile_weight, uniform.one(9) * tables.profile_weight[-1], side="right")
    offer = jnp.searchsorted(tables.offer_weight, uniform.one(10) * tables.offer_weight[-1], side="right")
    drawn = Context(
        statics=tables.profiles[jnp.minimum(profile, tables.profiles.shape[0] - 1)],
        outcome=jnp.full_like(slots.context.outcome, tables.outcome),
        codes=tables.offered[jnp.minimum(offer, tables.offered.shape[0] - 1)],
        first_age=slots.context.first_age,
    )
    context = jax.tree.map(lambda new, old: _where(first, new, old), drawn, slots.context)
    old_state, structure = jax.tree.flatten(slots.state)
    purpose_keys = _purpose(keys, 2)

    def fill(slot: Array, _: Array, filled: tuple[Array, ...]) -> tuple[Array, ...]:
        source = jnp.minimum(slot, first.shape[0] - 1)
        state, logits = model.start(purpose_keys[source], jax.tree.map(lambda part: part[source], context))
        begun = draw_index(logits.origin, uniform.one(0)[source])
        gap = draw_index(logits.first_gap, uniform.one(1)[source])
        new = (begun, gap, *jax.tree.leaves(state))
        return tuple(old.at[slot].set(part, mode="drop") for old, part in zip(filled, new, strict=True))

    zero = jnp.zeros_like(slots.origin)
    begun, gap, *leaves = _in_pieces(first.astype(jnp.int32), BEGINNINGS_A_PIECE, fill, (zero, zero, *old_state))
    state = jax.tree.unflatten(structure, leaves)
    to_first = _inside(tables.first_gap_knots, gap, uniform.one(6))
    origin = jnp.where(first, _inside(tables.origin_knots, begun, uniform.one(5)), slots.origin)
    blank = blank_visit(first.shape[0], slots.visit.codes.shape[1])
    return slots._replace(
        context=context,
        state=state,
        origin=origin,
        time=jnp.where(first, origin, slots.time),
        visit=jax.tree.map(lambda new, old: _where(first, new, old), blank, slots.visit),
        seen=jnp.where(first[:, None], 0.0, slots.seen),
        last_rank=jnp.where(first[:, None], -1.0, slots.last_rank),
        last_time=jnp.where(first[:, None], 0.0, slots.last_time),
    ), jnp.where(tables.births_known, to_first, 0)


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
    uniform: _Uniforms,
) -> tuple[Visit, Array, Array]:
    """Kind, gap, age and clock of the next step, its time bin, and whether it ends the record."""
    logits = heads.kind()
    impossible = first[:, None] & (jnp.arange(sizes.kinds) == sizes.continues)[None]
    kind = draw_index(jnp.where(impossible, -jnp.inf, logits), uniform.one(7))
    visit = slots.visit._replace(kind=kind)
    gap = jnp.where(first, 0, draw_index(heads.gap(visit), uniform.one(11)))
    bins = jnp.where(first, first_gap, _inside(tables.gap_knots, gap, uniform.one(12)))
    time = slots.time + bins
    over = (time > tables.horizon) | (slots.visit_number + 1 >= longest)
    kind = jnp.where(over & (kind < sizes.death), sizes.end, kind)
    time = jnp.minimum(time, jnp.maximum(tables.horizon, slots.time))
    # Where ends of observation are not recorded, a record of the living ends with the step before.
    time = jnp.where((kind == sizes.end) & ~tables.ends_known & ~first, slots.time, time)
    visit = visit._replace(
        kind=kind,
        gap=gap,
        age=(time - slots.origin).astype(jnp.float32) * tables.step_seconds / YEAR,
        year=(time.astype(jnp.float32) * tables.step_seconds - EPOCH_2000) / YEAR,
    )
    visit = visit._replace(clock=draw_index(heads.clock(visit), uniform.one(13)))
    return visit, time, kind >= sizes.death


def _codes(heads: Heads, visit: Visit, sizes: Sizes, keys: Array, uniform: _Uniforms) -> Draw:
    """The codes of a step, group after group."""
    draws: list[Draw] = []
    starts: list[int] = []
    so_far = Draw(jnp.zeros_like(visit.codes), jnp.zeros_like(visit.kind))
    for group, (start, stop) in enumerate(sizes.groups):
        if start == stop:
            continue
        logits = heads.codes(group, visit._replace(codes=so_far.codes))
        draws.append(draw_set(logits, uniform.set(group), _purpose(keys, 3 + group), sizes.places))
        starts.append(start)
        so_far = join_sets(draws, starts, sizes.places)
    return so_far


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
        slot = jnp.searchsorted(upto, number, side="right", method="compare_all")
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


def _repeat(heads: Heads, visit: Visit, uniform: Array) -> tuple[Visit, Array]:
    """Give each code as many places as it occurs, and say where there were not enough."""
    places, repeat = visit.codes.shape[1], heads.repeat(visit)

    def once_more(at: At) -> tuple[Array, ...]:
        again = -jnp.log(uniform[at]) / jnp.maximum(softplus(-repeat(at)), 1e-6)
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


def _attributes(heads: Heads, visit: Visit, tables: Tables, sizes: Sizes, uniform: _Uniforms) -> Visit:
    """Draw offset, value and duration of every event."""
    attributes = heads.attributes(visit)
    by_purpose = [uniform.places(purpose, sizes.places) for purpose in (3, 1, 2, 5)]

    def draw(at: At) -> tuple[Array, ...]:
        logits = attributes(at)
        codes = visit.codes[at]
        for_offset, for_value, for_rank, for_duration = (numbers[at] for numbers in by_purpose)
        value = jnp.where(tables.valued[codes], draw_index(logits.value, for_value), 0)
        rank = jnp.where(value > 0, ((value - 1).astype(jnp.float32) + for_rank) / (sizes.values - 1), 0.0)
        duration = jnp.where(tables.ended[codes], draw_index(logits.duration, for_duration), 0)
        return draw_index(logits.offset, for_offset), value, rank, duration

    whole, real = jnp.zeros_like(visit.codes), jnp.zeros_like(visit.rank)
    offset, value, rank, duration = _each_event(visit, draw, (whole, whole, real, whole))
    return visit._replace(offset=offset, value=value, rank=rank, duration=duration)


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


def _next(slots: Slots, terminal: Array, accepted: Array, end: Array) -> Slots:
    """Hand the next patients to the slots whose record was accepted; draw the rejected ones again."""
    order = jnp.cumsum(accepted.astype(jnp.int32))
    fresh = jnp.minimum(slots.waiting + order - 1, end)
    return slots._replace(
        patient=jnp.where(accepted, fresh, slots.patient),
        attempt=jnp.where(accepted, 0, slots.attempt + (terminal & ~accepted).astype(jnp.int32)),
        visit_number=jnp.where(terminal, 0, slots.visit_number),
        waiting=jnp.minimum(slots.waiting + order[-1], end),
    )
