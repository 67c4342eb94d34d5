"""The tables of OMOP CDM 5.4 that an export writes: columns, types, keys; what is written and the DDL both follow them.

A line of a definition is the name of a column, its type and marks: `key` is the primary key, `!` may not be null,
`>table` refers to the primary key of a table. Source: OMOP CDM 5.4 field-level specification
(https://ohdsi.github.io/CommonDataModel/cdm54.html). There all numbers of rows are `integer`, here they are `bigint`,
which holds the ids of any subject; concept ids stay `integer`. `float` is a double.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import polars as pl


class Column(NamedTuple):
    """A column of a table."""

    name: str
    type: str
    """`integer`, `bigint`, `float`, `date`, `timestamp`, `text` or `varchar(N)`."""
    required: bool
    key: bool
    refers_to: str | None
    """The table whose primary key it holds."""

    @property
    def length(self) -> int | None:
        """The most characters it may hold, None for any number."""
        match = re.fullmatch(r"varchar\((\d+)\)", self.type)
        return int(match.group(1)) if match else None

    @property
    def dtype(self) -> pl.DataType:
        """The type of the column in frames."""
        return _DTYPES.get(self.type, pl.String())


class Definition(NamedTuple):
    """A table: its name and columns, in the order of the specification."""

    name: str
    columns: tuple[Column, ...]

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The types of the columns in frames."""
        return {column.name: column.dtype for column in self.columns}

    @property
    def key(self) -> str | None:
        """The primary key, None for a table that has none."""
        return next((column.name for column in self.columns if column.key), None)


_DTYPES: dict[str, pl.DataType] = {
    "integer": pl.Int32(),
    "bigint": pl.Int64(),
    "float": pl.Float64(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us"),
}
_SQL_TYPES = {"float": "double precision"}

_LINES = """
vocabulary
    vocabulary_id                 varchar(20)  key
    vocabulary_name               varchar(255) !
    vocabulary_reference          varchar(255)
    vocabulary_version            varchar(255)
    vocabulary_concept_id         integer      ! >concept
domain
    domain_id                     varchar(20)  key
    domain_name                   varchar(255) !
    domain_concept_id             integer      ! >concept
concept_class
    concept_class_id              varchar(20)  key
    concept_class_name            varchar(255) !
    concept_class_concept_id      integer      ! >concept
concept
    concept_id                    integer      key
    concept_name                  varchar(255) !
    domain_id                     varchar(20)  ! >domain
    vocabulary_id                 varchar(20)  ! >vocabulary
    concept_class_id              varchar(20)  ! >concept_class
    standard_concept              varchar(1)
    concept_code                  varchar(50)  !
    valid_start_date              date         !
    valid_end_date                date         !
    invalid_reason                varchar(1)
cdm_source
    cdm_source_name               varchar(255) !
    cdm_source_abbreviation       varchar(25)  !
    cdm_holder                    varchar(255) !
    source_description            text
    source_documentation_reference varchar(255)
    cdm_etl_reference             varchar(255)
    source_release_date           date         !
    cdm_release_date              date         !
    cdm_version                   varchar(10)
    cdm_version_concept_id        integer      ! >concept
    vocabulary_version            varchar(20)  !
location
    location_id                   bigint       key
    address_1                     varchar(50)
    address_2                     varchar(50)
    city                          varchar(50)
    state                         varchar(2)
    zip                           varchar(9)
    county                        varchar(20)
    location_source_value         varchar(50)
    country_concept_id            integer      >concept
    country_source_value          varchar(80)
    latitude                      float
    longitude                     float
care_site
    care_site_id                  bigint       key
    care_site_name                varchar(255)
    place_of_service_concept_id   integer      >concept
    location_id                   bigint       >location
    care_site_source_value        varchar(50)
    place_of_service_source_value varchar(50)
provider
    provider_id                   bigint       key
    provider_name                 varchar(255)
    npi                           varchar(20)
    dea                           varchar(20)
    specialty_concept_id          integer      >concept
    care_site_id                  bigint       >care_site
    year_of_birth                 integer
    gender_concept_id             integer      >concept
    provider_source_value         varchar(50)
    specialty_source_value        varchar(50)
    specialty_source_concept_id   integer      >concept
    gender_source_value           varchar(50)
    gender_source_concept_id      integer      >concept
person
    person_id                     bigint       key
    gender_concept_id             integer      ! >concept
    year_of_birth                 integer      !
    month_of_birth                integer
    day_of_birth                  integer
    birth_datetime                timestamp
    race_concept_id               integer      ! >concept
    ethnicity_concept_id          integer      ! >concept
    location_id                   bigint       >location
    provider_id                   bigint       >provider
    care_site_id                  bigint       >care_site
    person_source_value           varchar(50)
    gender_source_value           varchar(50)
    gender_source_concept_id      integer      >concept
    race_source_value             varchar(50)
    race_source_concept_id        integer      >concept
    ethnicity_source_value        varchar(50)
    ethnicity_source_concept_id   integer      >concept
observation_period
    observation_period_id         bigint       key
    person_id                     bigint       ! >person
    observation_period_start_date date         !
    observation_period_end_date   date         !
    period_type_concept_id        integer      ! >concept
visit_occurrence
    visit_occurrence_id           bigint       key
    person_id                     bigint       ! >person
    visit_concept_id              integer      ! >concept
    visit_start_date              date         !
    visit_start_datetime          timestamp
    visit_end_date                date         !
    visit_end_datetime            timestamp
    visit_type_concept_id         integer      ! >concept
    provider_id                   bigint       >provider
    care_site_id                  bigint       >care_site
    visit_source_value            varchar(50)
    visit_source_concept_id       integer      >concept
    admitted_from_concept_id      integer      >concept
    admitted_from_source_value    varchar(50)
    discharged_to_concept_id      integer      >concept
    discharged_to_source_value    varchar(50)
    preceding_visit_occurrence_id bigint       >visit_occurrence
condition_occurrence
    condition_occurrence_id       bigint       key
    person_id                     bigint       ! >person
    condition_concept_id          integer      ! >concept
    condition_start_date          date         !
    condition_start_datetime      timestamp
    condition_end_date            date
    condition_end_datetime        timestamp
    condition_type_concept_id     integer      ! >concept
    condition_status_concept_id   integer      >concept
    stop_reason                   varchar(20)
    provider_id                   bigint       >provider
    visit_occurrence_id           bigint       >visit_occurrence
    visit_detail_id               bigint
    condition_source_value        varchar(50)
    condition_source_concept_id   integer      >concept
    condition_status_source_value varchar(50)
drug_exposure
    drug_exposure_id              bigint       key
    person_id                     bigint       ! >person
    drug_concept_id               integer      ! >concept
    drug_exposure_start_date      date         !
    drug_exposure_start_datetime  timestamp
    drug_exposure_end_date        date         !
    drug_exposure_end_datetime    timestamp
    verbatim_end_date             date
    drug_type_concept_id          integer      ! >concept
    stop_reason                   varchar(20)
    refills                       integer
    quantity                      float
    days_supply                   integer
    sig                           text
    route_concept_id              integer      >concept
    lot_number                    varchar(50)
    provider_id                   bigint       >provider
    visit_occurrence_id           bigint       >visit_occurrence
    visit_detail_id               bigint
    drug_source_value             varchar(50)
    drug_source_concept_id        integer      >concept
    route_source_value            varchar(50)
    dose_unit_source_value        varchar(50)
procedure_occurrence
    procedure_occurrence_id       bigint       key
    person_id                     bigint       ! >person
    procedure_concept_id          integer      ! >concept
    procedure_date                date         !
    procedure_datetime            timestamp
    procedure_end_date            date
    procedure_end_datetime        timestamp
    procedure_type_concept_id     integer      ! >concept
    modifier_concept_id           integer      >concept
    quantity                      integer
    provider_id                   bigint       >provider
    visit_occurrence_id           bigint       >visit_occurrence
    visit_detail_id               bigint
    procedure_source_value        varchar(50)
    procedure_source_concept_id   integer      >concept
    modifier_source_value         varchar(50)
device_exposure
    device_exposure_id            bigint       key
    person_id                     bigint       ! >person
    device_concept_id             integer      ! >concept
    device_exposure_start_date    date         !
    device_exposure_start_datetime timestamp
    device_exposure_end_date      date
    device_exposure_end_datetime  timestamp
    device_type_concept_id        integer      ! >concept
    unique_device_id              varchar(255)
    production_id                 varchar(255)
    quantity                      integer
    provider_id                   bigint       >provider
    visit_occurrence_id           bigint       >visit_occurrence
    visit_detail_id               bigint
    device_source_value           varchar(50)
    device_source_concept_id      integer      >concept
    unit_concept_id               integer      >concept
    unit_source_value             varchar(50)
    unit_source_concept_id        integer      >concept
measurement
    measurement_id                bigint       key
    person_id                     bigint       ! >person
    measurement_concept_id        integer      ! >concept
    measurement_date              date         !
    measurement_datetime          timestamp
    measurement_time              varchar(10)
    measurement_type_concept_id   integer      ! >concept
    operator_concept_id           integer      >concept
    value_as_number               float
    value_as_concept_id           integer      >concept
    unit_concept_id               integer      >concept
    range_low                     float
    range_high                    float
    provider_id                   bigint       >provider
    visit_occurrence_id           bigint       >visit_occurrence
    visit_detail_id               bigint
    measurement_source_value      varchar(50)
    measurement_source_concept_id integer      >concept
    unit_source_value             varchar(50)
    unit_source_concept_id        integer      >concept
    value_source_value            varchar(50)
    measurement_event_id          bigint
    meas_event_field_concept_id   integer      >concept
observation
    observation_id                bigint       key
    person_id                     bigint       ! >person
    observation_concept_id        integer      ! >concept
    observation_date              date         !
    observation_datetime          timestamp
    observation_type_concept_id   integer      ! >concept
    value_as_number               float
    value_as_string               varchar(60)
    value_as_concept_id           integer      >concept
    qualifier_concept_id          integer      >concept
    unit_concept_id               integer      >concept
    provider_id                   bigint       >provider
    visit_occurrence_id           bigint       >visit_occurrence
    visit_detail_id               bigint
    observation_source_value      varchar(50)
    observation_source_concept_id integer      >concept
    unit_source_value             varchar(50)
    qualifier_source_value        varchar(50)
    value_source_value            varchar(50)
    observation_event_id          bigint
    obs_event_field_concept_id    integer      >concept
death
    person_id                     bigint       key >person
    death_date                    date         !
    death_datetime                timestamp
    death_type_concept_id         integer      >concept
    cause_concept_id              integer      >concept
    cause_source_value            varchar(50)
    cause_source_concept_id       integer      >concept
note
    note_id                       bigint       key
    person_id                     bigint       ! >person
    note_date                     date         !
    note_datetime                 timestamp
    note_type_concept_id          integer      ! >concept
    note_class_concept_id         integer      ! >concept
    note_title                    varchar(250)
    note_text                     text         !
    encoding_concept_id           integer      ! >concept
    language_concept_id           integer      ! >concept
    provider_id                   bigint       >provider
    visit_occurrence_id           bigint       >visit_occurrence
    visit_detail_id               bigint
    note_source_value             varchar(50)
    note_event_id                 bigint
    note_event_field_concept_id   integer      >concept
"""


def _column(line: str) -> Column:
    name, type_, *marks = line.split()
    refers_to = next((mark[1:] for mark in marks if mark.startswith(">")), None)
    return Column(name, type_, bool({"!", "key"} & set(marks)), "key" in marks, refers_to)


def _definitions() -> dict[str, Definition]:
    tables: dict[str, list[Column]] = {}
    columns: list[Column] = []
    for line in _LINES.strip().splitlines():
        if line.startswith(" "):
            columns.append(_column(line))
        else:
            columns = tables.setdefault(line, [])
    return {name: Definition(name, tuple(columns)) for name, columns in tables.items()}


TABLES: dict[str, Definition] = _definitions()
"""The tables by name, in an order in which they can be loaded: only `references_left_open` refer to later ones."""


def references_left_open() -> list[tuple[str, Column]]:
    """(table, column) of the foreign keys that refer to a table that is defined later: the vocabulary is a circle."""
    order = list(TABLES)
    return [
        (table.name, column)
        for table in TABLES.values()
        for column in table.columns
        if column.refers_to is not None and order.index(column.refers_to) > order.index(table.name)
    ]


def ddl() -> str:
    """SQL that creates the tables with primary keys, foreign keys and NOT NULL, to load them in the order of `TABLES`.

    Written for DuckDB and PostgreSQL. Without the foreign keys of `references_left_open`.

    >>> print(ddl().splitlines()[0])
    CREATE TABLE vocabulary (
    """
    left_open = set(references_left_open())
    statements = []
    for table in TABLES.values():
        lines = [_sql(column, (table.name, column) not in left_open) for column in table.columns]
        statements.append(f"CREATE TABLE {table.name} (\n    " + ",\n    ".join(lines) + "\n);")
    return "\n".join(statements) + "\n"


def _sql(column: Column, referring: bool) -> str:
    parts = [column.name, _SQL_TYPES.get(column.type, column.type)]
    if column.key:
        parts.append("PRIMARY KEY")
    elif column.required:
        parts.append("NOT NULL")
    if referring and column.refers_to is not None:
        parts.append(f"REFERENCES {column.refers_to} ({TABLES[column.refers_to].key})")
    return " ".join(parts)
