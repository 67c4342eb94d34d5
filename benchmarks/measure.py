"""What the benchmarks share: timing in CPU seconds and wall seconds, and one JSON line as the result.

CPU seconds are those of this process and of its finished children, over all their threads (`os.times`): on a shared or
busy machine they are the figure to trust. Wall seconds are what a user waits, and depend on what else runs.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson

Result = TypeVar("Result")
PACKAGES = ("ehrsim", "jax", "jaxlib", "flax", "numpy", "polars", "orjson")


class Seconds(NamedTuple):
    """CPU and wall seconds: a reading of the clocks, or what passed between two."""

    cpu: float
    wall: float

    def since(self, earlier: Seconds) -> Seconds:
        """What passed since an earlier reading."""
        return Seconds(self.cpu - earlier.cpu, self.wall - earlier.wall)


def clocks() -> Seconds:
    """Read both clocks now."""
    return Seconds(sum(os.times()[:4]), time.perf_counter())


def timed(work: Callable[[], Result]) -> tuple[Result, Seconds]:
    """Do the work once; returns its result and what it took."""
    before = clocks()
    result = work()
    return result, clocks().since(before)


def rates(counts: dict[str, float], seconds: Sequence[Seconds]) -> dict[str, Any]:
    """The median of each count per CPU second and per wall second over the repeats, with every repeat's seconds.

    `counts` is what one repeat did.
    """
    cpu = statistics.median(taken.cpu for taken in seconds)
    wall = statistics.median(taken.wall for taken in seconds)
    return {
        **{f"{name}_per_cpu_second": rounded(count / cpu) for name, count in counts.items()},
        **{f"{name}_per_wall_second": rounded(count / wall) for name, count in counts.items()},
        "cpu_seconds": [round(taken.cpu, 3) for taken in seconds],
        "wall_seconds": [round(taken.wall, 3) for taken in seconds],
        "counts": counts,
    }


def rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a quick run that shows that the script works")
    parser.add_argument("--repeats", type=int, default=3, help="how often to measure; the median is reported")
    return parser


def report(benchmark: str, **figures: Any) -> None:
    """Print the one JSON line: the figures, the machine and the versions."""
    line = {"benchmark": benchmark, **figures, "machine": machine(), "versions": {p: version(p) for p in PACKAGES}}
    print(orjson.dumps(line).decode())


def machine() -> dict[str, Any]:
    """The cores that this process may use, and what they are."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": usable,
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
