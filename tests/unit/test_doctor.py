import json
import os
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli.doctor import command
from orchestrator.verbs import doctor
from orchestrator.verbs import doctor_checks as checks
from orchestrator.verbs.doctor_host import Host

DEBIAN = 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
BOOT_ID = "2f6c"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A Debian on which everything is there."""
    files = {
        "etc/os-release": DEBIAN,
        "etc/apt/sources.list.d/debian.sources": "Types: deb\nURIs: http://mirror.example/debian\n",
        "etc/subuid": "other:1:65536\nme:100000:65536\n",
        "etc/subgid": "1000:100000:65536\n",
        "proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n",
        "proc/sys/kernel/random/boot_id": f"{BOOT_ID}\n",
        "dev/kvm": "",
        "usr/share/OVMF/CODE.fd": "",
        "usr/share/qemu/firmware/60.json": json.dumps(
            {
                "mapping": {"executable": {"filename": "/usr/share/OVMF/CODE.fd"}},
                "targets": [{"architecture": "x86_64"}],
                "interface-types": ["uefi"],
                "features": [],
            }
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "bin").mkdir()
    for name in ("newuidmap", *checks.BUILD_TOOLS, *checks.BOOTSTRAP_TOOLS):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def host(root: Path, *, uid: int = 1000, python: tuple[int, int, int] = (3, 12, 1), home: Path | None = None) -> Host:
    environ = {"PATH": str(root / "bin")}
    return Host(root, environ, uid, "root" if uid == 0 else "me", python, home or root / "home")


def test_without_passt_only_the_isolated_network_is_lacking(root: Path) -> None:
    assert checks.isolated_network(host(root)).status == "warning"
    assert "passt" in checks.isolated_network(host(root)).fix
    (root / "bin/passt").touch(mode=0o755)
    assert checks.isolated_network(host(root)).status == "ok"


def test_everything_is_there(root: Path) -> None:
    here = host(root)
    findings = [
        checks.python_version(here),
        *(checks.tool(here, name) for name in (*checks.BUILD_TOOLS, *checks.BOOTSTRAP_TOOLS)),
        checks.apt_sources(here),
        checks.libvirt(here, lambda: ("9.0.0", "")),
        checks.uefi(here),
        checks.subordinate_ids(here),
        checks.user_namespaces(here),
        checks.kvm(here),
        checks.home_writable(here),
        checks.disk_space(here, lambda _: 2**40),
        checks.memory(here),
        checks.runtime_folder(here, [root], 10_000),
    ]
    assert [f for f in findings if f.status != "ok"] == []


def test_old_python(root: Path) -> None:
    finding = checks.python_version(host(root, python=(3, 10, 9)))
    assert finding.status == "missing" and "3.11" in finding.fix


@pytest.mark.parametrize(
    ("release", "uid", "fix"),
    [
        (DEBIAN, 1000, "sudo apt-get install --yes qemu-utils"),
        ("ID=ubuntu\nID_LIKE=debian\n", 0, "apt-get install --yes qemu-utils"),
        ("ID=fedora\n", 1000, "sudo dnf install --assumeyes qemu-img"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', 1000, "sudo zypper --non-interactive install qemu-tools"),
        ("ID=manjaro\nID_LIKE=arch\n", 1000, "sudo pacman -S --needed --noconfirm qemu-img"),
        ("ID=plan9\n", 1000, "install the package that has qemu-img"),
    ],
)
def test_missing_tool_and_its_command_on_each_system(root: Path, release: str, uid: int, fix: str) -> None:
    (root / "bin/qemu-img").unlink()
    (root / "etc/os-release").write_text(release)
    finding = checks.tool(host(root, uid=uid), "qemu-img")
    assert (finding.status, finding.fix) == ("missing", fix)


def test_bootstrap_tools_are_a_must_on_debian_only(root: Path) -> None:
    (root / "bin/mmdebstrap").unlink()
    assert checks.tool(host(root), "mmdebstrap").status == "missing"
    (root / "etc/os-release").write_text("ID=arch\n")
    finding = checks.tool(host(root), "mmdebstrap")
    assert finding.status == "warning" and "aib image import" in finding.fix and not finding.packages


def test_apt_is_a_must_everywhere(root: Path) -> None:
    (root / "bin/apt-get").unlink()
    (root / "etc/os-release").write_text("ID=opensuse-tumbleweed\n")
    finding = checks.tool(host(root), "apt-get")
    assert finding.status == "missing" and "run it on Debian or Ubuntu" in finding.fix


def test_apt_without_sources(root: Path) -> None:
    (root / "etc/apt/sources.list.d/debian.sources").write_text("# URIs: none\n")
    finding = checks.apt_sources(host(root))
    assert finding.status == "missing" and "sudo apt-get update" in finding.fix
    (root / "etc/apt/sources.list").write_text("deb http://mirror.example/debian bookworm main\n")
    assert checks.apt_sources(host(root)).found == "/etc/apt/sources.list"


def test_home_on_a_noexec_file_system(root: Path) -> None:
    finding = checks.home_writable(host(root), lambda _: os.ST_NOEXEC | os.ST_NOSUID)
    assert finding.status == "missing" and "noexec" in finding.found
    assert checks.home_writable(host(root), lambda _: os.ST_NOSUID).status == "ok"


def test_libvirt_that_does_not_open(root: Path) -> None:
    no_driver = checks.libvirt(host(root), lambda: ("", "no connection driver available"))
    assert no_driver.status == "missing" and "libvirt-daemon-driver-qemu" in no_driver.fix
    assert checks.libvirt(host(root), lambda: ("", "Permission denied: '/x'")).fix == ""
    no_binding = checks.libvirt(host(root), lambda: ("", "libvirt's Python binding cannot be loaded: ..."))
    assert "libvirt-dev" in no_binding.fix and "pip install 'aib[build]'" in no_binding.fix
    (root / "bin/setpriv").unlink()
    assert "not tried" in checks.libvirt(host(root), lambda: pytest.fail("must not be tried")).found


@pytest.mark.parametrize("harm", ["no descriptor", "no file", "secure boot only", "other machine", "not JSON"])
def test_no_usable_uefi_firmware(root: Path, harm: str) -> None:
    descriptor = root / "usr/share/qemu/firmware/60.json"
    data = json.loads(descriptor.read_text())
    if harm == "no descriptor":
        descriptor.unlink()
    elif harm == "no file":
        (root / "usr/share/OVMF/CODE.fd").unlink()
    elif harm == "not JSON":
        descriptor.write_text("{")
    else:
        data |= {"features": ["secure-boot"]} if "secure" in harm else {"targets": [{"architecture": "aarch64"}]}
        descriptor.write_text(json.dumps(data))
    finding = checks.uefi(host(root))
    assert finding.status == "warning" and finding.fix == "sudo apt-get install --yes ovmf"


def test_subordinate_ids_of_an_ordinary_user(root: Path) -> None:
    (root / "etc/subgid").write_text("me:100000:1000\n")
    finding = checks.subordinate_ids(host(root))
    assert finding.status == "missing" and "/etc/subgid" in finding.found and "/etc/subuid" not in finding.found
    assert finding.fix == "sudo usermod --add-subuids 165536-231071 --add-subgids 165536-231071 me", "none twice"
    (root / "bin/newuidmap").unlink()
    assert checks.subordinate_ids(host(root)).fix == "sudo apt-get install --yes uidmap"
    assert checks.subordinate_ids(host(root, uid=0)).status == "ok"


@pytest.mark.parametrize(
    ("setting", "value", "better"),
    [("unprivileged_userns_clone", "0", "1"), ("apparmor_restrict_unprivileged_userns", "1", "0")],
)
def test_forbidden_user_namespaces(root: Path, setting: str, value: str, better: str) -> None:
    (root / "proc/sys/kernel" / setting).write_text(f"{value}\n")
    finding = checks.user_namespaces(host(root))
    assert (finding.status, finding.fix) == ("warning", f"sudo sysctl kernel.{setting}={better}")
    assert checks.user_namespaces(host(root, uid=0)).status == "ok"


def test_kvm_states(root: Path) -> None:
    here = host(root)
    assert "not yet proved" in checks.kvm(here).found
    kept = here.home / "accel/kvm.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"key": [BOOT_ID], "works": False, "reason": "a kernel hangs"}))
    assert checks.kvm(here).status == "warning" and "a kernel hangs" in checks.kvm(here).found
    kept.write_text(json.dumps({"key": ["another boot"], "works": False, "reason": "a kernel hangs"}))
    assert "not yet proved" in checks.kvm(here).found, "what was true before the reboot counts no more"
    assert checks.kvm(here, lambda: (True, "a kernel boots")).found == "proved: a kernel boots"
    assert checks.kvm(here, lambda: (False, "hangs")).status == "warning"
    assert "the first build does it" in checks.kvm(here, lambda: None).found
    (root / "dev/kvm").unlink()
    assert checks.kvm(here).status == "warning" and "no /dev/kvm" in checks.kvm(here).found


def test_kvm_without_permission(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, who may run this, may open everything
    assert "usermod --append --groups kvm me" in checks.kvm(host(root)).fix


def test_home_that_cannot_be_written(root: Path) -> None:
    finding = checks.home_writable(host(root, home=Path("/proc/aib")))
    assert finding.status == "missing" and "AIB_HOME" in finding.fix


@pytest.mark.parametrize(("gib", "status"), [(1, "missing"), (5, "warning"), (100, "ok")])
def test_disk_space(root: Path, gib: int, status: str) -> None:
    finding = checks.disk_space(host(root), lambda _: gib * checks.GIB)
    assert finding.status == status and f"{gib}.0 GiB" in finding.found


@pytest.mark.parametrize(("kib", "status"), [(500_000, "missing"), (2_000_000, "warning"), (8_000_000, "ok")])
def test_memory(root: Path, kib: int, status: str) -> None:
    (root / "proc/meminfo").write_text(f"MemAvailable:  {kib} kB\n")
    assert checks.memory(host(root)).status == status


def test_runtime_folder_too_long(root: Path) -> None:
    long = root / ("x" * 100)
    finding = checks.runtime_folder(host(root), [long], 60)
    assert finding.status == "missing" and "too long" in finding.found and "XDG_RUNTIME_DIR" in finding.fix
    assert checks.runtime_folder(host(root), [long, Path("/tmp/aib-1")], 60).found == "/tmp/aib-1"


def test_report_names_one_command_for_all(root: Path) -> None:
    (root / "bin/qemu-img").unlink()
    (root / "bin/sgdisk").unlink()
    here = host(root)
    report = doctor.Report(here, tuple(checks.tool(here, name) for name in ("qemu-img", "sgdisk", "mcopy")))
    assert report.exit_code == 3
    assert report.install == "sudo apt-get install --yes qemu-utils gdisk"
    assert report.to_json()["canBuild"] is False


def test_commands_are_commands(root: Path) -> None:
    for thing in ("qemu-system-x86_64", "libvirt", "libvirt-dev", "uefi"):
        assert shlex.split(host(root).install(host(root).packages(thing)))[:3] == ["sudo", "apt-get", "install"]


def test_the_verb_on_this_very_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("orchestrator.verbs.doctor_probe.libvirt_opens", lambda: ("1.2.3", ""))
    result = CliRunner().invoke(command, ["--json"], standalone_mode=False)
    report = json.loads(result.stdout)
    by_name = {finding["check"]: finding for finding in report["findings"]}
    assert by_name["python"]["status"] == "ok" and by_name["AIB_HOME"]["found"] == str(tmp_path / "home")
    assert result.return_value == (0 if report["canBuild"] else 3)
    text = CliRunner().invoke(command, [], standalone_mode=False).stdout
    assert "STATUS" in text and "This machine can" in text
    assert not (tmp_path / "home").exists(), "looking changes nothing"


def test_probe_tells_why_libvirt_does_not_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # No Python module of that name in the child: what a light install looks like.
    (tmp_path / "libvirt.py").write_text("raise ImportError('no libvirt here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    from orchestrator.verbs.doctor_probe import libvirt_opens

    version, error = libvirt_opens()
    assert version == "" and ("binding" in error or "not found" in error)


def test_a_missing_tpm_emulator_is_told_and_is_no_fault(root: Path) -> None:
    finding = checks.windows_tpm(host(root))
    assert finding.status == "ok"
    assert "optional" in finding.found
    assert "apt-get install --yes swtpm swtpm-tools" in finding.found
    for name in ("swtpm", "swtpm_setup"):
        (root / "bin" / name).write_text("#!/bin/sh\n")
        (root / "bin" / name).chmod(0o755)
    assert checks.windows_tpm(host(root)).found.endswith("/swtpm")
