"""Debian's Packer as the judge of what a script sees: the same template through it and through aib, on the same guest.

The service runs Packer; `aib plan --packer` writes what it would run. Where the two differ on purpose, the difference
is asserted from both sides, so that neither changes unnoticed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hypervisor.partitions import read_table
from provisioners.base import StepError
from provisioners.shell import Shell
from tests.vm.support import TINY_URN, Home, shell
from tests.vm.test_provisioners_on_guest import Told, booted

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("oracle")]  # one pair of builds serves all its tests
BUILD_SECONDS = 300
STATE = "/var/oracle"
CRLF_SCRIPT = (
    b"#!/bin/sh\r\n"
    b'cp "$0" /var/oracle/uri-script; id >/var/oracle/uri-id; pwd >/var/oracle/uri-cwd\r\n'
    b"env | sort >/var/oracle/uri-env; stat -c '%a %U:%G' \"$0\" >/var/oracle/uri-mode\r\n"
    b"false\r\n"
    b"echo 'a script of its own goes on after a failing line' >/var/oracle/uri-went-on\r\n"
    b"echo by-uri >>/var/oracle/order\r\n"
)
NUL_SCRIPT = b'#!/bin/sh\ncp "$0" /var/oracle/program\nexit 0\n\0 and then\r\n'
FILE = bytes(range(256)) + b"\r\nline\r\n"

SEEN = [
    "env | sort >env; pwd >cwd".replace(">", f">{STATE}/"),
    f"id >{STATE}/id; umask >{STATE}/umask",
    f"ulimit -a | grep -v ^process >{STATE}/limits",  # that one goes by the free memory, and the boards differ
    f'tty >{STATE}/tty 2>&1 || echo "exit $?" >>{STATE}/tty',
    f"cat | wc -c >{STATE}/bytes-on-stdin",
    f'cp "$0" {STATE}/script; stat -c \'%a %U:%G\' "$0" >{STATE}/script-mode; echo "$0 $# $-" >{STATE}/script-name',
    f"grep ^Sig[^Q] /proc/self/status >{STATE}/signals",
    f"tr '\\0' ' ' <\"/proc/$$/cmdline\" >{STATE}/command-line",
    "sleep 1000 >/dev/null 2>&1 &",
    f"echo one >>{STATE}/order",
]
LEFT = (
    'for f in /tmp/*; do [ "$f" = "$0" ] || stat -c "%n %a %U:%G %s" "$f"; done'
    f" | grep -v forget-seed >{STATE}/left-in-tmp"
)
MANIFEST = f"cd {STATE} && find . | sort | xargs stat -c '%n %a %U:%G %s' >/tmp/m && cp /tmp/m {STATE}/manifest"
STEPS: list[dict[str, Any]] = [
    shell(f"sudo -n mkdir -m 0777 {STATE}", f"echo first >>{STATE}/order", name="folder"),
    shell(*SEEN, name="what an inline script sees"),
    shell(
        "cd /etc", "X=kept", "export X", f"pwd >{STATE}/within; echo $X >>{STATE}/within", f"echo two >>{STATE}/order",
        name="within one customizer",
    ),
    shell(
        f"pwd >{STATE}/between; echo ${{X-lost}} >>{STATE}/between; pidof sleep | wc -w >>{STATE}/between",
        name="between two",
    ),
    shell(
        "false | true", "false || true", "if false; then exit 9; fi", "! true", "set +e", "false",
        f"echo 'set +e goes on' >{STATE}/went-on",
        name="what -e lets pass",
    ),
    shell("#!/bin/bash", f"echo $BASH_VERSION >{STATE}/own-shebang", f"cp $0 {STATE}/own-shebang-script", name="bash"),
    shell(
        "x='{{ not a template }} $HOME \"quoted\" it'\\''s \\\\ back'", f"printf '%s' \"$x\" >{STATE}/quoting",
        f"printf 'é\\r\\nx' >{STATE}/bytes; printf 'no line end' >>{STATE}/bytes",
        name="quoting",
    ),
    {"type": "Shell", "name": "by-uri", "scriptUri": "crlf.sh"},
    {"type": "Shell", "name": "program", "scriptUri": "program"},
    shell("echo old content that is longer >/tmp/there; chmod 0751 /tmp/there", name="a file that is there"),
    {"type": "File", "name": "over it", "sourceUri": "file.bin", "destination": "/tmp/there"},
    {"type": "File", "name": "new", "sourceUri": "file.bin", "destination": "/tmp/new.bin"},
    shell(f"cp /tmp/there {STATE}/file-over; cp /tmp/new.bin {STATE}/file-new", LEFT, name="left"),
    shell(MANIFEST, name="manifest"),
]  # fmt: skip


def template(folder: Path, name: str, steps: list[dict[str, Any]]) -> Path:
    publisher, offer, sku, version = TINY_URN.split(":")
    body = {
        "type": "Microsoft.VirtualMachineImages/imageTemplates",
        "apiVersion": "2023-07-01",
        "name": name,
        "location": "eastus",
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {}},
        "properties": {
            "vmProfile": {"vmSize": "Standard_B1s"},
            "source": {
                "type": "PlatformImage", "publisher": publisher, "offer": offer, "sku": sku, "version": version,
            },
            "customize": steps,
            "distribute": [{"type": "VHD", "runOutputName": "out"}],
        },
    }  # fmt: skip
    path = folder / f"{name}.json"
    path.write_text(json.dumps(body))
    (folder / "crlf.sh").write_bytes(CRLF_SCRIPT)
    (folder / "program").write_bytes(NUL_SCRIPT)
    (folder / "file.bin").write_bytes(FILE)
    return path


def packer(packer_template: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "CHECKPOINT_DISABLE": "1",
        "PACKER_CACHE_DIR": str(packer_template.parent / "cache"),
        "PACKER_CONFIG": str(packer_template.parent / "no-config"),
    }
    command = ["packer", "build", "-color=false", "-var", "accelerator=tcg", str(packer_template)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=BUILD_SECONDS, env=environment)


def read_state(disk: Path, scratch: Path) -> dict[str, bytes]:
    """The files under STATE of a raw disk (or fixed VHD), by the file system's own debugger: no code of ours."""
    root = max(read_table(disk, "raw").partitions, key=lambda partition: partition.size)
    scratch.mkdir()
    subprocess.run(
        ["debugfs", "-R", f"rdump {STATE} {scratch}", f"{disk}?offset={root.start}"],
        check=True, capture_output=True, env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"},
    )  # fmt: skip
    return {path.name: path.read_bytes() for path in (scratch / Path(STATE).name).iterdir()}


@dataclass
class Both:
    """The state that the two builds left on their disks."""

    packer: dict[str, bytes]
    aib: dict[str, bytes]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_image: Path) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    home.ok("image", "import", tiny_image, "--urn", TINY_URN, "--os", "linux")
    return home


@pytest.fixture(scope="module")
def both(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("oracle")
    path = template(folder, "oracle", STEPS)
    exported = Path(home.ok("plan", path, "--packer", folder / "packer").strip())
    built = packer(exported)
    assert built.returncode == 0, built.stdout + built.stderr
    home.ok("build", path)
    raw = folder / "packer.raw"
    made = exported.parent / "output" / "oracle.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", made, raw], check=True)
    vhd = home.path / "vhds" / "oracle" / "out.vhd"
    return Both(read_state(raw, folder / "of-packer"), read_state(vhd, folder / "of-aib"))


def common(data: bytes) -> bytes:
    """Without what is drawn anew each time: script numbers, ports, and the address variables of the QEMU builder."""
    data = re.sub(rb"/tmp/script_\d+\.sh", b"/tmp/script_N.sh", data)
    data = re.sub(rb"(?m)^(SSH_CLIENT|SSH_CONNECTION)=(\S+) \d+", rb"\1=\2 PORT", data)
    data = re.sub(rb"(?m)^PACKER_HTTP_\w+=.*\n", b"", data)
    return re.sub(rb"PACKER_HTTP_\w+=\S+ ", b"", data)  # in sudo's copy of its command line


KNOWN = {"program", "manifest", "env", "uri-env"}
NUMBERED = rb"command-line|script-name"


def test_the_same_files_with_the_same_content(both: Both) -> None:
    assert set(both.packer) == set(both.aib)
    assert len(both.aib) >= 30
    different = {
        name: (both.packer[name], both.aib[name])
        for name in both.aib
        if name not in KNOWN and common(both.packer[name]) != common(both.aib[name])
    }
    assert different == {}


def test_the_same_modes_owners_and_sizes(both: Both) -> None:
    own = re.compile(rb"(?m)^\./(program|env|uri-env|" + NUMBERED + rb") .*\n")  # sizes differ with known content
    assert b"./order 644 packer:packer" in both.aib["manifest"]
    assert b"./uri-id 644 root:root" in both.aib["manifest"]
    assert own.sub(b"", both.packer["manifest"]) == own.sub(b"", both.aib["manifest"])


@pytest.mark.parametrize("name", ["env", "uri-env"])
def test_the_environment(both: Both, name: str) -> None:
    """Packer's QEMU builder adds the address of its web server; azure-arm has none. All else is the same."""
    assert common(both.packer[name]) == common(both.aib[name])
    assert b"PACKER_HTTP" not in both.aib[name]
    assert b"PACKER_BUILDER_TYPE=azure-arm\nPACKER_BUILD_NAME=azure-arm\n" in both.aib[name]


def test_what_is_documented_of_it(both: Both) -> None:
    """Agreement could also mean that both builds did nothing."""
    state = both.aib
    assert state["order"] == b"first\none\ntwo\nby-uri\n"
    assert state["script"].startswith(b"#!/bin/sh -e\nenv | sort")
    assert state["script-mode"] == b"755 packer:packer\n"
    assert re.fullmatch(rb"/tmp/script_\d{1,4}\.sh 0 e\n", state["script-name"])
    assert state["tty"] == b"not a tty\nexit 1\n"
    assert state["bytes-on-stdin"] == b"0\n"
    assert state["cwd"] == state["uri-cwd"] == b"/home/packer\n"
    assert state["within"] == b"/etc\nkept\n"
    assert state["between"] == b"/home/packer\nlost\n1\n"
    assert state["went-on"] == b"set +e goes on\n"
    assert state["own-shebang"].startswith(b"5.")
    assert state["quoting"] == b'{{ not a template }} $HOME "quoted" it\'s \\\\ back'
    assert state["uri-script"] == CRLF_SCRIPT.replace(b"\r\n", b"\n")
    assert b"uid=0(root)" in state["uri-id"]
    assert b"went on" not in state["uri-went-on"]
    assert state["file-over"] == state["file-new"] == FILE
    assert b"script_" not in state["left-in-tmp"]
    assert b"/tmp/there 751 packer:packer" in state["left-in-tmp"]
    assert b"/tmp/DeprovisioningScript.sh 644 packer:packer" in state["left-in-tmp"]


def test_known_difference_a_program_keeps_its_line_ends(both: Both) -> None:
    """Packer converts CRLF even in what holds NUL bytes (its `binary` is off); aib leaves a program alone."""
    assert both.packer["program"] == NUL_SCRIPT.replace(b"\r\n", b"\n")
    assert both.aib["program"] == NUL_SCRIPT


FAILING: dict[str, list[str] | bytes] = {
    "a failing middle line": ["echo before-it", "false", "echo behind-it"],
    "an exit code": ["exit 3"],
    "an exit code after set +e": ["set +e", "false", "exit 44"],
    "the last line's own": ["true", "sh -c 'exit 5'"],
    "no such command": ["no-such-command"],
    "a folder run": ["/etc"],
    "a syntax error": ["if true"],
    "an unset variable": ["set -u", "echo $NOTHING"],
    "beyond 255": ["exit 300"],
    "a signal": ["kill -TERM $$"],
    "a script of its own": b"#!/bin/bash\nfalse\nexit 9\n",
    "no such interpreter": b"#!/no/such/interpreter\n",
    "an empty script": b"",
}
SIGTERM_CODE = 128 + 15
SUCCEEDS = {"an empty script"}


def codes_of_aib(tiny_image: Path, build_cache: Path, work: Path) -> Iterator[tuple[str, int | None, str]]:
    """(case, exit code, message) of each failing script under our provisioner, on one guest."""
    with booted(tiny_image, build_cache, work) as guest:
        for name, what in FAILING.items():
            step = Shell.inline(what) if isinstance(what, list) else Shell.script(what)
            told = Told()
            try:
                outcome = step.apply(guest, told.context())
                yield name, outcome.exit_code, ""
            except StepError as error:
                yield name, error.guest_exit_code, error.message
            assert b"behind-it" not in told.output


def test_failing_steps(home: Home, tiny_image: Path, build_cache: Path, tmp_path: Path) -> None:
    """Packer is told to accept the very exit code that aib saw: any other one ends its build there.

    The last step fails unaccepted: the build fails with the service's words, and the step behind it never runs.
    """
    (tmp_path / "guest").mkdir()
    found = {name: (code, said) for name, code, said in codes_of_aib(tiny_image, build_cache, tmp_path / "guest")}
    assert {name for name, (code, _) in found.items() if code == 0} == SUCCEEDS
    assert found["a signal"] == (None, "The script was ended by SIGTERM")  # Packer counts it as a code
    steps: list[dict[str, Any]] = []
    for number, (name, what) in enumerate(FAILING.items()):
        if isinstance(what, list):
            steps.append(shell(*what, name=name))
        else:
            (tmp_path / f"{number}.sh").write_bytes(what)
            steps.append({"type": "Shell", "name": name, "scriptUri": f"{number}.sh"})
    steps += [shell("exit 3", name="fails"), shell("echo never-run", name="never")]
    exported = Path(home.ok("plan", template(tmp_path, "failing", steps), "--packer", tmp_path / "packer").strip())
    document = json.loads(exported.read_text())
    scripts = [each for each in document["provisioners"] if each["type"] == "shell"]
    for each, (code, _) in zip(scripts, found.values(), strict=False):
        each["valid_exit_codes"] = [SIGTERM_CODE if code is None else code]
    document["provisioners"].insert(1, {"type": "shell", "inline": ["#!/bin/bash", "sed 's/^/sent: /' $0"]})
    exported.write_text(json.dumps(document))
    built = packer(exported)
    assert built.returncode == 1
    # Known difference: aib sends it without the first line, as later Packers do; hence the files of the export.
    assert re.search(r"sent: #!/bin/sh -e\n.*sent: #!/bin/bash\n", built.stdout), built.stdout
    assert "before-it" in built.stdout
    assert "behind-it" not in built.stdout
    assert "never-run" not in built.stdout
    said = re.search(r"(?m)^--> azure-arm: (.*)$", built.stdout)
    assert said, built.stdout
    words = said[1].replace(".Allowed", ". Allowed")  # later Packers, the service's too, have the blank
    assert found["an exit code"][1].startswith(words)
    assert not (exported.parent / "output").exists()
