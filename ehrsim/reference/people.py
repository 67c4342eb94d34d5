"""Who the people are: age, sex, race, language, attributes and correlated traits, all drawn from the patient's key."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ehrsim.errors import InputError
from ehrsim.reference.draws import Floats, Ints, Keys, choose, normal, patient_keys, uniform
from ehrsim.reference.loading import attributes, load
from ehrsim.reference.specification import AgeCurve, Demography, Mixture

BAND_YEARS = 5.0


class People(NamedTuple):
    """A block of people; every field has one entry a person."""

    number: Ints
    """Number of the patient in the whole population, from 0."""
    keys: Keys
    age: Floats
    """Age in years on the reference date, had they lived."""
    male: NDArray[np.bool_]
    group: Ints
    """Position in the specification's groups of race and ethnicity."""
    language: Ints
    marital: Ints
    attributes: dict[str, NDArray[np.bool_]]
    traits: dict[str, Floats]


def demography() -> Demography:
    """The demographic part of the specification."""
    found = load().demography
    if found is None:
        raise InputError("the specification has no [demography]")
    return found


def draw_people(first: int, count: int, seed: int) -> People:
    """People `first` to `first + count` of the population of `seed`."""
    number = np.arange(first, first + count, dtype=np.int64)
    keys = patient_keys(seed, number)
    male, age = _age_and_sex(keys)
    spec = demography()
    group = choose(uniform(keys, "group"), np.array([item.share for item in spec.groups]))
    hispanic = np.array([item.ethnicity == "2135-2" for item in spec.groups])[group]
    language = np.where(
        hispanic, _mixture(keys, "language", spec.language_hispanic), _mixture(keys, "language", spec.language)
    )
    marital = _mixture(keys, "marital", spec.marital)
    return People(number, keys, age, male, group, language, marital, _attributes(keys, group), _traits(keys))


def _mixture(keys: Keys, purpose: str, mixture: Mixture) -> Ints:
    return choose(uniform(keys, purpose), np.array([item.share for item in mixture.choices]))


def _age_and_sex(keys: Keys) -> tuple[NDArray[np.bool_], Floats]:
    """Ages on the reference date such that those who survive have the age structure of the specification."""
    spec = demography()
    lower = np.array(spec.age_structure.ages)
    weights = []
    for living, alive in _by_sex(spec.age_structure, spec.survival):
        weights.append(np.array(living) / np.interp(lower + BAND_YEARS / 2, spec.survival.ages, alive))
    cell = choose(uniform(keys, "age band"), np.concatenate(weights))
    age = lower[cell % len(lower)] + BAND_YEARS * uniform(keys, "age in band")
    return cell >= len(lower), age


def _by_sex(living: AgeCurve, alive: AgeCurve) -> list[tuple[list[float], list[float]]]:
    return [(living.female, alive.female), (living.male, alive.male)]


def _attributes(keys: Keys, group: Ints) -> dict[str, NDArray[np.bool_]]:
    family, spec = load(), demography()
    drawn = {item.name: uniform(keys, f"attribute {item.name}") < item.share for item in family.attribute}
    names = [item.attribute for item in spec.groups]
    grouped = {
        name: np.array([other == name for other in names])[group] for name in attributes(family) if name not in drawn
    }
    return drawn | grouped


@lru_cache(maxsize=1)
def trait_factor() -> Floats:
    """The lower Cholesky factor of the traits' correlation matrix; raises `InputError` if that is not positive."""
    family = load()
    names = [item.name for item in family.trait]
    matrix = np.eye(len(names))
    for item in family.correlation:
        row, column = (names.index(name) for name in item.between)
        matrix[row, column] = matrix[column, row] = item.value
    try:
        return np.asarray(np.linalg.cholesky(matrix), np.float64)
    except np.linalg.LinAlgError as error:
        raise InputError("the correlations of the traits contradict one another", hint="make them smaller") from error


def _traits(keys: Keys) -> dict[str, Floats]:
    """Correlated standard normal traits; summed in a fixed order, so that a block's size cannot change a bit."""
    names = [item.name for item in load().trait]
    factor = trait_factor()
    independent = [normal(keys, f"trait {name}") for name in names]
    traits = {}
    for row, name in enumerate(names):
        value = np.zeros(len(keys))
        for column in range(row + 1):
            value = value + factor[row, column] * independent[column]
        traits[name] = value
    return traits
