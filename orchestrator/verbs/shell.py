"""A login, or one command, in the build VM as it was before or after a step."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypervisor.deadline import Deadline
from hypervisor.errors import HostError
from orchestrator.build.build_vm import BuildVm
from orchestrator.build.requirements import require_build_extra
from orchestrator.build.visit import Moment, place, plan_of, visiting
from orchestrator.record.store import Store
from orchestrator.verbs.runs import find_run
from provisioners.communicators.base import OutputCallback

LONGEST_SECONDS = 24 * 3600.0
LOST = 255
"""What ssh exits with when the connection ends without an exit code."""


def shell(
    store: Store,
    run: str,
    step: str,
    moment: Moment,
    *,
    command: str,
    output: OutputCallback,
    say: Callable[[str], None],
) -> int:
    """Restore the moment and run `command` in it ("": a terminal); the exit code of what ran.

    Raises `UsageError` for a run or step that is not there, `InputError` when no checkpoint of the moment was kept,
    `HostError` for a terminal without the ssh client.
    """
    require_build_extra()
    if not command and shutil.which("ssh") is None:
        raise HostError("a terminal needs the ssh client", hint="sudo apt install openssh-client, or give a command")
    where = place(plan_of(find_run(store, run)), step, moment)
    deadline = Deadline.after(LONGEST_SECONDS, "the day that a session may last")
    with visiting(store, where, deadline, say=say) as vm:
        if not command:
            return _terminal(vm)
        result = vm.communicator.run(command, deadline=deadline, output=output)
        return LOST if result.exit_code is None else result.exit_code


def _terminal(vm: BuildVm) -> int:
    """The user's own ssh client, which knows the guest's host key and has the login key for as long as it runs."""
    host, port = vm.address
    with tempfile.TemporaryDirectory(prefix="aib-login-") as private:
        key, known = Path(private, "key"), Path(private, "known_hosts")
        key.touch(mode=0o600)
        key.write_text(vm.identity.login_private)
        known.write_text(f"[{host}]:{port} {vm.identity.host_public}\n")
        options = [f"UserKnownHostsFile={known}", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes", "LogLevel=ERROR"]
        argv = ["ssh", "-i", str(key), "-p", str(port), *(word for option in options for word in ("-o", option))]
        # Not through hypervisor.process, which captures: the terminal is the user's, and so is Ctrl-C.
        return subprocess.run([*argv, f"{vm.identity.user}@{host}"], check=False).returncode
