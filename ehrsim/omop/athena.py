"""Standard concepts from a vocabulary download (https://athena.ohdsi.org): CONCEPT.csv and CONCEPT_RELATIONSHIP.csv.

A code is found by vocabulary and code, its standard concept by `Maps to`. The files are read in batches, and only what
the events use is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from ehrsim.errors import InputError
from ehrsim.importers import cells, tables
from ehrsim.importers.report import ImportReport
from ehrsim.importers.tables import Table
from ehrsim.omop.concepts import NO_CONCEPT
from ehrsim.omop.definitions import TABLES

_MAPS_TO = "Maps to"
_VERSION_LENGTH = 20


class Target(NamedTuple):
    """What a code is in the vocabularies."""

    source_concept_id: int
    concept_id: int
    """Its standard concept, 0 if it has none."""
    domain: str | None
    """The domain of the standard concept."""


class Mapping(NamedTuple):
    """The codes that the vocabularies know."""

    targets: dict[tuple[str, str], Target]
    concepts: pl.DataFrame
    """The rows of the concept table for all of them."""
    several: int
    """How many have more than one standard concept; the one with the lowest id is taken."""


def mapping(wanted: Sequence[tuple[str, str]], folder: Path | None) -> Mapping:
    """Look up (vocabulary, code) pairs in the files of `folder`; without one, nothing is known.

    Raises `InputError` where the folder lacks one of the two tables or a column of theirs.
    """
    if folder is None:
        return Mapping({}, pl.DataFrame(schema=TABLES["concept"].schema), 0)
    if not folder.is_dir():
        raise InputError(f"vocabulary {folder} is not a folder", hint="name the folder of CONCEPT.csv")
    found = tables.find_tables([folder])
    for name in ("concept", "concept_relationship"):
        if name not in found:
            raise InputError(f"{folder} has no {name.upper()}.csv", hint="unpack a download of athena.ohdsi.org there")
    pairs = pl.DataFrame(list(set(wanted)), schema=["vocabulary_id", "concept_code"], orient="row").cast(pl.String)
    sources = _concepts(found["concept"], pairs, ["vocabulary_id", "concept_code"])
    sources = sources.sort(pl.col("invalid_reason").is_not_null(), "concept_id").unique(
        ["vocabulary_id", "concept_code"], keep="first", maintain_order=True
    )
    links = _links(found["concept_relationship"], sources)
    targets = _concepts(found["concept"], links.select(concept_id="standard_id").unique(), ["concept_id"])
    links = links.join(
        targets.select(standard_id="concept_id", domain="domain_id"), on="standard_id", how="inner"
    ).sort("source_id", "standard_id")
    first = links.unique("source_id", keep="first", maintain_order=True)
    joined = sources.join(first, left_on="concept_id", right_on="source_id", how="left", maintain_order="left")
    rows = joined.select("vocabulary_id", "concept_code", "concept_id", "standard_id", "domain").iter_rows()
    known = {
        (name, code): Target(source, standard or NO_CONCEPT, domain) for name, code, source, standard, domain in rows
    }
    kept = targets.join(first, left_on="concept_id", right_on="standard_id", how="semi")
    several = int((links["source_id"].value_counts()["count"] > 1).sum())
    return Mapping(known, pl.concat([sources, kept]).unique("concept_id", keep="first"), several)


def version(folder: Path) -> str:
    """The version of a download, in at most 20 characters: that of the vocabulary `None` in VOCABULARY.csv."""
    table = tables.find_tables([folder]).get("vocabulary")
    if table is None:
        return "unknown"
    ignored = ImportReport("vocabulary", "omop")
    rows = tables.whole(table, ["vocabulary_id"], ["vocabulary_version"], ignored)
    versions = rows.filter(pl.col("vocabulary_id") == "None")["vocabulary_version"].drop_nulls()
    return str(versions[0])[:_VERSION_LENGTH] if len(versions) else "unknown"


def _concepts(table: Table, wanted: pl.DataFrame, on: list[str]) -> pl.DataFrame:
    """The rows of the concept table that are wanted, typed."""
    schema = TABLES["concept"].schema
    ignored = ImportReport("vocabulary", "omop")
    wanted = wanted.cast(dict.fromkeys(on, pl.String)).unique()
    required = [name for name in schema if name not in ("standard_concept", "invalid_reason")]
    parts = [pl.DataFrame(schema=schema)]
    for batch in tables.rows(table, required, ["standard_concept", "invalid_reason"], ignored):
        texts = batch.with_columns(cells.texts(batch[name]).alias(name) for name in on)
        rows = texts.join(wanted, on=on, how="semi").select(list(schema))
        if rows.height:
            typed = cells.typed(
                rows,
                {"concept_id": "integer", "valid_start_date": "time", "valid_end_date": "time"},
                ignored,
                table.name,
                required=("concept_id",),
            )
            parts.append(typed.cast(schema))  # type: ignore[arg-type]
    return pl.concat(parts)


def _links(table: Table, sources: pl.DataFrame) -> pl.DataFrame:
    """(source_id, standard_id) of the valid `Maps to` relationships of some concepts."""
    ignored = ImportReport("vocabulary", "omop")
    wanted = sources.select(concept_id_1=pl.col("concept_id").cast(pl.Int64)).unique()
    schema = {"source_id": pl.Int32(), "standard_id": pl.Int32()}
    parts = [pl.DataFrame(schema=schema)]
    columns = ["concept_id_1", "concept_id_2", "relationship_id"]
    for batch in tables.rows(table, columns, ["invalid_reason"], ignored):
        rows = batch.filter((pl.col("relationship_id") == _MAPS_TO) & pl.col("invalid_reason").is_null())
        identifiers = dict.fromkeys(columns[:2], "integer")
        rows = cells.typed(rows, identifiers, ignored, table.name, required=columns[:2])  # type: ignore[arg-type]
        rows = rows.join(wanted, on="concept_id_1", how="semi")
        parts.append(rows.select(source_id="concept_id_1", standard_id="concept_id_2").cast(schema))  # type: ignore[arg-type]
    return pl.concat(parts)
