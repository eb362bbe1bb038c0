"""`build.py TEMPLATE NAME create|run|uri`: one template through Azure's SDK, against `aib serve`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from azure.identity import DefaultAzureCredential
from azure.mgmt.imagebuilder import ImageBuilderClient

URL = os.environ["AIB_ENDPOINT"]
GROUP = "aib"


def main(template: str, name: str, what: str) -> None:
    """Create the template, begin its run without waiting, or print the address of its VHD."""
    with (
        DefaultAzureCredential() as credential,
        ImageBuilderClient(
            credential, os.environ["AZURE_SUBSCRIPTION_ID"], base_url=URL, credential_scopes=[f"{URL}/.default"]
        ) as client,
    ):
        templates = client.virtual_machine_image_templates
        if what == "create":
            templates.begin_create_or_update(GROUP, name, json.loads(Path(template).read_text())).result()
        elif what == "run":
            templates.begin_run(GROUP, name, polling=False)
        else:
            print(templates.get_run_output(GROUP, name, "disk").artifact_uri)


if __name__ == "__main__":
    main(*sys.argv[1:])
