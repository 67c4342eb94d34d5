"""Concepts of OMOP tables to codes: the CONCEPT table, its vocabularies in our names, and the choice for each row."""

from __future__ import annotations

from typing import cast, get_args

import polars as pl

from ehrsim import codes
from ehrsim.importers import cells, tables
from ehrsim.importers.report import ImportReport
from ehrsim.importers.tables import Table

SYSTEM_OF_VOCABULARY = {
    "CPT4": "CPT",
    "ICD9Proc": "ICD9PROC",
}
"""Vocabularies whose OMOP name is not our name of the code system; the others are called the same."""

VISIT_CLASSES = {
    9201: "IMP",
    262: "IMP",
    9202: "AMB",
    9203: "EMER",
    581476: "HH",
    581477: "AMB",
    581478: "FLD",
    581479: "AMB",
    5083: "VR",
    722455: "VR",
    8782: "AMB",
    8717: "IMP",
    8756: "AMB",
    38004193: "AMB",
    38004207: "AMB",
    42898160: "NONAC",
    32037: "ACUTE",
    581385: "OBSENC",
}
"""Standard visit concepts to v3-ActCode encounter classes (OHDSI "Visit" vocabulary; intensive care is acute)."""
UNKNOWN_CLASS = "UNKNOWN"

GENDERS = {8507: "male", 8532: "female", 8521: "other"}
RACES = {
    8657: "1002-5",
    8515: "2028-9",
    8516: "2054-5",
    8557: "2076-8",
    8527: "2106-3",
    8522: "2131-1",
}
ETHNICITIES = {38003563: "2135-2", 38003564: "2186-5"}
OPERATORS = {4171754: "<=", 4171755: ">=", 4171756: "<", 4172704: ">"}

FIRST_LOCAL_CONCEPT = 2_000_000_000
"""The lowest of the concept ids that OMOP leaves to sites. Where the class of such a concept is a kind of event, as in
exports of ehrsim, it is the kind of its events."""

_LOCAL = "OMOP"
"""Local system of concept ids that the CONCEPT table does not know; with the domain appended, of source values."""


def read_concepts(table: Table | None, report: ImportReport) -> pl.DataFrame:
    """The CONCEPT table as (concept_id, system, value, name, kind), a row a concept, without concept 0 ("no match")."""
    schema = {"concept_id": pl.Int64(), **dict.fromkeys(("system", "value", "name", "kind"), pl.String())}
    if table is None:
        report.find("no concept table: codes are the source's own values")
        return pl.DataFrame(schema=schema)
    parts = []
    optional = ["concept_name", "concept_class_id"]
    for batch in tables.rows(table, ["concept_id", "vocabulary_id", "concept_code"], optional, report):
        rows = cells.typed(
            batch,
            {"concept_id": "integer", "vocabulary_id": "text", "concept_code": "text", "concept_class_id": "text"},
            report,
            table.name,
            required=("concept_id", "vocabulary_id", "concept_code"),
        ).filter(pl.col("concept_id") != 0)
        system = pl.col("vocabulary_id").replace(SYSTEM_OF_VOCABULARY).str.replace_all(r"[^A-Za-z0-9._-]+", "_")
        name = pl.col("concept_name").cast(pl.String)
        is_kind = pl.col("concept_class_id").is_in(get_args(codes.Kind))
        kind = pl.when((pl.col("concept_id") >= FIRST_LOCAL_CONCEPT) & is_kind).then("concept_class_id")
        parts.append(rows.select("concept_id", system.alias("system"), value="concept_code", name=name, kind=kind))
    concepts = pl.concat(parts).cast(schema)  # type: ignore[arg-type]
    return cells.first_of_each(concepts, "concept_id", report, table.name)


def look_up(rows: pl.DataFrame, column: str, concepts: pl.DataFrame, prefix: str) -> pl.DataFrame:
    """`rows` with system, value, name and kind (after `prefix`) of the concept in `column`; null where unknown."""
    asked = concepts.join(rows.select(concept_id=pl.col(column)).unique(), on="concept_id", how="semi")
    renamed = asked.rename({name: f"{prefix}{name}" for name in ("system", "value", "name", "kind")})
    return rows.join(renamed, left_on=column, right_on="concept_id", how="left", maintain_order="left")


def coded(rows: pl.DataFrame, kind: codes.Kind) -> pl.Expr:
    """The code for each row of (system, value, kind), of `kind` where the row has none of its own.

    Vaccines (CVX) stay immunizations whichever table they stand in.
    """
    pairs = rows.select("system", "kind").unique()
    prefixes = [codes.join(_kind(system, own, kind), system, "") for system, own in pairs.iter_rows()]
    keys = pl.concat_str("system", pl.col("kind").fill_null(""), separator="\n")
    known = pairs.select(keys).to_series()
    return keys.replace_strict(known, pl.Series(prefixes, dtype=pl.String), return_dtype=pl.String) + pl.col("value")


def _kind(system: str, own: str | None, usual: codes.Kind) -> codes.Kind:
    if own is not None:
        return cast(codes.Kind, own)
    return "immunization" if system == "CVX" else usual


def choose_codes(
    rows: pl.DataFrame, domain: str, kind: codes.Kind, concepts: pl.DataFrame, report: ImportReport, source: str
) -> pl.DataFrame:
    """Add `code` and `description` to the rows of a table whose concept columns start with `domain`.

    The standard concept is taken; where there is none, the source concept, then the source value in a local system,
    then the bare concept id. What is not standard is counted; rows with nothing at all are skipped and counted.
    """
    rows = look_up(rows, f"{domain}_concept_id", concepts, "standard_")
    rows = look_up(rows, f"{domain}_source_concept_id", concepts, "source_")
    local, bare = pl.col(f"{domain}_source_value"), pl.col(f"{domain}_concept_id")
    has_standard, has_source = pl.col("standard_value").is_not_null(), pl.col("source_value").is_not_null()
    system = (
        pl.when(has_standard)
        .then("standard_system")
        .when(has_source)
        .then("source_system")
        .when(local.is_not_null())
        .then(pl.lit(f"{_LOCAL}_{domain.upper()}"))
        .when(bare != 0)
        .then(pl.lit(_LOCAL))
    )
    value = pl.coalesce("standard_value", "source_value", local, bare.cast(pl.String))
    name = pl.when(has_standard).then("standard_name").when(has_source).then("source_name")
    own_kind = pl.when(~has_standard & has_source).then("source_kind")
    rows = rows.with_columns(system=system, value=value, description=name, kind=own_kind)
    rows = cells.keep(rows, pl.col("system").is_not_null(), f"{source}: no concept and no source value", report)
    _count_choices(rows, domain, report, source)
    return rows.with_columns(code=coded(rows, kind))


def _count_choices(rows: pl.DataFrame, domain: str, report: ImportReport, source: str) -> None:
    standard, known = rows["standard_value"].is_not_null(), rows["source_value"].is_not_null()
    local = rows[f"{domain}_source_value"].is_not_null()
    choices = {
        "source concept": ~standard & known,
        "source value": ~standard & ~known & local,
        "bare concept id": ~standard & ~known & ~local,
    }
    for choice, mask in choices.items():
        if mask.any():
            code = rows.filter(mask).select("system", "value").row(0)
            reason = f"{source}: {choice} used, standard concept is 0 or not in the concept table"
            report.change(reason, int(mask.sum()), "//".join(code))
