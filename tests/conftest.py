"""What tests of several parts share: the cache of built guests, and the tiny guest itself."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest


@pytest.fixture(scope="session")
def build_cache() -> Path:
    """A folder that outlives a test run: guests and appliances are built once (AIB_TEST_CACHE moves it)."""
    return Path(os.environ.get("AIB_TEST_CACHE") or platformdirs.user_cache_path("aib-tests"))


@pytest.fixture(scope="session")
def tiny_image(build_cache: Path) -> Path:
    """The tiny guest's qcow2: boot it over an overlay, with a NoCloud seed on a virtio disk and 256 MiB."""
    from fixtures.guests.tiny.build import ensure_tiny_image

    return ensure_tiny_image(build_cache)
