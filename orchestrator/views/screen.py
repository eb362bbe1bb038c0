"""Where the console's lines go: plain lines for a pipe or a file, a live last line for a terminal."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol, TextIO

from orchestrator.views.text import clock

if TYPE_CHECKING:
    from rich.text import Text

Style = Literal["", "good", "bad", "warn", "dim", "head"]


class Screen(Protocol):
    """What a console writes to."""

    def line(self, text: str, style: Style = "", elapsed: float | None = None) -> None:
        """Add one line for good; `elapsed` is the run's time, where the line should tell it."""
        ...

    def waiting(self, what: str, elapsed: float, *, told: bool = False) -> None:
        """Show what is being waited for from now on, and for how long; "" ends that. `told`: a line says it already."""
        ...

    def close(self) -> None:
        """Leave the terminal as it should be; safe to call twice."""
        ...


class PlainScreen:
    """One line per fact, flushed at once, no colours. When nobody reads any more it falls silent."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gone = False

    def line(self, text: str, style: Style = "", elapsed: float | None = None) -> None:
        """Write the line."""
        if self._gone:
            return
        encoding = self._stream.encoding or "utf-8"
        told = f"[{clock(elapsed)}] {text}" if elapsed is not None else text
        try:
            self._stream.write(told.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # a closed pipe or stream: the build goes on without spectators
            self._gone = True

    def waiting(self, what: str, elapsed: float, *, told: bool = False) -> None:
        """Say once what is being waited for."""
        if what and not told:
            self.line(f"{what} ...", elapsed=elapsed)

    def close(self) -> None:
        """Nothing to undo."""


_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_FRAMES = "|/-\\"
_STYLES: dict[Style, str] = {
    "": "",
    "good": "green",
    "bad": "bold red",
    "warn": "yellow",
    "dim": "dim",
    "head": "bold",
}


class LiveScreen:
    """A terminal: lines scroll, the last line shows a spinner, what is waited for and for how long."""

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        self._text = Text
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._clock = now
        self._what, self._since = "", now()
        self._frames = _FRAMES if self._console.encoding.startswith("utf") else _ASCII_FRAMES
        self._live = Live(
            get_renderable=self._status,
            console=self._console,
            transient=True,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._gone = False
        atexit.register(self.close)  # whatever ends this process, the terminal gets its cursor back

    def line(self, text: str, style: Style = "", elapsed: float | None = None) -> None:
        """Print the line above the live one."""
        if self._gone:
            return
        try:
            self._console.print(self._text(text, style=_STYLES[style]), soft_wrap=True)
        except (OSError, ValueError):
            self._give_up()

    def waiting(self, what: str, elapsed: float, *, told: bool = False) -> None:
        """Begin to wait for something else."""
        if self._gone:
            return
        self._what, self._since = what, self._clock()
        try:
            if what:
                self._live.start()
                self._live.refresh()
            else:
                self._live.stop()
        except (OSError, ValueError):
            self._give_up()

    def close(self) -> None:
        """Remove the live line and give the cursor back."""
        self.waiting("", 0.0)
        atexit.unregister(self.close)

    def _give_up(self) -> None:
        self._gone = True

    def _status(self) -> Text:
        """Never more than one line: a second one would be left behind on the screen."""
        waited = self._clock() - self._since
        frame = self._frames[int(waited * len(self._frames)) % len(self._frames)]
        text = f"{frame} {clock(waited)}  {self._what}"
        return self._text(text, style="dim", no_wrap=True, overflow="ellipsis", end="")


def screen_for(stream: TextIO) -> Screen:
    """A live screen when a person watches `stream`, else plain lines; NO_COLOR is obeyed by both."""
    if stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb"):
        return LiveScreen(stream)
    return PlainScreen(stream)
