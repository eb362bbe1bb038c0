"""The same with the asynchronous client (aiohttp), as far as it differs: pollers, paging, errors."""

from __future__ import annotations

import asyncio

from azure.core.exceptions import HttpResponseError
from azure.identity import DefaultAzureCredential as WaitingCredential
from azure.identity.aio import DefaultAzureCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.imagebuilder.aio import ImageBuilderClient
from flow import GROUP, OPTIONS, SUBSCRIPTION, body, prepare, script


async def main() -> None:
    """Create several at once, list, run, fail, delete."""
    async with (
        DefaultAzureCredential() as credential,
        ImageBuilderClient(credential, SUBSCRIPTION, **OPTIONS) as client,
    ):
        templates = client.virtual_machine_image_templates
        names = [f"a{number}" for number in range(4)]

        async def create(name: str) -> None:
            poller = await templates.begin_create_or_update(GROUP, name, body(name))
            assert (await poller.result()).provisioning_state == "Succeeded"

        async def run(name: str) -> str:
            poller = await templates.begin_run(GROUP, name)
            try:
                await poller.result()
            except HttpResponseError as error:
                assert error.error is not None
                return str(error.error.code)
            return "Succeeded"

        await asyncio.gather(*(create(name) for name in names))
        listed = [each.name async for each in templates.list_by_resource_group(GROUP)]
        assert [name for name in listed if name in names] == names
        script(seconds=0.1)
        assert await asyncio.gather(*(run(name) for name in names)) == ["Succeeded"] * 4
        assert len([each async for each in templates.list_run_outputs(GROUP, "a0")]) == 3
        script(failAt="step")
        assert await run("a0") == "PackerBuildFailed"
        assert (await templates.get(GROUP, "a0")).last_run_status.run_state == "Failed"
        for name in names:
            await (await templates.begin_delete(GROUP, name)).result()
        assert not [each async for each in templates.list_by_resource_group(GROUP) if each.name in names]


if __name__ == "__main__":
    with WaitingCredential() as waiting, ComputeManagementClient(waiting, SUBSCRIPTION, **OPTIONS) as compute:
        prepare(compute)
    asyncio.run(main())
