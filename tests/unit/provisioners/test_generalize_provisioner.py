"""The deprovision script: default, override, reboot, missing; and what waagent says."""

from __future__ import annotations

import re

import pytest

from provisioners import generalize, reboot
from provisioners.base import StepError
from provisioners.communicators.base import CommandResult, CommunicatorError
from provisioners.communicators.memory import MemoryFile
from provisioners.generalize import Generalize, default_script, ensure_script, place_default_script, script_state

PATH = generalize.LINUX_SCRIPT_PATH
TEXT = default_script("2023-07-01")
OWN = b"#!/bin/sh\ncloud-init clean\n"


@pytest.fixture
def linux(guest):
    """The guest with sudo, and a waagent that prints what the real one prints."""
    machine = guest.machine
    guest.sudo = True
    guest.waagent = (0, b"WARNING! The waagent service will be stopped.\nWARNING! packer account will be deleted.\n")
    guest.fed = []

    def read(call):
        if not guest.sudo:
            call.write("stderr", b"sudo: a password is required\n")
            return CommandResult(44)
        if PATH not in machine.files:
            return CommandResult(44)
        call.write("stdout", machine.files[PATH].content)
        return CommandResult(0)

    def execute(call):
        guest.fed.append((call.match["first"], call.stdin))
        if call.match["first"] == ":":
            return CommandResult(0)
        code, text = guest.waagent
        call.write("stdout", text)
        return CommandResult(code, connection_lost=code is None)

    machine.on(rf"if sudo -n test -e {PATH}; then sudo -n cat {PATH}; else exit 44; fi", read)
    machine.on(
        rf"sudo -n sh -c '(?P<first>:|sh {re.escape(PATH)} </dev/null); code=\$\?; cd /; sh -s; exit \$code'", execute
    )
    return guest


def replace(guest, content):
    guest.machine.files[PATH] = MemoryFile(content, owner="root")


def test_the_default_texts_by_api_version():
    assert default_script("2019-05-01-preview") == (
        "/usr/sbin/waagent -force -deprovision+user && export HISTSIZE=0 && sync\n"
    )
    assert TEXT.startswith("WAAGENT=/usr/sbin/waagent; waagent -version 1> /dev/null 2>&1; if [ $? -eq 0 ]; then ")
    assert TEXT.endswith("$WAAGENT -force -deprovision+user && export HISTSIZE=0 && sync\n")


def test_the_default_script_is_placed_readable_and_owned_by_the_login_user(linux, told):
    place_default_script(linux, TEXT, PATH, told.context())
    placed = linux.machine.files[PATH]
    assert (placed.content.decode(), placed.mode, placed.owner) == (TEXT, 0o644, "packer")
    assert script_state(linux, TEXT, PATH, told.context()) == "default"


def test_after_a_reboot_the_default_is_put_back_and_said(linux, told):
    assert ensure_script(linux, TEXT, PATH, told.context()) == "default"
    assert linux.machine.files[PATH].content.decode() == TEXT
    assert told.deviations == ["deprovision-script-restored"]


def test_what_a_customizer_replaced_is_not_put_back(linux, told):
    assert ensure_script(linux, TEXT, PATH, told.context(), replaced=True) == "missing"
    assert (linux.machine.files, told.deviations) == ({}, [])
    replace(linux, OWN)
    assert ensure_script(linux, TEXT, PATH, told.context()) == "replaced"
    assert linux.machine.files[PATH].content == OWN


def test_the_script_is_printed_then_run_by_root_who_then_forgets_the_seed(linux, told):
    place_default_script(linux, TEXT, PATH, told.context())
    outcome = Generalize(TEXT).apply(linux, told.context())
    assert told.stdout.startswith(TEXT.encode())
    assert outcome.notes == (
        generalize.NOTE["default"],
        "WARNING! The waagent service will be stopped.",
        "WARNING! packer account will be deleted.",
    )
    [(first, stdin)] = linux.fed
    assert first == f"sh {PATH} </dev/null"
    assert b"BEGIN OPENSSH PRIVATE KEY" in stdin


def test_the_users_own_script_is_the_users_own(linux, told):
    replace(linux, OWN)
    linux.waagent = (0, b"WARNING! Skip delete user.\n")
    outcome = Generalize(TEXT).apply(linux, told.context())
    assert told.stdout.startswith(OWN)
    assert outcome.notes[0] == generalize.NOTE["replaced"]


def test_an_account_that_stays_fails_the_default_script(linux, told):
    place_default_script(linux, TEXT, PATH, told.context())
    linux.waagent = (0, b"WARNING! ovf-env.xml is not found.\nWARNING! Skip delete user.\n")
    with pytest.raises(StepError, match="did not delete the build account"):
        Generalize(TEXT).apply(linux, told.context())


def test_a_missing_script_is_the_services_warning(linux, told):
    outcome = Generalize(TEXT).apply(linux, told.context())
    assert told.stdout.decode() == (
        f"Deprovisioning script [{PATH}] could not be found. Image build may fail or the VM created from the Image "
        "may not boot.\n"
    )
    assert outcome.notes[0] == generalize.NOTE["missing"]


def test_waagent_that_was_removed_is_named(linux, told):
    place_default_script(linux, TEXT, PATH, told.context())
    linux.waagent = (127, f"{PATH}: 1: /usr/sbin/waagent: not found\n".encode())
    with pytest.raises(StepError, match="exit code 127") as caught:
        Generalize(TEXT).apply(linux, told.context())
    assert "waagent is not in the image" in caught.value.hint


def test_a_script_that_cuts_the_connection_fails(linux, told):
    replace(linux, OWN)
    linux.waagent = (None, b"")
    with pytest.raises(StepError, match="the connection to the guest was lost"):
        Generalize(TEXT).apply(linux, told.context())


def test_sudo_that_was_taken_away_is_named(linux, told):
    place_default_script(linux, TEXT, PATH, told.context())
    linux.sudo = False
    with pytest.raises(StepError, match="cannot use sudo any more: sudo: a password is required"):
        Generalize(TEXT).apply(linux, told.context())


def test_an_unreachable_guest_is_a_step_error(linux, told, monkeypatch):
    monkeypatch.setattr(reboot, "START_LIMIT_SECONDS", 0.1)
    linux.current.close()
    linux.unreachable = CommunicatorError("nobody answers")
    with pytest.raises(StepError, match="cannot be reached: nobody answers"):
        Generalize(TEXT).apply(linux, told.context())
