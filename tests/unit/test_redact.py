import json

import pytest

from orchestrator.record.events import Deviation, RunStarted
from orchestrator.record.redact import Redactor, StreamRedactor

SAS = b"https://x.example/c/b.sh?sv=2020&sig=AbC%2Fd%2B9Zz%3D&se=2030"


def test_signature_of_a_url_goes_without_being_named() -> None:
    assert Redactor().clean(SAS) == b"https://x.example/c/b.sh?sv=2020&sig=<redacted>&se=2030"
    assert b"AbC" not in Redactor().clean(b"url=https%3A%2F%2Fx%3Fsig%3DAbCdEf")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_stream_gives_the_same_as_the_whole_text(size: int) -> None:
    redactor = Redactor(["hunter2", "hunter2-and-more", "s3cret/with+odd=chars"])
    text = b"a hunter2 b hunter2-and-more c\n" + SAS + b"\nhunterhunter2 s3cret/with+odd=chars sig= sig\nhunt"
    stream = StreamRedactor(redactor)
    shown = b"".join(stream.feed(text[at : at + size]) for at in range(0, len(text), size)) + stream.finish()
    assert shown == redactor.clean(text)
    assert b"hunter2" not in shown and b"s3cret" not in shown and b"AbC" not in shown
    assert shown.endswith(b"sig= sig\nhunt"), "what only looks like a beginning must not be lost"


def test_stream_holds_back_only_what_may_begin_a_secret() -> None:
    stream = StreamRedactor(Redactor(["hunter2"]))
    assert stream.feed(b"Password? ") == b"Password? "
    assert stream.feed(b"it is hun") == b"it is "
    assert stream.feed(b"gry") == b"hungry"


def test_endless_signature_is_not_collected() -> None:
    stream = StreamRedactor(Redactor())
    assert stream.feed(b"?sig=" + b"A" * 1000) == b"?sig=<redacted>"
    for _ in range(100):
        assert stream.feed(b"A" * 1000) == b""
    assert stream.feed(b"A&x=1") == b"&x=1"


def test_key_of_several_lines_goes_line_by_line() -> None:
    key = "-----BEGIN KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\nBG5vbmUAAAAEbm9uZQAAAAAA\n-----END KEY-----\n"
    shown = Redactor([key]).clean(key.replace("\n", "\r\n  ").encode())
    assert b"b3Blbn" not in shown and b"BG5vbm" not in shown and b"-----BEGIN KEY-----" in shown


def test_other_spellings_of_a_secret() -> None:
    redactor = Redactor(['p@ss "w/rd"'])
    assert b"p%40ss" not in redactor.clean(b"?p=p%40ss%20%22w%2Frd%22")
    assert "p@ss" not in redactor.text(json.dumps({"p": 'p@ss "w/rd"'}))


def test_events_are_cleaned_in_depth() -> None:
    redactor = Redactor(["hunter2"])
    event = RunStarted("r", "t", "n", "s", "1", "ab", "D1", 1, 1, 1.0, ("one", "hunter2"))
    assert redactor.event(event).steps == ("one", "<redacted>")
    untouched = Deviation("code", "text")
    assert redactor.event(untouched) is untouched


def test_a_secret_added_later_counts_in_a_stream_under_way() -> None:
    redactor = Redactor()
    stream = StreamRedactor(redactor)
    assert stream.feed(b"hunter2 ") == b"hunter2 "
    redactor.add([b"hunter2"])
    assert stream.feed(b"hunter2 ") == b"<redacted> "
