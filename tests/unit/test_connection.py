"""hypervisor.connection: what is refused before any VM, and how."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hypervisor import connection
from hypervisor.connection import open_hypervisor
from hypervisor.errors import HostError

ROOT = Path(__file__).parents[2]


def in_a_process(program: str, *arguments: str | Path) -> str:
    """Run it in an interpreter of its own: libvirt's embedded driver is one per process."""
    words = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""  # libvirt itself must not print
    return done.stdout


@pytest.mark.parametrize("uri", ["qemu+ssh://host/system", "qemu:///embed?root=/x", "xen:///", "vbox"])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(HostError, match=r"only embed, qemu:///session, qemu:///system") as caught, open_hypervisor(uri):
        pass
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_a_missing_binding_says_how_to_get_it(tmp_path: Path) -> None:
    program = """
        import os, sys, tempfile
        from pathlib import Path
        sys.modules["libvirt"] = None
        scratch = tempfile.TemporaryDirectory(dir="/tmp")
        os.environ["XDG_RUNTIME_DIR"] = scratch.name
        from hypervisor.connection import open_hypervisor
        from hypervisor.errors import HostError
        try:
            with open_hypervisor(cache=Path(sys.argv[1])) as hypervisor:
                print("opened")
        except HostError as error:
            print(error.message, "|", error.hint)
        print(sorted(path.name for path in Path(scratch.name, "aib").iterdir()))
        scratch.cleanup()
    """
    said = in_a_process(program, tmp_path)
    assert "libvirt's Python binding cannot be loaded" in said
    assert "aib[build]" in said
    assert said.endswith("['lock']\n")  # the runtime folder is gone again


def test_one_root_in_a_process_opened_again_and_again(tmp_path: Path) -> None:
    pytest.importorskip("libvirt")
    program = """
        import sys
        from pathlib import Path
        from hypervisor.connection import open_hypervisor
        from hypervisor.errors import HostError
        cache = Path(sys.argv[1])
        roots = []
        for _ in range(2):
            with open_hypervisor(cache=cache) as outer, open_hypervisor(cache=cache) as inner:
                assert outer.root == inner.root and inner.handle.isAlive()
                roots.append(outer.root)
            assert not roots[-1].exists()
        assert roots[0] == roots[1]
        try:
            with open_hypervisor(cache=cache, root=Path("/tmp/aib-another")):
                print("opened")
        except HostError as error:
            print(error.message, "|", error.hint)
        assert not Path("/tmp/aib-another").exists()
    """
    said = in_a_process(program, tmp_path)
    assert "cannot open /tmp/aib-another as well" in said
    assert "worker process" in said


@pytest.mark.skipif(Path("/run/libvirt/libvirt-sock").exists(), reason="a system daemon runs on this machine")
def test_a_daemon_that_is_not_there_is_named_with_the_way_out(tmp_path: Path) -> None:
    pytest.importorskip("libvirt")
    program = """
        import sys
        from pathlib import Path
        from hypervisor.connection import open_hypervisor
        from hypervisor.errors import HostError
        try:
            with open_hypervisor("qemu:///system", cache=Path(sys.argv[1])):
                print("opened")
        except HostError as error:
            print(type(error).__name__, error.message, "|", error.hint)
    """
    said = in_a_process(program, tmp_path)
    assert said.startswith("HypervisorError connecting to qemu:///system: Failed to connect socket")
    assert "leave --connect out" in said


def test_drivers_look_for_screen_ports_in_ranges_of_their_own(tmp_path: Path) -> None:
    ranges = set()
    for number in range(8):
        folder = tmp_path / str(number)
        folder.mkdir()
        connection._configure(folder)
        first, last = map(int, re.findall(r"remote_display_port_m\w+ = (\d+)", (folder / "etc/qemu.conf").read_text()))
        assert 5900 <= first <= last < 32768, "below the ports that the kernel gives away"
        ranges.add((first, last))
    assert len(ranges) > 1
    assert all(a == b or a[1] < b[0] or b[1] < a[0] for a in ranges for b in ranges)
