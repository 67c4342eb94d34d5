"""Loads the specification of the reference population from `data/*.toml`, merges its files and checks them."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib import resources
from typing import Any

import msgspec

from ehrsim.errors import FormatError, InputError
from ehrsim.reference.specification import AgeCurve, Family


@lru_cache(maxsize=1)
def load() -> Family:
    """The whole specification, merged from the files shipped with the package, checked.

    Raises `FormatError` naming file and key where a file does not fit the model or names something unknown.
    """
    folder = resources.files("ehrsim.reference") / "data"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".toml")), key=lambda entry: entry.name)
    return merge([parse(entry.read_text("utf-8"), entry.name) for entry in files])


def parse(text: str, name: str) -> Family:
    """One specification file from its TOML text; raises `FormatError` naming `name` and the key."""
    try:
        return msgspec.convert(tomllib.loads(text), Family)
    except tomllib.TOMLDecodeError as error:
        raise FormatError(f"{name} is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise FormatError(f"{name}: {error}", hint="see schemas/reference-specification.schema.json") from error


def specification_schema() -> dict[str, Any]:
    """The JSON Schema of one specification file."""
    return msgspec.json.schema(Family)


def merge(families: list[Family]) -> Family:
    """All files as one; raises `InputError` for names that are defined twice or nowhere."""
    merged: dict[str, object] = {"title": "reference population"}
    codes: dict[str, str] = {}
    for family in families:
        for code, display in family.codes.items():
            if codes.setdefault(code, display) != display:
                raise InputError(f"{family.title}: code {code} has two displays, `{codes[code]}` and `{display}`")
    for field in Family.__struct_fields__:
        values = [getattr(family, field) for family in families]
        if isinstance(values[0], list):
            merged[field] = [item for value in values for item in value]
        elif field in ("wellness", "demography"):
            merged[field] = next((value for value in values if value is not None), None)
    whole = Family(**{**merged, "codes": codes})  # type: ignore[arg-type]
    check(whole)
    return whole


def check(family: Family) -> None:
    """Raise `InputError` with every name that is used but not defined, or defined twice."""
    problems = [*_duplicates(family), *_unknown_names(family), *_bad_curves(family)]
    if problems:
        raise InputError(f"{family.title}: {'; '.join(problems[:5])}", hint=f"{len(problems)} problems in all")


def states(family: Family) -> list[str]:
    """The states that transitions set, in order of first mention."""
    return list(dict.fromkeys(name for item in family.transition for name in (item.sets, *item.also_sets) if name))


def attributes(family: Family) -> list[str]:
    """The yes/no attributes of people: drawn ones and those of race groups."""
    groups = family.demography.groups if family.demography else []
    named = [item.name for item in family.attribute] + [group.attribute for group in groups if group.attribute]
    return list(dict.fromkeys(named))


def curves(family: Family) -> list[tuple[str, AgeCurve]]:
    """Every age curve with the name of what it belongs to."""
    found = [(item.name, item.rate) for item in family.transition]
    found += [(item.name, item.fatality) for item in family.transition if item.fatality]
    found += [(item.name, item.level) for item in family.measurement if item.level]
    found += [(item.name, item.wellness_per_visit) for item in family.panel if item.wellness_per_visit]
    return found


def _duplicates(family: Family) -> list[str]:
    problems = []
    for field in ("transition", "measurement", "panel", "trait", "attribute", "screening"):
        names = [item.name for item in getattr(family, field)]
        problems += [f"{field} `{name}` is defined twice" for name in sorted({n for n in names if names.count(n) > 1})]
    return problems


def _unknown_names(family: Family) -> list[str]:
    known_states = set(states(family))
    cleared = [(item.name, name, set(item.requires)) for item in family.transition for name in item.clears]
    known_covariates = known_states | set(attributes(family)) | {item.name for item in family.trait}
    transitions = {item.name for item in family.transition}
    measurements = {item.name for item in family.measurement}
    panels = {item.name for item in family.panel}
    used: list[tuple[str, str, set[str]]] = cleared
    for transition in family.transition:
        used += [(transition.name, name, known_states) for name in transition.requires + transition.also_sets]
        used += [(transition.name, name, known_covariates) for name in transition.excludes]
        used += [(transition.name, factor.covariate, known_covariates) for factor in transition.factors]
    for encounter in family.encounter:
        used.append((f"encounter on {encounter.on}", encounter.on, transitions))
        used += [(f"encounter on {encounter.on}", name, panels) for name in encounter.panels]
        used += [(f"encounter on {encounter.on}", shift.measurement, measurements) for shift in encounter.shifts]
        ends = [diagnosis.state for diagnosis in encounter.diagnoses if diagnosis.state]
        used += [(f"encounter on {encounter.on}", name, known_states) for name in ends]
    for follow_up in family.follow_up:
        used.append(("follow_up", follow_up.state, known_states))
        used += [(f"follow_up of {follow_up.state}", item.panel, panels) for item in follow_up.panels]
    used += [("vital_signs", item.panel, panels) for item in family.vital_signs]
    used += [("treatment", item.state, known_states) for item in family.treatment]
    used += [(f"panel {item.name}", name, measurements) for item in family.panel for name in item.members]
    for measurement in family.measurement:
        used += [(measurement.name, effect.state, known_states) for effect in measurement.effects]
    for code in emitted_codes(family):
        used.append(("codes", code, set(family.codes)))
    return [f"{where} names `{name}`, which nothing defines" for where, name, known in used if name not in known]


def emitted_codes(family: Family) -> list[str]:
    """Every code that an event may carry, as `SYSTEM//CODE` without its kind."""
    found: list[str | None] = [item.code for item in family.measurement]
    found += [item.code for item in family.panel]
    found += [item.code for item in family.vaccine]
    for encounter in family.encounter:
        found += [encounter.visit_type, encounter.reason, *(item.code for item in encounter.diagnoses)]
        products = (
            encounter.procedures,
            encounter.medications,
            encounter.one_of,
            encounter.allergies,
            encounter.care_plans,
        )
        found += [code for group in products for item in group for code in (item.code, item.text)]
    for follow_up in family.follow_up:
        found += [follow_up.reason, *(item.code for item in follow_up.procedures)]
    found += [item.code for treatment in family.treatment for item in treatment.products]
    found += [item.code for screening in family.screening for item in screening.procedures]
    found += [screening.visit_type for screening in family.screening]
    return sorted({code for code in found if code})


def _bad_curves(family: Family) -> list[str]:
    problems = []
    for name, curve in curves(family):
        sexes = [curve.both] if curve.both else [curve.male, curve.female]
        if any(len(values) != len(curve.ages) for values in sexes):
            problems.append(f"{name}: a curve has {len(curve.ages)} ages but {[len(v) for v in sexes]} values")
        if sorted(curve.ages) != curve.ages:
            problems.append(f"{name}: ages of a curve do not increase")
        if not all(value >= 0 for values in sexes for value in values):
            problems.append(f"{name}: a curve has a negative value, or one that is no number")
    return problems
