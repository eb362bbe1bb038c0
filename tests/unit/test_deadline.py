from __future__ import annotations

import os
import signal

import pytest

from hypervisor.deadline import CancelToken, Deadline
from hypervisor.errors import Cancelled, DeadlineExceeded, HostError


def test_the_sooner_of_two_limits_counts_and_says_its_name() -> None:
    outer = Deadline.after(100, "the outer")
    assert outer.limited(1000, "the inner") is outer
    with pytest.raises(DeadlineExceeded, match="the inner is used up while waiting"):
        outer.limited(0, "the inner").check("waiting")


def test_a_cancelled_token_ends_waiting_with_its_first_reason() -> None:
    token = CancelToken()
    deadline = Deadline.after(100, token=token)
    token.cancel("stop")
    token.cancel("too late")
    with pytest.raises(Cancelled, match="stop while sleeping"):
        deadline.pause(50, "sleeping")


def test_a_failed_token_ends_waiting_with_its_error() -> None:
    token = CancelToken()
    deadline = Deadline.after(100, token=token).limited(50, "a step")
    token.fail(HostError("the disk is full"))
    with pytest.raises(HostError, match="the disk is full"):
        deadline.wait_until(lambda: False, "waiting for nothing")


def test_a_cancel_is_not_turned_into_an_error_afterwards() -> None:
    token = CancelToken()
    token.cancel("stop")
    token.fail(HostError("the disk is full"))
    with pytest.raises(Cancelled):
        Deadline.after(100, token=token).check()


def test_a_signal_may_cancel_the_thread_that_is_about_to_wait() -> None:
    token = CancelToken()
    before = signal.signal(signal.SIGUSR1, lambda *_: token.cancel("by a signal"))
    try:
        with token._changed:  # the moment in which a handler would wait for its own thread for ever
            os.kill(os.getpid(), signal.SIGUSR1)
            assert token.cancelled
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert token.wait(10)
    assert token.reason == "by a signal"
