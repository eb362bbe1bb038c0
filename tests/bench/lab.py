"""Where builds are timed: a store with the source image, templates on it, aib and Debian's Packer as programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

AIB = Path(sys.executable).parent / "aib"
SCOPE = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/aib/providers"
LONGEST = 3600
BIG, SMALL = "Standard_B2s", "Standard_B1s"
"""2 vCPU and 4 GiB; 1 vCPU and 1 GiB."""
STEPS = [
    ["sudo mkdir -p /opt/app", "echo one | sudo tee /opt/app/one"],
    ["sudo install -m 0644 /tmp/payload /opt/app/payload", "sha256sum /opt/app/payload"],
    ["echo three | sudo tee /opt/app/three"],
]
"""Three shell steps; the template puts a file between the first and the second."""


@dataclass(frozen=True, slots=True)
class PackerRun:
    """What Packer said, and when (monotonic seconds); `seconds` is the whole of it."""

    seconds: float
    said: tuple[tuple[float, str], ...]


class Lab:
    """A store with the source image, and templates on it. The store is kept: a second call starts at once."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.home = work / "home"
        self.environment = {**os.environ, "AIB_HOME": str(self.home), "NO_COLOR": "1", "CHECKPOINT_DISABLE": "1"}
        # As at a user's second start: compiled modules are kept.
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        work.mkdir(parents=True, exist_ok=True)
        self.payload(1 << 20)

    def payload(self, size: int) -> Path:
        """The file of the template, made of bytes that do not compress."""
        path = self.work / "payload"
        path.write_bytes(os.urandom(size))
        return path

    def aib(self, *words: str | Path) -> float:
        """Run `aib`, which must succeed; seconds."""
        return self.timed([AIB, *words])

    def tidy(self) -> None:
        """Remove the disks and checkpoints that a case left (some gigabytes); the source image stays."""
        self.aib("gc", "--artifacts", "--checkpoints-max", "0")
        shutil.rmtree(self.work / "packer", ignore_errors=True)

    def timed(self, words: list[Any]) -> float:
        """Seconds that the command takes; it must succeed."""
        command = [str(word) for word in words]
        started = time.monotonic()
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=self.environment, timeout=LONGEST
        )
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return time.monotonic() - started

    def run_folder(self) -> Path:
        """The newest run's folder."""
        return max((self.home / "runs").glob("[0-9]*"))

    def record(self) -> dict[str, Any]:
        """The newest run's record."""
        loaded: dict[str, Any] = json.loads((self.run_folder() / "record.json").read_text())
        return loaded

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The newest run's events of one type."""
        lines = (self.run_folder() / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["type"] == kind]

    def step_starts(self) -> list[float]:
        """When each step of the newest run began (seconds)."""
        return [moment(event) for event in self.events("StepStarted")]

    def phase_seconds(self, *names: str) -> float:
        """What these phases of the newest run took together."""
        return float(sum(phase["seconds"] for phase in self.record()["phases"] if phase["name"] in names))

    def template(self, name: str, steps: list[list[str]], size: str = BIG) -> Path:
        """Shell steps with these lines, and a file as the second customizer."""
        customize: list[dict[str, Any]] = [
            {"type": "Shell", "name": f"step {number}", "inline": lines} for number, lines in enumerate(steps)
        ]
        payload = {"type": "File", "name": "payload", "sourceUri": "payload", "destination": "/tmp/payload"}
        customize.insert(1, payload)
        body = {
            "type": "Microsoft.VirtualMachineImages/imageTemplates",
            "apiVersion": "2023-07-01",
            "location": "eastus",
            "identity": {"type": "UserAssigned", "userAssignedIdentities": {}},
            "properties": {
                "vmProfile": {"vmSize": size},
                "source": {
                    "type": "PlatformImage", "publisher": "Debian", "offer": "debian-12", "sku": "12",
                    "version": "latest",
                },
                "customize": customize,
                "distribute": [
                    {"type": "ManagedImage", "runOutputName": name, "location": "eastus",
                     "imageId": f"{SCOPE}/Microsoft.Compute/images/{name}"},
                ],
            },
        }  # fmt: skip
        path = self.work / f"{name}.json"
        path.write_text(json.dumps(body, indent=1))
        return path

    def packer(self, template: Path) -> PackerRun:
        """Build with Packer what `aib plan --packer` writes; writing it is not counted."""
        folder = self.work / "packer"
        shutil.rmtree(folder, ignore_errors=True)
        self.aib("plan", template, "--packer", folder)
        exported = next(folder.rglob("*.pkr.json"), None) or next(folder.rglob("*.json"))
        command = ["packer", "build", "-color=false", "-var", "accelerator=tcg", str(exported)]
        environment = {**self.environment, "PACKER_CACHE_DIR": str(folder / "cache")}
        said = []
        started = time.monotonic()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as run:
            assert run.stdout
            for line in run.stdout:
                said.append((time.monotonic(), line.rstrip()))
        seconds = time.monotonic() - started
        if run.returncode != 0:
            sys.exit("\n".join(line for _, line in said[-40:]))
        shutil.rmtree(folder, ignore_errors=True)
        return PackerRun(seconds, tuple(said))

    def cold_start(self) -> None:
        """Forget every checkpoint."""
        self.aib("checkpoints", "remove", "--all")


def moment(event: dict[str, Any]) -> float:
    """When an event was written (seconds)."""
    return datetime.fromisoformat(event["time"]).timestamp()
