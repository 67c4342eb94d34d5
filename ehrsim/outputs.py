"""Outputs appear whole or not at all: they are written under a temporary name beside their target, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ehrsim.errors import InputError, UsageError


@contextmanager
def atomic_directory(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `target` that becomes `target` when the block ends without an error.

    A non-empty `target` is refused before any work is done unless `overwrite`; the old folder is then replaced
    at the very end. Raises `UsageError` if the target exists, `InputError` if it cannot be written.
    """
    target = Path(target)
    if target.is_file() or (target.is_dir() and any(target.iterdir()) and not overwrite):
        raise UsageError(f"output {target} exists already", hint="name another --out, or pass --overwrite")
    temporary = _temporary_beside(target)
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot write to {target.parent}: {error.strerror}") from error
    try:
        yield temporary
        if target.is_dir():
            shutil.rmtree(target)
        temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` that replaces `target` when the block ends without an error."""
    target = Path(target)
    if target.is_dir():
        raise UsageError(f"output {target} is a folder, expected a file", hint="name a file")
    temporary = _temporary_beside(target)
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {target.parent}: {error.strerror}") from error
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary_beside(target: Path) -> Path:
    return target.parent / f".{target.name}.{os.getpid()}.partial"
