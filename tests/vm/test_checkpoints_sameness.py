"""A build that goes on from any checkpoint gives the image that a build from scratch gives, file by file."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from hypervisor.disk import read_table
from provisioners import by_disk
from tests.vm.conftest import TemplateWriter
from tests.vm.support import CACHED, TINY_URN, Home, shell

pytestmark = pytest.mark.vm

STEPS = [
    {"type": "File", "name": "a large file", "sourceUri": "large.bin", "destination": "/tmp/large.bin"},
    shell(
        "sudo mkdir -p /opt/app; sudo mv /tmp/large.bin /opt/app/large",
        "echo code | sudo tee /opt/app/run && sudo chmod 4755 /opt/app/run",
        name="files",
    ),
    shell(
        "echo 'svc:x:4242:4242::/opt/app:/bin/false' | sudo tee -a /etc/passwd; sudo chown 4242:4242 /opt/app",
        "sudo ln -s /opt/app/run /usr/local-run; sudo mv /opt/app/run /opt/app/renamed; sudo rm /etc/debian_version",
        name="user and links",
    ),
    shell(
        "echo '::once:/opt/app/renamed' | sudo tee -a /etc/inittab",
        "sudo dd if=/dev/zero of=/opt/app/data bs=1M count=20 2>/dev/null; sudo sh -c 'echo >>/opt/app/data'",
        name="service and data",
    ),
]

ALLOWED = {
    r"/var/log/.*": "logs hold times, and a resumed guest was booted once",
    r"/etc/machine-id": "made at the first boot, and never the same in two builds",
    r"/etc/shadow": "holds the day of its last change",
    r"/etc/(hostname|hosts)": "the build VM's name is drawn for each lineage",
    r"/var/lib/cloud/(instances/aib-[0-9a-f-]+(/.*)?|data/instance-id|instance)": "the id is drawn for each lineage",
}
"""Paths that may differ, and why: they differ between any two builds from scratch as well."""


Tree = dict[str, tuple[object, ...]]


def tree(image: Path, work: Path) -> Tree:
    """Every file of the image's root file system: type, mode, owner and group, and contents or target."""
    work.mkdir()
    raw, out = work / "disk.raw", work / "files"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
    disk = f"{raw}?offset={max(read_table(raw, 'raw').partitions, key=lambda part: part.size).start}"
    out.mkdir()
    subprocess.run(["debugfs", "-R", f"rdump / {out}", disk], check=True, capture_output=True)
    paths = [Path(folder) / name for folder, names, leaves in os.walk(out) for name in (*names, *leaves)]
    inodes = [f"/{path.relative_to(out)}" for path in paths]
    # The dump has the contents; modes (setuid among them) and owners come from the inodes themselves.
    (work / "ask").write_text("".join(f'stat "{inode}"\n' for inode in inodes))
    said = subprocess.run(["debugfs", "-f", work / "ask", disk], check=True, capture_output=True, text=True).stdout
    facts = re.findall(r"Type: (\S+) +Mode: +(\d+).*?User: +(\d+) +Group: +(\d+)", said, re.DOTALL)
    assert len(facts) == len(inodes)
    raw.unlink()
    return {inode: (*fact, _content(path)) for inode, path, fact in zip(inodes, paths, facts, strict=True)}


def _content(path: Path) -> str:
    if path.is_symlink():
        return str(path.readlink())
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def differing(one: Tree, other: Tree) -> dict[str, str]:
    """Path -> why it may differ; "" for what may not."""
    return {
        path: next((why for allowed, why in ALLOWED.items() if re.fullmatch(allowed, path)), "")
        for path in sorted(one.keys() | other.keys())
        if one.get(path) != other.get(path)
    }


def report(start: str, scratch: Tree, found: dict[str, str]) -> str:
    """What was compared and what differs, for people."""
    lines = [f"{start}: {len(scratch)} names compared, {len(found)} differ"]
    return "\n".join([*lines, *(f"  {path}: {why or 'MUST NOT DIFFER'}" for path, why in found.items())]) + "\n"


def artifact(home: Home) -> Path:
    return home.runs()[-1] / "artifacts" / "image.qcow2"


def test_resuming_at_every_step_gives_the_image_of_a_build_from_scratch(
    write_template: TemplateWriter, tmp_path: Path, tiny_image: Path
) -> None:
    home = Home(tmp_path / "home")
    home.ok("image", "import", tiny_image, "--urn", TINY_URN, "--os", "linux")
    large = os.urandom(by_disk.WORTH_IT + 5)
    (tmp_path / "large.bin").write_bytes(large)
    template = write_template("same", *STEPS)
    home.ok("build", template, "--no-cache")
    assert "file-by-disk" in [each["code"] for each in home.record()["deviations"]]
    scratch = tree(artifact(home), tmp_path / "scratch")
    assert scratch["/opt/app/renamed"][:2] == ("regular", "04755")
    assert scratch["/opt/app"][2:4] == ("4242", "4242")
    assert "/etc/debian_version" not in scratch
    assert scratch["/opt/app/large"][-1] == hashlib.sha256(large).hexdigest()

    home.ok("build", template, CACHED)
    for index in range(len(STEPS) + 1):
        home.ok("build", template, CACHED, "--from", str(index + 1))
        results = [each["result"] for each in home.record()["steps"]]
        assert results == ["cached"] * index + ["succeeded"] * (len(STEPS) + 1 - index)
        resumed = tree(artifact(home), tmp_path / f"resumed-{index}")
        found = differing(scratch, resumed)
        with (tmp_path / "sameness.txt").open("a") as file:
            file.write(report(f"going on before step {index + 1}", scratch, found))
        assert [path for path, why in found.items() if not why] == [], f"going on before step {index + 1}"
