"""How long work reports its progress: a callable, so that the library prints nothing itself."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with the work done so far; the command line draws a bar from it, the library never prints."""

    def __call__(self, stage: str, done: int, total: int | None, unit: str) -> None:
        """`done` of `total` (None when unknown) `unit`s of `stage` are finished."""


def silent(stage: str, done: int, total: int | None, unit: str) -> None:
    """The default: report nothing."""
