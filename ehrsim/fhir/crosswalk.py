"""Crosswalk tables of the user: further codes for what events are coded in, such as SNOMED CT for ICD-10-CM.

A table has a row a pair, `source_code` and `target_code` as events write codes (`ICD10CM//E11.9`,
`SNOMED//44054006`), and may have `target_description`. A kind before the system (`PROCEDURE//SNOMED//…`) says nothing
here: a code means the same in every kind of event. The further code stands beside the original one in the
CodeableConcept; the original is first, and marked as the one that was chosen (`userSelected`), so that an import takes
that. Codes of events are mapped, not coded answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import polars as pl

from ehrsim import codes
from ehrsim.errors import FormatError, InputError
from ehrsim.fhir import profiles
from ehrsim.fhir.fragments import CONTROL, Resource, code_value
from ehrsim.fhir.syntax import is_well_formed

SOURCE, TARGET, DESCRIPTION = "source_code", "target_code", "target_description"
_EXAMPLE = "ICD10CM//E11.9,SNOMED//44054006"
_PRESSURES = frozenset(("8480-6", "8462-4"))
"""Written together in one Observation, whose codes its profile fixes."""
_PANELS = frozenset((profiles.BLOOD_PRESSURE, "8459-0", "76534-7", "35094-2", "55284-4", "85353-1"))
"""LOINC codes that are observed in components only."""

Key = tuple[str, str]


class Target(NamedTuple):
    """A further code."""

    system: str
    value: str
    description: str | None


class Crosswalk(NamedTuple):
    """Further codes by system and value of the original."""

    targets: dict[Key, tuple[Target, ...]]

    def of(self, kind: str, system: str, value: str) -> tuple[Target, ...]:
        """The further codes of an event's code; none for kinds that are no CodeableConcept."""
        if kind in codes.SINGLE_PART_KINDS or kind in ("birth", "death"):
            return ()
        return self.targets.get((system, code_value(value)), ())


NOTHING = Crosswalk({})


def codings(targets: Iterable[Target]) -> list[Resource]:
    """Further codes as FHIR Codings."""
    return [
        {
            "system": codes.uri(one.system),
            "code": one.value,
            **({"display": one.description} if one.description else {}),
        }
        for one in targets
    ]


def read_crosswalks(paths: Iterable[str | Path]) -> Crosswalk:
    """The pairs of some CSV or Parquet files, together.

    Raises `InputError` for a file that cannot be read or is empty, `FormatError` naming file, row and column for one
    that lacks a column, or has an empty cell, a code of an unknown system or one its system cannot have, a pair twice,
    or a second target in one system.
    """
    targets: dict[Key, tuple[Target, ...]] = {}
    for path in map(Path, paths):
        for row, (source, target, description) in enumerate(_pairs(path).iter_rows(), start=2):
            where = f"{path} row {row}"
            key, found = _source(source, where), _target(target, description, where)
            known = targets.get(key, ())
            for other in known:
                if other.system == found.system:
                    again = "given twice" if other.value == found.value else f"also {other.system}//{other.value}"
                    raise FormatError(
                        f"{where}: {SOURCE} `{source}` is {TARGET} `{target}`, {again}",
                        hint="keep one target of each system for a code",
                    )
            targets[key] = (*known, found)
    return Crosswalk(targets)


def _pairs(path: Path) -> pl.DataFrame:
    """Source, target and description of each row, as texts."""
    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except pl.exceptions.NoDataError as error:
        raise InputError(f"{path} is empty", hint=f"write {SOURCE},{TARGET} and a line such as {_EXAMPLE}") from error
    except pl.exceptions.PolarsError as error:
        kind = "Parquet" if path.suffix == ".parquet" else "CSV"
        raise FormatError(f"{path} is not valid {kind}: {error}", hint=f"write lines such as {_EXAMPLE}") from error
    for column in (SOURCE, TARGET):
        if column not in frame.columns:
            raise FormatError(
                f"{path} has no column {column}, only {', '.join(frame.columns)}",
                hint=f"expected {SOURCE}, {TARGET} and, if you like, {DESCRIPTION}",
            )
    if frame.is_empty():
        raise InputError(f"{path} has no rows", hint=f"write lines such as {_EXAMPLE}")
    if DESCRIPTION not in frame.columns:
        frame = frame.with_columns(pl.lit(None, pl.String).alias(DESCRIPTION))
    return frame.select(pl.col(SOURCE, TARGET, DESCRIPTION).cast(pl.String).str.strip_chars())


def _source(code: str | None, where: str) -> Key:
    if not code:
        raise FormatError(f"{where}: {SOURCE} is empty", hint=f"write lines such as {_EXAMPLE}")
    kind, system, value = codes.parse(code)
    if kind in codes.SINGLE_PART_KINDS or kind in ("birth", "death"):
        raise FormatError(f"{where}: {SOURCE} `{code}` is no code that can have another beside it", hint="leave it out")
    if system == "LOINC" and value in _PRESSURES | _PANELS:
        raise FormatError(
            f"{where}: {SOURCE} `{code}` is of blood pressures, whose codes the profile fixes", hint="leave it out"
        )
    return system, code_value(value)


def _target(code: str | None, description: str | None, where: str) -> Target:
    if not code:
        raise FormatError(f"{where}: {TARGET} is empty", hint=f"write lines such as {_EXAMPLE}")
    _, system, value = codes.parse(code)
    value = code_value(value)
    if not codes.is_known_system(system):
        raise FormatError(
            f"{where}: {TARGET} `{code}` is of no known system", hint=f"expected one of {', '.join(codes.SYSTEMS)}"
        )
    if not value or not is_well_formed(system, value):
        raise FormatError(f"{where}: {TARGET} `{code}` cannot be a code of {system}", hint="look for a typing error")
    if system == "LOINC" and value in _PANELS:
        raise FormatError(
            f"{where}: {TARGET} `{code}` is observed in components only", hint="name the code of a component"
        )
    return Target(system, value, CONTROL.sub(" ", description or "").strip() or None)
