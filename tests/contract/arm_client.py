"""A server of ours for the time of a test, and a client that signs in and speaks to it in bare HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests
from starlette.routing import BaseRoute

from orchestrator.record.arm_ids import DEFAULT_SCOPE
from orchestrator.service.app import create_app
from orchestrator.service.context import Context
from orchestrator.service.settings import Settings
from tests.contract.serving import serving

SUBSCRIPTION = DEFAULT_SCOPE.subscription
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/aib"
VERSION = "2024-02-01"
LONGEST = 30.0
IDENTITY = f"{GROUP}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/builder"
TEMPLATES = f"{GROUP}/providers/Microsoft.VirtualMachineImages/imageTemplates"


@dataclass(frozen=True)
class Arm:
    """`origin` is http://127.0.0.1:PORT; `context` the server's own, for looking behind the scenes."""

    origin: str
    context: Context
    token: str

    def ask(
        self, method: str, path: str, body: Any = None, *, version: str = VERSION, **more: Any
    ) -> requests.Response:
        """One request below the origin, or to a whole address as it is."""
        url = path if path.startswith("http") else f"{self.origin}{path}"
        if version and "api-version=" not in url:
            url += f"{'&' if '?' in url else '?'}api-version={version}"
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        if isinstance(body, bytes):
            more["data"] = body
        elif body is not None:
            more["json"] = body
        return requests.request(method, url, headers=headers, timeout=LONGEST, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.ask("GET", path, **more)

    def put(self, path: str, body: Any, **more: Any) -> requests.Response:
        return self.ask("PUT", path, body, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> requests.Response:
        return self.ask("POST", path, body, **more)

    def delete(self, path: str, **more: Any) -> requests.Response:
        return self.ask("DELETE", path, **more)

    def made(self, name: str, body: Any = None, **more: Any) -> str:
        """PUT a template and wait until it is there; its path."""
        path = f"{TEMPLATES}/{name}"
        done = self.finished(self.put(path, body or template(name), **more))
        assert done["status"] == "Succeeded", done
        return path

    def finished(self, response: requests.Response, seconds: float = LONGEST) -> Mapping[str, Any]:
        """Poll `Azure-AsyncOperation` to its end; the last body."""
        assert response.status_code in (200, 201, 202), response.text
        end = time.monotonic() + seconds
        while True:
            answer = self.get(response.headers["Azure-AsyncOperation"])
            assert answer.status_code == 200, answer.text
            body: dict[str, Any] = answer.json()
            if body["status"] in ("Succeeded", "Failed", "Canceled"):
                return body
            assert time.monotonic() < end, body
            time.sleep(0.02)


def template(name: str = "one", *, customize: Any = None, tags: Any = None, **properties: Any) -> dict[str, Any]:
    """The body of a template that distributes one managed image."""
    image = f"{GROUP}/providers/Microsoft.Compute/images/{name}"
    whole = {
        "source": {
            "type": "PlatformImage", "publisher": "Canonical", "offer": "0001-com-ubuntu-server-jammy",
            "sku": "22_04-lts", "version": "latest",
        },
        "customize": customize or [{"type": "Shell", "name": "hi", "inline": ["echo hi"]}],
        "distribute": [{"type": "ManagedImage", "runOutputName": "out", "imageId": image, "location": "eastus"}],
        "vmProfile": {"vmSize": "Standard_B1s"},
    } | properties  # fmt: skip
    return {
        "location": "eastus",
        "tags": tags or {},
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {IDENTITY: {}}},
        "properties": {key: value for key, value in whole.items() if value is not None},
    }


@contextmanager
def arm_server(settings: Settings, more: Callable[[Context], Iterable[BaseRoute]] = lambda _: ()) -> Iterator[Arm]:
    """Serve; a second one over the same home is a restart."""
    app = create_app(settings, more)
    context: Context = app.state.context
    with serving(app) as origin:
        yield Arm(origin, context, context.entra.token("tests", f"{origin}/", origin))


def error_of(response: requests.Response) -> tuple[int, str, str]:
    """Status, code and message of a refusal in ARM's envelope."""
    error = response.json()["error"]
    return response.status_code, error["code"], error["message"]
