"""Synthea CSV: the tables its `exporter.csv.export` writes, of any version, in a folder or in its `csv` subfolder.

Ids become numbers by `ehrsim.events.stable_id`; times, which Synthea writes in UTC, are taken as wall clock. Codes keep
the system Synthea means (SNOMED, LOINC, RxNorm, CVX, DICOM modality), or the one in a SYSTEM column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

from ehrsim import codes
from ehrsim.errors import InputError
from ehrsim.importers import cells, people, tables
from ehrsim.importers.cells import CellType
from ehrsim.importers.report import ImportReport
from ehrsim.importers.tables import Table

VISIT_CLASSES = {
    "ambulatory": "AMB",
    "outpatient": "AMB",
    "wellness": "AMB",
    "urgentcare": "AMB",
    "emergency": "EMER",
    "inpatient": "IMP",
    "hospice": "HH",
    "home": "HH",
    "virtual": "VR",
    "snf": "NONAC",
}
"""Encounter classes to v3-ActCode; the encounter's own code tells wellness from other ambulatory visits."""

SYSTEM_NAMES = {
    "SNOMED-CT": "SNOMED",
    "http://snomed.info/sct": "SNOMED",
    "RxNorm": "RxNorm",
    "http://www.nlm.nih.gov/research/umls/rxnorm": "RxNorm",
    "LOINC": "LOINC",
    "http://loinc.org": "LOINC",
}
LOCAL = "SYNTHEA"
"""System of Synthea's own measures (QALY, DALY, QOLS)."""
_LOINC_SHAPE = r"^\d{1,7}-\d$"
_STATICS = (
    ("gender", "GENDER", people.GENDERS),
    ("race", "RACE", people.RACES),
    ("ethnicity", "ETHNICITY", people.ETHNICITIES),
    ("marital", "MARITAL", people.MARITAL_STATUSES),
)


def recognises(source: Path) -> bool:
    """Whether `source` is a folder with the patients and encounters tables of Synthea, or has such a `csv` folder."""
    return any({"patients", "encounters"} <= tables.table_names(folder) for folder in (source, source / "csv"))


def read(source: Path, report: ImportReport) -> Iterator[pl.DataFrame]:
    """Yield the events of a Synthea export, table by table in batches.

    Raises `InputError` without a patients table, for a table without a required column and for an unreadable file.
    """
    found = tables.find_tables([source])
    if "patients" not in found:
        found = tables.find_tables([source / "csv"])
    if "patients" not in found:
        raise InputError(f"{source} holds no patients table", hint="expected the CSV files of a Synthea export")
    tables.report_unused(found, {"patients", *_READERS}, report)
    known, statics = _patients(found["patients"], report)
    yield statics
    for name, read_table in _READERS.items():
        if name in found:
            yield from read_table(found[name], known, report)


def _patients(table: Table, report: ImportReport) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(patient, subject_id) of everybody, and their births, deaths and static facts."""
    optional = ["deathdate", *(column for column, _, _ in _STATICS)]
    frame = tables.whole(table, ["id", "birthdate"], optional, report)
    types: dict[str, CellType] = {"id": "text", "deathdate": "time", "birthdate": "time"}
    types |= {column: "text" for column, _, _ in _STATICS}
    frame = cells.typed(frame, types, report, table.name, required=("id",))
    frame = cells.first_of_each(frame, "id", report, table.name)
    frame = frame.with_columns(cells.identifiers(frame["id"]).alias("subject_id"))
    report.find("patients: no usable birthdate", frame["birthdate"].null_count())
    parts = [
        frame.select("subject_id", time=column, code=pl.lit(code)).drop_nulls("time")
        for column, code in (("birthdate", codes.BIRTH), ("deathdate", codes.DEATH))
    ]
    parts += [people.static(frame, prefix, people.word_codes(pl.col(name), words)) for name, prefix, words in _STATICS]
    return frame.select(patient="id", subject_id="subject_id"), pl.concat(parts)


def _rows(
    table: Table,
    known: pl.DataFrame,
    report: ImportReport,
    *,
    start: str = "start",
    required: tuple[str, ...] = ("code",),
    optional: tuple[str, ...] = (),
) -> Iterator[pl.DataFrame]:
    """Batches of a table of known patients with `subject_id`, `time`, `end_time` and `visit_id` in their types."""
    header = {name.lower() for name in tables.columns(table.path)}
    start = start if start in header else ("date" if "date" in header else start)
    visit = "id" if table.name == "encounters" else "encounter"
    texts = [*required, "description", *optional]
    for batch in tables.rows(table, [start, "patient", *required], ["stop", visit, "description", *optional], report):
        types: dict[str, CellType] = {start: "time", "stop": "time", visit: "identifier", "patient": "text"}
        types |= dict.fromkeys(texts, "text")
        frame = cells.typed(batch, types, report, table.name, required=(start, "patient", *required))
        frame = frame.join(known, on="patient", how="left", maintain_order="left")
        unknown = f"{table.name}: patient not in the patients table"
        frame = cells.keep(frame, pl.col("subject_id").is_not_null(), unknown, report)
        yield frame.rename({start: "time", "stop": "end_time", visit: "visit_id"})


def _events(frame: pl.DataFrame, code: pl.Expr, **columns: pl.Expr) -> pl.DataFrame:
    return frame.select("subject_id", "time", "visit_id", "description", code=code, **columns)


def _prefixed(kind: codes.Kind, system: str, column: str = "code") -> pl.Expr:
    return pl.lit(codes.join(kind, system, "")) + pl.col(column)


def _by_system(kind: codes.Kind, default: str) -> pl.Expr:
    """The code of a row in the system its SYSTEM column names, in `default` where there is none."""
    named = pl.col("system").replace(SYSTEM_NAMES).fill_null(default).str.replace_all(r"[^A-Za-z0-9._-]+", "_")
    known = {name: codes.join(kind, name, "") for name in (default, *SYSTEM_NAMES.values())}
    # A system that Synthea has not used so far is local, and its codes need the kind before it.
    prefix = named.replace_strict(known, default=pl.lit(f"{codes.PREFIX_OF[kind]}//") + named + "//")
    return prefix + pl.col("code")


def _encounters(table: Table, known: pl.DataFrame, report: ImportReport) -> Iterator[pl.DataFrame]:
    """Start, end, type and reason of each encounter."""
    optional = ("encounterclass", "reasoncode", "reasondescription")
    for rows in _rows(table, known, report, optional=optional):
        identified = cells.keep(rows, pl.col("visit_id").is_not_null(), "encounters: no id", report)
        frame = identified.with_columns(visit_class=_visit_class(identified["encounterclass"], report))
        yield _events(frame, pl.lit("VISIT_START//") + pl.col("visit_class")).drop("description")
        yield _events(frame, _prefixed("visit_type", "SNOMED"))
        reasoned = frame.drop_nulls("reasoncode").with_columns(description="reasondescription")
        yield _events(reasoned, _prefixed("reason", "SNOMED", "reasoncode"))
        report.find("encounters: no end", frame["end_time"].null_count())
        ended = frame.drop_nulls("end_time")
        backwards = "encounters: end before start, no end event"
        ended = cells.keep(ended, pl.col("end_time") >= pl.col("time"), backwards, report)
        ends = _events(ended.with_columns(time="end_time"), pl.lit("VISIT_END//") + pl.col("visit_class"))
        yield ends.drop("description")


def _visit_class(words: pl.Series, report: ImportReport) -> pl.Series:
    classes = words.str.to_lowercase().replace_strict(VISIT_CLASSES, default=None, return_dtype=pl.String)
    unknown = classes.is_null()
    if unknown.any():
        report.find("encounters: no known class, kept as it is", int(unknown.sum()), words.filter(unknown)[0])
    return classes.zip_with(~unknown, words.str.to_uppercase()).fill_null("UNKNOWN")


def _observations(table: Table, known: pl.DataFrame, report: ImportReport) -> Iterator[pl.DataFrame]:
    for frame in _rows(table, known, report, start="date", optional=("value", "units", "type")):
        is_text = pl.col("type").str.to_lowercase().is_in(["text", "coded"])
        number = pl.col("value").cast(pl.Float64, strict=False)
        wrong = frame.filter(~is_text & number.is_null() & pl.col("value").is_not_null())
        if wrong.height:
            report.change("observations: numeric value is not a number, kept as text", wrong.height, wrong["value"][0])
        numeric = pl.when(is_text.not_().fill_null(True)).then(number)
        is_loinc = pl.col("code").str.contains(_LOINC_SHAPE)
        code = pl.when(is_loinc).then(_prefixed("observation", "LOINC")).otherwise(_prefixed("observation", LOCAL))
        unit = pl.when(numeric.is_not_null()).then("units")
        text = pl.when(numeric.is_null()).then("value")
        yield _events(frame, code, numeric_value=numeric, text_value=text, unit=unit)


def _allergies(table: Table, known: pl.DataFrame, report: ImportReport) -> Iterator[pl.DataFrame]:
    """Allergies with their first reaction as the answer."""
    for frame in _rows(table, known, report, optional=("system", "reaction1", "reaction2")):
        report.find("allergies: second reaction not kept", frame["reaction2"].count())
        reaction = _prefixed("condition", "SNOMED", "reaction1")
        yield _events(frame, _by_system("allergy", "SNOMED"), text_value=reaction, end_time=pl.col("end_time"))


def _supplies(table: Table, known: pl.DataFrame, report: ImportReport) -> Iterator[pl.DataFrame]:
    """Supplies as observations of their quantity."""
    for frame in _rows(table, known, report, start="date", optional=("quantity",)):
        counted = cells.typed(frame, {"quantity": "number"}, report, table.name)
        yield _events(counted, _prefixed("observation", "SNOMED"), numeric_value=pl.col("quantity"))


def _imaging_studies(table: Table, known: pl.DataFrame, report: ImportReport) -> Iterator[pl.DataFrame]:
    """Each study once, by its modality; the procedure itself stands in the procedures table."""
    seen = pl.DataFrame(schema={"study": pl.String})
    columns = ("modality_code", "id")
    for frame in _rows(table, known, report, start="date", required=columns, optional=("modality_description",)):
        studies = frame.rename({"id": "study"}).unique("study", keep="first", maintain_order=True)
        studies = studies.join(seen, on="study", how="anti", maintain_order="left")
        report.find("imaging_studies: further images of a study", frame.height - studies.height)
        seen = pl.concat([seen, studies.select("study")])
        described = studies.with_columns(description="modality_description")
        yield _events(described, _prefixed("observation", "DICOM", "modality_code"))


def _intervals(kind: codes.Kind, system: str) -> Callable[[Table, pl.DataFrame, ImportReport], Iterator[pl.DataFrame]]:
    """A reader of a table whose rows are a code with a start and, where it is known, an end."""

    def read_intervals(table: Table, known: pl.DataFrame, report: ImportReport) -> Iterator[pl.DataFrame]:
        for frame in _rows(table, known, report, optional=("system",)):
            yield _events(frame, _by_system(kind, system), end_time=pl.col("end_time"))

    return read_intervals


_READERS: dict[str, Callable[[Table, pl.DataFrame, ImportReport], Iterator[pl.DataFrame]]] = {
    "encounters": _encounters,
    "conditions": _intervals("condition", "SNOMED"),
    "observations": _observations,
    "medications": _intervals("medication", "RxNorm"),
    "procedures": _intervals("procedure", "SNOMED"),
    "immunizations": _intervals("immunization", "CVX"),
    "allergies": _allergies,
    "careplans": _intervals("care_plan", "SNOMED"),
    "devices": _intervals("procedure", "SNOMED"),
    "imaging_studies": _imaging_studies,
    "supplies": _supplies,
}
