"""Generation: whole cohorts as a frame, or streamed to a MEDS folder by one process or several."""

from __future__ import annotations

import datetime as dt
import math
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import polars as pl

from ehrsim import events, runs
from ehrsim.errors import UsageError
from ehrsim.events import EventWriter, Shard
from ehrsim.progress import Progress, silent
from ehrsim.runs import Run
from ehrsim.sampling.blocks import BLOCK, SampleReport, sample
from ehrsim.sampling.conditions import Conditions
from ehrsim.sampling.continuation import continued_blocks
from ehrsim.sampling.histories import Histories, HistoryReport, read_histories
from ehrsim.visits import decode

SLOTS = 256

Blocks = Iterator[tuple[pl.DataFrame, SampleReport]]


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
    enums: bool = False,
    progress: Progress = silent,
) -> Blocks:
    """The events of patients `first` to `end` (exclusive), a block of whole patients at a time.

    With `enums` their texts are of types that know all texts of the run: these are quicker to write.
    """
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
        yield decode(sequences, loaded.vocabulary, enums=enums), report


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
    loaded = runs.load(run)
    job = _Job(str(run), seed, conditions, slots)
    return _write(Path(out), loaded, job, (first, first + n), processes, progress, overwrite=overwrite)


def continued(
    run: Run | str | Path,
    histories: str | Path | pl.LazyFrame | pl.DataFrame,
    *,
    copies: int = 1,
    since: dt.datetime | None = None,
    years: float | None = None,
    seed: int = 0,
    conditions: Conditions | None = None,
    slots: int = SLOTS,
    progress: Progress = silent,
) -> tuple[pl.LazyFrame, pl.DataFrame]:
    """The patients of `histories` with `copies` futures each, in memory, and whose history each has.

    See `continue_to`, which writes the same to a folder.
    """
    loaded = run if isinstance(run, Run) else runs.load(run)
    known, _ = read_histories(loaded, histories, since=since, years=years, copies=copies)
    _check(0, known.patients, seed, slots)
    blocks = continued_blocks(
        loaded, known, 0, known.patients, seed=seed, conditions=conditions, slots=slots, progress=progress
    )
    return pl.concat([frame for frame, _ in blocks]).lazy(), known.listed()


def continue_to(
    run: str | Path,
    histories: str | Path | pl.LazyFrame | pl.DataFrame,
    out: str | Path,
    *,
    copies: int = 1,
    since: dt.datetime | None = None,
    years: float | None = None,
    seed: int = 0,
    conditions: Conditions | None = None,
    slots: int = SLOTS,
    processes: int = 1,
    overwrite: bool = False,
    progress: Progress = silent,
) -> tuple[SampleReport, HistoryReport]:
    """Write the patients of `histories` to the MEDS folder `out` with `copies` futures each, from `since` on.

    What was recorded before stays as it is. Without a date each patient goes on from the last event; futures last for
    `years`, or to the end of the run's data. Subject i + 1 continues history i // copies, as
    `metadata/continuations.parquet` tells, and depends on that, the run, `seed` and i alone. Raises `InputError` if no
    patient can be continued, `UsageError` as `generate_to` does.
    """
    loaded = runs.load(run)
    known, report = read_histories(loaded, histories, since=since, years=years, copies=copies)
    _check(0, known.patients, seed, slots)
    job = _Job(str(run), seed, conditions, slots, known)
    return _write(Path(out), loaded, job, (0, known.patients), processes, progress, overwrite=overwrite), report


class _Job(NamedTuple):
    """What a process has to know."""

    run: str
    seed: int
    conditions: Conditions | None
    slots: int
    histories: Histories | None = None

    def blocks(self, run: Run, first: int, end: int, progress: Progress = silent) -> Blocks:
        """The events of patients `first` to `end`."""
        if self.histories is not None:
            return continued_blocks(
                run,
                self.histories,
                first,
                end,
                seed=self.seed,
                conditions=self.conditions,
                slots=self.slots,
                progress=progress,
            )
        return generated_blocks(
            run, first, end, seed=self.seed, conditions=self.conditions, slots=self.slots, enums=True, progress=progress
        )

    @property
    def whole(self) -> int:
        """Patients of a block: ranges that begin at its multiples are drawn as they are in one piece."""
        copies = 1 if self.histories is None else self.histories.copies
        return math.lcm(BLOCK, max(BLOCK // copies, 1) * copies)


def _write(
    out: Path, run: Run, job: _Job, patients: tuple[int, int], processes: int, progress: Progress, *, overwrite: bool
) -> SampleReport:
    """Write the `patients` of a job, from the first up to but excluding the second, to a MEDS folder."""
    if processes < 1:
        raise UsageError(f"processes is `{processes}`, expected 1 or more")
    name = "synthetic" if job.histories is None else "continued"
    dataset = {"dataset_name": f"{name}-{job.seed}", "etl_name": "ehrsim generate", "run": run.identity}
    with events.event_writer(out, dataset, overwrite=overwrite) as writer:
        if job.histories is not None:
            job.histories.listed().write_parquet(writer.metadata_path("continuations.parquet"))
        if processes > 1:
            return _write_parts(writer, job, *patients, processes, out.parent, progress)
        report = SampleReport(0, 0, 0)
        for frame, latest in job.blocks(run, *patients, progress):
            writer.write(frame)
            report = latest
        return report


def _write_parts(
    writer: EventWriter, job: _Job, first: int, end: int, processes: int, beside: Path, progress: Progress
) -> SampleReport:
    """Write the blocks of a job in order, drawn by several processes."""
    report = SampleReport(0, 0, 0)
    with tempfile.TemporaryDirectory(prefix=".ehrsim-", dir=beside) as spill:
        tasks = [(job, spill, *part) for part in _ranges(first, end, processes, job.whole)]
        # Spawned, not forked: a forked JAX runtime may hang.
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            for shards, drawn in pool.map(_write_part, tasks):
                for shard in shards:
                    writer.adopt(shard)
                report = report.plus(drawn)
                progress("generate", report.patients, end - first, "patients")
    return report


def _write_part(task: tuple[_Job, str, int, int]) -> tuple[list[Shard], SampleReport]:
    """In a process of its own: write the blocks of a range to shards."""
    job, spill, begin, stop = task
    shards, report = [], SampleReport(0, 0, 0)
    for number, (frame, latest) in enumerate(job.blocks(runs.load(job.run), begin, stop)):
        report = latest
        shards.append(events.write_shard(frame, Path(spill) / f"{begin}-{number}.parquet"))
    return shards, report


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


def _ranges(first: int, end: int, parts: int, whole: int = BLOCK) -> list[tuple[int, int]]:
    """`first` to `end` in at most `parts` ranges that begin at multiples of `whole`, so that blocks stay whole."""
    blocks = [max(first, edge) for edge in range(first - first % whole, end, whole)]
    share = -(-len(blocks) // parts)
    starts = blocks[::share]
    return list(zip(starts, [*starts[1:], end], strict=True))
