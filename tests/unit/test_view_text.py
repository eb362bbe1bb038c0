import pytest

from orchestrator.views.exit_codes import described
from orchestrator.views.text import (
    LONGEST_PIECE,
    LineSplitter,
    clean_line,
    clock,
    duration,
    printable,
    safe,
    size,
    table,
)


def test_nothing_that_a_terminal_obeys_gets_through() -> None:
    shown = printable(b"\x1b[31mred\x1b[0m \x07bell \x1b]0;title\x07 back\x08 nul\x00 \xff\xfe \xe2\x80\xae evil")
    assert shown == "red \\x07bell  back\\x08 nul\\x00 \\xff\\xfe \\u202e evil"
    assert all(character.isprintable() for character in shown)


def test_good_text_stays() -> None:
    assert printable("grüße 日本 🙂".encode()) == "grüße 日本 🙂"
    assert printable(b"a\tb") == "a   b"
    assert safe("grüße 日本 🙂") == "grüße 日本 🙂"


def test_long_line_is_cut_and_says_so() -> None:
    shown = printable(b"x" * 10_000_000, limit=100)
    assert shown == "x" * 100 + "… (a line of 10000000 bytes)"


def test_endless_line_comes_in_bounded_pieces() -> None:
    splitter = LineSplitter()
    pieces = [piece for _ in range(50) for piece in splitter.feed(b"y" * 10_000)]
    pieces += list(splitter.feed(b"z\nnext")) + list(splitter.finish())
    assert b"".join(piece.data for piece in pieces) == b"y" * 500_000 + b"z" + b"next"
    assert max(len(piece.data) for piece in pieces) <= LONGEST_PIECE + 10_000
    assert not pieces[0].rest and all(piece.rest for piece in pieces[1:-1]) and pieces[0].more
    assert not pieces[-2].more and not pieces[-1].rest and not pieces[-1].more


@pytest.mark.parametrize("size_of_chunk", [1, 3, 1000])
def test_lines_do_not_depend_on_the_chunks(size_of_chunk: int) -> None:
    text = b"a\n\nbc\r\nlast"
    splitter = LineSplitter()
    pieces = [p for at in range(0, len(text), size_of_chunk) for p in splitter.feed(text[at : at + size_of_chunk])]
    pieces += splitter.finish()
    assert [piece.data for piece in pieces] == [b"a", b"", b"bc\r", b"last"]


def test_progress_bars_leave_their_last_state() -> None:
    assert clean_line(b"10%\r50%\r100%  \r") == b"100%"


def test_numbers_for_people() -> None:
    assert [duration(s) for s in (0.44, 12.3, 185, 7620)] == ["0.4 s", "12 s", "3 min 05 s", "2 h 07 min"]
    assert [clock(s) for s in (7, 187, 3723)] == ["00:07", "03:07", "1:02:03"]
    assert [size(n) for n in (512, 1.5 * 2**20, 10 * 2**30)] == ["512 B", "1.5 MiB", "10.0 GiB"]
    assert table(("A", "B"), [("long", "x"), ("s", "")]) == ["A     B", "long  x", "s"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (127, "command not found"),
        (126, "noexec"),
        (137, "SIGKILL; out of memory?"),
        (100, "apt-get"),
        (16001, "WinRM connection was lost"),
        (267014, "0x41306"),
        (0xC0000005, "0xC0000005"),
        (None, "no exit code"),
    ],
)
def test_exit_codes_are_decoded(code: int | None, words: str) -> None:
    assert words in described(code)


def test_unknown_exit_code_is_only_a_number() -> None:
    assert described(42) == "exit code 42"
