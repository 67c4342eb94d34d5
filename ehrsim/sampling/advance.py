"""One step of every slot: when the next visit is, what it holds, and whether the record ends with it.

Every random number is a hash of (seed, patient, attempt, visit, purpose, place), so that neither the number of slots,
nor their order, nor the number of patients has any influence on a patient. A patient who does not meet the conditions
asked for is drawn again (`attempt`) until one does. So is a future of a known history that begins too early.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ehrsim.batch import Context, Sizes, Visit
from ehrsim.models.base import Heads, Memory, PatientModel, multi_hot, where
from ehrsim.sampling.beginnings import MOST_SILENT, Beginnings, take_up
from ehrsim.sampling.content import draw_attributes, draw_codes, in_pieces, repeat
from ehrsim.sampling.counters import Counters, Purpose, counters
from ehrsim.sampling.sets import draw_index
from ehrsim.sampling.slots import Row, Slots, Tables, blank_visit

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


class _Moment(NamedTuple):
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
        slots, first_gap = _begin(model, tables, draws, once, first, slots)
        span = _Span(slots.time, jnp.broadcast_to(tables.horizon, fresh.shape))
    else:
        first, first_gap = jnp.zeros_like(fresh), jnp.zeros_like(slots.time)
        slots, span = take_up(beginnings, fresh, slots), _span(beginnings, fresh, slots)
    previous = jnp.where(first[:, None], 0.0, multi_hot(slots.visit.codes, sizes.vocabulary))
    memory = Memory(previous=previous, seen=slots.seen)
    noise = draws.normal(Purpose.STEP, model.noise.step)
    state, heads = model.step(noise, slots.state, slots.visit, first, memory)
    moment = _when(heads, tables, sizes, slots, first, first_gap, span, longest, once)
    visit, time = moment.visit, moment.time
    terminal = visit.kind >= sizes.death
    drawn = draw_codes(heads, visit, sizes, draws, terminal)
    visit = _with_history(visit._replace(codes=drawn.codes), slots)
    events = heads.events(visit)
    visit, truncated = repeat(events, visit, draws)
    visit = draw_attributes(events, visit, tables, sizes, draws)
    length = draw_index(events.length(), once.length)
    visit = visit._replace(length=jnp.where((visit.kind > 0) & (visit.kind < sizes.continues), length, 0))
    remembered = _remember(slots, visit)
    accepted = terminal & ~moment.early & _accepts(tables, sizes, remembered, visit)
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
        moved=moment.moved,
    )
    after = remembered._replace(state=state, visit=visit, time=time)
    return _next(after, terminal | moment.early, accepted, end, seed), row


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
    context = where(first, drawn, slots.context)
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
    begun, gap, *leaves = in_pieces(first.astype(jnp.int32), 1, BEGINNINGS_A_PIECE, fill, (zero, zero, *old_state))
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
        visit=where(first, blank, slots.visit),
        seen=jnp.where(first[:, None], 0.0, slots.seen),
        last_rank=jnp.where(first[:, None], -1.0, slots.last_rank),
        last_time=jnp.where(first[:, None], 0.0, slots.last_time),
    ), first_gap


def _moment(tables: Tables, origin: Array, time: Array) -> tuple[Array, Array]:
    """Age and year of a time bin, as in `Visit`."""
    unit = tables.step_seconds / YEAR
    return (time - origin).astype(jnp.float32) * unit, (time - tables.horizon - 1).astype(jnp.float32) * unit


def _when(
    heads: Heads,
    tables: Tables,
    sizes: Sizes,
    slots: Slots,
    first: Array,
    first_gap: Array,
    span: _Span,
    longest: Array,
    once: Once,
) -> _Moment:
    """Kind, gap, age and clock of the next step."""
    logits = heads.kind()
    impossible = first[:, None] & (jnp.arange(sizes.kinds) == sizes.continues)[None]
    kind = draw_index(jnp.where(impossible, -jnp.inf, logits), once.kind)
    visit = slots.visit._replace(kind=kind)
    gap, bins = _gap(heads.gap(visit), tables, slots.time, once)
    gap, bins = jnp.where(first, 0, gap), jnp.where(first, first_gap, bins)
    time = slots.time + bins
    over = (slots.visit_number + 1 >= longest) & (kind < sizes.death)
    kind = jnp.where(over | (time > span.until), sizes.end, kind)
    time = jnp.minimum(time, jnp.maximum(span.until, slots.time))
    # Where ends of observation are not recorded, a record of the living ends with the step before.
    untold = (kind == sizes.end) & ~tables.ends_known & ~first
    time = jnp.where(untold, slots.time, time)
    early = (time < span.since) & ~untold
    hopeless = slots.attempt >= MOST_SILENT
    time = jnp.where(early & hopeless, span.since, time)
    age, year = _moment(tables, slots.origin, time)
    visit = visit._replace(kind=kind, gap=gap, age=age, year=year)
    visit = visit._replace(clock=draw_index(heads.clock(visit), once.clock))
    return _Moment(visit, time, early & ~hopeless, early & hopeless)


def _span(beginnings: Beginnings, fresh: Array, slots: Slots) -> _Span:
    row = beginnings.history(slots.patient)
    return _Span(jnp.where(fresh, beginnings.since[row], slots.time), beginnings.until[row])


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


def _with_history(visit: Visit, slots: Slots) -> Visit:
    """The visit with the last value of each of its codes."""
    last_rank = jnp.take_along_axis(slots.last_rank, visit.codes, axis=-1)
    last_time = jnp.take_along_axis(slots.last_time, visit.codes, axis=-1)
    known = (visit.codes > 0) & (last_rank >= 0)
    return visit._replace(
        last_rank=jnp.where(known, last_rank, -1.0),
        last_age=jnp.where(known, visit.age[:, None] - last_time, 0.0),
    )


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
