"""What a de-identification keeps and how: the policy, built in or read from a TOML file, and the key behind it.

    min_patients = 20

    [times]
    mode = "shift"
    window_days = 182
    weekday = true

    [allow]
    answers = ["pending", "sent out"]
    [allow.systems]
    MIMIC_DRUG = "[A-Za-z][A-Za-z ]{2,40}"

A file states only what differs from the default. Its JSON Schema is `schemas/deidentification-policy.schema.json`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from ehrsim.errors import InputError

SAFE_HARBOR = "safe-harbor"
"""The name of the policy that is built in: every field at its default."""
SHORTEST_KEY = 16
_KEY_BYTES = 32

Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Times(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How times change. Within a patient the order of events and the gaps between them stay as they are."""

    mode: Literal["relative", "shift", "keep"] = "relative"
    """`relative`: the first event comes to a random day of its year, all else follows. `shift`: a random whole number
    of days for each patient. `keep`: dates stay, which only a limited data set may."""
    years: Annotated[int, msgspec.Meta(ge=0, le=50)] = 1
    """`relative`: the first event comes to a random day of these many years around it; 0: of 2000, for everybody."""
    window_days: Annotated[int, msgspec.Meta(ge=14, le=36_500)] = 365
    """`shift`: the most days either way."""
    weekday: bool = False
    """Keep the day of the week, for patterns of working days."""
    whole_years: bool = True
    """Put the birth so that the age at the first event is whole years (whole months under two years)."""
    hide_common_end: bool = True
    """End follow-up up to a year early where many records end on one day: who knows that day could undo the shift."""


class Allow(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What may be kept beyond the built-in lists."""

    systems: dict[str, str] = {}
    """Code systems, each with a regular expression for the whole of its codes."""
    answers: list[str] = []
    """Texts, whatever their case."""
    patterns: list[str] = []
    """Regular expressions for whole texts."""
    units: list[str] = []


class Deny(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What is dropped although the lists hold it."""

    codes: list[str] = []
    systems: list[str] = []
    answers: list[str] = []


class Risk(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What the report on the risk of re-identification asks."""

    k: Annotated[int, msgspec.Meta(ge=2)] = 11
    """The size under which a group of patients who look alike is called small."""
    known_codes: Annotated[int, msgspec.Meta(ge=0, le=6)] = 3
    """L of LKC-privacy: the most codes that an attacker is taken to know of a patient."""
    confidence: Share = 0.5
    """C of LKC-privacy: the share of a group with a sensitive code over which the code is as good as told."""
    sensitive: tuple[str, ...] = ("ICD10CM//F", "ICD10CM//B20", "ICD10CM//Z21", "ICD10CM//O04", "ICD9CM//042")
    """What sensitive codes begin with."""


class Policy(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A de-identification: its thresholds, its treatment of times, codes, texts and places, and its report."""

    name: str = SAFE_HARBOR
    min_patients: Annotated[int, msgspec.Meta(ge=1)] = 11
    """Codes and answers of fewer patients are rolled up to a parent that enough have, or dropped."""
    other_codes: Literal["drop", "hash"] = "drop"
    """What becomes of codes of systems that are not allowed: nothing, or a keyed hash without a display."""
    descriptions: Literal["none", "shared"] = "none"
    """`shared`: keep what the source calls an allowed code, which only trusted vocabularies deserve."""
    displays: str | None = None
    """A CSV or Parquet table (code, description) that you vouch for, relative to the policy file."""
    geography: Literal["drop", "zip3"] = "drop"
    key_file: str | None = None
    """A file with the key of ids and shifts, relative to the policy file; without one, and without a seed, it is drawn
    for the import and forgotten."""
    times: Times = Times()
    allow: Allow = Allow()
    deny: Deny = Deny()
    risk: Risk = Risk()

    @property
    def basis(self) -> str:
        """What the treatment of dates amounts to under 45 CFR 164.514."""
        return {
            "relative": "dates but for the year are random, as Safe Harbor asks (45 CFR 164.514(b)(2))",
            "shift": "dates are shifted, which is not Safe Harbor: an expert must determine the risk (164.514(b)(1))",
            "keep": "dates are kept: at best a limited data set under an agreement (164.514(e))",
        }[self.times.mode]


def load_policy(source: str | Path | Policy | None) -> Policy:
    """The policy of a name (`safe-harbor`), of a TOML file, or as given; raises `InputError` naming what is wrong."""
    if isinstance(source, Policy):
        return source
    if source is None or str(source) == SAFE_HARBOR:
        return Policy()
    path = Path(source)
    try:
        policy = msgspec.toml.decode(path.read_bytes(), type=Policy)
    except OSError as error:
        hint = f"name a TOML file, or {SAFE_HARBOR}"
        raise InputError(f"cannot read the policy {path}: {error.strerror}", hint=hint) from error
    except msgspec.ValidationError as error:
        hint = "see schemas/deidentification-policy.schema.json"
        raise InputError(f"{path}: {str(error).replace('`$.', '`')}", hint=hint) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error
    for key, pattern in [*policy.allow.systems.items(), *(("patterns", pattern) for pattern in policy.allow.patterns)]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(f"{path}: allow: `{key}` is no regular expression: {error}") from error
    return _beside(policy, path)


def _beside(policy: Policy, path: Path) -> Policy:
    """The policy with the files it names found from its own place."""
    found: dict[str, Any] = {
        name: str(path.parent / value)
        for name in ("displays", "key_file")
        if (value := getattr(policy, name)) is not None
    }
    return msgspec.structs.replace(policy, **found)


def key_of(policy: Policy, seed: int | str | None) -> bytes:
    """The 32-byte key of an import: from the seed, else from the key file, else drawn from the system's randomness.

    Who has the key can tell whose record is whose, so a seed must be kept as secret as the source.
    """
    if seed is not None:
        return _hashed(str(seed).encode())
    if policy.key_file is None:
        return secrets.token_bytes(_KEY_BYTES)
    try:
        material = Path(policy.key_file).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the key file {policy.key_file}: {error.strerror}") from error
    if len(material) < SHORTEST_KEY:
        hint = "make one with `head -c 32 /dev/urandom`"
        raise InputError(f"the key file {policy.key_file} is shorter than {SHORTEST_KEY} bytes", hint=hint)
    return _hashed(material)


def _hashed(material: bytes) -> bytes:
    return hashlib.blake2b(material, digest_size=_KEY_BYTES, person=b"ehrsim-deid").digest()
