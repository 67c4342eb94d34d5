"""The known truth: what happens to people happens at the published hazards, and adds up to the published prevalence."""

from typing import NamedTuple

import numpy as np
import pytest

from ehrsim.errors import UsageError
from ehrsim.reference import hazard, transitions
from ehrsim.reference.hazards import OLDEST, compiled, covariates_of
from ehrsim.reference.loading import load
from ehrsim.reference.people import demography, draw_people
from ehrsim.reference.simulate import Lives, simulate, state_intervals

PEOPLE = 20_000


class Truth(NamedTuple):
    """Simulated lives and, for each state, who is in it on each birthday (age, person)."""

    lives: Lives
    flags: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def truth() -> Truth:
    lives = simulate(draw_people(0, PEOPLE, 41))
    everyone, flags = np.arange(PEOPLE), {}
    for name, intervals in state_intervals(lives).items():
        flags[name] = np.stack([intervals.at(everyone, np.full(PEOPLE, float(age)))[0] for age in range(OLDEST + 1)])
    return Truth(lives, flags)


def exposure_and_events(truth: Truth, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Expected and observed numbers by age of a transition: cumulated `hazard` over the time at risk, and events."""
    item = next(item for item in transitions() if item.name == name)
    position = [other.name for other in transitions()].index(name)
    lives, people = truth.lives, truth.lives.people
    happened = lives.occurrences.transition == position
    first = np.full((OLDEST + 1, PEOPLE), np.inf)
    ages = lives.occurrences.age[happened]
    first[ages.astype(int), lives.occurrences.person[happened]] = ages
    names = covariates_of(load())
    expected, observed = np.zeros(OLDEST + 1), np.zeros(OLDEST + 1)
    excluded = {*item.excludes, *([item.sets] if item.sets else [])}
    for age in range(OLDEST + 1):
        at_risk = lives.until > age
        for state in item.requires:
            at_risk &= truth.flags[state][age]
        for state in excluded:
            held = truth.flags[state][age] if state in truth.flags else people.attributes[state]
            at_risk &= ~held
        rows = np.flatnonzero(at_risk)
        covariates = {}
        for factor in item.factors:
            if factor.covariate in names.states:
                covariates[factor.covariate] = truth.flags[factor.covariate][age][rows]
            elif factor.covariate in names.attributes:
                covariates[factor.covariate] = people.attributes[factor.covariate][rows]
            else:
                covariates[factor.covariate] = people.traits[factor.covariate][rows]
        sex = np.where(people.male[rows], "male", "female")
        rate = hazard(name, age=age, sex=sex, **covariates)
        end = np.minimum(np.minimum(lives.until[rows], age + 1.0), first[age, rows])
        expected[age] = (rate * (end - age)).sum()
        observed[age] = np.isfinite(first[age, rows]).sum()
    assert observed.sum() == happened.sum(), "nothing happens to those who are not at risk"
    return expected, observed


@pytest.mark.slow
def test_every_transition_happens_at_its_hazard(truth):
    """Observed minus cumulated hazard is a martingale of variance the latter: Poisson error, overall and by age."""
    scores, tested = {}, 0
    for item in transitions():
        expected, observed = exposure_and_events(truth, item.name)
        for ages in (slice(0, 40), slice(40, 65), slice(65, OLDEST + 1), slice(0, OLDEST + 1)):
            if expected[ages].sum() > 25:
                z = (observed[ages].sum() - expected[ages].sum()) / np.sqrt(expected[ages].sum())
                scores[item.name, ages.start, ages.stop] = z
                tested += 1
    assert tested > 250
    far = {where: z for where, z in scores.items() if abs(z) > 4.2}
    assert far == {}
    assert abs(np.mean(list(scores.values()))) < 0.3
    assert 0.8 < np.std(list(scores.values())) < 1.25


@pytest.mark.slow
def test_acute_illness_kills_as_often_as_it_should(truth):
    occurrences = truth.lives.occurrences
    sex = truth.lives.people.male.astype(int)[occurrences.person]
    age = occurrences.age.astype(int)
    tested = 0
    for position, item in enumerate(compiled()):
        rows = occurrences.transition == position
        if item.fatality is None:
            assert item.transition.name == "background_death" or not occurrences.fatal[rows].any()
            continue
        chance = item.fatality[sex[rows], age[rows]]
        spread = np.sqrt((chance * (1 - chance)).sum())
        assert abs(occurrences.fatal[rows].sum() - chance.sum()) <= 4.2 * spread + 1e-9, item.transition.name
        tested += 1
    assert tested >= 5


@pytest.mark.slow
@pytest.mark.parametrize("male", [False, True])
def test_mortality_of_all_causes_is_of_gompertz_form(male, truth):
    """Above 40, deaths of all causes double about every eight years: a straight line in the logarithm."""
    lives = truth.lives
    chosen = lives.people.male == male
    until, dead = lives.until[chosen], np.isfinite(lives.death[chosen])
    ages = np.arange(40, 95, 5)
    exposure = np.array([np.clip(until - age, 0, 5).sum() for age in ages])
    deaths = np.array([(dead & (until >= age) & (until < age + 5)).sum() for age in ages])
    logs = np.log(deaths / exposure)
    slope, level = np.polyfit(ages + 2.5, logs, 1, w=np.sqrt(deaths))
    assert 0.075 < slope < 0.105
    assert np.abs(logs - level - slope * (ages + 2.5)).max() < 0.25 + 4 / np.sqrt(deaths.min())


def test_background_mortality_rises_with_age_and_is_higher_in_men():
    ages = np.arange(30, 105)
    women, men = (hazard("background_death", age=ages, sex=sex) for sex in ("female", "male"))
    assert (np.diff(women) > 0).all()
    assert (np.diff(men) > 0).all()
    assert (men[:50] > women[:50]).all()


@pytest.mark.slow
@pytest.mark.parametrize("male", [False, True])
def test_survival_meets_the_life_table(male, truth):
    """Kaplan-Meier of all deaths against the survival curve of the specification."""
    lives, curve = truth.lives, demography().survival
    chosen = lives.people.male == male
    until, dead = lives.until[chosen], np.isfinite(lives.death[chosen])
    alive = 1.0
    table = curve.male if male else curve.female
    for age in range(90):
        at_risk, died = (until > age).sum(), (dead & (until > age) & (until <= age + 1)).sum()
        alive *= 1 - died / at_risk
        if age + 1 in (20, 50, 65, 75, 85):
            assert abs(alive - np.interp(age + 1, curve.ages, table)) < 0.05, (age + 1, alive)


PREVALENCE = {
    # state: (from age, lowest %, highest %), of the living; publications as named.
    "hypertension": (18, 38, 52),  # NHANES 2017-2020: 48 %
    "diabetes": (18, 11, 16),  # CDC 2022: 14.7 %, of which 3.4 undiagnosed
    "prediabetes": (18, 32, 43),  # CDC 2022: 38.0 %
    "obesity": (18, 37, 46),  # NHANES 2017-2020: 41.9 %
    "current_smoker": (18, 9, 16),  # NHIS 2021: 11.5 %
    "asthma": (18, 6, 10),  # NHIS 2021: 8.0 %
    "copd": (18, 3.5, 7.5),  # BRFSS 2021: 4.6 to 6.4 %
    "coronary_disease": (18, 4, 8),  # AHA 2023: 7.1 %, NHIS 2021: 4.9 %
    "heart_failure": (18, 1.5, 4.5),  # AHA 2023: 2.3 to 2.8 %
    "atrial_fibrillation": (65, 7, 17),  # Go 2001, Williams 2017: 9 to 15 %
    "dementia": (65, 7, 13),  # Manly 2022: 10 %
    "migraine": (18, 11, 18),  # Burch 2018: 15 %
    "hypothyroidism": (18, 4, 10),  # Hollowell 2002, Wyne 2022: 5 to 12 %
    "gout": (18, 2.5, 5.5),  # NHANES 2015-2016: 3.9 %
    "osteoporosis": (65, 15, 28),  # NHANES 2017-2018: 17.7 %
    "breast_cancer": (65, 2, 6),  # SEER 2020
}


@pytest.mark.slow
@pytest.mark.parametrize("state", PREVALENCE)
def test_prevalence_is_as_published(state, truth):
    from_age, low, high = PREVALENCE[state]
    lives = truth.lives
    chosen = np.flatnonzero(~np.isfinite(lives.death) & (lives.until >= from_age))
    share = 100 * state_intervals(lives)[state].at(chosen, lives.until[chosen] - 1e-6)[0].mean()
    assert low < share < high


@pytest.mark.slow
def test_the_living_have_the_published_ages(truth):
    spec, lives = demography().age_structure, truth.lives
    alive = ~np.isfinite(lives.death)
    total = sum(spec.male) + sum(spec.female)
    for male, shares in ((True, spec.male), (False, spec.female)):
        ages = lives.people.age[alive & (lives.people.male == male)]
        found = np.histogram(ages, [*spec.ages, spec.ages[-1] + 5])[0] / alive.sum()
        assert np.abs(found - np.array(shares) / total).max() < 0.008


def test_hazards_rise_with_risk_factors():
    plain = hazard("diabetes", age=50, sex="female", prediabetes=1)
    assert np.isclose(hazard("diabetes", age=50, sex="female", prediabetes=1, obesity=1) / plain, 2.2)
    ages = hazard("background_death", age=np.array([0.0, 30.5, 80.0, 130.0]), sex="male")
    assert ages.shape == (4,)
    assert ages[3] == hazard("background_death", age=OLDEST, sex="male")


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("plague", {"age": 40, "sex": "male"}, "no transition `plague`"),
        ("diabetes", {"age": 40, "sex": "M"}, "expected male or female"),
        ("diabetes", {"age": 40, "sex": "male", "charm": 1}, "no covariate `charm`"),
    ],
)
def test_unknown_names_are_refused(name, arguments, said):
    with pytest.raises(UsageError, match=said):
        hazard(name, **arguments)
