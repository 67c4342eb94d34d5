"""Virtual environments of peers, made when first needed, one for every distinct list of requirements."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
INTERPRETER = "# python "
"""Begins the first line of requirements that need another Python than this one, and is followed by its version."""


class NoEnvironmentError(RuntimeError):
    """An environment could not be made; the text is one line and says why."""


def python_for(peer: str, folder: Path) -> Path:
    """The Python that runs a peer: this one, or that of an environment below `folder` where it has requirements."""
    requirements = REQUIREMENTS / f"{peer}.txt"
    if not requirements.exists():
        return Path(sys.executable)
    text = requirements.read_text()
    version = text.splitlines()[0].removeprefix(INTERPRETER) if text.startswith(INTERPRETER) else ""
    interpreter = interpreter_of(version)
    named = hashlib.sha256(f"{_said(interpreter)}\n{text}".encode()).hexdigest()[:12]
    environment = folder / named
    if not (environment / "made").exists():
        _make(environment, interpreter, requirements)
    return environment / "bin" / "python"


def interpreter_of(version: str) -> str:
    """A Python of a version, as 3.12, or this one for none; a version manager may hold it without it being chosen."""
    if not version:
        return sys.executable
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [f"python{version}", *map(str, sorted(root.glob(f"{version}.*/bin/python{version}")))]
    for candidate in candidates:
        if _said(candidate).startswith(f"Python {version}."):
            return candidate
    raise NoEnvironmentError(f"no Python {version} was found")


def _said(interpreter: str) -> str:
    try:
        return subprocess.run([interpreter, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _make(environment: Path, interpreter: str, requirements: Path) -> None:
    shutil.rmtree(environment, ignore_errors=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    for command in ([interpreter, "-m", "venv", str(environment)], [*pip, "install", "-r", str(requirements)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = (done.stderr.strip() or "it says nothing").splitlines()[-1]
            raise NoEnvironmentError(f"the environment of {requirements.stem} could not be made: {why}")
    (environment / "made").touch()
