"""The exceptions of ehrsim.

    EhrsimError                 anything ehrsim refuses, with one line that says how to mend it
    ├── InputError              data, a file or a folder that cannot be used as it is
    │   └── FormatError         a source whose format is not the one expected, or not known at all
    ├── UsageError              arguments that are unknown or contradict one another
    ├── RunError                a run folder that is incomplete, altered or of another version
    ├── MissingExtraError       a feature whose optional dependency is not installed
    ├── ServerError             a server that cannot be reached, or refuses what it is sent
    └── GateError               a check the user asked to be strict has failed

The command line prints the message and exits with `exit_code`; it never prints a traceback for these.
"""

from __future__ import annotations

from typing import ClassVar


class EhrsimError(Exception):
    """Base of all errors raised on purpose; catch it to catch every refusal of ehrsim."""

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """`message` names the file, row, column or key and what was found; `hint` says how to mend it."""
        self.message = " ".join(message.split())
        self.hint = hint
        super().__init__(f"{self.message} (hint: {hint})" if hint else self.message)


class InputError(EhrsimError):
    """Data, a file or a folder that cannot be used as it is."""


class FormatError(InputError):
    """A source whose format is not the one expected, or not known at all."""


class UsageError(EhrsimError):
    """Arguments that are unknown or contradict one another."""


class RunError(EhrsimError):
    """A run folder that is incomplete, altered since it was written, or of another format version."""


class MissingExtraError(EhrsimError):
    """A feature whose optional dependency is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency", hint=f"pip install 'ehrsim[{extra}]'")


class ServerError(EhrsimError):
    """A server that cannot be reached, or refuses what it is sent."""


class GateError(EhrsimError):
    """A check the user asked to be strict has failed."""

    exit_code: ClassVar[int] = 1
