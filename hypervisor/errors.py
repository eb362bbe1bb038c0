"""The one error tree.

Every error says what failed, with which values, and what to do (`hint`). The class decides the exit code of the
process; only `main` turns errors into text.

    AibError                 70
    ├── BuildError            1   a customizer, validator, generalize or distribute step failed
    ├── TemplateError         2   the template is invalid
    ├── HostError             3   this machine cannot (tool missing, libvirt refused, no space left)
    ├── InputError            4   an input is unavailable or wrong (fetch, checksum, source image)
    ├── UsageError           64   the command line asks for something that does not fit
    ├── DeadlineExceeded    124   the budget is used up
    └── Cancelled           130   the user asked to stop
"""

from __future__ import annotations


class AibError(Exception):
    """Something expected went wrong: `message` says what and with which values, `hint` says what to do."""

    exit_code = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BuildError(AibError):
    """The build failed: a step, the generalize proof or a distribution."""

    exit_code = 1


class TemplateError(AibError):
    """The template is invalid; the diagnostics say where."""

    exit_code = 2


class HostError(AibError):
    """This machine cannot do it."""

    exit_code = 3


class InputError(AibError):
    """An input is unavailable or wrong."""

    exit_code = 4


class UsageError(AibError):
    """The command line asks for something that does not fit together."""

    exit_code = 64


class DeadlineExceeded(AibError):
    """The budget is used up."""

    exit_code = 124


class Cancelled(AibError):
    """The user asked to stop."""

    exit_code = 130
