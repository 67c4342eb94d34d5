"""Outputs appear whole or not at all: they are written under a temporary name beside their target, then renamed.

What a killed process leaves is one hidden `.NAME.PID.partial` beside the target, and never a target that is half done.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ehrsim.errors import InputError, UsageError

_EXISTS = "name another --out, or pass --overwrite"


@contextmanager
def atomic_directory(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `target` that becomes `target` when the block ends without an error.

    A non-empty `target` is refused before any work is done unless `overwrite`; the old folder is then replaced
    at the very end. Raises `UsageError` if the target exists, `InputError` if it cannot be written.
    """
    target = Path(target)
    if target.is_file():
        raise UsageError(f"output {target} is a file, expected a folder", hint="name a folder")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise UsageError(f"output {target} exists already", hint=_EXISTS)
    final = target.resolve()
    temporary = _temporary_beside(final)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot write to {target.parent}: {error.strerror}") from error
    try:
        yield temporary
        _exchange(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def atomic_file(target: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a path beside `target` that replaces `target` when the block ends without an error."""
    target = Path(target)
    if target.is_dir():
        raise UsageError(f"output {target} is a folder, expected a file", hint="name a file")
    if target.exists() and not overwrite:
        raise UsageError(f"output {target} exists already", hint=_EXISTS)
    final = target.resolve()
    temporary = _temporary_beside(final)
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {target.parent}: {error.strerror}") from error
    try:
        yield temporary
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary_beside(target: Path) -> Path:
    """A hidden name that no other living process uses; a leftover under it is of a process that was killed."""
    return target.parent / f".{target.name}.{os.getpid()}.partial"


def _exchange(temporary: Path, target: Path) -> None:
    """Put `temporary` in the place of `target`, whose old content is deleted only when the new is in place."""
    if not target.is_dir():
        temporary.replace(target)
        return
    aside = temporary.with_suffix(".old")
    target.replace(aside)
    try:
        temporary.replace(target)
    except OSError:
        aside.replace(target)
        raise
    shutil.rmtree(aside)
