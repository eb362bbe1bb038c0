"""The proof's rules, on made-up inspections."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hypervisor.inspection import Entry, FileSystem, Inspection
from hypervisor.rawscan import Hits
from orchestrator.build.proof import Proof, judge
from provisioners.identity import BuildIdentity

IDENTITY = BuildIdentity.create()
FILE = Entry("f", 0o644, 0, 0, 10, 0.0)
FOLDER = Entry("d", 0o755, 0, 0, 4096, 0.0)
STUB = 'no-pty,command="echo \'Please login as the user \\"packer\\" rather than the user \\"root\\".\'" '


def disk(files: dict[str, str] | None = None, folders: tuple[str, ...] = ()) -> Inspection:
    contents = {"/etc/os-release": "ID=debian", "/etc/passwd": "root:x:0:0::/root:/bin/sh\n", **(files or {})}
    entries = {**dict.fromkeys(contents, FILE), **dict.fromkeys(folders, FOLDER)}
    data = {path: text.encode() for path, text in contents.items()}
    return Inspection((FileSystem("vda1", 1 << 30, "ext4", "read", "", entries, data, ""),))


def proof(inspection: Inspection | None, hits: dict[bytes, Hits] | None = None, *, own_script: bool = False) -> Proof:
    return judge(inspection, hits or {}, IDENTITY, own_script=own_script, problem="the VM crashed")


def test_a_clean_disk_passes() -> None:
    assert proof(disk()).verdict == "passed"
    assert proof(disk()).findings == ()


@pytest.mark.parametrize(
    ("inspection", "code"),
    [
        (disk({"/etc/passwd": "packer:x:1000:1000::/home/packer:/bin/bash\n"}), "account"),
        (disk({"/etc/shadow": "packer:!:1::::::\n"}), "account"),
        (disk(folders=("/home/packer",)), "home"),
        (disk({"/home/x/.ssh/authorized_keys": IDENTITY.login_public}), "login-key"),
        (disk({"/root/.ssh/authorized_keys": f"{STUB}{IDENTITY.login_public}\n{IDENTITY.login_public}"}), "login-key"),
        (disk({"/etc/ssh/ssh_host_rsa_key": "x"}), "host-key"),
        (replace(disk(), holders=("/var/lib/cloud/x",)), "secret-in-file"),
    ],
)
def test_what_fails_with_the_default_script_warns_with_the_users_own(inspection: Inspection, code: str) -> None:
    default, own = proof(inspection), proof(inspection, own_script=True)
    assert default.verdict == "failed"
    assert [finding.code for finding in default.findings if finding.severity == "failure"] == [code]
    assert default.failures
    assert (own.verdict, own.failures) == ("warned", ())


@pytest.mark.parametrize(
    ("inspection", "code"),
    [
        (disk({"/etc/machine-id": "0f56d06c243944f6b4cac3aa1903a9fa\n"}), "machine-id"),
        (disk(folders=("/var/lib/cloud/instances/aib-1",)), "cloud-init"),
        (disk({"/var/lib/waagent/ovf-env.xml": "<x/>"}), "waagent"),
        (disk({"/root/.bash_history": "ls\n"}), "history"),
        (disk({"/etc/sudoers.d/90-cloud-init-users": "packer ALL=(ALL) NOPASSWD:ALL\n"}), "sudoers"),
        (disk({"/root/.ssh/authorized_keys": f"{STUB}{IDENTITY.login_public}\n"}), "login-key-stub"),
        (disk({"/home/ops/.ssh/authorized_keys": "ssh-ed25519 AAAAother ops\n"}), "authorized-key"),
    ],
)
def test_what_the_service_leaves_too_is_a_warning(inspection: Inspection, code: str) -> None:
    found = proof(inspection)
    assert found.verdict == "warned"
    assert [finding.code for finding in found.findings] == [code]


def test_an_uninitialized_machine_id_is_as_good_as_none() -> None:
    assert proof(disk({"/etc/machine-id": "uninitialized\n"})).verdict == "passed"


def test_another_account_whose_name_begins_alike_is_not_the_builders() -> None:
    assert proof(disk({"/etc/passwd": "packer2:x:1001:1001::/home/packer2:/bin/sh\n"})).verdict == "passed"


def test_a_host_key_in_freed_blocks_is_a_warning_and_not_taken_for_a_file() -> None:
    found = proof(disk(), {IDENTITY.guest_secrets()[0]: Hits(1, (4096,))})
    assert [(finding.severity, finding.code) for finding in found.findings] == [("warning", "host-key-remnant")]
    assert "4096" in found.findings[0].where


def test_a_secret_that_no_guest_was_given_fails_whoever_wrote_the_script() -> None:
    hits = {IDENTITY.secrets()[0]: Hits(1, (512,))}
    assert proof(disk(), hits).verdict == "failed"
    assert proof(disk(), hits, own_script=True).verdict == "failed"


def test_a_disk_that_cannot_be_read_is_never_a_pass() -> None:
    found = proof(None)
    assert found.verdict == "not-inspected"
    assert "the VM crashed" in str(found.findings[0])


def test_a_partition_that_cannot_be_read_is_never_a_pass() -> None:
    locked = FileSystem("vda2", 1 << 20, "crypto_LUKS", "not-inspected")
    assert proof(Inspection((*disk().file_systems, locked))).verdict == "not-inspected"


def test_a_leak_weighs_more_than_what_was_not_read() -> None:
    locked = FileSystem("vda2", 1 << 20, "crypto_LUKS", "not-inspected")
    leaking = disk({"/etc/shadow": "packer:!:1::::::\n"})
    assert proof(Inspection((*leaking.file_systems, locked))).verdict == "failed"


def test_the_report_holds_no_secret() -> None:
    hits = dict.fromkeys((*IDENTITY.secrets(), *IDENTITY.guest_secrets()), Hits(1, (512,)))
    report = repr(proof(replace(disk(), holders=("/x",)), hits).to_json())
    for secret in (*IDENTITY.secrets(), *IDENTITY.guest_secrets()):
        assert secret.decode() not in report


WINDOWS_IDENTITY = BuildIdentity.create_for_windows()


def windows_disk(*names: str, folders: tuple[str, ...] = ()) -> Inspection:
    entries = {"/Windows/System32": FOLDER, **dict.fromkeys(names, FILE), **dict.fromkeys(folders, FOLDER)}
    return Inspection((FileSystem("vda2", 1 << 30, "ntfs", "read", "", entries, {}, ""),))


@pytest.mark.parametrize(
    ("inspection", "code"),
    [
        (windows_disk("/Windows/Panther/Unattend.xml"), "answer-file"),
        (windows_disk("/windows/temp/packer-ps-env-vars-1.ps1"), "script"),
        (windows_disk(folders=("/Users/packer",)), "profile"),
    ],
)
def test_what_a_build_leaves_in_windows_is_said(inspection: Inspection, code: str) -> None:
    found = judge(inspection, {}, WINDOWS_IDENTITY, own_script=False)
    assert [finding.code for finding in found.findings if finding.severity == "warning"] == [code]
    assert found.verdict == "not-inspected"


def test_a_windows_disk_is_never_a_pass_as_its_registry_is_not_read() -> None:
    found = judge(windows_disk("/Windows/Temp/theirs.log"), {}, WINDOWS_IDENTITY, own_script=False)
    assert [(finding.severity, finding.where) for finding in found.findings] == [("unknown", "the registry")]
    assert found.verdict == "not-inspected"


def test_the_password_of_the_build_in_a_file_of_windows_fails_it() -> None:
    held = replace(windows_disk(), holders=("/Windows/Panther/x.log",))
    assert judge(held, {}, WINDOWS_IDENTITY, own_script=False).verdict == "failed"


def test_a_password_in_utf_16_is_found_by_the_raw_scan() -> None:
    hits = {WINDOWS_IDENTITY.password.encode("utf-16-le"): Hits(1, (4096,))}
    found = judge(windows_disk(), hits, WINDOWS_IDENTITY, own_script=False)
    assert "listener key or password" in "".join(map(str, found.findings))
