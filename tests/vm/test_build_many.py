"""Several builds at once over one source: a log each, one overview, one report."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from xml.etree import ElementTree as xml

import pytest

from tests.vm.conftest import TemplateWriter
from tests.vm.support import TINY_URN, Home, qemus_of, shell, wait_for

pytestmark = pytest.mark.vm


@pytest.fixture
def home(tmp_path: Path, tiny_image: Path) -> Home:
    home = Home(tmp_path / "home")
    home.ok("image", "import", tiny_image, "--urn", TINY_URN, "--os", "linux")
    return home


def each(path: Path) -> Path:
    """The template with a name and an image of its own for every <which>."""
    data = json.loads(path.read_text())
    data["name"] = "many-<which>"
    data["properties"]["distribute"][0]["imageId"] += "-<which>"
    path.write_text(json.dumps(data))
    return path


def test_a_matrix_is_built_at_once(home: Home, write_template: TemplateWriter, tmp_path: Path) -> None:
    look = 'test "<which>" != bad || exit 7; echo "it is <which>"'
    template = each(write_template("many", shell(look, name="look")))
    report = tmp_path / "report.xml"
    done = home.aib("build", template, "--matrix", "<which>=one,two,bad", "--junit", report, "--json", "--jobs", "2")
    assert done.returncode == 1, done.stderr
    assert len(json.loads(done.stdout)) == 3
    for which in ("one", "two"):
        assert f"which={which} |   look | it is {which}" in done.stderr
    overview = done.stderr.partition("BUILD ")[2].splitlines()[1:]
    assert [line.split("which=")[1].split()[:2] for line in overview] == [
        ["one", "Succeeded"],
        ["two", "Succeeded"],
        ["bad", "Failed:"],
    ]
    suites = xml.parse(report).getroot().findall("testsuite")
    assert [(suite.get("name", "").partition("which=")[2], suite.get("failures")) for suite in suites] == [
        ("one", "0"),
        ("two", "0"),
        ("bad", "1"),
    ]
    assert all((run / "customization.log").stat().st_size for run in home.runs())
    begun = [moment(run, "RunStarted") for run in home.runs()]
    ended = [moment(run, "RunFinished") for run in home.runs()]
    assert begun[1] < ended[0], "the first two ran at the same time"
    assert begun[2] > min(ended[:2]), "the third waited for one of them"


def moment(run: Path, kind: str) -> str:
    """When the event of that kind was written."""
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["type"] == kind:
            return str(event["time"])
    raise AssertionError(f"{run} has no {kind}")


def test_a_signal_ends_all_of_them(home: Home, write_template: TemplateWriter) -> None:
    template = each(write_template("ended", shell("sleep 600", name="sleeps")))
    build = home.start("build", template, "--matrix", "<which>=1,2,3", "--jobs", "2")
    wait_for(lambda: len(qemus_of(home.path)) == 2, 60, "two build VMs")
    build.send_signal(signal.SIGINT)
    said, _ = build.communicate(timeout=60)
    assert build.returncode == 130
    assert qemus_of(home.path) == []
    assert (said.count("Canceled"), said.count("not started")) == (2, 1)


def test_nothing_starts_when_one_of_them_is_invalid(home: Home, write_template: TemplateWriter) -> None:
    good, bad = write_template("good", shell("true")), write_template("bad", {"type": "Shel", "inline": ["true"]})
    done = home.aib("build", good, bad)
    assert (done.returncode, home.runs()) == (2, [])
    assert "Shel" in done.stderr
