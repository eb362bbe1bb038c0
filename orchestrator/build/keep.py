"""`errorHandling: abort`: keep the build VM after a failure and tell how to get in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from hypervisor.deadline import Deadline
from orchestrator.build.build_vm import BuildVm
from provisioners.base import StepError

KEY_FILE = "login_key"


def keep_for_inspection(
    vm: BuildVm, run_folder: Path, deadline: Deadline, say: Callable[[str], None], error: StepError
) -> None:
    """Hold the build VM until it powers off, the run is cancelled, or the budget ends; the login key lives as long."""
    key_file = run_folder / KEY_FILE
    handle = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(vm.system.secret(vm))
        say(f"Failed: {error.message}")
        say(f"The build VM is kept (errorHandling: abort). Log in: {vm.system.login(vm, key_file)}")
        say(f"End it with Ctrl-C, `aib cancel {run_folder.name}`, or by powering it off.")
        while vm.machine.is_running() and not deadline.over:
            deadline.token.wait(min(0.5, deadline.remaining()))
    finally:
        key_file.unlink(missing_ok=True)
