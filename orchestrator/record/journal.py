"""The journal of a run: every fact is one line of `events.jsonl`, on its way to the disk before anybody sees it.

    with Journal(run_folder) as journal:
        journal.redact([password])
        journal.subscribe(console)
        journal.emit(Phase("Booting", "Building"))
        journal.output(0, "stdout", b"...")     # raw bytes of a guest, from any thread

What a guest prints goes to `steps/NN.out`; `Output` events, batched, say where. Nothing of it is kept in memory.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from hypervisor.errors import AibError
from orchestrator.record.appender import Appender, CannotWrite
from orchestrator.record.events import Event, Output, Stamped, StepFinished
from orchestrator.record.reader import output_name, read_events, read_output
from orchestrator.record.redact import Redactor, StreamRedactor

__all__ = ["Journal", "Subscriber", "output_name", "read_events", "read_output"]

BATCH_SECONDS = 0.1
BATCH_BYTES = 1 << 16
_BATCH_PIECES = 512
"""Two streams that alternate byte by byte must not fill the memory either."""

Stream = Literal["stdout", "stderr"]
Subscriber = Callable[[Stamped], None]


class Journal:
    """Writes the events of the run in `run_folder`; safe to use from several threads, one process at a time.

    Opened on a run that has events already (its worker died), it goes on where they end. `clock` is monotonic
    seconds, `now` the wall clock. When the disk is full the first write raises `HostError` with the path; after
    that the journal keeps what it can and stays silent, so that cleaning up is not stopped by its own log.
    """

    def __init__(
        self,
        run_folder: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._folder = run_folder
        self._clock, self._now = clock, now
        self._lock = threading.RLock()
        self._redactor = Redactor()
        self._subscribers: list[Subscriber] = []
        self._undelivered: deque[Stamped] = deque()
        self._delivering = threading.Lock()
        self._failure: AibError | None = None
        self._failure_raised = False
        self._pending: list[Output] = []
        self._pending_bytes = 0
        self._streams: dict[tuple[int, Stream], StreamRedactor] = {}
        self._files: dict[int, Appender] = {}
        self._wake, self._closed = threading.Event(), threading.Event()
        self._flusher: threading.Thread | None = None
        try:
            (run_folder / "steps").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotWrite(run_folder, error) from error
        path = run_folder / "events.jsonl"
        self._sequence, self._zero = self._continue(path)
        self._events = Appender(path, whole_lines=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is None:
            self._raise_failure()

    def close(self) -> None:
        """Write and deliver what is pending and let go of the files; safe to call twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._wake.set()
        if self._flusher is not None:
            self._flusher.join()
        with self._lock:
            self._finish_streams()
            self._flush_pending()
            for file in (*self._files.values(), self._events):
                self._try(file.close)
            self._files.clear()
        with self._delivering:
            self._drain()

    def redact(self, values: Iterable[bytes | str]) -> None:
        """From now on none of `values` reaches an event or a step's file (`sig=` of URLs never does)."""
        with self._lock:
            self._redactor.add(values)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call `callback` with every event from now on, one at a time and in order; returns how to end that.

        When a callback raises an `AibError` (its file can't be written), the first such error is raised, once; the
        callback goes on being called, because cleaning up may make room for its last words.
        """
        with self._lock:
            self._subscribers.append(callback)

        def unsubscribe() -> None:
            with self._lock:
                if callback in self._subscribers:
                    self._subscribers.remove(callback)

        return unsubscribe

    def emit(self, event: Event) -> Stamped:
        """Write `event` after all output that came before it, then show it. Raises `HostError` once on a full disk."""
        with self._lock:
            if isinstance(event, StepFinished):
                self._finish_streams(event.index)
            self._flush_pending()
            stamped = self._write(event)
            if isinstance(event, StepFinished) and event.index in self._files:
                self._try(self._files.pop(event.index).close)
        self._deliver()
        self._raise_failure()
        return stamped

    def output(self, index: int, stream: Stream, data: bytes) -> None:
        """The guest printed `data` in step `index`. Raises `HostError` once on a full disk."""
        with self._lock:
            redactor = self._streams.setdefault((index, stream), StreamRedactor(self._redactor))
            self._append(index, stream, redactor.feed(data))
            full = self._pending_bytes >= BATCH_BYTES or len(self._pending) >= _BATCH_PIECES
            if full:
                self._flush_pending()
            elif self._pending:
                self._flush_soon()
        if full:
            self._deliver()
        self._raise_failure()

    def flush_output(self) -> None:
        """Show now what has been printed so far, without waiting for the batch to fill."""
        with self._lock:
            self._flush_pending()
        self._deliver()

    # All below: with the lock held, unless it says otherwise.

    def _continue(self, path: Path) -> tuple[int, float]:
        """The next sequence number, and when the run began on our clock."""
        first: Stamped | None = None
        last: Stamped | None = None
        for last in read_events(path):
            first = first or last
        if first is None or last is None:
            return 0, self._clock()
        try:
            passed = (self._now() - datetime.fromisoformat(first.time)).total_seconds() + first.elapsed
        except ValueError:
            passed = last.elapsed
        return last.seq + 1, self._clock() - max(passed, last.elapsed)

    def _write(self, event: Event) -> Stamped:
        when = self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        stamped = Stamped(self._sequence, when, self._clock() - self._zero, self._redactor.event(event))
        self._sequence += 1
        line = json.dumps(stamped.to_json(), ensure_ascii=False, separators=(",", ":"))
        # A lone surrogate (an undecodable file name) becomes its JSON escape, not an error.
        self._try(lambda: self._events.append(line.encode("utf-8", "backslashreplace") + b"\n"))
        self._undelivered.append(stamped)
        return stamped

    def _append(self, index: int, stream: Stream, data: bytes) -> None:
        if not data:
            return
        if index not in self._files:
            self._files[index] = Appender(self._folder / output_name(index))
        file = self._files[index]
        offset = file.length
        if not self._try(lambda: file.append(data)):
            return
        last = self._pending[-1] if self._pending else None
        if last and (last.index, last.stream, last.offset + last.length) == (index, stream, offset):
            self._pending[-1] = Output(index, stream, last.offset, last.length + len(data))
        else:
            self._pending.append(Output(index, stream, offset, len(data)))
        self._pending_bytes += len(data)

    def _finish_streams(self, index: int | None = None) -> None:
        for key in [key for key in self._streams if index in (None, key[0])]:
            self._append(*key, self._streams.pop(key).finish())

    def _flush_pending(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        for output in pending:
            self._write(output)

    def _try(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except AibError as error:
            self._failure = self._failure or error
            return False
        return True

    def _raise_failure(self) -> None:
        """Without the lock: the first failure, once, in whichever thread asks first."""
        with self._lock:
            if self._failure is None or self._failure_raised:
                return
            self._failure_raised = True
        raise self._failure

    def _flush_soon(self) -> None:
        if self._flusher is None and not self._closed.is_set():
            self._flusher = threading.Thread(target=self._flush_on_time, name="journal", daemon=True)
            self._flusher.start()
        self._wake.set()

    def _flush_on_time(self) -> None:
        """The flusher thread: 100 ms after the first byte of a batch, show it."""
        while not self._closed.is_set():
            self._wake.wait()
            self._wake.clear()
            if not self._closed.wait(BATCH_SECONDS):
                self.flush_output()

    def _deliver(self) -> None:
        """Without the lock: show what is written. Whoever holds `_delivering` shows for all, so order is kept."""
        while self._undelivered and self._delivering.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._delivering.release()

    def _drain(self) -> None:
        while self._undelivered:
            stamped = self._undelivered.popleft()
            for subscriber in tuple(self._subscribers):
                self._try(partial(subscriber, stamped))
