"""hypervisor.accel: KVM only when a kernel has booted under it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypervisor import accel
from hypervisor.accel import AccelError, choose

WORKING = "echo 'Kernel panic - not syncing: VFS'"
ABORTING = "echo 'qemu: error: failed to set MSR 0x10a' >&2; kill -ABRT $$"
HANGING = "exec sleep 600"
RESETTING = "echo SeaBIOS"  # the firmware ran, the kernel did not


class Host:
    """A host with a device node that opens and a QEMU that behaves as a script says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.device = folder / "kvm"
        self.device.touch()
        self.kernel: Path | None = folder / "vmlinuz"
        self.qemu("exit 99")
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        monkeypatch.setattr(accel, "_host_kernel", lambda: None)

    def qemu(self, script: str) -> None:
        program = self.folder / "qemu-system-x86_64"
        program.write_text(f'#!/bin/sh\necho "$@" >> {self.folder}/calls\n{script}\n')
        program.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        listing = self.folder / "calls"
        return listing.read_text().splitlines() if listing.exists() else []

    def choose(self, requested: str) -> accel.Accel:
        return choose(requested, kernel=self.kernel, cache=self.folder / "cache", device=self.device)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_a_kernel_that_boots_proves_it(host: Host) -> None:
    host.qemu(WORKING)
    chosen = host.choose("auto")
    assert (chosen.name, chosen.proved) == ("kvm", True)
    assert "-accel kvm -cpu host -smp 2" in host.calls[0]
    assert f"-kernel {host.kernel}" in host.calls[0]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [(ABORTING, "failed to set MSR 0x10a"), (HANGING, "does not boot"), (RESETTING, "ended with 0")],
)
def test_else_software_emulation_with_the_reason(
    host: Host, behaviour: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if behaviour == HANGING:
        monkeypatch.setattr(accel, "_BOOT_LIMIT", 0.5)
    host.qemu(behaviour)
    chosen = host.choose("auto")
    assert chosen.name == "tcg"
    assert reason in chosen.reason


def test_kvm_that_was_demanded_and_fails_is_an_error(host: Host) -> None:
    host.qemu(ABORTING)
    with pytest.raises(AccelError, match="MSR") as caught:
        host.choose("kvm")
    assert caught.value.exit_code == 3
    assert "tcg" in caught.value.hint


@pytest.mark.parametrize("behaviour", [WORKING, ABORTING])
def test_the_verdict_is_kept(host: Host, behaviour: str) -> None:
    host.qemu(behaviour)
    first = host.choose("auto")
    assert host.choose("auto") == first
    assert len(host.calls) == 1


def test_the_verdict_ends_with_the_boot_or_qemu_it_was_made_under(host: Host) -> None:
    host.qemu(ABORTING)
    assert host.choose("auto").name == "tcg"
    host.qemu(WORKING)
    assert host.choose("auto").name == "kvm"
    kept = host.folder / "cache" / "kvm.json"
    kept.write_text(kept.read_text().replace('{"key": ["', '{"key": ["another-boot-'))
    host.choose("auto")
    assert len(host.calls) == 3


def test_a_torn_verdict_is_made_again(host: Host) -> None:
    host.qemu(WORKING)
    (host.folder / "cache").mkdir()
    (host.folder / "cache" / "kvm.json").write_text('{"key": [')
    assert host.choose("auto").name == "kvm"


def test_without_a_kernel_nothing_is_proved(host: Host) -> None:
    host.kernel = None
    assert host.choose("auto").name == "tcg"
    demanded = host.choose("kvm")
    assert (demanded.name, demanded.proved) == ("kvm", False)
    assert host.calls == []


def test_a_kept_verdict_serves_without_a_kernel(host: Host) -> None:
    host.qemu(ABORTING)
    host.choose("auto")
    host.kernel = None
    with pytest.raises(AccelError):
        host.choose("kvm")


def test_no_device_is_said(host: Host) -> None:
    host.device.unlink()
    assert f"there is no {host.device}" in host.choose("auto").reason
    assert host.calls == []


def test_no_permission_is_said_with_the_way_out(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "usermod -aG kvm" in host.choose("auto").reason


def test_software_emulation_asked_for_touches_nothing(host: Host) -> None:
    host.device.unlink()
    assert (host.choose("tcg").name, host.choose("tcg").proved) == ("tcg", True)
    assert host.calls == []
