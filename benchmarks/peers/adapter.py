"""What the script of every peer shares: its command line, its clocks, and the one line that it prints.

    python PEER.py --train TRAIN --tuning TUNING --out OUT --patients N [--seed S] [--seconds T] [--repeats R] [--small]

reads the exchange files TRAIN and TUNING, learns for T CPU seconds at most, simulates N patients R times, writes them
to the exchange file OUT, and prints as JSON what learning and simulating took: once in the median, and each time.
"""

from __future__ import annotations

import json
import statistics
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import exchange
import numpy as np
from exchange import Patient
from measure import Seconds, rounded, timed

SMALL_SECONDS = 5.0

Fitted = TypeVar("Fitted")


class Task(NamedTuple):
    """What a peer is asked for."""

    train: Path
    tuning: Path
    out: Path
    patients: int
    seed: int
    seconds: float
    """CPU seconds to learn for, at most."""
    small: bool
    repeats: int = 1
    """How often the patients are simulated."""

    def rng(self) -> np.random.Generator:
        """Random numbers of the seed."""
        return np.random.default_rng(self.seed)


def parser(description: str | None) -> ArgumentParser:
    """The command line of a peer."""
    command = ArgumentParser(description=description)
    for name in ("train", "tuning", "out"):
        command.add_argument(f"--{name}", type=Path, required=True, help="an exchange file")
    command.add_argument("--patients", type=int, required=True, help="how many to simulate")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--seconds", type=float, default=600.0, help="CPU seconds to learn for, at most")
    command.add_argument("--repeats", type=int, default=1, help="how often to simulate them, for a median of the time")
    command.add_argument("--small", action="store_true", help="learn for moments")
    return command


def task_of(options: Any) -> Task:
    """The task that a command line names."""
    named = {name: getattr(options, name) for name in Task._fields}
    return Task(**{**named, "seconds": SMALL_SECONDS if options.small else options.seconds})


def run(
    description: str | None,
    fit: Callable[[Sequence[Patient], Sequence[Patient], Task], Fitted],
    generate: Callable[[Fitted, int, np.random.Generator], Sequence[Patient]],
) -> None:
    """Do the task of the command line: `fit` to training and tuning patients, then `generate` so many."""
    task = task_of(parser(description).parse_args())
    train, tuning = exchange.read(task.train), exchange.read(task.tuning)
    fitted, learning = timed(lambda: fit(train, tuning, task))
    repeats = [timed(lambda: generate(fitted, task.patients, task.rng())) for _ in range(task.repeats)]
    exchange.write(repeats[-1][0], task.out)
    tell(learning, *(simulating for _, simulating in repeats))


def tell(learning: Seconds, *simulating: Seconds) -> None:
    """Print what learning took, and simulating each time."""
    median = Seconds(*(statistics.median(clock) for clock in zip(*simulating, strict=True)))
    told = {"fit": _shown(learning), "generate": _shown(median), "repeats": [_shown(taken) for taken in simulating]}
    print(json.dumps(told))


def _shown(taken: Seconds) -> dict[str, float]:
    return {name: rounded(value) for name, value in taken._asdict().items()}


def note(text: str) -> None:
    """Say how learning goes on, for those who wait."""
    print(text, file=sys.stderr, flush=True)
