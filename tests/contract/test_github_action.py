"""The steps of action.yml, run by bash as GitHub's runner runs them (on GitHub itself they were not run)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contract.installing import ROOT, copy_sources, pip_environment

yaml = pytest.importorskip("yaml", reason="PyYAML comes with pre-commit, of the dev extra")
pytestmark = [pytest.mark.install, pytest.mark.xdist_group("action")]
BAD = '{"type": "Microsoft.VirtualMachineImages/imageTemplates", "properties": {"distribute": [],}}'


@dataclass
class Runner:
    """Does what the runner of a workflow does with a composite action: inputs, expressions, files of commands."""

    action: dict[str, Any]
    source: Path
    work: Path
    environment: dict[str, str]

    def run(self, *names: str, **inputs: str) -> tuple[int, str, dict[str, str]]:
        """Runs the named steps until one fails; the exit code, what was printed, and the steps' outputs."""
        known = self.action["inputs"]
        assert set(inputs) <= set(known), "an input that the action does not declare"
        assert all(name in inputs for name, one in known.items() if one.get("required"))
        values = {f"inputs.{name}": inputs.get(name, one.get("default", "")) for name, one in known.items()}
        values["github.action_path"] = str(self.source)
        output = self.work / "output"
        output.write_text("")
        steps = [step for step in self.action["runs"]["steps"] if step["name"] in names]
        assert len(steps) == len(names)
        printed, code = "", 0
        for step in steps:
            assert "${{" not in step["run"], "an expression in a script is an injection"
            own = {name: self._expanded(str(value), values) for name, value in step.get("env", {}).items()}
            script = self.work / "step.sh"
            script.write_text(step["run"])
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],  # what `shell: bash` stands for
                cwd=self.work / "checkout",
                env={**self.environment, **own, "RUNNER_TEMP": str(self.work / "temp"), "GITHUB_OUTPUT": str(output)},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            printed, code = printed + done.stdout + done.stderr, done.returncode
            if code:
                break
        return code, printed, dict(line.split("=", 1) for line in output.read_text().splitlines())

    @staticmethod
    def _expanded(text: str, values: dict[str, str]) -> str:
        return re.sub(r"\$\{\{\s*([\w.-]+)\s*\}\}", lambda found: values[found[1]], text)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, build_cache: Path) -> Iterator[Runner]:
    """A runner on which the action's first step has installed aib."""
    work = tmp_path_factory.mktemp("runner")
    for name in ("temp", "checkout/scripts", "checkout/two words"):
        (work / name).mkdir(parents=True)
    shutil.copy(ROOT / "fixtures/templates/hello-linux.json", work / "checkout/two words/good.json")
    for name in ("hello.sh", "hello.toml"):
        shutil.copy(ROOT / "fixtures/scripts" / name, work / "checkout/scripts")
    (work / "checkout/bad.json").write_text(BAD)
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    made = Runner(action, copy_sources(work / "aib"), work, pip_environment(build_cache))
    code, printed, _ = made.run("Install aib", templates="unused", python=sys.executable)
    assert code == 0, printed
    yield made
    shutil.rmtree(work)


def test_a_good_template_passes(runner: Runner) -> None:
    code, printed, outputs = runner.run("Check the templates", templates="two words/good.json\n")
    assert code == 0, printed
    assert outputs == {"exit-code": "0"}
    assert "::error" not in printed


def test_what_is_wrong_is_annotated_and_written_as_sarif(runner: Runner) -> None:
    given = {"templates": "two words\n\nbad.json", "arguments": "--ignore=AIB023\n", "sarif-file": "found.sarif"}
    code, printed, outputs = runner.run("Check the templates", **given)
    assert code == 2, printed
    assert outputs == {"exit-code": "2"}
    assert re.search(r"^::error file=bad\.json,line=1,col=\d+,title=AIB001::", printed, re.MULTILINE)
    results = json.loads((runner.work / "checkout/found.sarif").read_text())["runs"][0]["results"]
    assert {"AIB001"} <= {one["ruleId"] for one in results}
    assert "AIB023" not in {one["ruleId"] for one in results}


def test_inputs_are_data_and_never_commands(runner: Runner) -> None:
    code, printed, outputs = runner.run("Check the templates", templates="$(touch pwned); `touch pwned`\n--fix")
    assert code == 4, printed
    assert outputs == {"exit-code": "4"}
    assert not (runner.work / "checkout/pwned").exists()


def test_the_action_declares_what_github_asks_for(runner: Runner) -> None:
    assert {"name", "description", "inputs", "outputs", "runs"} <= set(runner.action)
    assert runner.action["runs"]["using"] == "composite"
    assert all(step["shell"] == "bash" for step in runner.action["runs"]["steps"] if "run" in step)
    ids = {step.get("id") for step in runner.action["runs"]["steps"]}
    for output in runner.action["outputs"].values():
        assert set(re.findall(r"steps\.([\w-]+)\.outputs", output["value"])) <= ids
