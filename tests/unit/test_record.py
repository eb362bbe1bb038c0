import json
from pathlib import Path

import pytest

from orchestrator.record import events as e
from orchestrator.record import messages
from orchestrator.record.journal import Journal
from orchestrator.record.record import RecordWriter, finish_abandoned, load

STARTED = e.RunStarted(
    "r1", "/subscriptions/0/t", "hello", "Debian:debian-12:12:latest", "12.1", "ab" * 32, "Standard_D1_v2",
    1, 2048, 14400.0, ("first", "second"), "2022-02-14", "westus2", 1, 3584,
)  # fmt: skip


def run(folder: Path, *events: e.Event) -> dict[str, object]:
    with Journal(folder) as journal:
        journal.subscribe(RecordWriter(folder))
        for event in events:
            journal.emit(event)
    record: dict[str, object] = json.loads((folder / "record.json").read_text())
    return record


def begun(index: int = 0) -> e.StepStarted:
    return e.StepStarted(index, ("first", "second")[index], "Shell", "Customizing", 2, f"steps/{index:02d}.out")


def test_record_tells_the_run_in_the_services_words(tmp_path: Path) -> None:
    record = run(
        tmp_path,
        STARTED,
        e.Phase("Customizing", "Customizing"),
        begun(),
        e.StepFinished(0, "first", "succeeded", 2.5, 0, True),
        e.Deviation("no-agents", "no Azure agents"),
        e.Deviation("no-agents", "no Azure agents"),
        e.Said("the size was clamped", level="warning"),
        e.GeneralizeProof("passed", (), "proof.json"),
        e.Phase("Distributing", "Distributing"),
        e.ArtifactWritten("artifacts/os.vhd", "vhd", 10, 522, 100, "cd" * 32),
        e.RunOutputReady("out", "VHD", "Succeeded", artifact_uri="file:///x"),
        e.RunFinished("Succeeded", "", "", 0, 9.0),
    )
    status = record["lastRunStatus"]
    assert isinstance(status, dict)
    assert {key: status[key] for key in ("runState", "runSubState", "message")} == {
        "runState": "Succeeded",
        "runSubState": "Distributing",
        "message": "",
    }
    assert status["startTime"] <= status["endTime"]
    assert record["machine"] == {
        "vmSize": "Standard_D1_v2",
        "asked": {"vcpus": 1, "memoryMiB": 3584},
        "given": {"vcpus": 1, "memoryMiB": 2048},
    }
    assert record["source"] == {"requested": STARTED.source, "version": "12.1", "sha256": "ab" * 32}
    steps = record["steps"]
    assert isinstance(steps, list)
    assert [(s["name"], s["result"], s["rebooted"]) for s in steps] == [
        ("first", "succeeded", True),
        ("second", "not run", False),
    ]
    assert record["deviations"] == [{"code": "no-agents", "message": "no Azure agents"}]
    assert record["warnings"] == ["the size was clamped"]
    assert record["exitCode"] == 0 and record["seconds"] == 9.0


def test_record_of_a_run_under_way(tmp_path: Path) -> None:
    record = run(tmp_path, STARTED, e.Phase("Booting", "Building"))
    status = record["lastRunStatus"]
    assert isinstance(status, dict)
    assert status["runState"] == "Running" and status["endTime"] is None and status["runSubState"] == "Building"


def test_record_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.subscribe(RecordWriter(tmp_path))
        journal.emit(STARTED)
        first = (tmp_path / "record.json").open()
        journal.emit(e.Phase("Booting", "Building"))
    with first:
        assert json.load(first)["phases"] == [], "who had it open still reads the whole old one"
    assert len(json.loads((tmp_path / "record.json").read_text())["phases"]) == 1


def test_abandoned_run_gets_its_last_word(tmp_path: Path) -> None:
    run(tmp_path, STARTED, e.Phase("Customizing", "Customizing"), begun())
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"v":1,"seq":3,')
    shown: list[e.Stamped] = []
    finished = finish_abandoned(tmp_path, "the worker process was ended by SIGKILL", show=shown.append)
    assert [type(stamped.event) for stamped in shown] == [e.StepFinished, e.RunFinished]
    assert (finished.state, finished.sub_state, finished.exit_code) == ("Failed", "Customizing", 1)
    record = load(tmp_path)
    assert record.steps[0].result == "failed" and "SIGKILL" in record.steps[0].message
    assert json.loads((tmp_path / "record.json").read_text())["lastRunStatus"]["message"] == finished.message
    assert finish_abandoned(tmp_path, "again") == finished, "a finished run is left as it is"


def test_run_abandoned_before_its_first_event(tmp_path: Path) -> None:
    assert finish_abandoned(tmp_path, "died at once").state == "Failed"
    assert json.loads((tmp_path / "record.json").read_text())["exitCode"] == 1


@pytest.mark.parametrize(
    ("api_version", "beginning"),
    [
        ("2019-05-01-preview", "Failed while waiting for packerizer: Microservice has failed"),
        ("2020-02-14", "Failed while waiting for packerizer: Microservice has failed"),
        ("2021-10-01", "During the image build a failure has occurred. Packer build logs are at location /r/c.log."),
        ("2024-02-01", "During the image build a failure has occurred. Packer build logs are at location /r/c.log."),
    ],
)
def test_failure_message_by_era(api_version: str, beginning: str) -> None:
    text = messages.last_run_message("Failed", api_version=api_version, run_id="r1", log=Path("/r/c.log"))
    assert text.startswith(beginning) and "/r/c.log" in text and messages.operation_id("r1") in text


def test_other_messages() -> None:
    def message(state: str, **more: object) -> str:
        return messages.last_run_message(state, api_version="2022-02-14", run_id="r", log=Path("l"), **more)  # type: ignore[arg-type]  # a test's shorthand

    assert message("Failed", timed_out=True) == messages.TIMED_OUT
    assert " ".join(line.removeprefix("[ERROR] ") for line in messages.TIMED_OUT_LOG_LINES) == messages.TIMED_OUT
    assert message("Succeeded") == ""
    assert message("PartiallySucceeded", distribute_failures=[(1, "no gallery")], distributions=2) == (
        "Failed in distributing 1 images out of total 2: {[Error 0] [Distribute 1] no gallery}"
    )


def test_operation_id_is_a_guid_and_stays() -> None:
    guid = "7111a125-9cce-4cc6-80f1-70030c08e815"
    assert messages.operation_id(guid) == guid
    assert messages.operation_id("20260101-x") == messages.operation_id("20260101-x") != messages.operation_id("y")
