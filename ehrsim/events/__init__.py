"""The event table: one row per event of a subject, as a Polars frame with MEDS columns. Everything reads and writes it.

| column | type | meaning |
|---|---|---|
| subject_id | int64 | the subject |
| time | datetime[us] | when, as local wall-clock time without a zone; null for static facts (sex, race …) |
| code | string | `[KIND//]SYSTEM//CODE`, see `ehrsim.codes` |
| numeric_value | float32 | a measured value, null if none |
| text_value | string | a textual or coded answer, null if none |
| unit | string | UCUM unit of `numeric_value` |
| visit_id | int64 | the visit the event belongs to, unique within the subject; null if none |
| end_time | datetime[us] | end of a condition, medication, procedure …; null if unknown or a moment |

`description`, the display of the code, may follow as a ninth column; on disk it stands in `metadata/codes.parquet`.

On disk a table is a MEDS 0.4 data set (https://github.com/Medical-Event-Data-Standard/meds): `data/SPLIT/*.parquet`
with each subject whole, contiguous and in time order in one file, `metadata/codes.parquet`,
`metadata/subject_splits.parquet` and `metadata/dataset.json`.
"""

from ehrsim.events.reading import (
    first_line,
    read_code_table,
    read_codes,
    read_events,
    read_parquet,
    read_split_table,
    read_splits,
    readable,
)
from ehrsim.events.subjects import SPLITS, mixed, only, split_of, stable_id, stable_id_of
from ehrsim.events.table import (
    CODES_SCHEMA,
    COLUMNS,
    DESCRIPTION,
    EARLIEST_YEAR,
    LATEST_YEAR,
    REQUIRED,
    SCHEMA,
    conform,
    conform_lazy,
    enum_of_codes,
    sort,
)
from ehrsim.events.validation import Problem, validate
from ehrsim.events.writing import MEDS_VERSION, EventWriter, Shard, event_writer, write_events, write_shard

__all__ = [
    "CODES_SCHEMA",
    "COLUMNS",
    "DESCRIPTION",
    "EARLIEST_YEAR",
    "LATEST_YEAR",
    "MEDS_VERSION",
    "REQUIRED",
    "SCHEMA",
    "SPLITS",
    "EventWriter",
    "Problem",
    "Shard",
    "conform",
    "conform_lazy",
    "enum_of_codes",
    "event_writer",
    "first_line",
    "mixed",
    "only",
    "read_code_table",
    "read_codes",
    "read_events",
    "read_parquet",
    "read_split_table",
    "read_splits",
    "readable",
    "sort",
    "split_of",
    "stable_id",
    "stable_id_of",
    "validate",
    "write_events",
    "write_shard",
]
