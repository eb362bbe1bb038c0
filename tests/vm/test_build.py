"""Whole builds of the tiny guest through the command line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.vm.conftest import TemplateWriter
from tests.vm.support import SCOPE, Home, shell

pytestmark = pytest.mark.vm


def test_a_template_becomes_images_with_run_outputs(home: Home, write_template: TemplateWriter, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text('#!/bin/bash\nset -o pipefail\nid -u > /etc/who-ran-the-script\necho "to stderr" >&2\n')
    settings = tmp_path / "app.conf"
    settings.write_bytes(b"colour = blue\r\n")
    sums = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (script, settings)}
    home.ok("gallery", "create", "lab", "--location", "eastus", "--if-missing")
    home.ok("gallery", "define", "lab", "tiny", "--os", "linux", "--generation", "V1", "--if-missing")
    image = f"{SCOPE}/Microsoft.Compute/images/whole"
    template = write_template(
        "whole",
        {"type": "Shell", "name": "script", "scriptUri": "script.sh", "sha256Checksum": sums[script]},
        {
            "type": "File", "name": "settings", "sourceUri": "app.conf", "destination": "/tmp/app.conf",
            "sha256Checksum": sums[settings],
        },
        shell("cd /tmp", "X=blue", "sudo mv app.conf /etc/app.conf", 'grep -q "$X" /etc/app.conf', "id -un; pwd"),
        validate={"inVMValidations": [shell("test -f /etc/app.conf", name="settings are there")]},
        vmProfile={"vmSize": "Standard_B1s", "osDiskSizeGB": 1},
        tags={"team": "images"},
        distribute=[
            {"type": "ManagedImage", "runOutputName": "as-image", "imageId": image, "location": "eastus",
             "artifactTags": {"base": "tiny"}},
            {"type": "SharedImage", "runOutputName": "as-version", "replicationRegions": ["eastus"],
             "galleryImageId": f"{SCOPE}/Microsoft.Compute/galleries/lab/images/tiny"},
            {"type": "VHD", "runOutputName": "as-vhd"},
        ],
    )  # fmt: skip
    home.ok("build", template)

    record = home.record()
    assert record["lastRunStatus"]["runState"] == "Succeeded"
    assert [step["result"] for step in record["steps"]] == ["succeeded"] * 5
    run = home.runs()[-1]
    assert (run / "steps" / "00.out").read_bytes() == b"to stderr\n"
    assert (run / "steps" / "02.out").read_bytes() == b"packer\n/tmp\n"
    assert b"waagent" in (run / "steps" / "04.out").read_bytes()
    log = (run / "customization.log").read_text()
    assert "PACKER OUT" in log
    assert "Connected to SSH!" in log
    assert not (run / "work").exists() or not any((run / "work").iterdir())
    assert "PRIVATE KEY" not in "".join(path.read_text(errors="replace") for path in run.glob("*.json*"))

    outputs = {output["name"]: output for output in json.loads(home.ok("outputs", "whole"))}
    assert outputs["as-image"]["properties"]["artifactId"].lower() == image.lower()
    assert "/galleries/lab/images/tiny/versions/0." in outputs["as-version"]["properties"]["artifactId"]
    vhd = Path(outputs["as-vhd"]["properties"]["artifactUri"].removeprefix("file://"))
    assert vhd.read_bytes()[-512:].startswith(b"conectix")
    assert (vhd.stat().st_size - 512) == 1 << 30
    one = json.loads(home.ok("outputs", "whole", "as-vhd"))
    assert one["type"] == "Microsoft.VirtualMachineImages/imageTemplates/runOutputs"
    assert one["properties"]["provisioningState"] == "Succeeded"


def test_what_was_built_is_the_source_of_the_next_build(home: Home, write_template: TemplateWriter) -> None:
    home.ok("build", write_template("first", shell("echo one | sudo tee /etc/first")))
    image = f"{SCOPE}/Microsoft.Compute/images/first"
    second = write_template("second", shell("cat /etc/first"), source={"type": "ManagedImage", "imageId": image})
    home.ok("build", second)
    assert (home.runs()[-1] / "steps" / "00.out").read_bytes() == b"one\n"
    assert home.record()["source"]["requested"].lower() == image.lower()


def test_a_failing_step_is_named_with_its_last_lines(home: Home, write_template: TemplateWriter) -> None:
    template = write_template(
        "failing", shell("echo before; false; echo after", name="the bad one"), shell("echo never")
    )
    done = home.aib("build", template)
    assert done.returncode == 1
    assert "the bad one" in done.stderr
    assert "before" in done.stderr
    assert "Traceback" not in done.stderr
    record = home.record()
    assert record["lastRunStatus"]["runState"] == "Failed"
    first = record["steps"][0]
    assert (first["name"], first["result"], first["exitCode"]) == ("the bad one", "failed", 1)
    assert "never" not in (home.runs()[-1] / "customization.log").read_text()
    assert json.loads(home.ok("outputs", "failing") or "[]") == []


def test_a_failed_validation_distributes_only_when_told_to(home: Home, write_template: TemplateWriter) -> None:
    checks = [shell("exit 3", name="check"), shell("echo not reached", name="second check")]
    template = write_template("invalid", shell("true"), validate={"inVMValidations": checks})
    assert home.aib("build", template).returncode == 1
    assert home.record()["runOutputs"] == []
    results = {step["name"]: step["result"] for step in home.record()["steps"]}
    assert (results["check"], results["second check"]) == ("failed", "skipped")

    template = write_template(
        "invalid", shell("true"), validate={"inVMValidations": checks[:1], "continueDistributeOnFailure": True}
    )
    assert home.aib("build", template).returncode == 1
    assert home.record()["lastRunStatus"]["runState"] == "Failed"
    assert [output["provisioningState"] for output in home.record()["runOutputs"]] == ["Succeeded"]


def test_source_validation_only_runs_nothing_but_validators(home: Home, write_template: TemplateWriter) -> None:
    template = write_template(
        "source-only",
        shell("echo customized"),
        validate={"sourceValidationOnly": True, "inVMValidations": [shell("echo looked", name="look")]},
    )
    home.ok("build", template)
    record = home.record()
    assert [step["name"] for step in record["steps"]] == ["look"]
    assert record["artifacts"] == []


def test_one_failing_distribution_does_not_lose_the_others(
    home: Home, write_template: TemplateWriter, tmp_path: Path
) -> None:
    (tmp_path / "a-file").write_text("in the way")
    image = f"{SCOPE}/Microsoft.Compute/images/partial"
    template = write_template(
        "partial",
        shell("true"),
        distribute=[
            {"type": "VHD", "runOutputName": "nowhere", "uri": (tmp_path / "a-file" / "x.vhd").as_uri()},
            {"type": "ManagedImage", "runOutputName": "image", "imageId": image, "location": "eastus"},
        ],
    )
    done = home.aib("build", template)
    assert done.returncode == 1
    assert home.record()["lastRunStatus"]["runState"] == "PartiallySucceeded"
    states = {output["name"]: output["provisioningState"] for output in home.record()["runOutputs"]}
    assert states == {"nowhere": "Failed", "image": "Succeeded"}


def test_a_reboot_in_a_step_is_survived_and_the_deprovision_script_put_back(
    home: Home, write_template: TemplateWriter
) -> None:
    template = write_template(
        "rebooting",
        shell("echo marker | sudo tee /etc/marker; sync", "echo going down", "sudo reboot", name="reboot"),
        shell("cat /etc/marker; test ! -e /tmp/gone", name="after"),
    )
    home.ok("build", template)
    record = home.record()
    assert record["steps"][0]["rebooted"] is True
    assert b"marker" in (home.runs()[-1] / "steps" / "01.out").read_bytes()
    assert record["lastRunStatus"]["runState"] == "Succeeded"


def test_the_users_own_deprovision_script_is_printed_and_run(home: Home, write_template: TemplateWriter) -> None:
    own = r"printf '%s\n' 'echo my own way' '/usr/sbin/waagent -force -deprovision+user' > /tmp/DeprovisioningScript.sh"
    home.ok("build", write_template("own-script", shell(own)))
    output = (home.runs()[-1] / "steps" / "01.out").read_text()
    assert "echo my own way\n" in output
    assert "\nmy own way\n" in output


def test_an_image_that_keeps_the_builder_account_is_refused(home: Home, write_template: TemplateWriter) -> None:
    template = write_template("keeper", shell("sudo cp /bin/true /usr/sbin/waagent"))
    done = home.aib("build", template)
    assert done.returncode == 1
    assert "packer" in done.stderr
    assert home.record()["runOutputs"] == []


def test_a_removed_waagent_is_named(home: Home, write_template: TemplateWriter) -> None:
    done = home.aib("build", write_template("no-agent", shell("sudo rm /usr/sbin/waagent")))
    assert done.returncode == 1
    assert "waagent" in done.stderr
