"""Times builds beside Debian's Packer: the same source image, template and acceleration, interleaved.

`python tests/bench/build_bench.py [--pairs 5] [--out FOLDER]` writes build.json and build.md. What Packer has no
counterpart for (the proof that reads the powered-off disk) is measured apart and counted in aib's total all the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

AIB = Path(sys.executable).parent / "aib"
SCOPE = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/aib/providers"
LONGEST = 3600
STEP_COUNT = 20
STEPS = [
    ["sudo mkdir -p /opt/app", "echo one | sudo tee /opt/app/one"],
    ["sudo install -m 0644 /tmp/payload /opt/app/payload", "sha256sum /opt/app/payload"],
    ["echo three | sudo tee /opt/app/three"],
]


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    given = parser.parse_args()
    work = given.out.absolute() / "work"
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(work)
    bench.prepare()
    measured = bench.measure(given.pairs)
    table = markdown(measured)
    (given.out / "build.json").write_text(json.dumps(measured, indent=2) + "\n")
    (given.out / "build.md").write_text(table)
    print(table)


class Bench:
    """A store with the source image, and templates on it. The store is kept: a second call starts at once."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.size = "Standard_B2s"
        self.home = work / "home"
        self.export_seconds = 0.0
        self.environment = {**os.environ, "AIB_HOME": str(self.home), "NO_COLOR": "1", "CHECKPOINT_DISABLE": "1"}

    def prepare(self) -> None:
        """The source image from packages, and one uncounted build: caches that every later build has are warm."""
        (self.work / "payload").write_bytes(os.urandom(1 << 20))
        self.aib("build", self.template("warm", STEPS[:1]), "--no-cache")

    def aib(self, *words: str | Path) -> float:
        """Run `aib`, which must succeed; seconds."""
        return timed([str(AIB), *map(str, words)], self.environment)

    def record(self) -> dict[str, Any]:
        """The newest run's record."""
        runs = sorted((self.home / "runs").glob("[0-9]*"))
        loaded: dict[str, Any] = json.loads((runs[-1] / "record.json").read_text())
        return loaded

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The newest run's events of one type."""
        runs = sorted((self.home / "runs").glob("[0-9]*"))
        lines = (runs[-1] / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["type"] == kind]

    def template(self, name: str, steps: list[list[str]]) -> Path:
        """Three shell steps and a file, or whatever `steps` says."""
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
                "vmProfile": {"vmSize": self.size},
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

    def measure(self, pairs: int) -> dict[str, Any]:
        """All cases, `pairs` times, aib and Packer in turns."""
        rows: dict[str, list[float]] = {}

        def note(name: str, value: float) -> None:
            rows.setdefault(name, []).append(round(value, 3))

        cold = self.template("cold", STEPS)
        for number in range(pairs):
            both = [lambda: self._cold(cold, note), lambda: self._packer(cold, note)]
            for one in both if number % 2 == 0 else reversed(both):
                one()
            self._warm(number, note)
        self._steps(note)
        self._large_file(note)
        self._much_output(note)
        self._fixed_vhd(note, pairs)
        self._four(note)
        return {"machine": machine(), "pairs": pairs, "seconds": rows}

    def _cold(self, template: Path, note: Callable[[str, float], None]) -> None:
        note("aib cold build", self.aib("build", template, "--no-cache"))
        record = self.record()
        note("aib cold boot to first command", record["bootSeconds"])
        proof = sum(phase["seconds"] for phase in record["phases"] if phase["name"] == "Inspecting")
        note("aib proof in the cold build", proof)

    def _packer(self, template: Path, note: Callable[[str, float], None]) -> None:
        started = time.monotonic()
        self.packer(template)
        note("Packer cold build", time.monotonic() - started - self.export_seconds)

    def packer(self, template: Path) -> list[tuple[float, str]]:
        """Build with Packer what `aib plan --packer` writes; what it said and when (seconds)."""
        folder = self.work / "packer"
        shutil.rmtree(folder, ignore_errors=True)
        self.export_seconds = self.aib("plan", template, "--packer", folder)
        exported = next(folder.rglob("*.pkr.json"), None) or next(folder.rglob("*.json"))
        command = ["packer", "build", "-color=false", "-var", "accelerator=tcg", str(exported)]
        environment = {**self.environment, "PACKER_CACHE_DIR": str(folder / "cache")}
        said = []
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as run:
            assert run.stdout
            for line in run.stdout:
                said.append((time.monotonic(), line.rstrip()))
        if run.returncode != 0:
            sys.exit("\n".join(line for _, line in said[-40:]))
        return said

    def _steps(self, note: Callable[[str, float], None]) -> None:
        """Twenty steps that do nothing, by both; the first of them still shares the guest with the end of its boot."""
        template = self.template("twenty", [["true"]] * (STEP_COUNT + 2))
        self.aib("build", template, "--no-cache")
        for step in self.record()["steps"][3 : 3 + STEP_COUNT]:
            note("aib shell step that does nothing", step["seconds"])
        begun = [at for at, line in self.packer(template) if "Provisioning with shell script" in line]
        for start, end in itertools.pairwise(begun[2:]):
            note("Packer shell step that does nothing", end - start)

    def _large_file(self, note: Callable[[str, float], None]) -> None:
        """128 MiB that do not compress."""
        content = (self.work / "payload").read_bytes()
        (self.work / "payload").write_bytes(os.urandom(128 << 20))
        try:
            template = self.template("large", [["true"], ["true"]])
            self.aib("build", template, "--no-cache")
            note("aib file of 128 MiB", self.record()["steps"][1]["seconds"])
            said = self.packer(template)
        finally:
            (self.work / "payload").write_bytes(content)
        sent = next(index for index, (_, line) in enumerate(said) if "Uploading" in line)
        after = next(at for at, line in said[sent + 1 :] if "Provisioning with shell script" in line)
        note("Packer file of 128 MiB", after - said[sent][0])

    def _much_output(self, note: Callable[[str, float], None]) -> None:
        """The largest that any process of ours became while a step printed 200 MB."""
        template = self.template("loud", [["head -c 200000000 /dev/zero | tr '\\0' 'x' | fold -w 99"]])
        words = [str(AIB), "build", str(template), "--no-cache", "--until", "2"]
        most = 0
        with subprocess.Popen(words, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            while run.poll() is None:
                most = max(most, sum(peak_memory(pid) for pid in (run.pid, *pythons_under(run.pid))))
                time.sleep(0.5)
        if run.returncode != 0:
            sys.exit(f"the build that prints much ended with {run.returncode}")
        note("peak memory (MB, not seconds) of supervisor and worker, 200 MB of output", most / 1e6)

    def _fixed_vhd(self, note: Callable[[str, float], None], pairs: int) -> None:
        """A fixed VHD from a disk with 1.3 GB allocated, beside cp."""
        raw, vhd, copy = (self.work / name for name in ("disk.raw", "disk.vhd", "copy.raw"))
        with raw.open("wb") as file:
            for number in range(1300):
                file.seek(number * 3 << 20)
                file.write(os.urandom(1 << 20))
            file.truncate(4 << 30)
        code = "\n".join(
            (
                "import sys",
                "from pathlib import Path",
                "from hypervisor.deadline import Deadline",
                "from hypervisor.vhd import write_fixed_vhd",
                "write_fixed_vhd(Path(sys.argv[1]), 'raw', Path(sys.argv[2]), Deadline.after(600))",
            )
        )
        for _ in range(pairs):
            vhd.unlink(missing_ok=True)
            copy.unlink(missing_ok=True)
            note(
                "fixed VHD of 1.3 GB allocated",
                timed([sys.executable, "-c", code, str(raw), str(vhd)], self.environment),
            )
            note(
                "cp --sparse=always of the same",
                timed(["cp", "--sparse=always", str(raw), str(copy)], self.environment),
            )
        for path in (raw, vhd, copy):
            path.unlink()

    def _four(self, note: Callable[[str, float], None]) -> None:
        """Four builds on machines of one vCPU: two at once, and one after another."""
        self.size = "Standard_B1ms"
        four = [self.template(f"four-{number}", STEPS) for number in range(4)]
        note("four builds, at most two at once", self.aib("build", *four, "--no-cache", "--jobs", "2"))
        note("four builds, one after another", self.aib("build", *four, "--no-cache", "--jobs", "1"))

    def _warm(self, number: int, note: Callable[[str, float], None]) -> None:
        """Six steps built once; then the last one is edited."""
        six = [[f"echo {step} | sudo tee /opt/step-{step}"] for step in range(4)]
        template = self.template("six", [*six, [f"sleep 1; echo first-{number}"]])
        self.aib("checkpoints", "remove", "--all")
        self.aib("build", template, "--until", "6")
        for event in self.events("CheckpointTaken"):
            note("pause of a checkpoint", event["seconds"])
        self.template("six", [*six, [f"sleep 1; echo edited-{number}"]])
        seconds = self.aib("build", template, "--until", "6")
        record = self.record()
        assert [step["result"] for step in record["steps"]][:6] == ["cached"] * 5 + ["succeeded"]
        note("resumed to first command", record["bootSeconds"])
        note("edit of the last of six steps, beyond the step itself", seconds - record["steps"][5]["seconds"])


def peak_memory(pid: int) -> int:
    """Bytes that the process held at most; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def pythons_under(pid: int) -> list[int]:
    """The worker among the children of a supervisor; QEMU's processes are not ours."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if "worker" in Path(f"/proc/{child}/cmdline").read_text()]
    except OSError:
        return []


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Seconds that the command takes; it must succeed."""
    started = time.monotonic()
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=LONGEST)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return time.monotonic() - started


def machine() -> dict[str, str]:
    """Where this was measured."""
    packer = subprocess.run(["packer", "version"], check=True, capture_output=True, text=True).stdout.split()[1]
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], check=True, capture_output=True, text=True).stdout
    return {
        "cpus": str(os.cpu_count()),
        "python": platform.python_version(),
        "packer": packer,
        "qemu": qemu.split()[3],
        "acceleration": "software emulation (TCG)",
    }


GOALS = (
    ("whole cold build, three shell steps and a file", "aib cold build", "Packer cold build", "0.75"),
    ("overhead of a shell step", "aib shell step that does nothing", "Packer shell step that does nothing", "0.2"),
    ("start from checkpoint 0, to the cold boot", "resumed to first command", "aib cold boot to first command", "0.06"),
    ("fixed VHD, to cp", "fixed VHD of 1.3 GB allocated", "cp --sparse=always of the same", "1.5"),
    ("128 MiB file into the guest", "aib file of 128 MiB", "Packer file of 128 MiB", "0.25"),
    (
        "four builds, two at once, to one by one",
        "four builds, at most two at once",
        "four builds, one after another",
        "0.8",
    ),
)


def markdown(measured: dict[str, Any]) -> str:
    """Two tables: the ratios that the goals are about, and every median with its range."""
    seconds = measured["seconds"]
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    lines = ["| ratio | goal | measured |", "|---|---|---|"]
    lines += [f"| {what} | {goal} | {middle[one] / middle[other]:.3f} |" for what, one, other, goal in GOALS]
    lines += ["", "| what | median (s) | range (s) | n |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {middle[name]:.2f} | {min(values):.2f}-{max(values):.2f} | {len(values)} |"
        for name, values in seconds.items()
    ]
    lines += ["", f"Measured on: {', '.join(f'{key} {value}' for key, value in measured['machine'].items())}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
