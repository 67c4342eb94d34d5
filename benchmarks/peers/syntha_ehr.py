"""FHIR bundles of syntha-ehr, for `export_peers.py`; runs in an environment of its own.

Its command line asks for the data that its makers learned from, so the model that comes with it is drawn from here,
by the functions that it has for that.
"""

from __future__ import annotations

import argparse
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from syntha.export_model import load_generator_from_json
from syntha.fhir.export import write_fhir_bundles
from syntha.generator.constraints import ConstraintConfig, PhysiologicConstraints
from syntha.longitudinal import TrajectoryConfig, expand_to_trajectories

FIRST, LAST = pd.Timestamp("2016-01-01"), pd.Timestamp("2025-12-31")
SPARE = 2
"""Times as many are drawn as are asked for: what breaks its rules of physiology is left out."""


def visits(patients: int, each: float, seed: int) -> pd.DataFrame:
    """A row a visit: one of each patient, or `each` on average."""
    model = json.loads((files("syntha.bundled_models") / "tolerant.json").read_text(encoding="utf-8"))
    drawn = load_generator_from_json(model, random_seed=seed).sample(SPARE * patients)
    kept, _ = PhysiologicConstraints(ConstraintConfig()).apply(drawn)
    first = kept.head(patients).reset_index(drop=True)
    days = np.random.default_rng(seed).integers(0, (LAST - FIRST).days, len(first))
    first["HASTA_ID"] = [f"patient-{number}" for number in range(len(first))]
    first["RF_EPISODE2"] = np.arange(len(first))
    first["episode_date"] = FIRST + pd.to_timedelta(days, unit="D")
    if each == 1:
        return first
    path = TrajectoryConfig(encounters_per_patient_mean=each, random_seed=seed)
    return expand_to_trajectories(first, FIRST, LAST, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, required=True)
    parser.add_argument("--visits", type=float, default=1, help="of a patient, on average")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    write_fhir_bundles(visits(options.patients, options.visits, seed=7), options.out)


if __name__ == "__main__":
    main()
