"""FHIR R4 (4.0.1) with US Core 6.1 profiles: export of events, and a look into what an export holds."""

from ehrsim.fhir.export import export_fhir
from ehrsim.fhir.inspection import FhirSummary, inspect_fhir
from ehrsim.fhir.report import ExportReport

__all__ = ["ExportReport", "FhirSummary", "export_fhir", "inspect_fhir"]
