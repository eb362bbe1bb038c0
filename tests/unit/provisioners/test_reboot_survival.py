"""Reboots inside a script, after it, behind it; and what only looks like one."""

from __future__ import annotations

import pytest

from hypervisor.errors import DeadlineExceeded
from provisioners import reboot
from provisioners.base import StepError
from provisioners.communicators.base import CommandResult, CommunicatorError, GuestGone
from provisioners.shell import Shell

REBOOT = Shell.inline(["sudo reboot", "sleep 60"])
PLAIN = Shell.inline(["touch /tmp/x"])


def run(guest, told, shell, behaviour, seconds=20):
    guest.scripts[shell.content] = behaviour
    return shell.apply(guest, told.context(seconds))


def test_a_reboot_ends_the_script_and_not_the_build(guest, told):
    outcome = run(guest, told, REBOOT, lambda _: guest.reboot_now())
    assert outcome.rebooted
    assert guest.communicator.alive()
    assert len(guest.ran_scripts) == 1, "the script must never be run again"
    assert any("rebooted and answered again" in line for line in told.said)


def test_a_reboot_that_only_the_boot_id_tells(guest, told):
    assert run(guest, told, REBOOT, lambda _: guest.reboot_now(seen=False)).rebooted


def test_a_forced_reboot_that_leaves_the_connection_hanging(guest, told):
    def hang(call):
        guest.boot += 1
        guest.counted_reboots += 1
        return call.wait(60)

    assert run(guest, told, REBOOT, hang).rebooted


def test_the_old_boot_that_answers_once_more_is_waited_out(guest, told):
    asked = 0
    original = guest._boot_id

    def slow(call):
        nonlocal asked
        asked += 1
        if asked == 4:
            guest.boot += 1
        return original(call)

    guest.machine.on(r"cat /proc/sys/kernel/random/boot_id", slow)

    def going(_):
        guest.state = "stopping"
        return guest.lose_connection()

    assert run(guest, told, REBOOT, going).rebooted
    assert asked >= 4


def test_a_lost_connection_is_not_a_reboot(guest, told):
    with pytest.raises(StepError, match="did not reboot"):
        run(guest, told, PLAIN, lambda _: guest.lose_connection())
    assert guest.boot == 1


def test_a_guest_that_never_comes_back(guest, told):
    def vanish(_):
        guest.machine.up = False
        return guest.lose_connection()

    shell = Shell(PLAIN.content, reboot_limit=0.2)
    with pytest.raises(StepError, match=r"did not answer again.*the hypervisor saw no reboot"):
        run(guest, told, shell, vanish)


def test_the_budget_goes_before_the_twenty_minutes(guest, told):
    def vanish(_):
        guest.machine.up = False
        return guest.lose_connection()

    with pytest.raises(DeadlineExceeded, match="the budget"):
        run(guest, told, REBOOT, vanish, seconds=0.3)


def test_a_power_off_is_told_at_once(guest, told):
    def off(_):
        guest.unreachable = GuestGone("the machine is off")
        return guest.lose_connection()

    with pytest.raises(StepError, match="powered off"):
        run(guest, told, PLAIN, off)


def test_exit_0_just_before_the_shutdown(guest, told):
    """`sudo reboot` as the last line: the script ends well, and the guest goes away a moment later."""

    def ends(_):
        guest.state = "stopping"
        return CommandResult(0)

    def state(call):
        if guest.state == "stopping":
            guest.state = "running"
            guest.reboot_now()
            call.write("stdout", b"stopping\n")
        else:
            call.write("stdout", b"running\n")
        return CommandResult(0)

    guest.machine.on(r"(?::|rm -f (?P<path>\S+)); s=; if command -v systemctl .*", state)
    assert run(guest, told, PLAIN, ends).rebooted


def test_a_reboot_left_in_the_background_is_waited_for(guest, told, monkeypatch):
    monkeypatch.setattr(reboot, "FOLLOW_UP_SECONDS", 20)
    shell = Shell.inline(["(sleep 30; sudo reboot) >/dev/null 2>&1 &"])
    looks = 0

    def left(call):
        nonlocal looks
        looks += 1
        if looks == 20:
            guest.reboot_now()
            return CommandResult(None, connection_lost=True)
        call.write("stdout", b"yes\n")
        return CommandResult(0)

    guest.machine.on(r"if grep -qs '.*", left)
    assert run(guest, told, shell, lambda _: CommandResult(0)).rebooted
    assert looks == 20
    assert any("background" in line for line in told.said)


def test_a_scheduled_reboot_is_waited_for_over_one_connection(guest, told):
    """`shutdown -r +1`: the guest says so for a minute."""
    looks = 0

    def state(call):
        nonlocal looks
        looks += 1
        if looks == 30:
            return guest.reboot_now()
        call.write("stdout", b"scheduled\n" if looks < 30 else b"running\n")
        return CommandResult(0)

    guest.machine.on(r"(?::|rm -f (?P<path>\S+)); s=; if command -v systemctl .*", state)
    assert run(guest, told, Shell.inline(["sudo shutdown -r +1"]), lambda _: CommandResult(0)).rebooted
    assert guest.reconnects == 2


def test_a_script_that_only_talks_of_a_reboot_goes_on(guest, told):
    outcome = run(guest, told, Shell.inline(["echo now; reboot --help"]), lambda _: CommandResult(0))
    assert not outcome.rebooted
    assert guest.reconnects == 0


def test_a_connection_lost_after_exit_0_is_made_anew(guest, told):
    def ends(_):
        guest.current.close()
        return CommandResult(0, connection_lost=True)

    outcome = run(guest, told, PLAIN, ends)
    assert (outcome.exit_code, outcome.rebooted) == (0, False)
    assert guest.communicator.alive()


def test_a_step_begins_with_a_new_connection_where_the_old_one_went(guest, told):
    guest.reboot_now()
    assert not run(guest, told, PLAIN, lambda _: CommandResult(0)).rebooted
    assert guest.reconnects == 1


def test_a_script_ended_by_the_shutdown_is_not_a_failure(guest, told):
    """sshd reports SIGTERM before the connection goes."""

    def ended(_):
        guest.reboot_now()
        guest.current = guest.machine.connect()
        return CommandResult(None, signal="TERM")

    assert run(guest, told, REBOOT, ended).rebooted


def test_a_guest_that_cannot_be_reached_before_a_step_is_not_a_spent_budget(guest, told, monkeypatch):
    monkeypatch.setattr(reboot, "START_LIMIT_SECONDS", 0.1)
    guest.current.close()
    guest.unreachable = CommunicatorError("nobody answers")
    with pytest.raises(StepError, match="cannot be reached: nobody answers"):
        run(guest, told, PLAIN, lambda _: CommandResult(0))


def test_something_left_in_the_background_for_ever_does_not_hold_the_build(guest, told, monkeypatch):
    monkeypatch.setattr(reboot, "SSH_LIMIT_SECONDS", 0.3)
    guest.left_behind = "yes"
    shell = Shell.inline(["(while :; do sleep 1; done; reboot) >/dev/null 2>&1 &"])
    assert not run(guest, told, shell, lambda _: CommandResult(0)).rebooted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"sudo reboot", True),
        (b"#!/bin/sh -e\n/sbin/reboot\n", True),
        (b"systemctl reboot", True),
        (b"sudo systemctl reboot -i", True),
        (b"shutdown -r now", True),
        (b"(sleep 5; reboot) &", True),
        (b"nohup sh -c 'sleep 5 && reboot' &", True),
        (b"sudo init 6", True),
        (b"echo b >/proc/sysrq-trigger", True),
        (b"shutdown.exe", False),
        (b"touch /var/run/reboot-required", False),
        (b"apt-get install -y needrestart", False),
    ],
)
def test_which_scripts_are_looked_after(text, expected):
    assert reboot.may_reboot(text) is expected
