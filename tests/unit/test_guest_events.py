"""hypervisor.guest_events: one reboot is counted once, whatever QEMU repeats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

libvirt = pytest.importorskip("libvirt")  # the light install has none

from hypervisor.guest_events import GuestEvents  # noqa: E402 - after the skip


class Connection:
    """Stands for libvirt's: keeps the callbacks, so that the test can play the event thread."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Any, int, Callable[..., None]]] = {}

    def domainEventRegisterAny(self, domain: object, kind: int, callback: Callable[..., None], _: object) -> int:
        self.callbacks[len(self.callbacks)] = (domain, kind, callback)
        return len(self.callbacks) - 1

    def domainEventDeregisterAny(self, number: int) -> None:
        del self.callbacks[number]

    def tell(self, kind: int, *arguments: object) -> None:
        for domain, registered, callback in list(self.callbacks.values()):
            if registered == kind:
                callback(self, domain, *arguments, None)


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.fixture
def events(connection: Connection, clock: list[float]) -> GuestEvents:
    return GuestEvents(connection, "the domain", clock=lambda: clock[0])


def test_listens_to_its_own_domain_only(connection: Connection, events: GuestEvents) -> None:
    assert {domain for domain, _, _ in connection.callbacks.values()} == {"the domain"}


def test_a_disk_that_the_host_fails_is_told(connection: Connection, events: GuestEvents) -> None:
    told: list[tuple[str, str]] = []
    connection.tell(libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, "/early.qcow2", "virtio-disk0", 1, "enospc")
    events.when_disk_fails(lambda path, reason: told.append((path, reason)))
    connection.tell(libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, "/os.qcow2", "virtio-disk0", 1, "enospc")
    assert told == [("/os.qcow2", "enospc")]


def test_repeated_reports_are_one_reboot(connection: Connection, events: GuestEvents, clock: list[float]) -> None:
    for _ in range(3):
        connection.tell(libvirt.VIR_DOMAIN_EVENT_ID_REBOOT)
        clock[0] += 0.01
    assert events.reboots == 1


def test_the_next_reboot_counts(connection: Connection, events: GuestEvents, clock: list[float]) -> None:
    for _ in range(3):
        connection.tell(libvirt.VIR_DOMAIN_EVENT_ID_REBOOT)
        clock[0] += 2
    assert events.reboots == 3


def test_only_the_end_is_the_end(connection: Connection, events: GuestEvents) -> None:
    connection.tell(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, libvirt.VIR_DOMAIN_EVENT_SHUTDOWN, 1)
    assert not events.stopped.is_set()
    connection.tell(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, libvirt.VIR_DOMAIN_EVENT_STOPPED, 0)
    assert events.stopped.is_set()


def test_close_stops_listening(connection: Connection, events: GuestEvents) -> None:
    events.close()
    assert not connection.callbacks
