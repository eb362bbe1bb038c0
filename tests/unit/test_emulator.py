"""hypervisor.emulator: QEMU ends with its parent, by the kernel's own hand; probes are shared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from hypervisor.deadline import Deadline
from hypervisor.emulator import save_capabilities, seed_capabilities, tied_emulator
from hypervisor.process import Completed, ToolMissing, run


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A QEMU that tells how it was called; in a folder with a space, as users have them."""
    program = tmp_path / "my tools" / "qemu-system-x86_64"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" qemu "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A driver root owned by this process, with the folder that libvirt makes for a domain."""
    root = tmp_path / "root"
    (root / "lib/qemu/domain-1-x").mkdir(parents=True)
    (root / "owner").write_text(f"{os.getpid()}\n")
    return root


def call(script: Path, home: Path) -> Completed:
    deadline = Deadline.after(30)
    return run([script, "-name", "a b"], deadline=deadline, env={"HOME": str(home)}, check=False)


def test_probing_is_plain_qemu(qemu: Path, tmp_path: Path) -> None:
    done = call(tied_emulator(tmp_path / "cache"), tmp_path)
    assert done.stdout == b"qemu\n-name\na b\n"


def test_a_vm_of_a_living_owner_starts(qemu: Path, tmp_path: Path, root: Path) -> None:
    done = call(tied_emulator(tmp_path / "cache"), root / "lib/qemu/domain-1-x")
    assert (done.exit_code, done.stdout) == (0, b"qemu\n-name\na b\n")


def test_a_vm_of_a_dead_owner_does_not(qemu: Path, tmp_path: Path, root: Path) -> None:
    (root / "owner").write_text("1\n")
    done = call(tied_emulator(tmp_path / "cache"), root / "lib/qemu/domain-1-x")
    assert (done.exit_code, done.stdout) == (1, b"")
    assert b"the process 1 that owns this VM is gone" in done.stderr


def test_a_vm_without_a_root_does_not(qemu: Path, tmp_path: Path, root: Path) -> None:
    (root / "owner").unlink()
    assert call(tied_emulator(tmp_path / "cache"), root / "lib/qemu/domain-1-x").exit_code == 1


def dead(process: Path) -> bool:
    """Whether it has ended, reaped or not; it may be reaped while this looks."""
    try:
        return " Z " in (process / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_the_kernel_ends_it_with_its_parent(qemu: Path, tmp_path: Path, root: Path) -> None:
    qemu.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 600\n")
    script = tied_emulator(tmp_path / "cache")
    program = f"""
        import os, subprocess, time
        open({str(root / "owner")!r}, "w").write(f"{{os.getpid()}}\\n")
        subprocess.Popen([{str(script)!r}], env={{**os.environ, "HOME": {str(root / "lib/qemu/domain-1-x")!r}}})
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    pid = tmp_path / "pid"
    assert any(pid.exists() or time.sleep(0.05) for _ in range(400))
    process = Path("/proc") / pid.read_text().strip()
    assert process.exists()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert any(dead(process) or time.sleep(0.05) for _ in range(200))


def test_the_script_is_made_once_per_qemu(qemu: Path, tmp_path: Path) -> None:
    first = tied_emulator(tmp_path / "cache")
    stamp = first.stat().st_mtime_ns  # libvirt's probe is void when it changes
    assert tied_emulator(tmp_path / "cache") == first
    assert first.stat().st_mtime_ns == stamp
    qemu.write_text("#!/bin/sh\n# upgraded\n")
    assert tied_emulator(tmp_path / "cache") != first


def test_without_qemu_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("hypervisor.process._SYSTEM_FOLDERS", ())
    with pytest.raises(ToolMissing) as caught:
        tied_emulator(tmp_path)
    assert "qemu-system-x86" in caught.value.hint


def test_probes_go_from_run_to_run(tmp_path: Path) -> None:
    cache, first, second = (tmp_path / name for name in ("cache", "first", "second"))
    probe = first / "cache/qemu/capabilities/abc.xml"
    probe.parent.mkdir(parents=True)
    probe.write_text("<qemuCaps/>")
    save_capabilities(cache, first)
    seed_capabilities(cache, second)
    assert (second / "cache/qemu/capabilities/abc.xml").read_text() == "<qemuCaps/>"
    probe.write_text("<qemuCaps newer=''/>")
    save_capabilities(cache, first)
    assert (cache / "capabilities/abc.xml").read_text() == "<qemuCaps newer=''/>"


def test_no_probes_yet_is_no_error(tmp_path: Path) -> None:
    seed_capabilities(tmp_path / "cache", tmp_path / "root")
    save_capabilities(tmp_path / "cache", tmp_path / "root")
