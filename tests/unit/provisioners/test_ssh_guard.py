"""A blocking exchange over SSH ends with its time, and one that was cut off never counts as done."""

from __future__ import annotations

import threading

import pytest

from hypervisor.deadline import Deadline
from hypervisor.errors import DeadlineExceeded
from provisioners.communicators.base import ConnectionLost
from provisioners.communicators.ssh_guard import guarded


def test_what_comes_to_its_end_just_when_it_is_cut_off_is_lost() -> None:
    cut = threading.Event()
    with (
        pytest.raises(ConnectionLost, match="lost while asking: the guest rebooted"),
        guarded(cut.set, Deadline.after(30), "asking", stall=30, interrupted=lambda: True),
    ):
        assert cut.wait(20)


def test_so_is_what_comes_to_its_end_just_when_its_time_is_over() -> None:
    cut = threading.Event()
    deadline = Deadline.after(30, "the budget")
    with (
        pytest.raises(DeadlineExceeded, match="the budget is used up while asking"),
        guarded(cut.set, deadline, "asking", stall=30),
    ):
        object.__setattr__(deadline, "at", 0.0)
        assert cut.wait(20)


def test_a_guest_that_stalls_is_named() -> None:
    cut = threading.Event()
    with (
        pytest.raises(ConnectionLost, match="did not answer for 0 s"),
        guarded(cut.set, Deadline.after(30), "asking", stall=0.1),
    ):
        assert cut.wait(20)
        raise EOFError
