"""How well simulated patients resemble real ones."""

from ehrsim.evaluate.overview import write_overview

__all__ = ["write_overview"]
