"""Bicep files are compiled with the user's own compiler; there is none in Debian, and aib brings none."""

from __future__ import annotations

from pathlib import Path

from hypervisor.deadline import Deadline
from hypervisor.errors import HostError, InputError
from hypervisor.process import ProcessError, ToolMissing, run

TIME_LIMIT = 120.0  # seconds; `az bicep` may first have to start a Python of its own
COMPILERS = (("bicep", "build", "{}", "--stdout"), ("az", "bicep", "build", "--file", "{}", "--stdout"))


def compile_to_json(file: Path) -> str:
    """The deployment template that `file` compiles to.

    Raises InputError with the compiler's own messages, HostError when there is no compiler.
    """
    if not file.is_file():
        raise InputError(f"there is no file {file}", hint="check the path")
    for words in COMPILERS:
        argv = [word.format(file) for word in words]
        try:
            return run(argv, deadline=Deadline.after(TIME_LIMIT, "compiling Bicep")).stdout.decode("utf-8-sig")
        except ToolMissing:
            continue
        except ProcessError as error:
            raise InputError(f"{file} does not compile: {error.message}", hint="correct the Bicep file") from error
    hint = "install the Bicep CLI, or the Azure CLI with `az bicep install`; or compile elsewhere and check the JSON"
    raise HostError(f"{file} is Bicep, and neither `bicep` nor `az` is installed", hint=hint)
