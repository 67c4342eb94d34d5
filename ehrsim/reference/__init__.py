"""The built-in reference population: whole lives of people who never existed, with a known truth.

It needs no data: a specification of published figures (`data/*.toml`) and a seed give every patient's record. What a
model learns from it can be held against the true hazards (`hazard`) .
"""

from ehrsim.reference.hazards import hazard, transitions
from ehrsim.reference.loading import specification_schema
from ehrsim.reference.population import REFERENCE_DATE, blocks, population
from ehrsim.reference.writing import Written, write_reference

__all__ = [
    "REFERENCE_DATE",
    "Written",
    "blocks",
    "hazard",
    "population",
    "specification_schema",
    "transitions",
    "write_reference",
]
