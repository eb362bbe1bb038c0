"""Times `aib serve`: reads while a real build runs, fifty clients beside moto's server, and how late a log line comes.

`python tests/bench/serve_bench.py [--seconds 10] [--out FOLDER]` writes serve.json and serve.md. moto comes from PyPI
into an environment of its own, once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
import requests

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from fixtures.guests.tiny.build import ensure_tiny_image  # noqa: E402
from orchestrator.record import events as e  # noqa: E402
from orchestrator.record.journal import Journal  # noqa: E402
from orchestrator.record.record import RecordWriter  # noqa: E402
from orchestrator.record.store import Store  # noqa: E402
from orchestrator.views.customization_log import CustomizationLog  # noqa: E402
from tests.bench.load import Asked, load  # noqa: E402
from tests.contract.served import AIB, Served, clean_environment, served  # noqa: E402

MOTO = "5.2.5"
CLIENTS = 50
LINES = 60
URN = "aib-tests:tiny:guest:1.0.0"
GROUP = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/bench"
TEMPLATES = f"{GROUP}/providers/Microsoft.VirtualMachineImages/imageTemplates"
VERSION = "api-version=2024-02-01"


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    given = parser.parse_args()
    work = given.out.absolute() / "serve"
    work.mkdir(parents=True, exist_ok=True)
    measured = {
        **reads_while_building(work, given.seconds),
        **fifty_clients(work, given.seconds),
        **log_tail(work),
    }
    table = (
        "\n".join(["| what | figure | wanted |", "|---|---|---|", *(row(*each) for each in measured.items())]) + "\n"
    )
    (given.out / "serve.json").write_text(json.dumps(measured, indent=2) + "\n")
    (given.out / "serve.md").write_text(table)
    print(table)


def row(what: str, value: float) -> str:
    """A line of the table; seconds are shown in milliseconds."""
    limits = {"read median while a build runs": 0.010, "log line to browser, slowest": 0.200}
    unit = f"{value:.2f}" if "ratio" in what else f"{value:.0f} a second" if "rate" in what else f"{value * 1e3:.1f} ms"
    wanted = "at least 1" if "ratio" in what else f"under {limits[what] * 1e3:.0f} ms" if what in limits else ""
    return f"| {what} | {unit} | {wanted} |"


def token(server: Served) -> dict[str, str]:
    form = {"grant_type": "client_credentials", "client_id": "bench", "client_secret": "x"}
    answer = requests.post(f"{server.url}/t/oauth2/token", data=form, verify=_trust(server), timeout=30)
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def _trust(server: Served) -> Any:
    return server.ca if server.url.startswith("https") else True


def put_template(server: Served, headers: dict[str, str], *lines: str) -> str:
    """A group, and in it a template of the tiny guest; its address."""
    publisher, offer, sku, version = URN.split(":")
    body = {
        "location": "eastus",
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {
            f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i": {}}},
        "properties": {
            "vmProfile": {"vmSize": "Standard_B1s"},
            "source": {"type": "PlatformImage", "publisher": publisher, "offer": offer, "sku": sku,
                       "version": version},
            "customize": [{"type": "Shell", "name": "busy", "inline": list(lines) or ["true"]}],
            "distribute": [{"type": "ManagedImage", "runOutputName": "out", "location": "eastus",
                            "imageId": f"{GROUP}/providers/Microsoft.Compute/images/bench"}],
        },
    }  # fmt: skip
    sent = {"headers": headers, "verify": _trust(server), "timeout": 60}
    requests.put(f"{server.url}{GROUP}?api-version=2024-11-01", json={"location": "eastus"}, **sent).raise_for_status()
    address = f"{server.url}{TEMPLATES}/bench?{VERSION}"
    requests.put(address, json=body, **sent).raise_for_status()
    while (state := requests.get(address, **sent).json()["properties"]["provisioningState"]) != "Succeeded":
        if state == "Failed":
            raise ValueError(requests.get(address, **sent).text)
        time.sleep(0.1)
    return address


def reads_while_building(work: Path, seconds: float) -> dict[str, float]:
    """One client reads a template, over TLS, while the template's build runs in a real virtual machine."""
    home = work / "home"
    environment = clean_environment(home)
    if not (home / "index.sqlite").exists():
        tiny = ensure_tiny_image(Path(os.environ.get("AIB_TEST_CACHE") or platformdirs.user_cache_path("aib-tests")))
        argv = [AIB, "image", "import", tiny, "--urn", URN, "--os", "linux"]
        subprocess.run(argv, env=environment, check=True, capture_output=True)
    with served(home, "--allow-host-network", "--no-cache") as server:
        headers = token(server)
        stem = f"{server.url}{TEMPLATES}/bench"
        requests.delete(f"{stem}?{VERSION}", headers=headers, verify=server.ca, timeout=30)
        while requests.get(f"{stem}?{VERSION}", headers=headers, verify=server.ca, timeout=30).status_code != 404:
            time.sleep(0.2)
        address = put_template(server, headers, "while :; do :; done")
        asked = Asked(address, headers, trust=server.ca)
        idle = load(asked, 1, seconds / 2)
        stem, _, query = address.partition("?")
        requests.post(f"{stem}/run?{query}", headers=headers, verify=server.ca, timeout=60).raise_for_status()
        wait_until_busy(address, headers, server)
        busy = load(asked, 1, seconds)
        requests.post(f"{stem}/cancel?{query}", headers=headers, verify=server.ca, timeout=60).raise_for_status()
        wait_until_busy(address, headers, server, wanted="Canceled")
    return {
        "read median, nothing else running": idle.median,
        "read median while a build runs": busy.median,
        "read 95th percentile while a build runs": busy.p95,
    }


def wait_until_busy(address: str, headers: dict[str, str], server: Served, wanted: str = "Customizing") -> None:
    while True:
        status = requests.get(address, headers=headers, verify=server.ca, timeout=30).json()
        status = status["properties"]["lastRunStatus"]
        if wanted in (status["runState"], status.get("runSubState")):
            return
        if status["runState"] in ("Failed", "Succeeded"):
            raise ValueError(status)
        time.sleep(0.2)


def fifty_clients(work: Path, seconds: float) -> dict[str, float]:
    """Reads of one resource by fifty clients: ours, then moto's, twice in turns; plain HTTP, as moto speaks it."""
    rates: dict[str, list[float]] = {}
    medians: dict[str, list[float]] = {}

    def note(name: str, asked: Asked) -> None:
        measured = load(asked, CLIENTS, seconds / 2)
        rates.setdefault(name, []).append(measured.rate)
        medians.setdefault(name, []).append(measured.median)

    with served(work / "scripted", "--scripted", "--in-memory", http=True) as server, moto(work) as theirs:
        headers = token(server)
        address = put_template(server, headers)
        for keep in (True, False, True, False):
            kept = "kept" if keep else "new connections"
            note(f"aib, {kept}", Asked(address, headers, keep=keep))
            note(f"moto, {kept}", Asked(theirs.url, theirs.headers, "POST", theirs.body, keep=keep))
    found: dict[str, float] = {}
    for name, values in rates.items():
        found[f"50 clients, {name}: rate"] = statistics.mean(values)
        found[f"50 clients, {name}: median"] = statistics.mean(medians[name])
    for kept in ("kept", "new connections"):
        found[f"50 clients, {kept}: ratio of rates aib to moto"] = statistics.mean(
            rates[f"aib, {kept}"]
        ) / statistics.mean(rates[f"moto, {kept}"])
    return found


@contextmanager
def moto(work: Path) -> Iterator[Asked]:
    """moto's server with one parameter of the parameter store: read by name, one small JSON object."""
    folder = work / f"moto-{MOTO}"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin/pip", "install", "--quiet", f"moto[server]=={MOTO}"], check=True)
        (folder / "installed").touch()
    with (folder / "log").open("wb") as log:
        argv = [folder / "bin/moto_server", "--host", "127.0.0.1", "--port", "5999"]
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    credential = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/ssm/aws4_request, SignedHeaders=host, Signature=0"
    headers = {"Authorization": credential, "Content-Type": "application/x-amz-json-1.1"}
    url = "http://127.0.0.1:5999/"

    def ask(target: str, body: dict[str, Any]) -> Asked:
        return Asked(url, {**headers, "X-Amz-Target": f"AmazonSSM.{target}"}, "POST", json.dumps(body).encode())

    try:
        put = ask("PutParameter", {"Name": "bench", "Value": "x" * 500, "Type": "String"})
        for _ in range(300):
            try:
                requests.post(url, data=put.body, headers=put.headers, timeout=30).raise_for_status()
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield ask("GetParameter", {"Name": "bench"})
    finally:
        process.terminate()
        process.wait()


def log_tail(work: Path) -> dict[str, float]:
    """From the moment a guest's line is known to the run until a browser that follows it has it."""
    home = work / "tailed"
    late: list[float] = []
    with served(home, http=True) as server:
        store = Store(home)
        with store.new_run("tailed") as folder, Journal(folder.path) as journal:
            journal.subscribe(RecordWriter(folder.path))
            with CustomizationLog(folder.path) as log:
                journal.subscribe(log)
                journal.emit(e.StepStarted(0, "step", "Shell", "Customizing", 1, "steps/00.out"))
                written: dict[str, float] = {}
                address = f"{server.url}/ui/runs/{folder.id}/live"
                reader = threading.Thread(target=_follow, args=(address, written, late))
                reader.start()
                time.sleep(1)
                for number in range(LINES):
                    written[f"line{number:04d}"] = time.perf_counter()
                    journal.output(0, "stdout", f"line{number:04d}\n".encode())
                    time.sleep(0.037 + 0.011 * (number % 7))
                time.sleep(1)
                journal.emit(e.RunFinished("Succeeded", "", "", 0, 1.0))
        reader.join()
    if len(late) != LINES:
        raise ValueError(f"{len(late)} of {LINES} lines came")
    return {"log line to browser, median": statistics.median(late), "log line to browser, slowest": max(late)}


def _follow(address: str, written: dict[str, float], late: list[float]) -> None:
    with requests.get(address, stream=True, timeout=60) as answer:
        kind = ""
        for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
            now = time.perf_counter()
            if line.startswith("event: "):
                kind = line
            elif line.startswith("data: ") and kind == "event: log":
                late.extend(now - at for name, at in written.items() if name in line)
            if kind == "event: end":
                return


if __name__ == "__main__":
    main()
