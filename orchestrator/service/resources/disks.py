"""Where the disk of an image comes from when a client makes one: a VHD of the blob endpoint, or a stored image."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from hypervisor.deadline import Deadline
from hypervisor.errors import AibError, UsageError
from hypervisor.partitions import Generation, System
from orchestrator.plan import add_image
from orchestrator.record.layers import Layer
from orchestrator.record.resources import Resource
from orchestrator.service import blobs
from orchestrator.service.context import Context
from orchestrator.service.envelope import ArmError
from orchestrator.service.resources.kind import bad_request

IMPORT_SECONDS = 3600
GIB = 1 << 30


def gib(size: int) -> int:
    """Bytes in GiB, rounded up as the service shows them."""
    return -(-size // GIB)


def stored(context: Context, resource_id: str, target: str) -> Resource:
    """The image of the store with this id; `ArmError` when there is none with a disk."""
    found = context.store.get(resource_id)
    if found is None:
        raise ArmError(
            404, "NotFound", f"The source '{resource_id[:300]}' of '{target}' was not found. Images come by `aib image "
            "import`, by a build, or from a VHD of this server's blob endpoint.", target=target,
        )  # fmt: skip
    if not found.digest or context.store.layer(found.digest) is None:
        raise bad_request("InvalidParameter", f"The source '{found.id}' has no disk in this store.", target)
    return found


def facts(resource: Resource, origin: Mapping[str, Any]) -> dict[str, Any]:
    """`properties["aib"]` of an image that shares the disk of another one."""
    known = dict(resource.properties["aib"])
    known.pop("run", None)
    return {**known, "source": {"type": "image", "id": resource.id, **origin}}


def from_blob(
    context: Context, uri: str, *, system: System | None, generation: Generation | None
) -> tuple[Layer, dict[str, Any]]:
    """Store the VHD that `uri` names on this server's blob endpoint; the caller releases the layer.

    Raises `ArmError` for another address (nothing is fetched), a SAS that does not allow it, and a disk that is none.
    """
    path = blobs.of(context).path_of(*_blob(context, uri))
    deadline = Deadline.after(IMPORT_SECONDS, "importing a VHD")
    try:
        found = add_image.examine(path, deadline, system=system, generation=generation)
        layer = add_image.add_layer(context.store, path, found, deadline, ours=False)
    except AibError as error:
        raise bad_request(
            "InvalidParameter", f"The VHD {path.name} cannot be an image: {error.message}", "blobUri"
        ) from None
    return layer, add_image.image_properties(
        layer, found, {"type": "import", "file": path.name, "format": found.format}
    )


def check_blob(context: Context, uri: str) -> None:
    """Raises `ArmError` unless `uri` names a VHD that this server has and its SAS allows to read."""
    blobs.of(context).path_of(*_blob(context, uri))


def _blob(context: Context, uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    segments = [unquote(part) for part in parts.path.split("/")]
    if parts.scheme not in ("http", "https") or len(segments) < 5 or segments[1:3] != ["blob", blobs.ACCOUNT]:
        raise bad_request(
            "InvalidParameter",
            "The blob URI must be one of this server's VHDs (the artifactUri of a runOutput); nothing else is fetched.",
            "blobUri",
        )
    container, name = segments[3], "/".join(segments[4:])
    if not blobs.of(context).allows(container, name, dict(parse_qsl(parts.query))):
        raise ArmError(
            403, "AuthorizationFailure", "The SAS of the blob URI does not allow to read it.", target="blobUri"
        )
    return container, name


def release(context: Context, layer: Layer) -> None:
    """The layer is named by a resource, or will not be."""
    with suppress(UsageError):
        context.store.release_layer(layer.digest)
