"""Counts and times the upload of one file into the WinRM guest: aib, Debian's Packer and winrmcp in one run.

    python tests/bench/upload_bench.py [--kib 1024] [--rounds 3]

Prints a table: messages, and the seconds from the first to the last (the median of the rounds). The guest stands in for
Windows, where each of Packer's `echo` commands starts a cmd.exe: there the distance is larger.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fixtures.guests.windows.machine import ACCOUNT, Windows
from fixtures.guests.windows.server import Served, running
from hypervisor.deadline import Deadline
from provisioners.communicators.winrm_connect import connect

USER, PASSWORD = ACCOUNT
TARGET = "C:/Windows/Temp/uploaded.bin"
Way = Callable[[Served, Path], None]


class Timed(list):  # type: ignore[type-arg]
    """The kinds of the requests, and when each came."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[float] = []

    def append(self, kind: str) -> None:
        self.at.append(time.monotonic())
        super().append(kind)


def ours(upload: str, auth: str) -> Way:
    def send(served: Served, file: Path) -> None:
        deadline = Deadline.after(300, "the upload")
        guest = connect(
            "127.0.0.1", served.port, user=USER, password=PASSWORD, tls=None, deadline=deadline,
            auth=auth, upload=upload,  # type: ignore[arg-type]
        )  # fmt: skip
        guest.upload(file, TARGET, deadline=deadline)
        guest.close()

    return send


def packer(served: Served, file: Path) -> None:
    builder = {
        "type": "null", "communicator": "winrm", "winrm_host": "127.0.0.1", "winrm_port": served.port,
        "winrm_username": USER, "winrm_password": PASSWORD, "winrm_timeout": "60s",
    }  # fmt: skip
    provisioner = {"type": "file", "source": str(file), "destination": TARGET}
    template = file.with_name("template.json")
    template.write_text(json.dumps({"builders": [builder], "provisioners": [provisioner]}))
    _run("packer", "build", "-color=false", str(template))


def winrmcp(served: Served, file: Path) -> None:
    _run("winrmcp", "-user", USER, "-pass", PASSWORD, "-addr", f"127.0.0.1:{served.port}", str(file), TARGET)


def _run(*argv: str) -> None:
    environment = {**os.environ, "CHECKPOINT_DISABLE": "1"}
    subprocess.run(argv, check=True, capture_output=True, timeout=300, env=environment)


WAYS: dict[str, Way] = {
    "aib, NTLM with encryption": ours("stdin", "ntlm"),
    "aib, Basic": ours("stdin", "basic"),
    "aib, `--fidelity upload=packer`": ours("packer", "basic"),
    "Packer 1.6.6 (null builder, file)": packer,
    "winrmcp": winrmcp,
}


def measured(way: Way, content: bytes) -> tuple[int, float]:
    """(messages, seconds) of one upload into a fresh guest; raises when the file is not what was sent."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file.bin"
        file.write_bytes(content)
        windows = Windows(Path(folder) / "guest")
        with running(windows) as served:
            served.server.service.requests = requests = Timed()
            way(served, file)
        if windows.files.read(TARGET) != content:
            raise RuntimeError("the file did not arrive as it was sent")
        return len(requests), requests.at[-1] - requests.at[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    content = os.urandom(given.kib * 1024)
    print(f"| {given.kib} KiB by | messages | seconds |\n|---|---:|---:|")
    for name, way in WAYS.items():
        found = [measured(way, content) for _ in range(given.rounds)]
        seconds = statistics.median(second for _, second in found)
        print(f"| {name} | {found[0][0]} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
