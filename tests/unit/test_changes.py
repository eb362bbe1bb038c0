"""What differs between two disks, in an administrator's words."""

from __future__ import annotations

from dataclasses import replace

from hypervisor.inspection import Entry, FileSystem, Inspection
from orchestrator.build.changes import compare
from orchestrator.views.changes_text import lines, page

FILE = Entry("f", 0o644, 0, 0, 10, 1.0)
OLD_STATUS = (
    b"Package: bash\nStatus: install ok installed\nVersion: 5.2\n\nPackage: gone\nStatus: deinstall ok config-files\n"
)
NEW_STATUS = OLD_STATUS.replace(b"5.2", b"5.3") + b"\nPackage: curl\nStatus: install ok installed\nVersion: 7.88\n"


def disk(entries: dict[str, Entry], files: dict[str, bytes] | None = None, **more: object) -> Inspection:
    system = FileSystem("vda1", 1 << 30, "ext4", "read", "", entries, files or {}, "")
    return Inspection((replace(system, **more),))  # type: ignore[arg-type]  # test data


def test_files_that_come_go_and_change() -> None:
    before = disk({"/etc/a": FILE, "/etc/b": FILE, "/usr/bin/x": FILE}, {"/etc/a": b"one\ntwo\n", "/etc/b": b"same"})
    after = disk(
        {"/etc/a": replace(FILE, mtime=2.0), "/etc/b": replace(FILE, mtime=2.0), "/new": replace(FILE, size=20),
         "/usr/bin/x": replace(FILE, mode=0o4755, uid=7)},
        {"/etc/a": b"one\n2\n", "/etc/b": b"same"},
    )  # fmt: skip
    found = compare(before, after)
    assert [(each.path, each.kind, each.what) for each in found.files] == [
        ("/etc/a", "changed", ("contents",)),
        ("/new", "added", ()),
        ("/usr/bin/x", "changed", ("mode", "owner")),
    ]
    assert found.files[0].diff == ("@@ -1,2 +1,2 @@", " one", "-two", "+2")
    assert found.size == 20


def test_packages_users_units_and_schedules() -> None:
    status, passwd = "/var/lib/dpkg/status", "/etc/passwd"
    before = disk({}, {status: OLD_STATUS, passwd: b"root:x:0:0\nold:x:5:5\n"})
    unit, cron = "/etc/systemd/system/multi-user.target.wants/app.service", "/etc/cron.d/job"
    after = disk(
        {unit: replace(FILE, kind="l", target="/lib/app.service"), cron: FILE, "/etc/nftables.conf": FILE},
        {status: NEW_STATUS, passwd: b"root:x:0:0\nnew:x:6:6\n"},
    )
    found = compare(before, after)
    assert found.packages == ("~ bash 5.2 -> 5.3", "+ curl 7.88")
    assert found.users == ("+ new x:6:6", "- old x:5:5")
    assert (found.units, found.cron) == ((f"+ {unit}",), (f"+ {cron}",))
    assert found.firewall == ("+ /etc/nftables.conf",)


def test_what_every_system_changes_is_only_counted() -> None:
    after = disk({"/var/log/syslog": FILE, "/etc/real": FILE})
    assert [each.path for each in compare(disk({}), after).files] == ["/etc/real"]
    assert compare(disk({}), after).noise == 1
    assert len(compare(disk({}), after, everything=True).files) == 2


def test_secrets_and_binaries_are_named_and_not_shown() -> None:
    files = {"/etc/shadow": b"root:$6$hash", "/etc/ssh/ssh_host_rsa_key": b"PRIVATE", "/etc/blob": b"a\0b"}
    found = compare(disk({}), disk(dict.fromkeys(files, FILE), files))
    assert [each.path for each in found.files] == sorted(files)
    assert all(each.diff == () for each in found.files)


def test_what_could_not_be_read_is_said_and_everything_can_be_shown() -> None:
    after = disk({"/etc/a<b>": FILE}, {"/etc/a<b>": b"<script>\n"}, detail="half of it")
    found = compare(disk({}), after)
    assert found.unread == ("vda1: half of it",)
    text = "\n".join(lines("before", "after", found))
    assert "not read: vda1: half of it" in text
    assert "+<script>" in text
    assert "<script>" not in page("before", "after", found)


def test_services_and_where_the_disk_went() -> None:
    unit, script = "/usr/lib/systemd/system/app.service", "/etc/init.d/old"
    before = disk({script: FILE, "/var/cache/apt/pkg.bin": replace(FILE, size=500)})
    after = disk({unit: replace(FILE, size=30), "/usr/lib/x/deep/data": replace(FILE, size=4 << 20), "/top": FILE})
    found = compare(before, after)
    assert found.services == (f"- {script}", f"+ {unit}")
    assert dict(found.usage) == {"/usr/lib": (4 << 20) + 30, "/var/cache": -500, "/": 10, "/etc/init.d": -10}
    text = "\n".join(lines("before", "after", found))
    assert "+4.0 MiB /usr/lib" in text
    assert "-500 B /var/cache" in text
