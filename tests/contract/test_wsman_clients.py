"""The WinRM guest held against clients that know nothing of us: pywinrm, pypsrp, Ansible, Debian's winrmcp and Packer.
Each runs its own code over its own logins; what it saw and what the guest saw must agree, and no shell may be left."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.guests.windows.machine import Windows
from fixtures.guests.windows.server import Served, running
from fixtures.guests.windows.wsman import OPEN, Settings
from tests.contract.test_winrm_communicator import certificate, timedelta
from tests.contract.winrm_bed import pem_files

USER, PASSWORD = "packer", "a password: with a colon"
ENCRYPTED = Settings()
CONTENT = bytes(range(256)) * 120
SECONDS = 600


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """A certificate and its key for 127.0.0.1, self-signed."""
    folder = tmp_path_factory.mktemp("tls")
    return pem_files(folder, *certificate(timedelta(days=-1), timedelta(days=30), address="127.0.0.1"))


@pytest.fixture
def windows(tmp_path):
    return Windows(tmp_path / "guest", account=(USER, PASSWORD))


@pytest.fixture
def serving(windows, pem):
    """Serve the guest with some settings; at the end no shell is open, and the guest knew every statement."""
    contexts = []

    def serve(settings: Settings = OPEN) -> Served:
        contexts.append(running(windows, tls=pem, settings=settings))
        return contexts[-1].__enter__()

    yield serve
    for context in contexts:
        context.__exit__(None, None, None)


def left_clean(served: Served, windows: Windows) -> None:
    assert served.shells == {}
    assert windows.unknown == []


def program(*argv: str | Path, cwd: Path, **environment: str) -> str:
    """Run a client to its end; what it printed."""
    done = subprocess.run(
        [str(part) for part in argv],
        check=False, capture_output=True, text=True, timeout=SECONDS, cwd=cwd,
        env={**os.environ, "HOME": str(cwd), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# pywinrm: the library under aib's communicator, here by its own front door.


@pytest.mark.parametrize(
    ("transport", "scheme", "settings"),
    [
        ("basic", "http", OPEN),
        ("basic", "https", Settings(basic=True)),
        ("ntlm", "http", ENCRYPTED),
        ("ntlm", "https", ENCRYPTED),
    ],
)
def test_pywinrm(serving, windows, pem, transport, scheme, settings):
    import winrm

    served = serving(settings)
    port = served.port if scheme == "http" else served.https_port
    session = winrm.Session(
        f"{scheme}://127.0.0.1:{port}/wsman", auth=(USER, PASSWORD), transport=transport, ca_trust_path=str(pem[0]),
        message_encryption="always" if (transport, scheme) == ("ntlm", "http") else "auto",
    )  # fmt: skip
    said = session.run_cmd("echo", ["hi", "there"])
    assert (said.std_out, said.std_err, said.status_code) == (b"hi there\r\n", b"", 0)
    assert session.run_cmd("exit 7").status_code == 7
    said = session.run_ps("Write-Output 'from PowerShell'; Write-Error 'bad'; exit 3")
    assert (said.std_out, said.status_code) == (b"from PowerShell\r\n", 3)
    assert b"bad" in said.std_err
    left_clean(served, windows)


def test_pywinrm_reads_the_fault(serving):
    from winrm import Protocol
    from winrm.exceptions import InvalidCredentialsError, WinRMOperationTimeoutError, WSManFaultError

    served = serving()
    options = {
        "transport": "basic", "username": USER, "password": PASSWORD, "ca_trust_path": None,
        "operation_timeout_sec": 1, "read_timeout_sec": 9,
    }  # fmt: skip
    protocol = Protocol(f"http://127.0.0.1:{served.port}/wsman", **options)
    shell = protocol.open_shell(env_vars={"GIVEN": "a value"}, working_directory="C:\\Windows")
    command = protocol.run_command(shell, "echo %GIVEN% %CD% & powershell -Command Start-Sleep 60")
    with pytest.raises(WinRMOperationTimeoutError):
        while True:
            assert protocol.get_command_output_raw(shell, command)[0] == b"a value C:\\Windows \r\n"
    protocol.cleanup_command(shell, command)
    protocol.close_shell(shell, close_session=False)
    with pytest.raises(WSManFaultError) as fault:
        protocol.run_command(shell, "echo x")
    assert (fault.value.wsman_fault_code, fault.value.fault_subcode) == (2150858843, "w:InvalidSelectors")
    with pytest.raises(InvalidCredentialsError):
        Protocol(f"http://127.0.0.1:{served.port}/wsman", **{**options, "password": "wrong"}).open_shell()


# pypsrp: another author, another implementation of messages, SPNEGO and encryption.


@pytest.mark.parametrize(
    ("auth", "tls", "encryption", "settings"),
    [
        ("basic", False, "never", OPEN),
        ("basic", True, "never", Settings(basic=True)),
        ("ntlm", False, "always", ENCRYPTED),
        ("ntlm", True, "auto", ENCRYPTED),
        ("negotiate", False, "always", ENCRYPTED),
        ("negotiate", False, "never", OPEN),
        ("negotiate", True, "always", ENCRYPTED),
    ],
)
def test_pypsrp(serving, windows, pem, auth, tls, encryption, settings):
    from pypsrp.client import Client
    from pypsrp.shell import Process, SignalCode, WinRS
    from pypsrp.wsman import WSMan

    served = serving(settings)
    given = {
        "port": served.https_port if tls else served.port, "ssl": tls, "auth": auth, "encryption": encryption,
        "username": USER, "password": PASSWORD, "cert_validation": str(pem[0]),
    }  # fmt: skip
    with WSMan("127.0.0.1", **given) as wsman, WinRS(wsman, environment={"GIVEN": "é"}, codepage=65001) as shell:
        process = Process(shell, "echo", ["%GIVEN%"])
        process.invoke()
        process.signal(SignalCode.CTRL_C)
        assert (process.stdout, process.stderr, process.rc) == ("é\r\n".encode(), b"", 0)
        wsman.update_max_payload_size()
        assert wsman.max_envelope_size == settings.max_envelope_kb * 1024
    with Client("127.0.0.1", **given) as client:
        assert client.execute_cmd("echo one& echo two 1>&2& exit 5") == ("one\r\n", "two \r\n", 5)
    left_clean(served, windows)


def test_pypsrp_reads_the_fault(serving):
    from pypsrp.exceptions import AuthenticationError, WSManFaultError
    from pypsrp.shell import Process, WinRS
    from pypsrp.wsman import WSMan

    served = serving()
    given = {"port": served.port, "ssl": False, "auth": "ntlm", "username": USER}
    with WSMan("127.0.0.1", password=PASSWORD, **given) as wsman, WinRS(wsman) as shell:
        for line, code in (("powershell.exe", 0x80070002), ("C:\\Windows\\System32\\cmd.exe", None)):
            process = Process(shell, line, ["/c", "exit"], no_shell=True)
            if code is None:
                process.invoke()
                continue
            with pytest.raises(WSManFaultError) as fault:
                process.invoke()
            assert fault.value.code == code
    with pytest.raises(AuthenticationError), WSMan("127.0.0.1", password="wrong", **given) as wsman, WinRS(wsman):
        pass


# Ansible: pywinrm again, under another's ideas of shells, input and quotas.


def ansible(
    folder: Path, served: Served, name: str, *arguments: str, transport: str = "basic", scheme: str = "http"
) -> str:
    """Run one of Ansible's programs; `guest` is in its inventory."""
    guest = {
        "ansible_connection": "winrm", "ansible_host": "127.0.0.1", "ansible_user": USER, "ansible_password": PASSWORD,
        "ansible_port": served.port if scheme == "http" else served.https_port,
        "ansible_winrm_transport": transport, "ansible_winrm_scheme": scheme,
        "ansible_winrm_server_cert_validation": "ignore",
    }  # fmt: skip
    (folder / "hosts.json").write_text(json.dumps({"all": {"hosts": {"guest": guest}}}))
    argv = (Path(sys.executable).with_name(name), "-i", "hosts.json", *arguments)
    return program(*argv, cwd=folder, ANSIBLE_NOCOLOR="1", LC_ALL="C.UTF-8")


@pytest.mark.parametrize(
    ("transport", "scheme", "settings"),
    [("basic", "http", OPEN), ("ntlm", "http", ENCRYPTED), ("ntlm", "https", ENCRYPTED)],
)
def test_ansible_raw(serving, windows, tmp_path, transport, scheme, settings):
    served = serving(settings)
    line = "Write-Output 'one'; Set-Content -Path C:\\by-ansible.txt -Value 'was here'"
    said = ansible(tmp_path, served, "ansible", "guest", "-m", "raw", "-a", line, transport=transport, scheme=scheme)
    assert re.search(r"guest \| CHANGED \| rc=0 >>\r?\none", said), said
    assert windows.files.read("C:\\by-ansible.txt") == b"was here\r\n"
    left_clean(served, windows)


def test_ansible_makes_another_shell_where_the_quota_of_commands_is_used_up(serving, windows, tmp_path):
    served = serving(dataclasses.replace(OPEN, max_operations_per_user=2))
    task = {"ansible.builtin.raw": "Add-Content -Path C:\\loop.txt -Value {{ item }}", "loop": [1, 2, 3, 4, 5]}
    (tmp_path / "play.json").write_text(json.dumps([{"hosts": "guest", "gather_facts": False, "tasks": [task]}]))
    ansible(tmp_path, served, "ansible-playbook", "play.json")
    assert windows.files.read("C:\\loop.txt") == b"1\r\n2\r\n3\r\n4\r\n5\r\n"
    assert served.requests.count("Create") == 3
    left_clean(served, windows)


# winrmcp: Packer's uploader by itself, in Go.


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_winrmcp(serving, windows, pem, tmp_path, scheme):
    served = serving(OPEN if scheme == "http" else Settings(basic=True))
    (tmp_path / "file").write_bytes(CONTENT)
    secure = ("-https", "-cacert", pem[0]) if scheme == "https" else ()
    port = served.https_port if secure else served.port
    target = "C:/new folder/copied.bin"
    program(
        "winrmcp", "-user", USER, "-pass", PASSWORD, "-addr", f"127.0.0.1:{port}", *secure, tmp_path / "file", target,
        cwd=tmp_path,
    )  # fmt: skip
    assert windows.files.read(target) == CONTENT
    left_clean(served, windows)


def test_winrmcp_keeps_to_the_quota_that_it_is_told(serving, windows, tmp_path):
    served = serving(dataclasses.replace(OPEN, max_operations_per_user=4))
    (tmp_path / "file").write_bytes(CONTENT * 2)
    login = ("-user", USER, "-pass", PASSWORD, "-addr", f"127.0.0.1:{served.port}")
    program("winrmcp", *login, "-max-ops-per-shell", "4", tmp_path / "file", "C:/copied.bin", cwd=tmp_path)
    assert windows.files.read("C:/copied.bin") == CONTENT * 2
    # One more than it may: its library takes a command that was refused for one that was run (masterzen/winrm 129).
    program("winrmcp", *login, "-max-ops-per-shell", "5", tmp_path / "file", "C:/more.bin", cwd=tmp_path)
    assert len(windows.files.read("C:/more.bin")) < len(CONTENT * 2)


# Packer, by its null builder: three of them at once, each with another login.


def shell(*lines: str, **more: object) -> dict[str, object]:
    return {"type": "powershell", "inline": list(lines), **more}


def save(name: str, value: str = "$env:USERNAME") -> str:
    return f'Set-Content -Path C:\\{name}.txt -Value "{value}"'


BUILDERS = {"basic": {}, "secure": {"winrm_use_ssl": True, "winrm_insecure": True}, "ntlm": {"winrm_use_ntlm": True}}
RESTART = {"type": "windows-restart", "restart_timeout": "60s"}
DOWNLOAD = {"type": "file", "direction": "download", "source": "C:/Windows/Temp/up.bin"}
PROVISIONERS = [
    shell("Write-Output 'inline ran'", save("inline", "$env:GIVEN"), environment_vars=["GIVEN=a value"]),
    {"type": "powershell", "script": "script.ps1", "valid_exit_codes": [0, 9]},
    shell(save("elevated"), "Write-Output 'elevated ran'", elevated_user=USER, elevated_password=PASSWORD),
    shell(save("system"), elevated_user="SYSTEM", elevated_password=""),
    {"type": "windows-shell", "inline": ["echo from a batch file", "echo %PACKER_BUILD_NAME%> C:\\shell.txt"]},
    {"type": "file", "source": "file", "destination": "C:/Windows/Temp/up.bin"},
    *({**DOWNLOAD, "destination": name, "only": [name]} for name in BUILDERS),
    RESTART,
    shell(save("after", "restarted")),
    {**RESTART, "restart_check_command": "powershell -command \"& {Write-Output 'checked'}\""},
]


@pytest.fixture(scope="module")
def packer(tmp_path_factory, pem):
    """One run of Packer: what it printed, and the guests by the name of the builder."""
    folder = tmp_path_factory.mktemp("packer")
    (folder / "script.ps1").write_text("Write-Output 'script ran'\r\nexit 9\r\n")
    (folder / "file").write_bytes(CONTENT)
    with ExitStack() as stack:
        guests = {name: Windows(folder / f"guest-{name}", account=(USER, PASSWORD)) for name in BUILDERS}
        served = {name: stack.enter_context(running(guest, tls=pem)) for name, guest in guests.items()}
        login = {"winrm_host": "127.0.0.1", "winrm_timeout": "60s", "winrm_username": USER, "winrm_password": PASSWORD}
        builders = [
            {
                "type": "null", "name": name, "communicator": "winrm", **login, **more,
                "winrm_port": served[name].https_port if name == "secure" else served[name].port,
            }
            for name, more in BUILDERS.items()
        ]  # fmt: skip
        (folder / "template.json").write_text(json.dumps({"builders": builders, "provisioners": PROVISIONERS}))
        said = program(
            "packer", "build", "-color=false", "template.json", cwd=folder,
            CHECKPOINT_DISABLE="1", PACKER_CONFIG=str(folder / "none"), PACKER_CACHE_DIR=str(folder / "cache"),
        )  # fmt: skip
        yield folder, said, guests, served


@pytest.mark.parametrize("name", BUILDERS)
def test_packer(packer, name):
    folder, said, guests, served = packer
    windows, served = guests[name], served[name]
    for words in ("inline ran", "script ran", "elevated ran", "from a batch file", "Machine successfully restarted"):
        assert re.search(rf"(?m)^.*{name}: .*{words}", said), said

    def wrote(name: str) -> str:
        return windows.files.read(f"C:\\{name}.txt").decode().rstrip()

    assert (wrote("inline"), wrote("elevated"), wrote("shell"), wrote("after")) == ("a value", USER, name, "restarted")
    assert wrote("system").endswith("$")
    assert windows.files.read("C:\\Windows\\Temp\\up.bin") == (folder / name).read_bytes() == CONTENT
    assert (served.power, windows.boots) == (["restart", "restart"], 3)
    left_clean(served, windows)
