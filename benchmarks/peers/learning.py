"""Learning with PyTorch until the tuning patients are as likely as they become, or the time is used up."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable

import adapter
import torch
from torch import nn

PATIENCE = 3
"""Rounds without an improvement before learning ends."""


class Clock:
    """Which share of the CPU seconds for learning is used."""

    def __init__(self, seconds: float) -> None:
        self._begun, self._seconds = time.process_time(), seconds

    @property
    def used(self) -> float:
        """From 0 to a little over 1."""
        return (time.process_time() - self._begun) / self._seconds


def until_best(
    model: nn.Module, clock: Clock, a_round: Callable[[], None], nats: Callable[[], float], name: str
) -> None:
    """Do rounds, each of which ends early when the clock has run down, and keep the weights with the fewest `nats`."""
    best, stale, weights = math.inf, 0, copy.deepcopy(model.state_dict())
    while stale < PATIENCE and clock.used < 1:
        model.train()
        a_round()
        model.eval()
        with torch.no_grad():
            found = nats()
        adapter.note(f"{name}: {clock.used:.0%} of the time, {found:.5g} of tuning patients")
        stale = stale + 1 if found > best else 0
        if found < best:
            best, weights = found, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    model.eval()
