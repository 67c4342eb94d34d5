"""How well simulated patients resemble real ones."""

from ehrsim.evaluate.evaluation import evaluate_cohort
from ehrsim.evaluate.overview import write_overview

__all__ = ["evaluate_cohort", "write_overview"]
