"""FHIR R4 (4.0.1) with US Core 6.1 profiles: export of events, a look into what an export holds, and its upload."""

from ehrsim.fhir.cds_hooks import CdsHooksReport, export_cds_hooks
from ehrsim.fhir.export import export_fhir
from ehrsim.fhir.inspection import FhirSummary, inspect_fhir
from ehrsim.fhir.report import ExportReport
from ehrsim.fhir.upload import UploadReport, upload_fhir
from ehrsim.fhir.validation import ValidationReport, validate_fhir

__all__ = [
    "CdsHooksReport",
    "ExportReport",
    "FhirSummary",
    "UploadReport",
    "ValidationReport",
    "export_cds_hooks",
    "export_fhir",
    "inspect_fhir",
    "upload_fhir",
    "validate_fhir",
]
