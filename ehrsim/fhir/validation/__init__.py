"""FHIR held against the rules of R4 and US Core: files of anyone's, and exports while they are written."""

from ehrsim.fhir.validation.exports import Validate, Validator
from ehrsim.fhir.validation.findings import Extent, Finding, ValidationReport
from ehrsim.fhir.validation.folders import validate_fhir

__all__ = ["Extent", "Finding", "Validate", "ValidationReport", "Validator", "validate_fhir"]
