"""Generation: whole cohorts as a frame, or streamed to a MEDS folder by one process or several."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import polars as pl

from ehrsim import events, runs
from ehrsim.errors import UsageError
from ehrsim.events import Shard
from ehrsim.progress import Progress, silent
from ehrsim.runs import Run
from ehrsim.sampling.blocks import BLOCK, SampleReport, sample
from ehrsim.sampling.conditions import Conditions
from ehrsim.visits import decode

SLOTS = 256


def generate(
    run: Run | str | Path,
    n: int,
    *,
    seed: int = 0,
    conditions: Conditions | None = None,
    slots: int = SLOTS,
    progress: Progress = silent,
) -> pl.LazyFrame:
    """The events of `n` patients as a frame in memory; see `generate_to` for more than fit there.

    Patient i (subject i + 1) depends on the run, `seed` and i alone. Raises `UsageError` for conditions that the run
    cannot meet.
    """
    blocks = generated_blocks(run, 0, n, seed=seed, conditions=conditions, slots=slots, progress=progress)
    return pl.concat([frame for frame, _ in blocks]).lazy()


def generated_blocks(
    run: Run | str | Path,
    first: int,
    end: int,
    *,
    seed: int = 0,
    conditions: Conditions | None = None,
    slots: int = SLOTS,
    progress: Progress = silent,
) -> Iterator[tuple[pl.DataFrame, SampleReport]]:
    """The events of patients `first` to `end` (exclusive), a block of whole patients at a time."""
    _check(first, end, seed, slots)
    loaded = run if isinstance(run, Run) else runs.load(run)
    drawn = sample(
        loaded.model,
        loaded.vocabulary,
        loaded.scales,
        first=first,
        end=end,
        seed=seed,
        conditions=conditions,
        slots=slots,
        progress=progress,
    )
    for sequences, report in drawn:
        yield decode(sequences, loaded.vocabulary), report


def generate_to(
    run: str | Path,
    out: str | Path,
    n: int,
    *,
    first: int = 0,
    seed: int = 0,
    conditions: Conditions | None = None,
    slots: int = SLOTS,
    processes: int = 1,
    overwrite: bool = False,
    progress: Progress = silent,
) -> SampleReport:
    """Write patients `first` to `first + n` to the MEDS folder `out`, a shard a block; `processes` share the blocks.

    The bytes are the same for any number of slots and processes. Raises `UsageError` for numbers out of range, for
    conditions that the run cannot meet, and if `out` exists.
    """
    _check(first, first + n, seed, slots)
    if processes < 1:
        raise UsageError(f"processes is `{processes}`, expected 1 or more")
    loaded = runs.load(run)
    dataset = {"dataset_name": f"synthetic-{seed}", "etl_name": "ehrsim generate", "run": loaded.identity}
    with events.event_writer(out, dataset, overwrite=overwrite) as writer:
        if processes == 1:
            report = SampleReport(0, 0, 0)
            blocks = generated_blocks(
                loaded, first, first + n, seed=seed, conditions=conditions, slots=slots, progress=progress
            )
            for frame, latest in blocks:
                writer.write(frame)
                report = latest
            return report
        with tempfile.TemporaryDirectory(prefix=".ehrsim-", dir=Path(out).parent) as spill:
            parts = _ranges(first, first + n, processes)
            tasks = [(str(run), spill, begin, stop, seed, conditions, slots) for begin, stop in parts]
            total = SampleReport(0, 0, 0)
            # Spawned, not forked: a forked JAX runtime may hang.
            with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
                for shards, report in pool.map(_generate_part, tasks):
                    for shard in shards:
                        writer.adopt(shard)
                    total = SampleReport(*(a + b for a, b in zip(total, report, strict=True)))
                    progress("generate", total.patients, n, "patients")
            return total


def _check(first: int, end: int, seed: int, slots: int) -> None:
    """Raise `UsageError` for numbers that are out of range; patients and seeds are 32-bit numbers on the device."""
    if not 0 <= first < end:
        raise UsageError(f"nothing to generate from {first} to {end}", hint="ask for one patient or more")
    if slots < 1:
        raise UsageError(f"slots is `{slots}`, expected 1 or more")
    if end + slots >= 1 << 31:
        raise UsageError(f"patient {end} is beyond the last one, {(1 << 31) - 1 - slots}")
    if not 0 <= seed < 1 << 32:
        raise UsageError(f"seed is `{seed}`, expected 0 to {(1 << 32) - 1}")


def _ranges(first: int, end: int, parts: int) -> list[tuple[int, int]]:
    """`first` to `end` in at most `parts` ranges that begin at multiples of BLOCK, so that blocks stay whole."""
    blocks = [max(first, edge) for edge in range(first - first % BLOCK, end, BLOCK)]
    share = -(-len(blocks) // parts)
    starts = blocks[::share]
    return list(zip(starts, [*starts[1:], end], strict=True))


def _generate_part(
    task: tuple[str, str, int, int, int, Conditions | None, int],
) -> tuple[list[Shard], SampleReport]:
    """In a process of its own: write the blocks of a range to shards."""
    run, spill, begin, stop, seed, conditions, slots = task
    shards, report = [], SampleReport(0, 0, 0)
    drawn = generated_blocks(run, begin, stop, seed=seed, conditions=conditions, slots=slots)
    for number, (frame, latest) in enumerate(drawn):
        report = latest
        shards.append(events.write_shard(frame, Path(spill) / f"{begin}-{number}.parquet"))
    return shards, report
