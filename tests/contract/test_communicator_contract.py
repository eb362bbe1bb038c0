"""What every communicator does alike."""

from __future__ import annotations

import threading

import pytest

from hypervisor.deadline import CancelToken, Deadline
from hypervisor.errors import Cancelled, DeadlineExceeded
from provisioners.communicators.base import CommunicatorError, ConnectionLost


class Collected:
    def __init__(self) -> None:
        self.stdout, self.stderr = b"", b""

    def __call__(self, stream, data):
        assert data, "an empty piece tells nothing"
        setattr(self, stream, getattr(self, stream) + data)


@pytest.fixture
def guest(bed):
    communicator = bed.connect()
    yield communicator
    communicator.close()


@pytest.fixture
def deadline():
    return Deadline.after(30, "the test")


def test_streams_are_apart_and_byte_exact(guest, commands, deadline):
    said = Collected()
    result = guest.run(commands["both streams"], deadline=deadline, output=said)
    assert (result.exit_code, result.signal, result.connection_lost) == (0, "", False)
    assert (said.stdout, said.stderr) == (b"a\0\xffbc", b"oops\n")


@pytest.mark.parametrize(("name", "code"), [("exit 7", 7), ("not there", 127)])
def test_exit_codes_pass_through(guest, commands, deadline, name, code):
    assert guest.run(commands[name], deadline=deadline).exit_code == code


def test_stdin_is_given_then_ends(guest, commands, deadline):
    said = Collected()
    text = b"line\n\0\xfe" * 50_000
    assert guest.run(commands["cat"], deadline=deadline, output=said, stdin=text).exit_code == 0
    assert said.stdout == text


def test_a_prompt_sees_the_end_of_its_input(guest, commands, deadline):
    said = Collected()
    guest.run(commands["read"], deadline=deadline, output=said)
    assert said.stdout == b"read said 1\n"


def test_a_killed_script_is_not_a_lost_connection(bed, guest, commands, deadline):
    result = guest.run(commands["kill itself"], deadline=deadline)
    killed = (0xFFFFFFF7, "") if bed.kind == "winrm" else (None, "KILL")  # Windows has codes for everything
    assert (result.exit_code, result.signal, result.connection_lost) == (*killed, False)
    assert guest.alive()
    assert guest.run(commands["exit 7"], deadline=deadline).exit_code == 7


def test_a_lost_connection_is_in_the_result(bed, guest, commands, deadline):
    started = threading.Event()

    def cut(stream, data):
        if not started.is_set():
            started.set()
            threading.Thread(target=bed.cut).start()

    result = guest.run(commands["sleep"], deadline=deadline, output=cut)
    assert result.exit_code is None
    assert result.connection_lost
    assert not guest.alive()


def test_nothing_starts_over_a_lost_connection(bed, guest, commands, deadline, wait_for):
    bed.cut()
    wait_for(lambda: not guest.alive())
    with pytest.raises(ConnectionLost):
        guest.run(commands["exit 7"], deadline=deadline)
    with pytest.raises(ConnectionLost):
        guest.upload(b"x", f"{bed.folder}/file", deadline=deadline)


def test_the_callers_own_knowledge_of_a_reboot_ends_the_wait(guest, commands, deadline):
    started = threading.Event()
    result = guest.run(
        commands["sleep"], deadline=deadline, output=lambda *_: started.set(), interrupted=started.is_set
    )
    assert (result.exit_code, result.connection_lost) == (None, True)


def test_the_deadline_ends_a_command(guest, commands):
    with pytest.raises(DeadlineExceeded, match="the budget is used up"):
        guest.run(commands["sleep"], deadline=Deadline.after(0.5, "the budget"))


def test_cancelling_ends_a_command(guest, commands):
    token = CancelToken()
    with pytest.raises(Cancelled):
        guest.run(
            commands["sleep"],
            deadline=Deadline.after(60, "the budget", token),
            output=lambda *_: token.cancel("by the test"),
        )


def test_two_megabytes_arrive(guest, commands, deadline):
    sizes = []
    guest.run(commands["2 MB"], deadline=deadline, output=lambda _, data: sizes.append(len(data)))
    assert sum(sizes) == 2_000_000
    assert max(sizes) < 1_000_000


def test_upload_replaces_bytes_and_sets_the_mode(bed, guest, deadline):
    path = f"{bed.folder}/script.sh"
    guest.upload(b"the first, longer text", path, deadline=deadline)
    guest.upload(b"\0\xffshort", path, mode=0o755, deadline=deadline)
    assert bed.read(path) == b"\0\xffshort"
    if bed.kind != "winrm":  # Windows has no mode bits
        assert bed.mode(path) == 0o755


def test_upload_of_a_file(bed, guest, deadline, tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(bytes(range(256)) * 4096)
    guest.upload(source, f"{bed.folder}/target.bin", deadline=deadline)
    assert bed.read(f"{bed.folder}/target.bin") == source.read_bytes()


def test_a_missing_folder_is_named(bed, guest, deadline):
    with pytest.raises(CommunicatorError, match=f"{bed.folder}/no/such does not exist"):
        guest.upload(b"x", f"{bed.folder}/no/such/file", deadline=deadline)


def test_a_folder_is_no_destination(bed, guest, deadline):
    bed.make_folder(f"{bed.folder}/folder")
    with pytest.raises(CommunicatorError, match="it is a folder"):
        guest.upload(b"x", f"{bed.folder}/folder", deadline=deadline)


def test_a_full_disk_is_an_error(bed, guest, deadline):
    bed.fill(100_000)
    with pytest.raises(CommunicatorError, match=r"cannot write .*big"):
        guest.upload(b"x" * 300_000, f"{bed.folder}/big", deadline=deadline)


def test_download_brings_the_bytes(bed, guest, deadline, tmp_path):
    content = bytes(range(256)) * 2000
    bed.write(f"{bed.folder}/there", content)
    guest.download(f"{bed.folder}/there", tmp_path / "here", deadline=deadline)
    assert (tmp_path / "here").read_bytes() == content


def test_download_of_nothing_is_an_error_and_leaves_nothing(bed, guest, deadline, tmp_path):
    with pytest.raises(CommunicatorError, match=f"{bed.folder}/nothing does not exist"):
        guest.download(f"{bed.folder}/nothing", tmp_path / "here-too", deadline=deadline)
    assert not list(tmp_path.glob("here-too*"))


def test_transfers_obey_the_deadline(bed, guest):
    spent = Deadline.after(0, "the budget")
    with pytest.raises(DeadlineExceeded):
        guest.upload(b"x", f"{bed.folder}/late", deadline=spent)


def test_closing_twice_is_fine(guest):
    guest.close()
    guest.close()
    assert not guest.alive()
