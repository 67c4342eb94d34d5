"""The reference population as a MEDS data set on disk, written by one process or several with the same bytes."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ehrsim import events
from ehrsim.errors import UsageError
from ehrsim.events import Shard
from ehrsim.progress import Progress, silent
from ehrsim.reference.population import BLOCK, COHORT, blocks


class Written(NamedTuple):
    """How much was written."""

    patients: int
    events: int


class _Task(NamedTuple):
    """A range of patients for one process to write to shards in the folder `spill`."""

    first: int
    number: int
    seed: int
    spill: Path


def write_reference(
    out: str | Path,
    n: int,
    *,
    seed: int = 0,
    processes: int = 1,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Written:
    """Write patients 0 to `n` of the reference population of `seed` to the MEDS folder `out`, split by `split_of`.

    The bytes do not depend on `processes`. Raises `UsageError` for a number below 1 or an output that exists.
    """
    for name, number in (("n", n), ("processes", processes)):
        if number < 1:
            raise UsageError(f"{name} is `{number}`, expected 1 or more")
    out = Path(out)
    dataset = {"dataset_name": f"reference-population-{seed}", "etl_name": "ehrsim reference"}
    with events.event_writer(out, dataset, overwrite=overwrite) as writer:
        with tempfile.TemporaryDirectory(prefix=".ehrsim-", dir=out.parent) as spill:
            tasks = [_Task(first, min(COHORT, n - first), seed, Path(spill)) for first in range(0, n, COHORT)]
            done = 0
            for task, shards in zip(tasks, _written(tasks, processes), strict=True):
                for split, shard in shards:
                    writer.adopt(shard, split)
                done += task.number
                progress("simulate", done, n, "patients")
        return Written(writer.subjects, writer.events)


def _written(tasks: list[_Task], processes: int) -> Iterator[list[tuple[str, Shard]]]:
    if processes == 1 or len(tasks) == 1:
        yield from map(_write, tasks)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_write, tasks)


def _write(task: _Task) -> list[tuple[str, Shard]]:
    """The shards of a range of patients: one for each split of each block."""
    shards = []
    for number, frame in enumerate(blocks(task.number, seed=task.seed, first=task.first)):
        split = events.split_of(frame["subject_id"])
        for name in events.SPLITS:
            chosen = frame.filter(split == name)
            if not chosen.is_empty():
                path = task.spill / f"{task.first + number * BLOCK}-{name}.parquet"
                shards.append((name, events.write_shard(chosen, path)))
    return shards
