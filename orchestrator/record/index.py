"""The index: an sqlite database over the resource files, for questions that would read all of them.

It holds nothing that the files do not hold. The caller keeps the store's lock: shared to ask, exclusive to change; so
that a damaged database can be replaced while nobody has it open. Before a file is changed its key is noted as
pending and committed; a key that is pending when nobody writes was left by a crash and is read again from its file.
The database is never waited for to reach the disk: it holds good for one boot of the machine and is rebuilt after.
"""

from __future__ import annotations

import functools
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hypervisor.errors import HostError
from orchestrator.record import files
from orchestrator.record.resources import Resource, resource_key

_VERSION = 1
_SCHEMA = f"""
create table resources (key text primary key, type text not null, body text not null) without rowid;
create index resources_by_type on resources (type, key);
create table pending (key text primary key) without rowid;
create table made (boot text not null);
pragma user_version = {_VERSION};
"""
_BUSY_SECONDS = 30.0
_LITTLE = 1 << 20
"""Bytes: with less free than this an I/O error of sqlite's is taken for a full disk."""
_T = TypeVar("_T")


class IndexDamaged(Exception):
    """The database is missing, damaged, of another version or another boot: rebuild it."""


class Index:
    """One sqlite file; a connection per operation, so that threads and processes can share the object."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pending(self) -> tuple[str, ...]:
        """Keys whose files changed, or were about to change, after their rows."""
        return self._ask(lambda db: tuple(row[0] for row in db.execute("select key from pending order by key")))

    def note(self, key: str) -> None:
        """Say that the file of `key` is about to change."""
        self._ask(lambda db: db.execute("insert or ignore into pending values (?)", (key,)))

    def store(self, key: str, resource: Resource | None) -> None:
        """Say what the file of `key` holds now (None: it is gone)."""

        def change(db: sqlite3.Connection) -> None:
            db.execute("begin immediate")
            if resource is None:
                db.execute("delete from resources where key = ?", (key,))
            else:
                db.execute("insert or replace into resources values (?, ?, ?)", _row(resource))
            db.execute("delete from pending where key = ?", (key,))
            db.execute("commit")

        self._ask(change)

    def select(self, type: str | None, under: str) -> list[Resource]:
        """Resources of one type (all when None) whose ids lie under the id `under` (all when "")."""
        query, values = "select body from resources where 1", []
        if type is not None:
            query, values = f"{query} and type = ?", [type.lower()]
        if under:
            # "0" follows "/": every key that starts with `under/`
            query, values = f"{query} and key > ? and key < ?", [*values, f"{under}/", f"{under}0"]
        rows = self._ask(lambda db: db.execute(f"{query} order by key", values).fetchall())
        return [Resource.from_json(json.loads(row[0])) for row in rows]

    def discard(self) -> None:
        """Remove the database; the caller holds the store's lock exclusively."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            with files.translating("removing", self.path):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def rebuild(self, resources: Iterable[Resource]) -> None:
        """Replace the database by one over `resources`; the caller holds the store's lock exclusively."""
        self.discard()
        with _sqlite_errors(self.path), _closing(self.path) as db:
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = off")
            db.executescript(f"begin immediate; {_SCHEMA}")
            db.execute("insert into made values (?)", (_boot(),))
            db.executemany("insert into resources values (?, ?, ?)", map(_row, resources))
            db.execute("commit")

    def _ask(self, question: Callable[[sqlite3.Connection], _T]) -> _T:
        with _sqlite_errors(self.path):
            if not self.path.exists():
                raise IndexDamaged(str(self.path))
            with _closing(self.path) as db:
                if db.execute("pragma user_version").fetchone()[0] != _VERSION:
                    raise IndexDamaged(f"{self.path} is of another version")
                if db.execute("select boot from made").fetchone() != (_boot(),):
                    raise IndexDamaged(f"{self.path} was made before the machine was last started")
                db.execute("pragma synchronous = off")
                return question(db)


@functools.cache
def _boot() -> str:
    """What tells this boot of the machine from others (proc(5)); "" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _row(resource: Resource) -> tuple[str, str, str]:
    return resource_key(resource.id), resource.type.lower(), json.dumps(resource.to_json(), ensure_ascii=False)


@contextmanager
def _closing(path: Path) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        yield db
    finally:
        db.close()


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        # A page of shared memory that cannot be had is an "I/O error".
        starved = name.startswith("SQLITE_IOERR") and shutil.disk_usage(path.parent).free < _LITTLE
        if starved or name.startswith("SQLITE_FULL"):
            raise files.host_error(OSError(28, "No space left on device"), "writing", path) from error
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
            raise files.host_error(OSError(13, str(error)), "opening", path) from error
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_NOMEM")):
            raise HostError(f"the index {path} cannot be used: {error}") from error
        raise IndexDamaged(f"{path}: {error}") from error
