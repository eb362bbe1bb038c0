"""Blocking calls of the network library, ended at once when the user cancels or the time is over.

requests can only wait for its own time limits, which are longer than anybody wants to wait after Ctrl-C, and looking
up a name has no limit at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TypeVar

from hypervisor.deadline import CancelToken

T = TypeVar("T")
_POLL = 0.1
"""Seconds between looks at the token."""


class _Body(Protocol):
    def shutdown(self) -> None:
        """End reading: a read that waits returns at once (urllib3 2.3)."""


def abandonable(call: Callable[[], T], check: Callable[[], None]) -> T:
    """Call in a thread of its own; what `check` raises meanwhile leaves the thread to its own time limits."""
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 -- raised again in the caller's thread
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=work, name="send a request", daemon=True).start()
    while not done.wait(_POLL):
        check()
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def shut_down_on_cancel(body: _Body, token: CancelToken) -> Iterator[None]:
    """While the block reads `body`, a cancel ends the read that waits."""
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(_POLL):
            if token.cancelled:
                with suppress(OSError, ValueError, RuntimeError):  # it has ended by itself meanwhile
                    body.shutdown()
                return

    watcher = threading.Thread(target=watch, name="watch for a cancel", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
