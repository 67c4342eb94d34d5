"""The true hazards of the reference population: what a perfect model of it would know.

A hazard is `rate(age, sex) / E[multiplier] * multiplier`, per person-year, where the multiplier is the product of
`ratio` for each factor that holds (`ratio ** z` for a trait z). `E[multiplier]` is taken over the population at risk,
by the factors' shares and as if they were independent, so that published rates stay the average rates. Age is that of
the last birthday, and all covariates are as they were on it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ehrsim.errors import UsageError
from ehrsim.reference.draws import Floats
from ehrsim.reference.loading import attributes, load, states
from ehrsim.reference.specification import AgeCurve, Family, Transition

OLDEST = 115
"""Ages of hazards are capped here, in years."""
_TRAIT_BOUND = 8.5
"""Normal draws cannot be further from 0 than this (see `draws.normal`)."""


class Covariates(NamedTuple):
    """The names of all covariates of hazards: states, then attributes (both 0 or 1), then traits (standard normal)."""

    states: tuple[str, ...]
    attributes: tuple[str, ...]
    traits: tuple[str, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """States and attributes."""
        return self.states + self.attributes


class Compiled(NamedTuple):
    """A transition ready to be evaluated over arrays."""

    transition: Transition
    base: Floats
    """Hazard per person-year with every factor absent, by sex (0 female, 1 male) and age in whole years."""
    flag_factors: tuple[tuple[str, float], ...]
    trait_factors: tuple[tuple[str, float], ...]
    bound: float
    """No combination of covariates multiplies the base hazard by more."""
    fatality: Floats | None
    """Probability of death within 30 days by sex and age, if any."""


def curve_table(curve: AgeCurve) -> Floats:
    """A curve at every whole age, by sex (0 female, 1 male)."""
    ages = np.arange(OLDEST + 1)
    sexes = (curve.female or curve.both, curve.male or curve.both)
    return np.stack([np.interp(ages, curve.ages, values) for values in sexes])


def covariates_of(family: Family) -> Covariates:
    """The covariates that a specification defines."""
    traits = tuple(trait.name for trait in family.trait)
    return Covariates(tuple(states(family)), tuple(attributes(family)), traits)


def compile_transition(transition: Transition, names: Covariates) -> Compiled:
    """Tabulate the hazard of one transition."""
    flags = [(item.covariate, item.ratio) for item in transition.factors if item.covariate not in names.traits]
    traits = [(item.covariate, item.ratio) for item in transition.factors if item.covariate in names.traits]
    expected = 1.0
    for factor in transition.factors:
        if factor.covariate in names.traits:
            expected *= float(np.exp(np.log(factor.ratio) ** 2 / 2))
        else:
            expected *= 1.0 + (factor.ratio - 1.0) * factor.share
    bound = float(np.prod([max(ratio, 1.0) for _, ratio in flags]))
    bound *= float(np.prod([max(ratio, 1.0 / ratio) ** _TRAIT_BOUND for _, ratio in traits]))
    fatality = curve_table(transition.fatality) / 100.0 if transition.fatality else None
    base = curve_table(transition.rate) / 1000.0 / expected
    return Compiled(transition, base, tuple(flags), tuple(traits), bound, fatality)


@lru_cache(maxsize=1)
def compiled() -> tuple[Compiled, ...]:
    """All transitions of the shipped specification, in its order."""
    family = load()
    names = covariates_of(family)
    return tuple(compile_transition(transition, names) for transition in family.transition)


def transitions() -> list[Transition]:
    """All transitions with their published rates, factors and sources."""
    return [item.transition for item in compiled()]


def hazard(name: str, /, *, age: ArrayLike, sex: ArrayLike, **covariates: ArrayLike) -> NDArray[np.float64]:
    """The true hazard of a transition per person-year, for people at risk of it (`requires` and `excludes` fulfilled).

    `age` in years, `sex` "male" or "female"; covariates by name, 0 where not given: states and attributes are 0 or 1,
    traits are standard normal. All broadcast. Raises `UsageError` for a name that does not exist.

    >>> float(hazard("background_death", age=40, sex="male") / hazard("background_death", age=40, sex="female")) > 1
    True
    """
    found = next((item for item in compiled() if item.transition.name == name), None)
    if found is None:
        known = ", ".join(item.transition.name for item in compiled())
        raise UsageError(f"no transition `{name}`", hint=f"expected one of {known}")
    names = covariates_of(load())
    for covariate in covariates:
        if covariate not in (*names.flags, *names.traits):
            raise UsageError(f"no covariate `{covariate}`", hint=f"expected {', '.join((*names.flags, *names.traits))}")
    sexes = np.asarray(sex)
    if not np.isin(sexes, ("male", "female")).all():
        raise UsageError(f"sex is {sex!r}, expected male or female")
    years = np.clip(np.floor(np.asarray(age, np.float64)).astype(np.int64), 0, OLDEST)
    result: NDArray[np.float64] = np.asarray(found.base[(sexes == "male").astype(np.int64), years])
    for covariate, ratio in (*found.flag_factors, *found.trait_factors):
        result = result * ratio ** np.asarray(covariates.get(covariate, 0.0), np.float64)
    return result
