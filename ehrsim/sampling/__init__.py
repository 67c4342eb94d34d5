"""Sampling: from a run to the event table of patients who never existed."""

from ehrsim.sampling.blocks import BLOCK, SampleReport, sample
from ehrsim.sampling.conditions import Conditions
from ehrsim.sampling.generate import continue_to, continued, generate, generate_to, generated_blocks
from ehrsim.sampling.histories import HistoryReport

__all__ = [
    "BLOCK",
    "Conditions",
    "HistoryReport",
    "SampleReport",
    "continue_to",
    "continued",
    "generate",
    "generate_to",
    "generated_blocks",
    "sample",
]
