"""The shapes of the ARM resource ids that a template names (ids compare without regard to case)."""

from __future__ import annotations

import re

_SCOPE = r"/subscriptions/[^/\s<>{}]+/resourceGroups/[^/\s<>{}]+/providers/"
_NAME = r"[^/\s<>%&:\\?{}]+"

IMAGE = re.compile(rf"{_SCOPE}Microsoft\.Compute/images/{_NAME}", re.IGNORECASE)
IMAGE_VERSION = re.compile(
    rf"{_SCOPE}Microsoft\.Compute/galleries/{_NAME}/images/{_NAME}/versions/(?:latest|\d+\.\d+\.\d+)", re.IGNORECASE
)
GALLERY_IMAGE = re.compile(
    rf"{_SCOPE}Microsoft\.Compute/galleries/{_NAME}/images/{_NAME}(?:/versions/[^/\s]+)?", re.IGNORECASE
)
IDENTITY = re.compile(rf"{_SCOPE}Microsoft\.ManagedIdentity/userAssignedIdentities/{_NAME}", re.IGNORECASE)
RESOURCE_GROUP = re.compile(r"/subscriptions/[^/\s<>{}]+/resourceGroups/[^/\s<>{}]+", re.IGNORECASE)
SUBNET = re.compile(rf"{_SCOPE}Microsoft\.Network/virtualNetworks/{_NAME}/subnets/{_NAME}", re.IGNORECASE)

IMAGE_SHAPE = "/subscriptions/<id>/resourceGroups/<group>/providers/Microsoft.Compute/images/<name>"
IMAGE_VERSION_SHAPE = (
    "/subscriptions/<id>/resourceGroups/<group>/providers/Microsoft.Compute/galleries/<gallery>/images/<definition>"
    "/versions/<x.y.z or latest>"
)
GALLERY_IMAGE_SHAPE = (
    "/subscriptions/<id>/resourceGroups/<group>/providers/Microsoft.Compute/galleries/<gallery>/images/<definition>"
)
IDENTITY_SHAPE = (
    "/subscriptions/<id>/resourceGroups/<group>/providers/Microsoft.ManagedIdentity/userAssignedIdentities/<name>"
)
RESOURCE_GROUP_SHAPE = "/subscriptions/<id>/resourceGroups/<group>"
SUBNET_SHAPE = (
    "/subscriptions/<id>/resourceGroups/<group>/providers/Microsoft.Network/virtualNetworks/<vnet>/subnets/<subnet>"
)
