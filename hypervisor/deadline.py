"""Time as a value: a deadline is made once and handed down to everything that can wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hypervisor.errors import AibError, Cancelled, DeadlineExceeded


class CancelToken:
    """Set once from any thread or signal handler; every wait under a deadline that carries it ends at once."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may call `cancel` in the very thread that is about to wait.
        self._changed = threading.Condition(threading.RLock())
        self._cancelled = False
        self.reason = ""
        self.error: AibError | None = None

    def cancel(self, reason: str = "cancelled by the user") -> None:
        """Ask everything under this token to stop; the first reason wins."""
        with self._changed:
            if not self._cancelled:
                self.reason = reason
                self._cancelled = True
                self._changed.notify_all()

    def fail(self, error: AibError) -> None:
        """End all waiting with `error`: something that nobody waits for has made going on pointless."""
        with self._changed:
            if not self._cancelled:
                self.error = error
            self.cancel(error.message)

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to stop."""
        return self._cancelled

    def wait(self, seconds: float) -> bool:
        """Sleep for `seconds` or until cancelled; true when cancelled."""
        with self._changed:
            return self._changed.wait_for(lambda: self._cancelled, seconds)


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock, with the token that can end all waiting sooner.

    `what` names the budget in the error ("buildTimeoutInMinutes 240").
    """

    at: float
    what: str = "the time limit"
    token: CancelToken = field(default_factory=CancelToken)

    @classmethod
    def after(cls, seconds: float, what: str = "the time limit", token: CancelToken | None = None) -> Deadline:
        """A deadline `seconds` from now."""
        return cls(time.monotonic() + seconds, what, token or CancelToken())

    def limited(self, seconds: float, what: str) -> Deadline:
        """The same deadline, or `seconds` from now under the name `what`, whichever is sooner."""
        at = time.monotonic() + seconds
        return self if at >= self.at else Deadline(at, what, self.token)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether the time is used up or somebody cancelled."""
        return self.token.cancelled or self.remaining() <= 0

    def check(self, doing: str = "") -> None:
        """Raise `Cancelled` (or what the token failed with) or `DeadlineExceeded` when the time is over.

        `doing` says what was waited for.
        """
        suffix = f" while {doing}" if doing else ""
        if self.token.error is not None:
            raise self.token.error
        if self.token.cancelled:
            raise Cancelled(f"{self.token.reason}{suffix}")
        if self.remaining() <= 0:
            raise DeadlineExceeded(f"{self.what} is used up{suffix}")

    def pause(self, seconds: float, doing: str = "") -> None:
        """Sleep, but never past the deadline; raises as `check` does when it is over."""
        self.token.wait(min(seconds, self.remaining()))
        self.check(doing)

    def wait_until(self, ready: Callable[[], bool], doing: str, interval: float = 0.1) -> None:
        """Poll `ready` every `interval` seconds until it is true; raises as `check` does."""
        while not ready():
            self.pause(interval, doing)
