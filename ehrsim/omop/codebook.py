"""What the codes, answers and units of a source become: their tables and concept ids, found before any row is written.

One pass over the source gathers its distinct codes; all that depends on a code is then a small table joined on.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, get_args

import polars as pl

from ehrsim import codes
from ehrsim.events import DESCRIPTION
from ehrsim.groups import Source
from ehrsim.omop import athena
from ehrsim.omop.concepts import (
    FIRST_LOCAL,
    NO_CONCEPT,
    local_ids,
    standard_concepts,
    valid_always,
    vocabulary_of,
)
from ehrsim.table_report import TableReport

SOURCE_VALUE_LENGTH = 50
_NAME_LENGTH = 255
FOLLOW_UP_END = "observation_end"
KINDS = pl.Enum([*get_args(codes.Kind), FOLLOW_UP_END])

TABLE_OF_KIND = {
    "condition": "condition_occurrence",
    "procedure": "procedure_occurrence",
    "medication": "drug_exposure",
    "immunization": "drug_exposure",
    "panel": "measurement",
    **dict.fromkeys(("allergy", "care_plan", "reason", "visit_type", "marital", "language"), "observation"),
}
"""The table of each kind of event; an observation goes by its value, see `ehrsim.omop.facts`."""
_MOVED_BY_DOMAIN = ("condition", "procedure", "medication", "immunization", "panel", "observation")
"""Kinds whose table the domain of their standard concept decides; the others say something about a code, as that it
is the reason of a visit, and stay observations."""
TABLE_OF_DOMAIN = {
    "Condition": "condition_occurrence",
    "Procedure": "procedure_occurrence",
    "Drug": "drug_exposure",
    "Device": "device_exposure",
    "Measurement": "measurement",
    "Observation": "observation",
}
_DOMAIN_OF_TABLE = {table: domain for domain, table in TABLE_OF_DOMAIN.items()}
TABLE = pl.Enum(sorted(TABLE_OF_DOMAIN.values()))
_ANSWER = r"^[A-Za-z0-9]+//\S"


class Codebook(NamedTuple):
    """Everything that depends on a code, an answer or a unit alone."""

    codes: pl.DataFrame
    """(code, kind, table, part, source_value, concept_id, source_concept_id, cut, renamed); `table` is null where the
    event decides, `part` is what follows the prefix of a fact about a person or visit."""
    answers: pl.DataFrame
    """(text_value, answer_id) of texts that are codes of known systems."""
    units: pl.DataFrame
    """(unit, unit_id, unit_source_id)."""
    concepts: pl.DataFrame
    """All rows of the concept table."""


class _Entry(NamedTuple):
    """Something that needs a concept."""

    text: str
    key: str
    """What its local concept id is made of."""
    vocabulary: str
    value: str
    name: str
    domain: str
    concept_class: str


def codebook(source: Source, vocabulary: Path | None, report: TableReport) -> Codebook:
    """The codebook of a source; with the folder of an Athena download, with standard concepts.

    Raises `InputError` where the folder has no usable vocabulary.
    """
    measured, described, answers, units = _survey(source)
    parsed = {code: _parse(code) for code in measured}
    entries = {
        "codes": [_code_entry(code, parsed[code], described.get(code), measured[code]) for code in measured],
        "answers": [_answer_entry(text) for text in answers],
        "units": [_unit_entry(unit) for unit in units],
    }
    everything = [entry for group in entries.values() for entry in group]
    mapping = athena.mapping([(entry.vocabulary, entry.value) for entry in everything], vocabulary)
    local = local_ids(entry.key for entry in everything)
    frames = {}
    for name, group in entries.items():
        frames[name] = _concept_ids(group, local, mapping)
        if vocabulary is not None:
            found = int((frames[name]["concept_id"] != NO_CONCEPT).sum())
            report.mapped[name], report.unmapped[name] = found, len(group) - found
    if mapping.several:
        report.change("code with several standard concepts, one taken", mapping.several)
    used = pl.concat([frame["source_concept_id"] for frame in frames.values()]).unique()
    own = _local_concepts(everything, local).filter(pl.col("concept_id").is_in(used.implode()))
    concepts = pl.concat([standard_concepts(), own, mapping.concepts]).unique("concept_id", keep="first")
    return Codebook(
        _code_table(frames["codes"], parsed),
        frames["answers"].select(text_value="text", answer_id=_standard_or_source()),
        frames["units"].select(unit="text", unit_id="concept_id", unit_source_id="source_concept_id"),
        concepts.sort("concept_id"),
    )


def _survey(source: Source) -> tuple[dict[str, bool], dict[str, str], list[str], list[str]]:
    """The codes (and whether any event of theirs has a number), displays, coded answers and units of a source."""
    found: list[pl.DataFrame] = []
    answers: list[pl.DataFrame] = []
    units: list[pl.DataFrame] = []
    for table in source.tables:
        named = DESCRIPTION in table.collect_schema()
        described = pl.col(DESCRIPTION).drop_nulls().first() if named else pl.lit(None, pl.String).alias(DESCRIPTION)
        numeric = pl.col("numeric_value").is_not_null().any()
        lazy = [
            table.group_by("code").agg(described, measured=numeric),
            table.select(pl.col("text_value").filter(pl.col("text_value").str.contains(_ANSWER)).unique()),
            table.select(pl.col("unit").drop_nulls().unique()),
        ]
        for part, gathered in zip(pl.collect_all(lazy, engine="streaming"), (found, answers, units), strict=True):
            gathered.append(part)
    first = pl.col(DESCRIPTION).drop_nulls().first()
    summed = pl.concat(found).drop_nulls("code").group_by("code").agg(first, pl.col("measured").any()).sort("code")
    measured = dict(summed.select("code", "measured").iter_rows())
    described_codes = {**source.descriptions, **dict(summed.select("code", DESCRIPTION).drop_nulls().iter_rows())}
    texts = [text for text in _distinct(answers) if _is_answer(text)]
    return measured, described_codes, texts, _distinct(units)


def _distinct(parts: list[pl.DataFrame]) -> list[str]:
    values: list[str] = pl.concat(parts).to_series().unique().sort().to_list()
    return values


def _parse(code: str) -> tuple[str, str, str]:
    parsed = codes.parse(code)
    return (FOLLOW_UP_END if code == codes.OBSERVATION_END else parsed.kind, parsed.system, parsed.value)


def _is_answer(text: str) -> bool:
    """Whether a text is `SYSTEM//code` of a known system."""
    _, system, value = codes.parse(text)
    return codes.is_known_system(system) and f"{system}//{value}" == text


def _code_entry(code: str, parsed: tuple[str, str, str], described: str | None, measured: bool) -> _Entry:
    kind, system, value = parsed
    if kind in ("visit_start", "visit_end"):
        return _Entry(code, f"VISIT//{value}", "ehrsim visit", value, described or value, "Visit", "Visit")
    table = TABLE_OF_KIND.get(kind, "measurement" if measured else "observation")
    canonical = codes.join(codes.parse(code).kind, system, value)
    return _Entry(code, canonical, vocabulary_of(system), value, described or value, _DOMAIN_OF_TABLE[table], kind)


def _answer_entry(text: str) -> _Entry:
    kind, system, value = codes.parse(text)
    return _Entry(text, text, vocabulary_of(system), value, value, "Meas Value", kind)


def _unit_entry(unit: str) -> _Entry:
    vocabulary = "UCUM" if codes.looks_like_ucum(unit) else "ehrsim unit"
    return _Entry(unit, f"UNIT//{unit}", vocabulary, unit, unit, "Unit", "Unit")


def _concept_ids(entries: list[_Entry], local: dict[str, int], mapping: athena.Mapping) -> pl.DataFrame:
    """(text, concept_id, source_concept_id, domain_id) of some entries."""
    rows: list[tuple[str, int, int, str | None]] = []
    for entry in entries:
        target = mapping.targets.get((entry.vocabulary, entry.value))
        if target is None:
            rows.append((entry.text, NO_CONCEPT, local[entry.key], None))
        else:
            rows.append((entry.text, target.concept_id, target.source_concept_id, target.domain))
    schema = {"text": pl.String(), "concept_id": pl.Int32(), "source_concept_id": pl.Int32(), "domain_id": pl.String()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _standard_or_source() -> pl.Expr:
    """The standard concept, else the local one: a value has no column for its source concept."""
    return pl.when(pl.col("concept_id") != NO_CONCEPT).then("concept_id").otherwise("source_concept_id")


def _local_concepts(entries: Iterable[_Entry], local: dict[str, int]) -> pl.DataFrame:
    rows = {
        entry.key: {
            "concept_id": local[entry.key],
            "concept_name": entry.name[:_NAME_LENGTH],
            "domain_id": entry.domain,
            "vocabulary_id": entry.vocabulary,
            "concept_class_id": entry.concept_class,
            "standard_concept": None,
            "concept_code": entry.value[:SOURCE_VALUE_LENGTH],
        }
        for entry in entries
    }
    schema = dict.fromkeys(next(iter(rows.values())), pl.String()) if rows else {}
    return valid_always(pl.DataFrame(list(rows.values()), schema={**schema, "concept_id": pl.Int64()}))


def _code_table(ids: pl.DataFrame, parsed: dict[str, tuple[str, str, str]]) -> pl.DataFrame:
    kinds = pl.Series("kind", [parsed[code][0] for code in ids["text"]], dtype=KINDS)
    systems = pl.Series("system", [parsed[code][1] for code in ids["text"]], dtype=pl.String)
    values = pl.Series("part", [parsed[code][2] for code in ids["text"]], dtype=pl.String)
    by_kind = pl.col("kind").cast(pl.String).replace_strict(TABLE_OF_KIND, default=None, return_dtype=pl.String)
    by_domain = pl.col("domain_id").replace_strict(TABLE_OF_DOMAIN, default=None, return_dtype=pl.String)
    moved = pl.when(pl.col("kind").is_in(_MOVED_BY_DOMAIN)).then(by_domain)
    vocabularies = {system: vocabulary_of(system) for system in systems.unique()}
    is_local = pl.col("source_concept_id") >= FIRST_LOCAL
    renamed = pl.col("system").replace_strict(vocabularies, return_dtype=pl.String).str.contains(r"-[0-9a-f]{8}$")
    return ids.with_columns(kinds, systems, values).select(
        "kind",
        "part",
        "concept_id",
        "source_concept_id",
        code="text",
        table=pl.coalesce(moved, by_kind).cast(TABLE),
        source_value=pl.col("text").str.slice(0, SOURCE_VALUE_LENGTH),
        cut=pl.max_horizontal(pl.col("text").str.len_chars(), pl.col("part").str.len_chars()) > SOURCE_VALUE_LENGTH,
        renamed=is_local & renamed & (pl.col("system").str.len_chars() > 20),
    )
