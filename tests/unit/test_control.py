from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hypervisor.errors import HostError, InputError
from orchestrator.build import control


def test_a_request_reaches_its_handler_and_the_answer_comes_back(tmp_path: Path) -> None:
    with control.serve(tmp_path, {"add": lambda request: {"sum": request["a"] + request["b"]}}):
        assert control.ask(tmp_path, {"do": "add", "a": 2, "b": 3}) == {"sum": 5}


def test_an_unknown_request_is_refused_by_name(tmp_path: Path) -> None:
    with control.serve(tmp_path, {}):
        assert "'dance'" in control.ask(tmp_path, {"do": "dance"})["error"]


def test_an_expected_error_of_a_handler_is_its_answer(tmp_path: Path) -> None:
    def fail(_: object) -> dict[str, object]:
        raise HostError("no screen")

    with control.serve(tmp_path, {"shot": fail}):
        assert control.ask(tmp_path, {"do": "shot"}) == {"error": "no screen"}


def test_rubbish_is_answered_and_the_server_lives_on(tmp_path: Path) -> None:
    with control.serve(tmp_path, {"ping": lambda _: {"ok": True}}):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(control._address(tmp_path))
            client.sendall(b"\xff\xfe not json\n")
            assert b"not a request" in client.makefile("rb").readline()
        assert control.ask(tmp_path, {"do": "ping"}) == {"ok": True}


def test_nobody_listening_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not running"):
        control.ask(tmp_path, {"do": "ping"})
