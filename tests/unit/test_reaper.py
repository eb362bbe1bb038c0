"""The reaper takes the QEMU that was detached, and leaves alone the child that libvirt itself waits for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, sys, time
from pathlib import Path
from hypervisor.reaper import Reaper, become_subreaper

if not become_subreaper():
    sys.exit(77)
reaper = Reaper()
pidfile = Path(sys.argv[1])
for _ in range(8):
    argv = ["qemu-system-x86_64", "-machine", "none", "-display", "none", "-daemonize", "-pidfile", str(pidfile)]
    with reaper.looking():
        # As libvirt does when it asks a QEMU for its capabilities.
        direct = os.posix_spawnp(argv[0], argv, os.environ)
        _, status = os.waitpid(direct, 0)  # ChildProcessError when somebody else has reaped it
        assert status == 0, status
    detached = int(pidfile.read_text())
    os.kill(detached, 9)
    for _ in range(1000):
        if not Path(f"/proc/{detached}").exists():
            break
        time.sleep(0.01)
    else:
        sys.exit("the detached QEMU was not reaped")
"""


def test_the_child_that_libvirt_waits_for_is_left_to_it(tmp_path: Path) -> None:
    # A process of its own: a subreaper adopts the orphans of everybody below it.
    argv = [sys.executable, "-c", SCRIPT, str(tmp_path / "pid")]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
