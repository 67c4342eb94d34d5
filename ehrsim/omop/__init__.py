"""Export to OMOP CDM 5.4: events to the tables of the Common Data Model, as CSV or Parquet."""

from ehrsim.omop.export import export_omop
from ehrsim.table_report import TableReport

__all__ = ["TableReport", "export_omop"]
