"""Sampling: from a run to the event table of patients who never existed."""

from ehrsim.sampling.blocks import BLOCK, SampleReport, sample
from ehrsim.sampling.conditions import Conditions
from ehrsim.sampling.generate import generate, generate_to, generated_blocks

__all__ = ["BLOCK", "Conditions", "SampleReport", "generate", "generate_to", "generated_blocks", "sample"]
