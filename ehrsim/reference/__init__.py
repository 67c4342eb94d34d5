"""The built-in reference population: whole lives of people who never existed, with a known truth.

It needs no data: a specification of published figures (`data/*.toml`) and a seed give every patient's record. What a
model learns from it can be held against the true hazards (`hazard`) and the true life histories (`truth`).
"""

from ehrsim.reference.hazards import hazard, transitions
from ehrsim.reference.population import REFERENCE_DATE, blocks, population

__all__ = ["REFERENCE_DATE", "blocks", "hazard", "population", "transitions"]
