"""ARM resource ids: parse, format, check, compare. Pure; the standard library alone (template checks use it).

Ids are compared case-insensitively, as ARM does; what the user wrote is kept where it is shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TEMPLATE = "Microsoft.VirtualMachineImages/imageTemplates"
RUN_OUTPUT = "Microsoft.VirtualMachineImages/imageTemplates/runOutputs"
MANAGED_IMAGE = "Microsoft.Compute/images"
GALLERY = "Microsoft.Compute/galleries"
IMAGE_DEFINITION = "Microsoft.Compute/galleries/images"
IMAGE_VERSION = "Microsoft.Compute/galleries/images/versions"

MAX_VERSION_PART = 2147483647
"""Each part of a gallery version is a 32-bit signed integer (2.5)."""

_SEGMENT = re.compile(r"[^/\\?#%&<>\x00-\x1f\x7f]{1,260}")
_GALLERY_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.]{0,78}[A-Za-z0-9])?")
_IMAGE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?")
_VERSION = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")


class InvalidResourceId(ValueError):
    """The text is no resource id of the wanted kind; `str()` says why and shows the shape."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Where resources live when the user does not say."""

    subscription: str = "00000000-0000-0000-0000-000000000000"
    resource_group: str = "aib"

    def __str__(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"


DEFAULT_SCOPE = Scope()


@dataclass(frozen=True, slots=True)
class ArmId:
    """A parsed id: scope, provider namespace, and the (type, name) pairs below it."""

    scope: Scope
    provider: str
    types: tuple[str, ...]
    names: tuple[str, ...]

    def __str__(self) -> str:
        pairs = "".join(f"/{kind}/{name}" for kind, name in zip(self.types, self.names, strict=True))
        return f"{self.scope}/providers/{self.provider}{pairs}"

    @property
    def type(self) -> str:
        """`Microsoft.Compute/galleries/images`."""
        return "/".join((self.provider, *self.types))

    @property
    def name(self) -> str:
        """The last name."""
        return self.names[-1]

    @property
    def parent(self) -> ArmId:
        """The id one level up: of a version its definition. `ValueError` at the top level."""
        if len(self.types) == 1:
            raise ValueError(f"{self} has no parent")
        return ArmId(self.scope, self.provider, self.types[:-1], self.names[:-1])

    def child(self, kind: str, name: str) -> ArmId:
        """The id of a resource under this one."""
        return ArmId(self.scope, self.provider, (*self.types, kind), (*self.names, name))


def _example(kind: str) -> str:
    provider, *types = kind.split("/")
    words = {"versions": "<x.y.z>", "galleries": "<gallery>", "images": "<image>"}
    pairs = "".join(f"/{t}/{words.get(t, '<name>')}" for t in types)
    return f"/subscriptions/<id>/resourceGroups/<group>/providers/{provider}{pairs}"


def parse(text: str) -> ArmId:
    """The parts of a resource id in a resource group; `InvalidResourceId` when it is none."""
    parts = text.split("/")
    shape = "/subscriptions/<id>/resourceGroups/<group>/providers/<namespace>/<type>/<name>"
    if len(parts) < 9 or parts[0] or len(parts) % 2 == 0:
        raise InvalidResourceId(f"{text!r} is not a resource id: it should look like {shape}")
    if (parts[1].lower(), parts[3].lower(), parts[5].lower()) != ("subscriptions", "resourcegroups", "providers"):
        raise InvalidResourceId(f"{text!r} is not a resource id: it should look like {shape}")
    for part in parts[1:]:
        if not _SEGMENT.fullmatch(part) or part.strip(". ") == "":
            raise InvalidResourceId(f"{text!r} is not a resource id: {part!r} cannot be a part of one")
    return ArmId(Scope(parts[2], parts[4]), parts[6], tuple(parts[7::2]), tuple(parts[8::2]))


def parse_as(text: str, *kinds: str) -> ArmId:
    """The parts of an id of one of the given types, types spelled canonically; else `InvalidResourceId`."""
    wanted = " or ".join(_example(kind) for kind in kinds)
    try:
        found = parse(text)
    except InvalidResourceId:
        raise InvalidResourceId(f"{text!r} should look like {wanted}") from None
    for kind in kinds:
        if found.type.lower() == kind.lower():
            provider, *types = kind.split("/")
            return ArmId(found.scope, provider, tuple(types), found.names)
    raise InvalidResourceId(f"{text!r} is the id of a {found.type}; it should look like {wanted}")


def parse_managed_image(text: str) -> ArmId:
    """The id of a managed image."""
    found = parse_as(text, MANAGED_IMAGE)
    if not _IMAGE_NAME.fullmatch(found.name):
        raise InvalidResourceId(
            f"{found.name!r} cannot be the name of an image: letters, digits, `_`, `.`, `-`, at most 80"
        )
    return found


def parse_gallery(text: str) -> ArmId:
    """The id of a gallery."""
    return _checked_gallery(parse_as(text, GALLERY))


def parse_gallery_target(text: str) -> tuple[ArmId, str]:
    """A SharedImage target: (definition, explicit version or ""). Both forms of `galleryImageId` (S31, 2.5)."""
    found = _checked_gallery(parse_as(text, IMAGE_DEFINITION, IMAGE_VERSION))
    if found.type == IMAGE_DEFINITION:
        return found, ""
    parse_version(found.name)
    return found.parent, found.name


def parse_image_version(text: str) -> ArmId:
    """The id of a gallery image version; the version may be `latest` (2.2)."""
    found = _checked_gallery(parse_as(text, IMAGE_VERSION))
    if found.name.lower() != "latest":
        parse_version(found.name)
    return found


def _checked_gallery(found: ArmId) -> ArmId:
    if not _GALLERY_NAME.fullmatch(found.names[0]):
        raise InvalidResourceId(
            f"{found.names[0]!r} cannot be the name of a gallery: letters, digits, `_`, `.`, at most 80, no hyphen"
        )
    if len(found.names) > 1 and not _IMAGE_NAME.fullmatch(found.names[1]):
        raise InvalidResourceId(
            f"{found.names[1]!r} cannot be the name of an image definition: letters, digits, `_`, `.`, `-`, at most 80"
        )
    return found


def parse_version(text: str) -> tuple[int, int, int]:
    """The three numbers of a gallery version; `InvalidResourceId` when it is none."""
    match = _VERSION.fullmatch(text)
    if not match or any(int(part) > MAX_VERSION_PART for part in match.groups()):
        raise InvalidResourceId(
            f"{text!r} is not a gallery version: three numbers with points between, each at most {MAX_VERSION_PART}"
        )
    major, minor, patch = (int(part) for part in match.groups())
    return major, minor, patch


def template_id(name: str, scope: Scope = DEFAULT_SCOPE) -> str:
    """The id of an image template."""
    return f"{scope}/providers/{TEMPLATE}/{name}"


def run_output_id(template: str, name: str) -> str:
    """The id of a runOutput of the template with this id (S29)."""
    return f"{template}/runOutputs/{name}"


def managed_image_id(name: str, scope: Scope = DEFAULT_SCOPE) -> str:
    """The id of a managed image."""
    return f"{scope}/providers/{MANAGED_IMAGE}/{name}"


def gallery_id(name: str, scope: Scope = DEFAULT_SCOPE) -> str:
    """The id of a gallery."""
    return f"{scope}/providers/{GALLERY}/{name}"


def image_definition_id(gallery: str, name: str, scope: Scope = DEFAULT_SCOPE) -> str:
    """The id of an image definition."""
    return f"{gallery_id(gallery, scope)}/images/{name}"


def image_version_id(gallery: str, name: str, version: str, scope: Scope = DEFAULT_SCOPE) -> str:
    """The id of a gallery image version."""
    return f"{image_definition_id(gallery, name, scope)}/versions/{version}"


def same(first: str, second: str) -> bool:
    """Whether two ids name one resource."""
    return first.strip("/").lower() == second.strip("/").lower()


def region(name: str) -> str:
    """The normalised name of a region: `East US` is `eastus`."""
    return "".join(name.split()).lower()
