"""A build that goes on from any checkpoint gives the image that a build from scratch gives, file by file."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from tests.vm.conftest import TemplateWriter
from tests.vm.support import CACHED, TINY_URN, Home, shell

pytestmark = pytest.mark.vm

STEPS = [
    shell("sudo mkdir -p /opt/app && echo code | sudo tee /opt/app/run && sudo chmod 4755 /opt/app/run", name="files"),
    shell("echo 'svc:x:4242:4242::/opt/app:/bin/false' | sudo tee -a /etc/passwd; sudo chown 4242:4242 /opt/app",
          name="user"),
    shell("sudo ln -s /opt/app/run /usr/local-run; sudo mv /opt/app/run /opt/app/renamed", name="links"),
    shell("sudo rm -f /etc/debian_version; echo '::once:/opt/app/renamed' | sudo tee -a /etc/inittab", name="service"),
    shell("sudo dd if=/dev/zero of=/opt/app/data bs=1M count=20 2>/dev/null; sudo sh -c 'echo >>/opt/app/data'",
          name="data"),
]  # fmt: skip

ALLOWED = {
    r"/var/log/.*": "logs hold times, and a resumed guest was booted once",
    r"/etc/machine-id": "made at the first boot, and never the same in two builds",
    r"/etc/shadow": "holds the day of its last change",
    r"/etc/(hostname|hosts)": "the build VM's name is drawn for each lineage",
    r"/var/lib/cloud/instances/aib-[0-9a-f-]+(/.*)?": "the instance id is drawn for each lineage",
}
"""Paths that may differ, and why: they differ between any two builds from scratch as well."""


def tree(image: Path, work: Path) -> dict[str, tuple[object, ...]]:
    """Every file of the image's root file system: type and mode, owner, group, and contents or target."""
    work.mkdir()
    raw, out = work / "disk.raw", work / "files"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
    table = json.loads(subprocess.run(["sfdisk", "--json", raw], check=True, capture_output=True).stdout)
    start = max(table["partitiontable"]["partitions"], key=lambda part: part["size"])["start"] * 512
    out.mkdir()
    subprocess.run(["debugfs", "-R", f"rdump / {out}", f"{raw}?offset={start}"], check=True, capture_output=True)
    raw.unlink()
    found: dict[str, tuple[object, ...]] = {}
    for folder, names, leaves in os.walk(out):
        for name in (*names, *leaves):
            path = Path(folder) / name
            status = path.lstat()
            content = ""
            if stat.S_ISLNK(status.st_mode):
                content = str(path.readlink())
            elif stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[f"/{path.relative_to(out)}"] = (oct(status.st_mode), status.st_uid, status.st_gid, content)
    return found


def differences(one: dict[str, tuple[object, ...]], other: dict[str, tuple[object, ...]]) -> dict[str, object]:
    """What differs and may not."""
    return {
        path: (one.get(path), other.get(path))
        for path in sorted(one.keys() | other.keys())
        if one.get(path) != other.get(path) and not any(re.fullmatch(allowed, path) for allowed in ALLOWED)
    }


def artifact(home: Home) -> Path:
    return home.runs()[-1] / "artifacts" / "image.qcow2"


def test_resuming_at_every_step_gives_the_image_of_a_build_from_scratch(
    write_template: TemplateWriter, tmp_path: Path, tiny_image: Path
) -> None:
    home = Home(tmp_path / "home")
    home.ok("image", "import", tiny_image, "--urn", TINY_URN, "--os", "linux")
    template = write_template("same", *STEPS)
    home.ok("build", template, "--no-cache")
    scratch = tree(artifact(home), tmp_path / "scratch")
    assert scratch["/opt/app/renamed"][0] == "0o104755"
    assert scratch["/opt/app"][1:3] == (4242, 4242)
    assert "/etc/debian_version" not in scratch

    home.ok("build", template, CACHED)
    for index in range(len(STEPS) + 1):
        home.ok("build", template, CACHED, "--from", str(index + 1))
        results = [each["result"] for each in home.record()["steps"]]
        assert results == ["cached"] * index + ["succeeded"] * (len(STEPS) + 1 - index)
        resumed = tree(artifact(home), tmp_path / f"resumed-{index}")
        assert differences(scratch, resumed) == {}, f"going on before step {index + 1}"
