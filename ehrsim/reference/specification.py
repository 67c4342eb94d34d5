"""The data model of the specification of the reference population, the files `data/*.toml` (read by `loading`).

Every struct that holds figures has a `source`: publication or agency and year, or "assumption:" with the reason.
Rates are per 1,000 person-years, shares are fractions of 1, times are in the unit of their name.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Source = Annotated[str, Meta(min_length=10, description="Publication or agency and year, or `assumption: why`.")]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
VisitClass = Literal["AMB", "EMER", "IMP", "VR", "HH"]
"""HL7 v3 ActCode classes: ambulatory, emergency, inpatient, virtual, home health."""


class Strict(Struct, forbid_unknown_fields=True, frozen=True):
    """Base of the models here: unknown keys are errors, so that a misspelt key cannot pass silently."""


class AgeCurve(Strict, frozen=True, kw_only=True):
    """A figure by age and sex, linear between `ages` and constant outside them; `both` serves both sexes."""

    ages: list[float]
    male: list[float] = []
    female: list[float] = []
    both: list[float] = []
    source: Source


class Factor(Strict, frozen=True, kw_only=True):
    """Multiplies a hazard by `ratio` while a state or attribute holds, or by `ratio` per standard deviation of a trait.

    `share` is the fraction of the people at risk in whom it holds: the published rate is an average over them.
    """

    covariate: str
    ratio: Annotated[float, Meta(gt=0.0)]
    share: Share = 0.0
    source: Source


class Transition(Strict, frozen=True, kw_only=True):
    """Something that happens to people at a hazard known by age, sex and covariates.

    It needs every state of `requires` and none of `excludes` (nor the one it `sets`) on the last birthday; states of
    `also_sets` may hold already. `fatality`
    is the percentage who die of it within 30 days. A state set with `lasts_days` ends by itself.
    """

    name: str
    title: str
    rate: AgeCurve
    factors: list[Factor] = []
    requires: list[str] = []
    excludes: list[str] = []
    sets: str | None = None
    also_sets: list[str] = []
    clears: list[str] = []
    lasts_days: float | None = None
    fatality: AgeCurve | None = None


class Product(Strict, frozen=True, kw_only=True):
    """A code that is recorded with probability `share`; medications run for `days`, or on if there is none.

    Among the products of a treatment, shares are relative and exactly one is chosen.
    """

    code: str
    share: Share = 1.0
    days: float | None = None
    text: str | None = None
    """A coded value to go with it, such as the reaction to an allergen."""


class Diagnosis(Strict, frozen=True, kw_only=True):
    """A condition written down at an encounter; it ends after `days`, or with `state`, or is open."""

    code: str
    share: Share = 1.0
    days: float | None = None
    state: str | None = None


class Shift(Strict, frozen=True, kw_only=True):
    """An acute change of a measurement while an encounter lasts: added, or multiplied on a logarithmic scale."""

    measurement: str
    add: float = 0.0
    times: Annotated[float, Meta(gt=0.0)] = 1.0


class Stay(Strict, frozen=True, kw_only=True):
    """Length of an inpatient stay: log-normal with this median and log standard deviation."""

    median_days: Annotated[float, Meta(gt=0.0)]
    log_sd: Annotated[float, Meta(ge=0.0)] = 0.5


class Encounter(Strict, frozen=True, kw_only=True):
    """What the record shows of a transition: a visit `after_days` of it, with probability `share`.

    Encounters of one `group` are alternatives. `discovery` ones happen at the next visit that there is within 90 days.
    """

    on: str
    visit_class: VisitClass = "AMB"
    visit_type: str = "SNOMED//185345009"
    reason: str | None = None
    after_days: tuple[float, ...] = (0.0,)
    spread_days: float = 0.0
    """Visits fall up to so many days before or after, uniformly."""
    share: Share = 1.0
    group: str | None = None
    discovery: bool = False
    emergency_share: Share = 0.0
    stay: Stay | None = None
    diagnoses: list[Diagnosis] = []
    procedures: list[Product] = []
    medications: list[Product] = []
    one_of: list[Product] = []
    """Medications of which at most one is given, each with its share."""
    allergies: list[Product] = []
    care_plans: list[Product] = []
    panels: list[str] = []
    shifts: list[Shift] = []
    source: Source


class PanelRate(Strict, frozen=True, kw_only=True):
    """How often a panel is ordered a year."""

    panel: str
    per_year: float


class ProcedureRate(Strict, frozen=True, kw_only=True):
    """How often a procedure is done a year."""

    code: str
    per_year: float


class FollowUp(Strict, frozen=True, kw_only=True):
    """Regular visits while a state holds."""

    state: str
    per_year: float
    reason: str
    virtual_share: Share = 0.1
    panels: list[PanelRate] = []
    procedures: list[ProcedureRate] = []
    source: Source


class Treatment(Strict, frozen=True, kw_only=True):
    """The products that may be prescribed while a treatment state holds."""

    state: str
    products: list[Product]
    source: Source


class Screening(Strict, frozen=True, kw_only=True):
    """A procedure or test offered every `every_years` between two ages, to those who `attends` (an attribute)."""

    name: str
    sex: Literal["male", "female", "both"] = "both"
    from_age: float
    to_age: float
    every_years: float
    attends: str
    procedures: list[Product] = []
    panels: list[str] = []
    excludes: list[str] = []
    visit_type: str = "SNOMED//185349003"
    source: Source


class Vaccine(Strict, frozen=True, kw_only=True):
    """Doses at ages (years), or every `every_years` between two ages, each taken with probability `uptake`."""

    code: str
    ages: list[float] = []
    from_age: float = 0.0
    to_age: float = 0.0
    every_years: float | None = None
    uptake: Share
    sex: Literal["male", "female", "both"] = "both"
    attribute: str | None = None
    source: Source


class VitalSigns(Strict, frozen=True, kw_only=True):
    """The chance that a panel is measured at a visit of a class, each day of a stay."""

    visit_class: VisitClass
    panel: str
    share: AgeCurve


class Wellness(Strict, frozen=True, kw_only=True):
    """Preventive visits: the ages of well-child visits and their attendance, and the yearly chance of adults."""

    child_ages: list[float]
    child_attendance: AgeCurve
    adult_per_year: AgeCurve
    source: Source


class Effect(Strict, frozen=True, kw_only=True):
    """What a state does to a measurement, in full after `ramp_years`: added, or multiplied on a logarithmic scale."""

    state: str
    add: float = 0.0
    times: Annotated[float, Meta(gt=0.0)] = 1.0
    ramp_years: float = 0.0
    source: Source


class Range(Strict, frozen=True, kw_only=True):
    """A reference range; `sex` and ages say for whom."""

    low: float | None = None
    high: float | None = None
    sex: Literal["male", "female", "both"] = "both"
    from_age: float = 0.0
    source: Source


class Measurement(Strict, frozen=True, kw_only=True):
    """A measured value: level by age and sex + between-person trait + states + visit noise.

    On a logarithmic `scale`, `level` is the median and both standard deviations are of the logarithm. A `derived`
    value is computed from others instead (see `ehrsim.reference.measurements`).
    """

    name: str
    code: str
    unit: str
    decimals: int
    level: AgeCurve | None = None
    scale: Literal["linear", "log"] = "linear"
    between_sd: float = 0.0
    within_sd: float = 0.0
    trait: str | None = None
    derived: bool = False
    effects: list[Effect] = []
    bounds: tuple[float, float]
    ranges: list[Range] = []
    source: Source


class Panel(Strict, frozen=True, kw_only=True):
    """Measurements taken together; `code` is the header written (none for vital signs)."""

    name: str
    members: list[str]
    code: str | None = None
    from_age: float = 0.0
    to_age: float = 200.0
    part_of: str | None = None
    """Not done where that panel is done anyway."""
    wellness_per_visit: AgeCurve | None = None
    """The chance that the panel is done at a wellness visit."""


class Trait(Strict, frozen=True, kw_only=True):
    """A standard normal trait of a person."""

    name: str


class Correlation(Strict, frozen=True, kw_only=True):
    """The correlation of two traits."""

    between: tuple[str, str]
    value: Annotated[float, Meta(gt=-1.0, lt=1.0)]
    source: Source


class Attribute(Strict, frozen=True, kw_only=True):
    """A yes/no attribute of a person, drawn once with probability `share`."""

    name: str
    share: Share
    source: Source


class Choice(Strict, frozen=True, kw_only=True):
    """A coded value and its share in the population."""

    code: str
    share: Share


class Mixture(Strict, frozen=True, kw_only=True):
    """Shares of coded values."""

    choices: list[Choice]
    source: Source


class RaceGroup(Strict, frozen=True, kw_only=True):
    """A race and ethnicity together, their share and the attribute that holds for them in hazards."""

    race: str
    ethnicity: str
    share: Share
    attribute: str | None = None


class Demography(Strict, frozen=True, kw_only=True):
    """Who the people are."""

    age_structure: AgeCurve
    """Living people by five-year age band (`ages` are the lower ends), in percent of the population."""
    survival: AgeCurve
    """Fraction alive by age: how many births stand behind one living person."""
    groups: list[RaceGroup]
    groups_source: Source
    language: Mixture
    language_hispanic: Mixture
    marital: Mixture


class Family(Strict, frozen=True, kw_only=True):
    """One file: a family of conditions, or of measurements, vaccines and so on."""

    title: str
    codes: dict[str, str] = {}
    transition: list[Transition] = []
    encounter: list[Encounter] = []
    follow_up: list[FollowUp] = []
    treatment: list[Treatment] = []
    screening: list[Screening] = []
    vaccine: list[Vaccine] = []
    measurement: list[Measurement] = []
    vital_signs: list[VitalSigns] = []
    panel: list[Panel] = []
    trait: list[Trait] = []
    correlation: list[Correlation] = []
    attribute: list[Attribute] = []
    wellness: Wellness | None = None
    demography: Demography | None = None
