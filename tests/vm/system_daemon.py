"""A system libvirtd for the tests: the machine's own, or one that is started for them."""

from __future__ import annotations

import os
import subprocess
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

SOCKET = Path("/run/libvirt/libvirt-sock")
URI = "qemu:///system"
PATIENCE = 60.0

# A mount namespace of its own with a /dev/kvm that libvirt's user may open: where the node says something else than
# what QEMU finds as root, libvirt takes its capability cache for stale at every look-up, and a start takes minutes.
DAEMONS = """
    set -e
    if [ -e /dev/kvm ]; then
        folder=$(mktemp -d)
        mount -t tmpfs none "$folder"
        mknod -m 660 "$folder/kvm" c 10 232
        chgrp kvm "$folder/kvm"
        mount --bind "$folder/kvm" /dev/kvm
        umount -l "$folder"
        rmdir "$folder"
    fi
    virtlogd &
    logd=$!
    libvirtd &
    libvirtd=$!
    trap 'kill "$libvirtd" "$logd"' TERM
    wait "$libvirtd" || true
    wait "$libvirtd" "$logd" || true
"""


@pytest.fixture(scope="session")
def system_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The machine's own system daemon where one runs, else one for these tests."""
    if SOCKET.exists() and _answers():
        yield
        return
    if os.getuid() != 0:
        pytest.skip("no system libvirtd runs, and only root can start one")
    SOCKET.parent.mkdir(exist_ok=True)
    words = ["unshare", "--mount", "sh", "-c", textwrap.dedent(DAEMONS)]
    said = tmp_path_factory.mktemp("system-daemon") / "said.txt"
    with said.open("wb") as sink, subprocess.Popen(words, stdout=sink, stderr=sink, cwd="/") as daemons:
        try:
            end = time.monotonic() + PATIENCE
            while not _answers():
                assert daemons.poll() is None, f"libvirtd ended: {said.read_text()}"
                assert time.monotonic() < end, f"libvirtd does not answer: {said.read_text()}"
                time.sleep(0.1)
            yield
        finally:
            daemons.terminate()


def _answers() -> bool:
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        libvirt.openReadOnly(URI).close()
    except libvirt.libvirtError:
        return False
    return True
