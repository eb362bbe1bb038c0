"""What libvirt tells about one running domain: reboots counted, the end noticed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

# QEMU reports one reset two or three times within a few milliseconds; no guest boots twice in a second.
_SAME_REBOOT = 1.0


class GuestEvents:
    """Counters fed from libvirt's event thread.

    Registered on the domain itself: on the whole connection one would be told about everybody's domains.
    """

    def __init__(self, handle: Any, domain: Any, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.stopped = threading.Event()
        self._on_disk_error: Callable[[str, str], None] | None = None
        self._handle = handle
        self._clock = clock
        self._lock = threading.Lock()
        self._reboots = 0
        self._last = float("-inf")
        self._registered: list[int] = []
        self._register(domain)

    @property
    def reboots(self) -> int:
        """How often the guest has restarted itself."""
        with self._lock:
            return self._reboots

    def on_reboot(self, *_: object) -> None:
        """libvirt: the guest was reset."""
        with self._lock:
            now = self._clock()
            if now - self._last >= _SAME_REBOOT:
                self._reboots += 1
            self._last = now

    def on_lifecycle(self, _handle: object, _domain: object, event: int, _detail: int, _opaque: object) -> None:
        """libvirt: started, suspended, stopped…"""
        if event == _STOPPED:
            self.stopped.set()

    def on_io_error(
        self, _handle: object, _domain: object, path: str, _alias: str, _action: int, reason: str, _opaque: object
    ) -> None:
        """libvirt: the host could not write (or read) a disk of the VM; QEMU pauses the VM when space ran out."""
        if self._on_disk_error is not None:
            self._on_disk_error(path, reason)

    def when_disk_fails(self, callback: Callable[[str, str], None]) -> None:
        """Call `callback(path, reason)` from libvirt's event thread when the host fails a disk (`enospc`: full)."""
        self._on_disk_error = callback

    def close(self) -> None:
        """Stop listening; harmless on a connection that is broken."""
        import libvirt

        for number in self._registered:
            try:
                self._handle.domainEventDeregisterAny(number)
            except libvirt.libvirtError:
                continue
        self._registered.clear()

    def _register(self, domain: Any) -> None:
        import libvirt

        for kind, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self.on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self.on_reboot),
            (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, self.on_io_error),
        ):
            self._registered.append(self._handle.domainEventRegisterAny(domain, kind, callback, None))


_STOPPED = 5  # VIR_DOMAIN_EVENT_STOPPED
