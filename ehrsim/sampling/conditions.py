"""Conditions on the patients to draw: learned conditioning makes them likely, exact checking makes them certain."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import msgspec
import numpy as np

from ehrsim import codes
from ehrsim.batch import Sizes
from ehrsim.errors import InputError, UsageError
from ehrsim.models.embeddings import OLDEST
from ehrsim.sampling.slots import Tables
from ehrsim.visits.packing import CONTEXT_CODES
from ehrsim.visits.scales import Scales
from ehrsim.vocabulary import Vocabulary

_OFFERS = 512


class Conditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every generated patient must satisfy."""

    sex: str | None = None
    """`female` or `male`: any that the training data has; like `race` and `ethnicity` by code or by display."""
    race: str | None = None
    ethnicity: str | None = None
    age: tuple[float, float] | None = None
    """Age in years at the end of the record, from the first up to but excluding the second."""
    alive: bool | None = None
    """True: alive at the end of the record; False: deceased."""
    required: tuple[str, ...] = ()
    """Codes that must occur: a code, a parent of codes, or a prefix ending in `*`; any of a value set, which is
    alternatives with `|` between them, or `@FILE` with one a line."""
    excluded: tuple[str, ...] = ()
    """Codes that must not occur, of a value set none."""

    def statics(self) -> dict[str, str]:
        """The static facts asked for, by kind."""
        asked = {"sex": self.sex, "race": self.race, "ethnicity": self.ethnicity}
        return {kind: wanted for kind, wanted in asked.items() if wanted is not None}


def tables_for(conditions: Conditions, vocabulary: Vocabulary, scales: Scales, sizes: Sizes) -> Tables:
    """The device tables of a run under conditions; raises `UsageError` where they name what the run does not know."""
    profiles, weight = _profiles(conditions, vocabulary, scales)
    required = [_alternatives(vocabulary, code) for code in conditions.required]
    mask = np.zeros((len(required), vocabulary.size), bool)
    for row, indices in enumerate(required):
        mask[row, indices] = True
    excluded = np.zeros(vocabulary.size, bool)
    for code in conditions.excluded:
        excluded[_alternatives(vocabulary, code)] = True
    offered, offer_weight = _offers(required, scales, sizes)
    low, high = conditions.age or (-np.inf, np.inf)
    if not low < high:
        raise UsageError(f"empty age range {low}:{high}", hint="write --age 40:60 for 40 up to 60")
    return Tables(
        step_seconds=jnp.float32(scales.step_seconds),
        gap_knots=jnp.asarray(scales.gap.knots, jnp.float32),
        landing_knots=jnp.asarray(scales.landing.knots, jnp.float32),
        long_gap=jnp.int32(scales.long_gap),
        first_gap_knots=jnp.asarray(scales.first_gap.knots, jnp.float32),
        first_landing_knots=jnp.asarray(scales.first_landing.knots, jnp.float32),
        origin_knots=jnp.asarray(scales.origin.knots, jnp.float32),
        horizon=jnp.int32(scales.horizon),
        births_known=jnp.asarray(scales.births_known),
        ends_known=jnp.asarray(scales.ends_known),
        valued=jnp.asarray(scales.values.known),
        ended=jnp.asarray(scales.durations.known),
        profiles=jnp.asarray(profiles, jnp.int32),
        profile_weight=jnp.asarray(np.cumsum(weight) / weight.sum(), jnp.float32),
        offered=jnp.asarray(offered, jnp.int32),
        offer_weight=jnp.asarray(offer_weight, jnp.float32),
        outcome=jnp.int32(0 if conditions.alive is None else 1 if conditions.alive else 2),
        required=jnp.asarray(mask),
        excluded=jnp.asarray(excluded),
        age_range=jnp.asarray([low, high], jnp.float32),
        ages=jnp.asarray(np.clip([low, high], 0, OLDEST) if conditions.age else [np.nan, np.nan], jnp.float32),
    )


def _profiles(conditions: Conditions, vocabulary: Vocabulary, scales: Scales) -> tuple[np.ndarray, np.ndarray]:
    """The sets of statics to draw from: all, or those with the sex, race and ethnicity asked for."""
    rows = np.ones(len(scales.profiles), bool)
    for kind, wanted in conditions.statics().items():
        index = _static(vocabulary, kind, wanted)
        having = (scales.profiles == index).any(1)
        if not (rows & having).any():
            raise UsageError(
                f"no patients of {kind} `{wanted}` in the training data who are all else that is asked for"
            )
        rows &= having
    return scales.profiles[rows], scales.profile_shares[rows]


def _static(vocabulary: Vocabulary, kind: str, wanted: str) -> int:
    """The index of the static fact of a kind (sex, race, ethnicity) with a code or a display."""
    system = f"{_SYSTEMS[kind]}//"
    known: dict[str, str] = {}
    for position, entry in enumerate(vocabulary.statics, start=1):
        if entry.code.startswith(system):
            value = entry.code.removeprefix(system)
            display = vocabulary.descriptions.get(entry.code) or _DISPLAYS.get(value) or value
            known[value] = display
            if wanted.lower() in (value.lower(), display.lower()):
                return position
    found = ", ".join(value if value == display else f"{value} ({display})" for value, display in sorted(known.items()))
    raise UsageError(f"no patients of {kind} `{wanted}` in the training data", hint=f"known: {found or 'none'}")


_DISPLAYS = {**codes.RACES, **codes.ETHNICITIES}
_SYSTEMS = {"sex": "GENDER", "race": "RACE", "ethnicity": "ETHNICITY"}


def _alternatives(vocabulary: Vocabulary, wanted: str) -> np.ndarray:
    """Indices of the codes of a value set: alternatives with `|` between them, or `@FILE` with one a line."""
    patterns = wanted.split("|")
    if wanted.startswith("@"):
        path = Path(wanted[1:])
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the value set {path} cannot be read: {error}") from error
        patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    # Of a value set only some codes need be known; a code by itself must be.
    found = [
        _matching(vocabulary, pattern) if len(patterns) == 1 else vocabulary.matching(pattern) for pattern in patterns
    ]
    indices = np.unique(np.concatenate([np.zeros(0, np.int64), *found]))
    if not len(indices):
        raise UsageError(
            f"no code of `{wanted}` is in the vocabulary of the run", hint="list its codes with ehrsim inspect RUN"
        )
    return indices


def _matching(vocabulary: Vocabulary, pattern: str) -> np.ndarray:
    indices = vocabulary.matching(pattern)
    if not len(indices):
        raise UsageError(
            f"code `{pattern}` is not in the vocabulary of the run",
            hint="list its codes with ehrsim inspect RUN; a prefix ends in *",
        )
    return indices


def _offers(required: list[np.ndarray], scales: Scales, sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Rows of context codes, one code for each requirement, in proportion to how many patients have them.

    Who is to have a complication of a disease has the disease before: that alone is asked for.
    """
    if not required:
        return np.zeros((1, CONTEXT_CODES), np.int32), np.ones(1)
    rng = np.random.Generator(np.random.Philox(key=0))
    columns = []
    for indices in required[:CONTEXT_CODES]:
        share = (scales.code_patients[indices] + 1e-9) * ~_led_to(indices, scales, sizes)
        columns.append(rng.choice(indices, size=_OFFERS, p=share / share.sum()))
    offered = np.zeros((_OFFERS, CONTEXT_CODES), np.int32)
    offered[:, : len(columns)] = np.stack(columns, axis=1)
    return offered, np.arange(1, _OFFERS + 1) / _OFFERS


def _led_to(indices: np.ndarray, scales: Scales, sizes: Sizes) -> np.ndarray:
    """For each code of a set, whether a commoner one of the set leads to it."""
    within, patients = set(indices.tolist()), scales.code_patients
    led = set()
    for code, before, weight, _ in sizes.precursors:
        of_class = before - sizes.vocabulary
        leading = (before,) if of_class < 0 else sizes.classes[of_class]
        if weight > 0 and any(other in within and patients[other] > patients[code] for other in leading):
            led.add(code)
    return np.isin(indices, list(led))
