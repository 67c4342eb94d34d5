"""Raking: margins counted by hand, shifts that lead to them, and a model that was put off and comes back."""

import msgspec
import numpy as np
import orjson
import pytest

from ehrsim import margins, raking, runs
from ehrsim.batch import Moment, Precursor
from ehrsim.models.shift import STEP_BINS, STEP_EDGES, age_bin, gap_class, no_shift, step_bin
from ehrsim.progress import silent
from ehrsim.training import best, fit


@pytest.fixture(scope="module")
def counted(tiny_data):
    return margins.count(tiny_data.train, tiny_data.sizes)


def test_margins_are_counted(tiny_data):
    """With precursors of all sorts: alone or a class, one with the code itself in it, before it in a step or after."""
    pairs = [Precursor(3, before, 1.0) for before in (1, 2, 5, tiny_data.sizes.vocabulary)]
    pairs += [Precursor(7, tiny_data.sizes.vocabulary + 1, 1.0), Precursor(9, 10, 1.0)]
    sizes = tiny_data.sizes._replace(precursors=tuple(pairs), classes=((2, 3, 8), (1, 9)))
    table, counted = tiny_data.train, margins.count(tiny_data.train, sizes)
    expected = margins.Margins(*(np.zeros_like(part) for part in counted))
    for number, (first, last) in enumerate(zip(table.step_offsets[:-1], table.step_offsets[1:], strict=True)):
        seen, measured = set(), set()
        for before, step in enumerate(range(first, last)):
            age = int(age_bin(table.visit.age[step]))
            age_before = int(age_bin(table.visit.age[max(step - 1, first)]))
            expected.kind[int(step_bin(np.float32(before))), table.visit.kind[step]] += 1
            expected.kind_by_age[age_before, table.visit.kind[step]] += 1
            if table.timed[step]:
                expected.gap[age_before, table.visit.gap[step]] += 1
            if step == last - 1:
                continue
            if 0 < table.visit.kind[step] < sizes.continues:
                expected.length[table.visit.kind[step], table.visit.length[step]] += 1
            gap = int(gap_class(Moment(*(part[step] for part in table.visit.moment))))
            codes = table.visit.codes[step]
            now = set(codes[codes > 0].tolist())
            groups = [next(g for g, (_, end) in enumerate(sizes.groups, 1) if code < end) for code in sorted(now)]
            for place, group in enumerate([*groups, 0]):
                expected.following[place, group] += 1
            leads = dict.fromkeys(range(sizes.vocabulary), False)
            for code, pairs, cells in margins.led_by(sizes):
                known = seen | {other for other in now if other < code}
                cell, coming = 0, []
                for bit, pair in enumerate(sizes.precursors[pairs]):
                    of_class = pair.before - sizes.vocabulary
                    leading = {pair.before} if of_class < 0 else set(sizes.classes[of_class])
                    cell |= bool(leading & seen) << bit
                    if leading & known and not leading & seen:
                        coming.append(pairs.start + bit)
                leads[code] = cell > 0 or bool(coming)
                if code not in seen:
                    expected.exposed_at_once[coming] += 1
                    expected.led_at_once[coming] += code in now
                if code not in seen and not coming:
                    expected.exposed[cells][cell] += 1
                    expected.led[cells][cell] += code in now
            for code in range(sizes.vocabulary):
                if code in seen:
                    expected.known[code] += 1
                    expected.again[code] += code in now
                    continue
                for static in set(table.context_statics[number].tolist()) - {0}:
                    expected.fresh_by_static[static, code] += 1
                    expected.first_by_static[static, code] += code in now
                expected.fresh_by_gap[gap, code] += 1
                expected.first_by_gap[gap, code] += code in now
                if not leads[code]:
                    expected.fresh[age, code] += 1
                    expected.first[age, code] += code in now
            seen |= now
            for place in np.flatnonzero(table.visit.value[step]):
                code = codes[place]
                cell = int(table.visit.rank[step, place] * sizes.value_bins)
                (expected.later_value if code in measured else expected.first_value)[code, cell] += 1
                measured.add(code)
    for name, one, other in zip(counted._fields, counted, expected, strict=True):
        assert np.array_equal(one, other), name
    assert counted.led.sum() > 0
    assert counted.led_at_once.sum() > 0
    assert counted.first_value.sum() > 0
    assert counted.later_value.sum() > counted.first_value.sum() / 2


def test_bins_of_steps_begin_at_their_edges():
    assert step_bin(np.float32(0)) == 0
    assert [int(step_bin(np.float32(edge))) for edge in STEP_EDGES] == list(range(1, STEP_BINS))


def test_equal_margins_ask_for_no_shift(counted, tiny_data):
    shift = raking.shift_towards(counted, counted, tiny_data.sizes)
    assert all(np.allclose(part, 0) for part in shift)
    # As many more patients of the same kind ask for none either.
    twice = margins.Margins(*(2 * part for part in counted))
    assert all(np.abs(part).max() < 0.2 for part in raking.shift_towards(counted, twice, tiny_data.sizes))


def test_a_shift_of_kinds_is_half_the_difference_of_log_odds_where_much_is_known(counted, tiny_data):
    kinds = counted.kind.shape[1]
    real, simulated = (
        counted._replace(kind=np.tile([share * 1e6, (1 - share) * 1e6] + [0.0] * (kinds - 2), (STEP_BINS, 1)))
        for share in (0.3, 0.2)
    )
    shift = raking.shift_towards(real, simulated, tiny_data.sizes).kind
    expected = (np.log(0.3 / 0.7) - np.log(0.2 / 0.8)) / 2
    assert np.allclose(shift[:, 0], expected, atol=1e-3)
    assert np.allclose(shift[:, 1], -expected, atol=1e-3)
    assert np.allclose(shift[:, 2:], 0), "what neither has is left as it is"


def test_what_is_common_is_shifted_by_the_difference_of_log_odds(counted, tiny_data):
    """Rates of .8 and .7 at every age and after every gap are made up for once."""
    often, seldom = (
        counted._replace(
            first=counted.first * 0 + 1e6 * rate,
            fresh=counted.fresh * 0 + 1e6,
            first_by_gap=counted.first_by_gap * 0 + 1e6 * rate,
            fresh_by_gap=counted.fresh_by_gap * 0 + 1e6,
            first_by_static=counted.first_by_static * 0 + 1e6 * rate,
            fresh_by_static=counted.fresh_by_static * 0 + 1e6,
        )
        for rate in (0.8, 0.7)
    )
    shift = raking.shift_towards(seldom, often, tiny_data.sizes)
    assert np.allclose(shift.first, np.log(0.7 / 0.3) - np.log(0.8 / 0.2), atol=1e-3)
    assert np.allclose(shift.first_by_gap, 0, atol=1e-3)
    assert np.allclose(shift.first_by_static, 0, atol=1e-3)


def test_what_one_sex_cannot_have_is_all_but_impossible_before_training(tiny_data):
    counted = margins.count(tiny_data.train, tiny_data.sizes)
    leaning = raking.of_statics(counted)
    index = {entry.code: place for entry, place in tiny_data.vocabulary.index.items()}
    statics = {entry.code: place for entry, place in tiny_data.vocabulary.static_index.items()}
    female, male, prostate = statics["GENDER//female"], statics["GENDER//male"], index["ICD10CM//N40.0"]
    assert counted.first_by_static[female, prostate] == 0 < counted.first_by_static[male, prostate]
    assert leaning[female, prostate] < -0.5
    assert leaning[male, prostate] > 0


def test_precursors_that_go_together_are_told_apart(tiny_data):
    """One leads to the code by e as much as it should, the other holds it back by as much: both by their own weight."""
    sizes = tiny_data.sizes._replace(precursors=(Precursor(3, 1, 1.0), Precursor(3, 2, 1.0)), classes=())
    at_risk = np.array([2e6, 5e4, 2e4, 4e5])
    logits = np.array([-9.0, -3.0, -5.0, -4.0])
    rates = [1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-logits - np.array([0.0, -0.7, 0.4, -0.3])))]
    counted = [margins.count(tiny_data.train, sizes)._replace(led=at_risk * rate, exposed=at_risk) for rate in rates]
    shift = raking.shift_towards(counted[0], counted[1], sizes).led
    assert shift == pytest.approx([0.7, -0.4], abs=0.05)


def test_few_events_ask_for_little(counted, tiny_data):
    few = counted._replace(fresh=counted.fresh * 0 + 100, first=counted.first * 0 + 0.25)
    none = few._replace(first=few.first * 0)
    shift = raking.shift_towards(few, none, tiny_data.sizes).first
    assert ((shift > 0) & (shift < 0.5)).all()


def test_what_no_real_record_tells_is_left_as_it_is(counted, tiny_data):
    longer = counted._replace(kind=counted.kind + np.where(counted.kind.sum(1, keepdims=True) > 0, 0.0, 500.0))
    assert (longer.kind > counted.kind).any()
    assert np.abs(raking.shift_towards(counted, longer, tiny_data.sizes).kind).max() < 0.01


@pytest.mark.slow
def test_a_model_that_was_put_off_is_raked_back(tiny_run, tiny_data):
    """Ends come too soon, a code too seldom, and values are too high: all are mended, in patients not raked by."""
    run = runs.load(tiny_run("vae").folder)
    sizes, off = tiny_data.sizes, no_shift(tiny_data.sizes)
    of_values = int(np.argmax(margins.count(tiny_data.train, sizes).later_value.sum(1)))
    off.kind[:, sizes.end] += 1.5
    off.first[:] -= 0.7
    off.first_value[of_values] += np.linspace(-2, 2, sizes.value_bins)
    real = margins.count(tiny_data.train, sizes)
    model = run.model.shifted(off)
    raked, found = raking.rake(model, tiny_data, 8, 3, silent)
    before, after = (raking._simulated(candidate, tiny_data, 7) for candidate in (model, raked))

    def steps(of: margins.Margins) -> float:
        return of.kind.sum() / of.kind[:, sizes.death :].sum()

    def carried(of: margins.Margins) -> float:
        """The mean over codes: in longer records more of those who are left do not get the common ones."""
        return np.mean(of.first.sum(0)[1:] / of.fresh.sum(0)[1:])

    def middle(of: margins.Margins) -> float:
        return np.average(np.arange(sizes.value_bins), weights=of.first_value[of_values]) / sizes.value_bins

    for figure, off_by in ((steps, 0.2), (carried, 0.15), (middle, 0.15)):
        wrong, mended = abs(figure(before) - figure(real)), abs(figure(after) - figure(real))
        assert wrong > off_by * figure(real), figure.__name__
        assert mended < wrong / 3, figure.__name__
    assert found[-1] < found[0]
    assert raking.discrepancy(real, after) < raking.discrepancy(real, before) - 0.03


@pytest.mark.slow
def test_training_ends_with_raking(tiny_events, tiny_training, tmp_path):
    config = msgspec.structs.replace(tiny_training, max_steps=100, validate_every=50)
    raked = fit(tiny_events, tmp_path / "run", model="vae", training=config)
    without = fit(tiny_events, model="vae", training=msgspec.structs.replace(config, raking=0))
    *_, calibrated, last = map(orjson.loads, (tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines())
    assert last["raked"]
    assert len(last["margins"]) == 2, "a round for 50 steps"
    assert last["step"] == calibrated["step"]
    assert best(tmp_path / "run" / "metrics.jsonl")[1] == last["tuning"]
    one, other = runs.to_arrays(raked.model), runs.to_arrays(without.model)
    changed = {name for name in one if not np.array_equal(one[name], other[name])}
    of_logits = ("copy", "first_by_age", "first_by_gap", "first_by_static", "precursors.weight", "precursors.at_once")
    of_decoder = ("kind_by_steps", "kind_by_age", "gap_by_age", "length_of_kind", "value.of_rank")
    names = [*of_decoder, *(f"emission.logits.{name}" for name in of_logits)]
    assert changed == {f"decoder.{name}.value" for name in names}


def test_the_baseline_is_not_raked(tiny_run, tiny_data):
    model = runs.load(tiny_run("markov").folder).model
    assert model.shifted(no_shift(tiny_data.sizes)) is model
