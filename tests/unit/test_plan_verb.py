"""`aib plan` from a template file to text and JSON, with a real store and a real source image in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from hypervisor.deadline import Deadline
from hypervisor.errors import AibError, HostError, InputError, TemplateError, UsageError
from orchestrator.build.job import Job
from orchestrator.build.options import BuildOptions
from orchestrator.cli.main import aib
from orchestrator.plan import plan_json
from orchestrator.plan.document import plan_document
from orchestrator.plan.model import RunPlan
from orchestrator.record import arm_ids
from orchestrator.record.resources import Resource
from orchestrator.record.store import Store
from orchestrator.verbs.explain import explain
from orchestrator.verbs.plan import plan_template
from provisioners.base import AZURE_ENVIRONMENT
from provisioners.shell import shell_command

IMAGE = arm_ids.managed_image_id("base")
SCRIPT = b"echo hi\n"
DISK = b"not read by planning"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIB_HOME", str(tmp_path / "home"))
    store = Store(tmp_path / "home")
    disk = tmp_path / "disk"
    disk.write_bytes(DISK)
    layer = store.add_layer(disk, "qcow2", move=False, virtual_size=2 << 30)
    about = {"digest": layer.digest, "format": "qcow2", "virtualSize": 2 << 30, "os": "linux", "generation": "V1"}
    store.put(Resource(IMAGE, "Microsoft.Compute/images", "base", "eastus", {}, {"aib": about}))
    return store.home


@pytest.fixture
def write(tmp_path: Path):
    """Writes a template beside its script; keyword arguments replace properties."""
    (tmp_path / "a.sh").write_bytes(SCRIPT)

    def template(**properties: object) -> Path:
        script = {
            "type": "Shell",
            "name": "one",
            "scriptUri": "a.sh",
            "sha256Checksum": hashlib.sha256(SCRIPT).hexdigest(),
        }
        body = {
            "type": "Microsoft.VirtualMachineImages/imageTemplates",
            "apiVersion": "2019-05-01-preview",
            "location": "eastus",
            "properties": {
                "source": {"type": "ManagedImage", "imageId": IMAGE},
                "vmProfile": {"vmSize": "Standard_B1s"},
                "customize": [script],
                "distribute": [{"type": "VHD", "runOutputName": "vhd"}],
                **properties,
            },
        }
        path = tmp_path / "demo.json"
        path.write_text(json.dumps(body))
        return path

    return template


def run(*arguments: object) -> str:
    result = CliRunner().invoke(aib, [str(a) for a in arguments], standalone_mode=False, catch_exceptions=True)
    if isinstance(result.exception, AibError):
        raise result.exception
    assert result.exception is None, result.output
    assert not result.return_value, result.output
    return result.stdout


def test_text(home, write) -> None:
    text = run("plan", write(), "--offline")
    assert "Template    demo (2019-05-01-preview, eastus)" in text
    assert "Standard_B1s: 1 vCPUs, 1024 MiB memory, 2.0 GiB disk" in text
    assert f"a.sh: 8 bytes, sha256 {hashlib.sha256(SCRIPT).hexdigest()}" in text
    command = shell_command("/tmp/script_N.sh", AZURE_ENVIRONMENT, as_root=True)
    assert f"  $ {command}\n" in text
    assert "VHD            vhd" in text
    assert text.index("Differs from the service") < text.index("Varies from run to run")


def made_by_a_job(home: Path, path: Path, text: str) -> RunPlan:
    job = Job(home, "run", path, text, BuildOptions())
    said: list[str] = []
    plan = plan_template(job, Store(home), deadline=Deadline.after(60), say=said.append)
    assert said == []
    return plan


def test_json_is_the_document_of_the_plan_that_a_build_makes(home, write) -> None:
    path = write()
    printed = json.loads(run("plan", path, "--json"))
    text = path.read_text()
    path.write_text("{}")  # a job plans from the text that was judged, whatever happens to its file
    made = made_by_a_job(home, path, text)
    assert made.source.digest == hashlib.sha256(DISK).hexdigest()
    assert [step.kind for step in made.steps] == ["Shell", "Generalize"]
    assert made.steps[0].payload is not None
    assert made.steps[0].payload.path.read_bytes() == SCRIPT
    assert plan_document(made) == {key: value for key, value in printed.items() if key != "varies"}
    assert plan_json.from_json(plan_json.to_json(made)) == made


@pytest.mark.parametrize(
    ("properties", "error", "says"),
    [
        ({"vmProfile": {"vmSize": "Standard_B1z"}}, TemplateError, "Standard_B1z"),
        ({"vmProfile": {"vmSize": "Standard_B1s", "osDiskSizeGB": 1}}, TemplateError, "a disk can only grow"),
        ({"customize": [{"type": "Shell", "scriptUri": "b.sh"}]}, InputError, "No such file"),
        ({"source": {"type": "ManagedImage", "imageId": IMAGE + "x"}}, InputError, "no managed image"),
        (
            {"distribute": [{
                "type": "SharedImage", "runOutputName": "g", "replicationRegions": ["eastus"],
                "galleryImageId": arm_ids.image_definition_id("none", "def"),
            }]},
            TemplateError,
            "no gallery",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_has_its_class(home, write, properties, error, says) -> None:
    with pytest.raises(error, match=says):
        run("plan", write(**properties))


def test_strict_size_is_checked_before_anything_is_fetched(home, write) -> None:
    huge = write(vmProfile={"vmSize": "Standard_M128ms"}, customize=[{"type": "Shell", "scriptUri": "missing.sh"}])
    with pytest.raises(HostError, match="cannot give Standard_M128ms"):
        run("plan", huge, "--strict-size")


def test_an_invalid_template_ends_with_2(home, tmp_path) -> None:
    (tmp_path / "bad.json").write_text("{")
    result = CliRunner().invoke(aib, ["plan", str(tmp_path / "bad.json")], standalone_mode=False)
    assert result.return_value == 2


def test_explain_knows_every_deviation_and_near_names() -> None:
    assert "script-user" in {each.code for each in explain("deviations")}
    (one,) = explain("Script-User")
    assert one.grade == "inferred"
    with pytest.raises(UsageError) as caught:
        explain("script-usr")
    assert "script-user" in caught.value.hint
    assert "inferred" in run("explain", "script-user")
    assert len(json.loads(run("explain", "--json"))) == len(explain("deviations"))
