"""Quality measures: definitions that are data, and how many patients of a cohort meet them at one reference date."""

from ehrsim.quality.definitions import Criterion, Library, Measure, Value, load_measures
from ehrsim.quality.populations import Tally, membership, period_of, reference_date

__all__ = [
    "Criterion",
    "Library",
    "Measure",
    "Tally",
    "Value",
    "load_measures",
    "membership",
    "period_of",
    "reference_date",
]
