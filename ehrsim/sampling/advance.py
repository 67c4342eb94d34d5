"""One step of every slot: when the next visit is, what it holds, and whether the record ends with it.

Every random number is a hash of (seed, patient, attempt, visit, purpose, place), so that neither the number of slots,
nor their order, nor the number of patients has any influence on a patient. A patient who does not meet the conditions
asked for is drawn again (`attempt`) until one does. So is a future of a known history that begins too early.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ehrsim.batch import Context, Moment, Sizes, Visit
from ehrsim.models.base import Heads, Memory, PatientModel, multi_hot, where
from ehrsim.models.packed import to_have
from ehrsim.sampling.beginnings import MOST_SILENT, Beginnings, take_up
from ehrsim.sampling.content import draw_attributes, draw_codes, in_pieces, repeat
from ehrsim.sampling.counters import Counters, Purpose, counters
from ehrsim.sampling.sets import draw_index
from ehrsim.sampling.slots import Remembered, Row, Slots, Tables, blank_visit, nothing_remembered

Array = jax.Array
YEAR = 365.25 * 86_400.0
BEGINNINGS_A_PIECE = 32
"""Patients begun together: about a tenth of the slots begin one at each step."""


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


class _Span(NamedTuple):
    """The time bins (B,) that a step may fall into; one before `since` (only with beginnings) is drawn again."""

    since: Array
    until: Array


class _When(NamedTuple):
    """When a step is, and what of it is drawn before its codes."""

    visit: Visit
    time: Array
    """(B,) int32 time bin"""
    early: Array
    """(B,) bool: too early, so that the patient is to be drawn again."""
    moved: Array
    """(B,) bool: too early as often before, and put where it may be."""


def advance(
    model: PatientModel,
    tables: Tables,
    seed: Array,
    end: Array,
    longest: Array,
    slots: Slots,
    beginnings: Beginnings | None = None,
) -> tuple[Slots, Row]:
    """Draw one step in every slot.

    `seed` is the run's key; patients from index `end` on are not drawn; a record ends at `longest` steps at the latest.
    With `beginnings` patients do not begin at birth but where these say.
    """
    sizes = model.sizes
    draws = slots.draws
    once = Once(*draws.uniform(Purpose.ONCE, len(Once._fields)).T)
    fresh = slots.visit_number == 0
    if beginnings is None:
        first = fresh
        slots = _begin(model, tables, draws, once, first, slots)
        span = _Span(slots.time, jnp.broadcast_to(tables.horizon, fresh.shape))
    else:
        first = jnp.zeros_like(fresh)
        slots, span = take_up(beginnings, fresh, slots), _span(beginnings, fresh, slots)
    previous = jnp.where(first[:, None], 0.0, multi_hot(slots.visit.codes, sizes.vocabulary))
    clock, first_clock = (jnp.where(first, sizes.clocks, bins) for bins in (slots.visit.clock, slots.first_clock))
    seen = slots.remembered.seen
    wanted = (1 - seen) * to_have(slots.context, sizes)
    statics = multi_hot(slots.context.statics, sizes.statics)
    memory = Memory(previous, seen, wanted, clock, first_clock, statics)
    noise = draws.normal(Purpose.STEP, model.noise.step)
    state, heads = model.step(noise, slots.state, slots.visit, first, memory)
    when = _when(heads, tables, sizes, slots, first, span, longest, once)
    visit = when.visit
    terminal = visit.kind >= sizes.death
    drawn = draw_codes(heads, visit, sizes, draws, terminal)
    visit = _with_past(visit._replace(codes=drawn.codes), slots.remembered)
    events = heads.events(visit)
    visit, truncated = repeat(events, visit, draws)
    visit = draw_attributes(events, visit, tables, sizes, draws)
    length = draw_index(events.length(), once.length)
    visit = visit._replace(length=jnp.where((visit.kind > 0) & (visit.kind < sizes.continues), length, 0))
    remembered = _remember(slots.remembered, visit)
    accepted = terminal & ~when.early & _accepts(tables, sizes, remembered.seen, visit)
    number = slots.visit_number + 1
    row = _row(slots, once, when, visit, accepted, (drawn.number > sizes.places) | truncated)
    after = slots._replace(
        state=state,
        visit=visit,
        time=when.time,
        first_clock=jnp.where(first, visit.clock, slots.first_clock),
        remembered=remembered,
        visit_number=number,
    )
    return _next(after, terminal | when.early, accepted, end, seed), row


def _row(slots: Slots, once: Once, when: _When, visit: Visit, accepted: Array, truncated: Array) -> Row:
    """What leaves the device of a step: of the slots before it, and of the `visit` that it is."""
    draws = slots.draws
    number, places = visit.codes.shape
    return Row(
        patient=slots.patient,
        attempt=slots.attempt,
        origin=slots.origin,
        origin_clock=once.origin_clock,
        statics=slots.context.statics,
        time=when.time,
        kind=visit.kind,
        clock=visit.clock,
        clock_within=once.clock_within,
        length=visit.length,
        length_within=once.length_within,
        codes=visit.codes,
        offset=visit.offset,
        # By bin, not by place: events of a step in the same bin are of the same moment.
        offset_within=draws.uniform_at(Purpose.OFFSET_WITHIN, jnp.arange(number)[:, None], visit.offset),
        value=visit.value,
        rank=visit.rank,
        duration=visit.duration,
        duration_within=draws.uniform(Purpose.DURATION_WITHIN, places),
        accepted=accepted,
        truncated=truncated,
        moved=when.moved,
    )


def _inside(knots: Array, bins: Array, uniform: Array) -> Array:
    """The whole number at a fraction of a histogram bin."""
    position = uniform * (knots.shape[1] - 1)
    lower = jnp.minimum(position.astype(jnp.int32), knots.shape[1] - 2)
    left, right = knots[bins, lower], knots[bins, lower + 1]
    return jnp.round(left + (position - lower.astype(jnp.float32)) * (right - left)).astype(jnp.int32)


def _begin(model: PatientModel, tables: Tables, draws: Counters, once: Once, first: Array, slots: Slots) -> Slots:
    """Slots whose patient is new get a context, an origin, when the record begins, and a state."""
    profile = jnp.searchsorted(tables.profile_weight, once.profile * tables.profile_weight[-1], side="right")
    offer = jnp.searchsorted(tables.offer_weight, once.offer * tables.offer_weight[-1], side="right")
    drawn = Context(
        statics=tables.profiles[jnp.minimum(profile, tables.profiles.shape[0] - 1)],
        outcome=jnp.full_like(slots.context.outcome, tables.outcome),
        codes=tables.offered[jnp.minimum(offer, tables.offered.shape[0] - 1)],
        ages=jnp.broadcast_to(tables.ages, slots.context.ages.shape),
    )
    context = where(first, drawn, slots.context)
    old_state, structure = jax.tree.flatten(slots.state)
    of_first = _Knots(tables.first_gap_knots, tables.first_landing_knots)

    def fill(slot: Array, _: Array, filled: tuple[Array, ...]) -> tuple[Array, ...]:
        source = jnp.minimum(slot, first.shape[0] - 1)
        noise = Counters(draws.left[source], draws.right[source]).normal(Purpose.START, model.noise.start)
        mine = jax.tree.map(lambda part: part[source], context)
        logits = model.origin(mine)
        bin_of_origin = draw_index(logits.origin, once.origin[source])
        origin = _inside(tables.origin_knots, bin_of_origin, once.origin_within[source])
        choice = _Choice(once.first_gap[source], once.first_gap_within[source])
        _, to_first = _gap(logits.first_gap(bin_of_origin), of_first, tables, origin, choice)
        begun = origin + jnp.where(tables.births_known, to_first, 0)
        state = model.start(noise, mine, _moment(tables, origin, begun, begun, begun, jnp.zeros(slot.shape)))
        new = (origin, begun, *jax.tree.leaves(state))
        return tuple(old.at[slot].set(part, mode="drop") for old, part in zip(filled, new, strict=True))

    before = (slots.origin, slots.begun, *old_state)
    origin, begun, *leaves = in_pieces(first.astype(jnp.int32), 1, BEGINNINGS_A_PIECE, fill, before)
    state = jax.tree.unflatten(structure, leaves)
    blank = blank_visit(first.shape[0], slots.visit.codes.shape[1])
    blank = blank._replace(**_moment(tables, origin, begun, begun, begun, blank.steps)._asdict())
    return slots._replace(
        context=context,
        state=state,
        origin=origin,
        time=jnp.where(first, origin, slots.time),
        begun=begun,
        visit=where(first, blank, slots.visit),
        remembered=where(first, nothing_remembered(*slots.remembered.seen.shape), slots.remembered),
    )


def _moment(tables: Tables, origin: Array, begun: Array, time: Array, before: Array, steps: Array) -> Moment:
    """The moment of a time bin, after so many steps, the last of them in the time bin `before`."""
    unit = tables.step_seconds / YEAR
    zeros = (origin, tables.horizon + 1, begun, before)
    age, year, elapsed, since = ((time - zero).astype(jnp.float32) * unit for zero in zeros)
    return Moment(age, year, elapsed, steps, since)


def _when(
    heads: Heads,
    tables: Tables,
    sizes: Sizes,
    slots: Slots,
    first: Array,
    span: _Span,
    longest: Array,
    once: Once,
) -> _When:
    """Kind, gap, age and clock of the next step."""
    logits = heads.kind()
    impossible = first[:, None] & (jnp.arange(sizes.kinds) == sizes.continues)[None]
    kind = draw_index(jnp.where(impossible, -jnp.inf, logits), once.kind)
    visit = slots.visit._replace(kind=kind)
    knots = _Knots(tables.gap_knots, tables.landing_knots)
    gap, bins = _gap(heads.gap(visit), knots, tables, slots.time, _Choice(once.gap, once.gap_within))
    gap = jnp.where(first, 0, gap)
    time = jnp.where(first, slots.begun, slots.time + bins)
    over = (slots.visit_number + 1 >= longest) & (kind < sizes.death)
    kind = jnp.where(over | (time > span.until), sizes.end, kind)
    time = jnp.minimum(time, jnp.maximum(span.until, slots.time))
    # Where ends of observation are not recorded, a record of the living ends with the step before.
    untold = (kind == sizes.end) & ~tables.ends_known & ~first
    time = jnp.where(untold, slots.time, time)
    early = (time < span.since) & ~untold
    hopeless = slots.attempt >= MOST_SILENT
    time = jnp.where(early & hopeless, span.since, time)
    steps = jnp.where(first, 0.0, slots.visit.steps + 1)
    moment = _moment(tables, slots.origin, slots.begun, time, jnp.where(first, time, slots.time), steps)
    visit = visit._replace(kind=kind, gap=gap, **moment._asdict())
    visit = visit._replace(clock=draw_index(heads.clock(visit), once.clock))
    return _When(visit, time, early & ~hopeless, early & hopeless)


def _span(beginnings: Beginnings, fresh: Array, slots: Slots) -> _Span:
    row = beginnings.history(slots.patient)
    return _Span(jnp.where(fresh, beginnings.since[row], slots.time), beginnings.until[row])


class _Knots(NamedTuple):
    """Of gaps up to a year, and of where in the calendar longer ones end."""

    gap: Array
    landing: Array


class _Choice(NamedTuple):
    """The numbers that decide on the bin of a gap, and on the place in it."""

    bin: Array
    within: Array


def _gap(logits: Array, knots: _Knots, tables: Tables, time: Array, choice: _Choice) -> tuple[Array, Array]:
    """The bin of the gap after a time bin, and the gap in time bins: up to a year, or to where in the calendar."""
    short = knots.gap.shape[0]
    latest = tables.horizon - knots.landing[:, 0].astype(jnp.int32)
    earliest = time + tables.long_gap + 1
    beyond = jnp.pad(latest[None] < earliest[:, None], ((0, 0), (short, 0)))
    gap = draw_index(jnp.where(beyond, -jnp.inf, logits), choice.bin)
    landing = tables.horizon - _inside(knots.landing, jnp.maximum(gap - short, 0), choice.within)
    within = _inside(knots.gap, jnp.minimum(gap, short - 1), choice.within)
    return gap, jnp.where(gap < short, within, jnp.maximum(landing, earliest) - time)


def _with_past(visit: Visit, remembered: Remembered) -> Visit:
    """The visit with what is known of the values of its codes before."""
    there = Remembered(*(jnp.take_along_axis(part, visit.codes, axis=-1) for part in remembered))
    known = (visit.codes > 0) & (there.last_rank >= 0)
    return visit._replace(
        last_rank=jnp.where(known, there.last_rank, -1.0),
        last_age=jnp.where(known, visit.age[:, None] - there.last_time, 0.0),
        measurements=jnp.where(known, there.measurements, 0.0),
        mean_rank=jnp.where(known, there.total_rank / jnp.maximum(there.measurements, 1.0), 0.0),
    )


def _remember(before: Remembered, visit: Visit) -> Remembered:
    """Add a step to what is known of the patient's codes and values."""
    rows = jnp.arange(visit.codes.shape[0])[:, None]
    measured = jnp.where(visit.value > 0, visit.codes, 0)
    latest = jnp.where(is_last(measured), measured, 0)
    age = jnp.broadcast_to(visit.age[:, None], measured.shape)
    return Remembered(
        seen=before.seen.at[rows, visit.codes].set(1.0, mode="promise_in_bounds").at[:, 0].set(0.0),
        last_rank=before.last_rank.at[rows, latest].set(visit.rank, mode="promise_in_bounds").at[:, 0].set(-1.0),
        last_time=before.last_time.at[rows, latest].set(age, mode="promise_in_bounds"),
        measurements=before.measurements.at[rows, measured].add(1.0, mode="promise_in_bounds"),
        total_rank=before.total_rank.at[rows, measured].add(visit.rank, mode="promise_in_bounds"),
    )


def is_last(codes: Array) -> Array:
    """(..., K) bool: no place after has the same code; codes ascend, 0 may stand between them."""
    filled = jnp.where(codes > 0, codes, np.iinfo(np.int32).max)
    after = jax.lax.cummin(filled, axis=codes.ndim - 1, reverse=True)[..., 1:]
    following = jnp.concatenate([after, jnp.zeros_like(after[..., :1])], axis=-1)
    return (codes > 0) & (codes != following)


def _accepts(tables: Tables, sizes: Sizes, seen: Array, visit: Visit) -> Array:
    """Whether the record that ends with `visit` and has `seen` (B, V) of codes meets the conditions."""
    has = seen > 0
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
