"""The real thing: README's template on a real Debian 12, from packages to images that boot again.

The tests of this file share one AIB_HOME and follow the order of the README's tour.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from hypervisor import disk, seed
from hypervisor.connection import open_hypervisor
from hypervisor.deadline import Deadline
from hypervisor.machine import DiskSpec, MachineSpec, running
from orchestrator.cli.main import VERBS
from provisioners.communicators.ssh_connect import connect
from provisioners.identity import BuildIdentity
from provisioners.provisioning import nocloud_documents
from tests.vm.support import CACHED, Home

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800), pytest.mark.xdist_group("debian")]

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "fixtures" / "templates" / "hello-linux.json"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home in which the README's build was run."""
    home = Home(tmp_path_factory.mktemp("debian"), fresh=True)
    home.ok("gallery", "create", "demo", "--location", "eastus", "--if-missing")
    home.ok("gallery", "define", "demo", "hello-linux", "--os", "linux", "--generation", "V1", "--if-missing")
    done = home.aib("build", TEMPLATE, CACHED, timeout=1700)
    assert done.returncode == 0, done.stderr
    assert "bootstrap" in done.stderr.lower(), "the first build says that it makes the source image"
    return home


def test_the_build_is_whole(built: Home) -> None:
    record = built.record()
    assert record["lastRunStatus"]["runState"] == "Succeeded"
    assert record["generalizeProof"]["verdict"] in {"passed", "warned"}
    assert (
        "WARNING! packer account and entire home directory will be deleted."
        in (built.runs()[-1] / "steps" / "04.out").read_text()
    )
    for artifact in record["artifacts"]:
        path = Path(artifact["path"])
        assert hashlib.sha256(path.read_bytes()).hexdigest() == artifact["sha256"]
        assert (path.with_name(path.name + ".sha256")).read_text().split() == [artifact["sha256"], path.name]
    assert record["source"]["version"] != "latest"
    assert len(record["source"]["sha256"]) == 64


def test_a_second_build_goes_on_from_the_checkpoints(built: Home) -> None:
    runs = built.runs()
    built.ok("build", TEMPLATE, CACHED, "--until", "the settings are there")
    run = built.runs()[-1]
    assert run not in runs
    record = built.record(run)
    assert [step["result"] for step in record["steps"]] == ["cached"] * 4 + ["not run"]
    assert record["bootSeconds"] < built.record(runs[0])["bootSeconds"]
    shutil.rmtree(run)  # the other tests look at the whole build, which is the newest run


def _exports(home: Home) -> dict[str, Path]:
    return {artifact["format"]: Path(artifact["path"]) for artifact in home.record()["artifacts"]}


@pytest.mark.parametrize(("format", "firmware"), [("vpc", "bios"), ("qcow2", "uefi")])
def test_what_was_exported_boots_and_can_be_logged_into(
    built: Home, tmp_path: Path, format: str, firmware: str
) -> None:
    deadline = Deadline.after(900, "the test's patience")
    identity = BuildIdentity.create(user="visitor")
    overlay, seed_file = tmp_path / "overlay.qcow2", tmp_path / "seed.iso"
    disk.create_overlay(_exports(built)[format], format, overlay, deadline=deadline)
    seed.write_iso(seed_file, nocloud_documents(identity))
    spec = MachineSpec(
        name=f"again-{firmware}",
        vcpus=2,
        memory_mib=1024,
        disks=(DiskSpec(overlay, "qcow2"), DiskSpec(seed_file, "raw", readonly=True)),
        console_log=tmp_path / "console.log",
        firmware=firmware,
    )
    said: list[bytes] = []
    with open_hypervisor(cache=built.path / "libvirt") as hypervisor, running(hypervisor, spec, deadline) as machine:
        host, port = machine.forward(22)
        guest = connect(
            host, port, user="visitor", key=identity.login_private, host_key=identity.host_public, deadline=deadline
        )
        command = (
            "cat /etc/motd /etc/hello/hello.toml; systemctl is-enabled hello.service; "
            "getent passwd packer || echo no builder; findmnt -no SIZE /; test -d /sys/firmware/efi && echo efi; true"
        )
        result = guest.run(command, deadline=deadline, output=lambda _stream, data: said.append(data))
        guest.close()
    text = b"".join(said).decode()
    assert result.exit_code == 0, text
    assert "Hello from an image that was built on a workstation." in text
    assert 'greeting = "hello"' in text
    assert "enabled" in text
    assert "no builder" in text
    assert ("efi" in text.splitlines()) == (firmware == "uefi")
    assert re.search(r"^ *5\.\dG$", text, re.MULTILINE), "osDiskSizeGB 6 is seen by the guest"


def _commands() -> list[str]:
    """Every `aib` command in the README's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("aib ")]


def test_the_readme_names_only_verbs_that_are_there() -> None:
    assert {shlex.split(command)[1] for command in _commands()} <= set(VERBS)


@pytest.mark.parametrize("command", [c for c in _commands() if not c.startswith(("aib build", "aib image bootstrap"))])
def test_a_command_of_the_readme_works(built: Home, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    built.ok(*shlex.split(command)[1:])


def test_the_stored_source_image_serves_the_next_build(built: Home) -> None:
    before = sorted((built.path / "layers").iterdir())
    built.ok("image", "bootstrap", "Debian:debian-12:12:latest")
    assert sorted((built.path / "layers").iterdir()) == before
    plan = json.loads(built.ok("plan", TEMPLATE, "--json", "--offline"))
    assert built.record()["source"]["sha256"] in json.dumps(plan)
