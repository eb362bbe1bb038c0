"""What tests of several parts share: the cache of built guests, and the tiny guest itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import pytest

if TYPE_CHECKING:
    from fixtures.guests.bare.build import BareGuest


def pytest_configure() -> None:
    """Let tests be interrupted, also where a shell that started pytest in the background has SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to run where pytest-xdist was asked for groups and cannot make them: what a machine has one of would be
    used twice at once."""
    if not getattr(config.option, "loadgroup", False):
        return
    for item in items:
        if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
            raise pytest.UsageError(f"pytest-xdist does not group {item.nodeid}: its version does not fit pytest's")


@pytest.fixture(scope="session")
def build_cache() -> Path:
    """A folder that outlives a test run: guests and appliances are built once (AIB_TEST_CACHE moves it)."""
    return Path(os.environ.get("AIB_TEST_CACHE") or platformdirs.user_cache_path("aib-tests"))


@pytest.fixture(scope="session")
def tiny_image(build_cache: Path) -> Path:
    """The tiny guest's qcow2: boot it over an overlay, with a NoCloud seed on a virtio disk and 256 MiB."""
    from fixtures.guests.tiny.build import ensure_tiny_image

    return ensure_tiny_image(build_cache)


@pytest.fixture(scope="session")
def bare_guest(build_cache: Path) -> BareGuest:
    """Kernel and initramfs of the bare guest: up in seconds, no login; for tests of the machine itself."""
    from fixtures.guests.bare.build import ensure_bare_guest

    return ensure_bare_guest(build_cache)
