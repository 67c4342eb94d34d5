"""Progress bars with rate and time left on a terminal; nothing elsewhere, so that logs stay clean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ehrsim.progress import Progress as Report
from ehrsim.progress import silent


class _Rate(ProgressColumn):
    """Work done, of how much, and how much a second."""

    def render(self, task: Task) -> Text:
        unit = task.fields.get("unit", "")
        of = f"/{task.total:,.0f}" if task.total else ""
        speed = f", {task.speed:,.0f}/s" if task.speed else ""
        return Text(f"{task.completed:,.0f}{of} {unit}{speed}")


@contextmanager
def bars() -> Iterator[Report]:
    """A callable to report progress to while the context lasts: one bar a stage, on standard error."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield silent
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int | None, unit: str) -> None:
            if stage not in tasks:
                for earlier in tasks.values():
                    progress.stop_task(earlier)
                tasks[stage] = progress.add_task(stage, total=total, unit=unit)
            progress.update(tasks[stage], completed=done, total=total)

        yield report
