"""Conditions: what is asked of the model, so that what is wanted comes about."""

import numpy as np
import pytest

from ehrsim import runs
from ehrsim.batch import Precursor
from ehrsim.sampling.conditions import Conditions, tables_for


@pytest.fixture(scope="module")
def run(tiny_run):
    return runs.load(tiny_run("markov").folder)


def asked_for(run, wanted, **sizes):
    """The share of offers of each code by itself."""
    conditions = Conditions(required=(wanted,))
    tables = tables_for(conditions, run.vocabulary, run.scales, run.model.sizes._replace(**sizes))
    codes, number = np.unique(np.asarray(tables.offered)[:, 0], return_counts=True)
    return dict(zip(codes.tolist(), number / number.sum(), strict=True))


def two_of(run):
    """Two codes that patients have, the commoner one first."""
    two = np.argsort(-run.scales.code_patients, kind="stable")[:2].tolist()
    assert run.scales.code_patients[two[0]] > run.scales.code_patients[two[1]] > 0
    return two, "|".join(run.vocabulary.entries[code - 1].code for code in two)


def test_codes_of_a_value_set_are_asked_for_as_often_as_patients_have_them(run):
    two, wanted = two_of(run)
    share = run.scales.code_patients[two] / run.scales.code_patients[two].sum()
    found = asked_for(run, wanted, precursors=())
    assert [found[code] for code in two] == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("by_class", [False, True])
def test_who_is_to_have_a_complication_is_only_asked_for_the_disease(run, by_class):
    (common, rare), wanted = two_of(run)
    before = run.model.sizes.vocabulary if by_class else common
    leading = {"precursors": (Precursor(rare, before, 2.0),), "classes": ((common,),) if by_class else ()}
    assert asked_for(run, wanted, **leading) == {common: 1.0}
    # What is asked for by itself is asked for, and so is what comes less often with the other.
    alone = run.vocabulary.entries[rare - 1].code
    assert asked_for(run, alone, **leading) == {rare: 1.0}
    less = leading | {"precursors": (Precursor(rare, before, -2.0),)}
    assert len(asked_for(run, wanted, **less)) == 2


def test_the_commonest_of_codes_that_lead_to_each_other_is_asked_for(run):
    (common, rare), wanted = two_of(run)
    both = (Precursor(rare, common, 1.0), Precursor(common, rare, 1.0))
    assert asked_for(run, wanted, precursors=both, classes=()) == {common: 1.0}
