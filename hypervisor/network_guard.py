"""The process between an isolated VM and the network: QEMU's frames go through the filter to passt, and back.

It is started before QEMU and ends with its owner: the pipe of its standard input closes, however the owner dies. passt
has one end of a socket pair and ends when this process does. So nothing is left running. Standard library only.

    network_guard <path of QEMU's socket> <passt> <the guest's MAC address>
    stdin   one line, `<guest port> <host port>`: open the network with this forward of 127.0.0.1
    stdout  one JSON object a line: {} when it listens; then {"error": what went wrong, or ""} for each line of stdin
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hypervisor.frame_filter import (
    GATEWAY,
    GATEWAY_MAC,
    GUEST,
    PREFIX,
    FrameFilter,
    greeting,
    introduction,
    own_addresses,
    refusal,
    whole_frames,
)  # fmt: skip
from hypervisor.reaper import become_subreaper

_CHUNK = 1 << 18
_START_LIMIT = 20.0  # seconds until passt has opened its port or said why not
_END_LIMIT = 3.0  # seconds until passt is killed: it ends by itself when its socket closes
_NOISE = ("Failed to send", "Don't run as root")  # where there is no syslog; and passt changes to nobody by itself


def main(arguments: list[str]) -> None:
    """Serve one VM until standard input closes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when its owner does, and not before
    path, passt, mac = Path(arguments[0]), arguments[1], arguments[2]
    become_subreaper()  # passt goes into the background: so it is ours to wait for
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        _say({})
        ready, _, _ = select.select([listener.fileno(), 0], [], [])
        if listener.fileno() not in ready:
            return  # the owner is gone, or QEMU did not start
        qemu, _ = listener.accept()
    path.unlink(missing_ok=True)
    _serve(qemu, passt, mac)


def _serve(qemu: socket.socket, passt: str, mac: str) -> None:
    outside: socket.socket | None = None
    for line in sys.stdin:
        guest_port, host_port = line.split()
        outside, error = _start(passt, int(guest_port), int(host_port))
        _say({"error": error})
        if outside is not None:
            break
    if outside is not None:
        outside.sendall(introduction(mac))
        Relay(qemu, outside).start()
        sys.stdin.read()  # until the owner closes it
        for end in (qemu, outside):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        _wait_for_passt()


def _start(passt: str, guest_port: int, host_port: int) -> tuple[socket.socket | None, str]:
    """Our end of the pair whose other end passt holds, and "" ; or None and what passt said.

    passt wants an interface that leads out. A host that has none is offline: its loopback will do then.
    """
    outside, error = _try_start(passt, guest_port, host_port, [])
    if outside is None:
        outside, _ = _try_start(passt, guest_port, host_port, ["--interface", "lo"])
    return outside, "" if outside else error


def _try_start(passt: str, guest_port: int, host_port: int, more: list[str]) -> tuple[socket.socket | None, str]:
    ours, theirs = socket.socketpair()
    words = [
        passt, "--quiet", "--fd", str(theirs.fileno()), "--ipv4-only",
        "--address", GUEST, "--netmask", str(PREFIX), "--gateway", GATEWAY, "--mac-addr", GATEWAY_MAC,
        # The gateway stands for the host: it is offered as resolver where the host's own is on its loopback. Nothing
        # else gets through to it (frame_filter).
        "--dns-forward", GATEWAY, "--udp-ports", "none", "--tcp-ports", f"127.0.0.1/{host_port}:{guest_port}", *more,
    ]  # fmt: skip
    try:
        done = subprocess.run(  # it goes into the background once its port is open
            words, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()], timeout=_START_LIMIT, cwd="/",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        ours.close()
        return None, f"passt did not start: {error}"
    finally:
        theirs.close()
    if done.returncode == 0:
        return ours, ""
    ours.close()
    said = [line for line in done.stderr.decode(errors="replace").splitlines() if line and not line.startswith(_NOISE)]
    return None, " / ".join(said) or f"passt ended with exit code {done.returncode}"


def _wait_for_passt() -> None:
    until = time.monotonic() + _END_LIMIT
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) == (0, 0):
            if time.monotonic() >= until:
                return  # it goes to whoever is next; its socket is closed
            time.sleep(0.02)


def _say(what: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Relay:
    """Frames between QEMU and passt, a thread for each direction: neither can hold the other up."""

    def __init__(self, qemu: socket.socket, outside: socket.socket) -> None:
        self._qemu, self._outside = qemu, outside
        self._filter = FrameFilter(own_addresses)
        self._lock = threading.Lock()  # both directions write to QEMU: answers, and refusals

    def start(self) -> None:
        """Begin; the threads end when either end closes."""
        for work in (self._out, self._in):
            threading.Thread(target=self._quietly, args=(work,), daemon=True).start()

    def _quietly(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):
            work()
        for end in (self._qemu, self._outside):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _out(self) -> None:
        rest = b""
        while chunk := self._qemu.recv(_CHUNK):
            frames, rest = whole_frames(rest + chunk)
            passed = []
            for frame in frames:
                allowed = self._filter.allows(frame[4:])
                if allowed:
                    passed.append(frame)
                if answer := greeting(frame[4:]) if allowed else refusal(frame[4:]):
                    with self._lock:
                        self._qemu.sendall(answer)
            if passed:
                self._outside.sendall(b"".join(passed))

    def _in(self) -> None:
        rest = b""
        while chunk := self._outside.recv(_CHUNK):
            frames, rest = whole_frames(rest + chunk)
            if frames:
                with self._lock:
                    self._qemu.sendall(b"".join(frames))
