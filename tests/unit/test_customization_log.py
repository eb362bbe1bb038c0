import re
import xml.etree.ElementTree as xml
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.record import events as e
from orchestrator.record import messages
from orchestrator.record.journal import Journal
from orchestrator.record.record import finish_abandoned, load
from orchestrator.views.customization_log import CustomizationLog, rewrite_logs
from orchestrator.views.junit import junit

OPERATION = messages.operation_id("r1")
STARTED = e.RunStarted("r1", "/t", "hello", "s", "1", "ab", "D1", 1, 1024, 900.0, ("install", "check"))
FAILED_MESSAGE = messages.build_failed("2020-02-14", "r1", Path("/r/customization.log"))


def step(index: int, name: str, kind: str, phase: str, command: str = "") -> e.StepStarted:
    return e.StepStarted(index, name, kind, phase, 2, f"steps/{index:02d}.out", command)


def write(folder: Path, *facts: e.Event | tuple[int, str, bytes]) -> list[str]:
    with Journal(folder) as journal, CustomizationLog(folder) as log:
        journal.subscribe(log)
        for fact in facts:
            if isinstance(fact, tuple):
                journal.output(fact[0], "stdout" if fact[1] == "stdout" else "stderr", fact[2])
            else:
                journal.emit(fact)
    return (folder / "customization.log").read_text().splitlines()


def good_run(folder: Path) -> list[str]:
    return write(
        folder,
        STARTED,
        e.Phase("Connecting", "Building"),
        e.Connected(20.0, "127.0.0.1:22", "packer"),
        e.Phase("Customizing", "Customizing"),
        step(0, "install", "Shell", "Customizing", "/tmp/script_1.sh"),
        (0, "stdout", b"10%\r100%\nhel"),
        (0, "stderr", b"careful\n"),
        (0, "stdout", b"lo"),
        e.StepFinished(0, "install", "succeeded", 1.0),
        e.Phase("Validating", "Validating"),
        step(1, "check", "Shell", "Validating"),
        (1, "stdout", b"fine\n"),
        e.StepFinished(1, "check", "succeeded", 1.0),
        e.Phase("PoweringOff", "Customizing"),
        e.RunFinished("Succeeded", "", "", 0, 3.0),
    )


def test_a_windows_guest_is_waited_for_by_winrm(tmp_path: Path) -> None:
    lines = write(
        tmp_path,
        replace(STARTED, os="windows"),
        e.Phase("Connecting", "Building"),
        e.Connected(20.0, "127.0.0.1:5986", "packer", "winrm"),
    )
    text = "\n".join(lines)
    assert "Waiting for WinRM to become available..." in text
    assert "Waiting for WinRM, up to timeout: 10m0s" in text
    assert "WinRM connected." in text
    assert "SSH" not in text


def test_shape_of_the_log(tmp_path: Path) -> None:
    lines = good_run(tmp_path)
    head = f"[{OPERATION}] PACKER "
    assert all(re.match(re.escape(head) + "(OUT|ERR) ", line) for line in lines)
    told = [re.sub(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d", "T", line.removeprefix(head)) for line in lines]
    assert told == [
        "OUT ==> azure-arm: Running builder ...",
        "OUT ==> azure-arm: Waiting for SSH to become available...",
        "ERR T packer: T [INFO] Waiting for SSH, up to timeout: 20m0s",
        "OUT ==> azure-arm: Connected to SSH!",
        "ERR T packer: T [INFO] (telemetry) Starting provisioner shell",
        "OUT ==> azure-arm: Provisioning with shell script: install",
        "OUT     azure-arm: 100%",
        "OUT ==> azure-arm: careful",
        "OUT     azure-arm: hello",
        "ERR T packer: T [INFO] command '/tmp/script_1.sh' exited with code: 0",
        "ERR T packer: T [INFO] (telemetry) ending shell",
        "ERR T packer: T [INFO] (telemetry) Finalizing.",
        "OUT Build 'azure-arm' finished.",
        "OUT ==> Builds finished but no artifacts were created.",
    ]


def test_validation_has_its_own_log(tmp_path: Path) -> None:
    good_run(tmp_path)
    text = (tmp_path / "validation.log").read_text()
    assert "    azure-arm: fine\n" in text and "(telemetry) Starting provisioner shell" in text
    assert "hello" not in text and "fine" not in (tmp_path / "customization.log").read_text()


def test_no_validation_no_validation_log(tmp_path: Path) -> None:
    write(tmp_path, STARTED, e.RunFinished("Canceled", "", messages.CANCELED, 130, 1.0))
    assert not (tmp_path / "validation.log").exists()


def test_logs_can_be_made_again_years_later(tmp_path: Path) -> None:
    good_run(tmp_path)
    logs = [tmp_path / "customization.log", tmp_path / "validation.log"]
    before = [log.read_bytes() for log in logs]
    for log in logs:
        log.unlink()
    rewrite_logs(tmp_path)
    assert [log.read_bytes() for log in logs] == before


def test_expiry_ends_with_the_two_lines_of_the_service(tmp_path: Path) -> None:
    lines = write(
        tmp_path,
        STARTED,
        e.Phase("Customizing", "Customizing"),
        step(0, "install", "Shell", "Customizing"),
        e.StepFinished(0, "install", "failed", 900.0, None, message="buildTimeoutInMinutes 15 is used up"),
        e.Phase("CleaningUp", "Customizing"),
        e.RunFinished("Failed", "Customizing", messages.TIMED_OUT, 124, 900.0),
    )
    assert lines[-2:] == [
        "[ERROR] Failed while waiting for packerizer: Timeout waiting for microservice to",
        "[ERROR] complete: 'context deadline exceeded'",
    ]


def test_failure_names_exit_code_and_ends_with_the_message(tmp_path: Path) -> None:
    lines = write(
        tmp_path,
        STARTED,
        e.Phase("Customizing", "Customizing"),
        step(0, "install", "Shell", "Customizing", "/tmp/script_1.sh"),
        e.StepFinished(0, "install", "failed", 1.0, 100, message="Script exited with non-zero exit status: 100"),
        e.RunFinished("Failed", "Customizing", FAILED_MESSAGE, 1, 2.0),
    )
    text = "\n".join(lines)
    assert "command '/tmp/script_1.sh' exited with code: 100" in text
    assert "==> azure-arm: Script exited with non-zero exit status: 100" in text
    assert "Build 'azure-arm' errored." in text
    assert lines[-1] == f"[ERROR] {FAILED_MESSAGE}"


@pytest.mark.parametrize(
    ("kind", "marker"),
    [("File", "file"), ("PowerShell", "powershell"), ("WindowsRestart", "windows-restart"), ("Generalize", "shell")],
)
def test_markers_of_the_provisioners(tmp_path: Path, kind: str, marker: str) -> None:
    text = "\n".join(
        write(tmp_path, STARTED, step(0, "x", kind, "Customizing"), e.StepFinished(0, "x", "succeeded", 1.0))
    )
    assert f"(telemetry) Starting provisioner {marker}\n" in text and f"(telemetry) ending {marker}" in text


def test_log_of_a_run_whose_worker_died(tmp_path: Path) -> None:
    write(tmp_path, STARTED, step(0, "install", "Shell", "Customizing"), (0, "stdout", b"so far\n"))
    finish_abandoned(tmp_path, "the worker process was ended by SIGKILL")
    rewrite_logs(tmp_path)
    text = (tmp_path / "customization.log").read_text()
    assert "    azure-arm: so far\n" in text and text.endswith("[ERROR] the worker process was ended by SIGKILL\n")


def test_junit_has_one_case_per_step(tmp_path: Path) -> None:
    write(
        tmp_path,
        STARTED,
        step(0, "inst\x1ball", "Shell", "Customizing"),
        (0, "stdout", b"E: no such \x00 package\n"),
        e.StepFinished(0, "inst\x1ball", "failed", 1.5, 100, message="exit 100"),
        e.RunFinished("Failed", "Customizing", "it broke", 1, 2.0),
    )
    suite = xml.fromstring(junit([("", load(tmp_path), tmp_path)])).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped"), suite.get("errors")) == (
        "2",
        "1",
        "1",
        "0",
    )
    first, second = suite.findall("testcase")
    failure = first.find("failure")
    assert failure is not None and failure.get("message") == "exit 100" and first.get("time") == "1.500"
    assert "apt-get" in (failure.text or "") and "E: no such" in (failure.text or "")
    assert second.get("name") == "check" and second.find("skipped") is not None


def test_junit_of_a_run_that_failed_outside_its_steps(tmp_path: Path) -> None:
    write(tmp_path, STARTED, e.RunFinished("Failed", "Building", "no SSH", 1, 2.0, "look at console.log"))
    suite = xml.fromstring(junit([("", load(tmp_path), tmp_path)])).find("testsuite")
    assert suite is not None and suite.get("errors") == "1"
    error = suite.find("testcase/error")
    assert error is not None and error.get("message") == "no SSH" and error.text == "look at console.log"
