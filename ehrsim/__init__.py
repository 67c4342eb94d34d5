"""ehrsim learns how patients' records unfold, and simulates patients who never existed, as events and as FHIR.

    import ehrsim

    events = ehrsim.read_events("events/")
    run = ehrsim.fit(events, out="run/", model="vae")
    cohort = ehrsim.generate(run, 10_000, seed=7)
    ehrsim.export_fhir(cohort, "fhir/")

The verbs are imported on first use, so that importing ehrsim costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ehrsim.csv_export import export_csv
    from ehrsim.evaluate import evaluate_cohort
    from ehrsim.events import read_events, validate, write_events
    from ehrsim.fhir import export_cds_hooks, export_fhir, upload_fhir, validate_fhir
    from ehrsim.importers import import_events
    from ehrsim.meds_export import export_meds
    from ehrsim.omop import export_omop
    from ehrsim.runs import load
    from ehrsim.sampling.generate import generate
    from ehrsim.training import fit

__all__ = [
    "evaluate_cohort",
    "export_cds_hooks",
    "export_csv",
    "export_fhir",
    "export_meds",
    "export_omop",
    "fit",
    "generate",
    "import_events",
    "load",
    "read_events",
    "upload_fhir",
    "validate",
    "validate_fhir",
    "write_events",
]

_HOME = {
    "evaluate_cohort": "ehrsim.evaluate",
    "export_cds_hooks": "ehrsim.fhir",
    "export_csv": "ehrsim.csv_export",
    "export_fhir": "ehrsim.fhir",
    "export_meds": "ehrsim.meds_export",
    "export_omop": "ehrsim.omop",
    "fit": "ehrsim.training",
    "generate": "ehrsim.sampling",
    "import_events": "ehrsim.importers",
    "load": "ehrsim.runs",
    "read_events": "ehrsim.events",
    "upload_fhir": "ehrsim.fhir",
    "validate": "ehrsim.events",
    "validate_fhir": "ehrsim.fhir",
    "write_events": "ehrsim.events",
}


def __getattr__(name: str) -> Any:
    if name == "reference":
        return importlib.import_module("ehrsim.reference")
    if name not in _HOME:
        raise AttributeError(f"module 'ehrsim' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
