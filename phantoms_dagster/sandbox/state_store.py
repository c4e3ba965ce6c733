"""The sandbox's persistent state: JSON rows, `(kind, key) -> value`, in one SQLite file.

The sandbox saves a request's changes before it answers, so they survive `kill -9`. A crash of the machine may lose the last
seconds. The file stays below `MAX_BYTES`: the least recently changed rows are deleted first. Each provider defines its own rows.
"""

from __future__ import annotations

import base64
import json
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

MAX_BYTES = 256 << 20
SAVES_BETWEEN_LOOKS = 5_000  # saves between two checks of the file's size
WARN_SECONDS = 60.0
LASTING = ("number", "sandbox")  # kinds with few rows, which are never deleted
_FILES = ("", "-wal", "-shm")  # SQLite's own suffixes

log = logging.getLogger(__name__)
T = TypeVar("T")


class StateUnusable(Exception):
    """The folder cannot hold a sandbox's state, or another sandbox uses it. The message is for a person."""


class _Gone:
    """Marks a row for deletion."""


class StateStore:
    """The state of one sandbox, in `<folder>/state.sqlite`. Only one process may have it open.

    Raises StateUnusable when another sandbox has it open or the folder cannot be used. A damaged file is renamed with a warning,
    and the sandbox starts empty.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self._path = folder / "state.sqlite"
        self._max_bytes = max_bytes
        self._waiting: dict[tuple[str, str], Any] = {}
        self._due = False
        self._saves = 0
        self._warned_at = float("-inf")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StateUnusable(f"{folder} cannot hold the sandbox's state ({error.strerror}): choose another folder") from error
        try:
            self._database = self._opened()
        except sqlite3.OperationalError as error:
            raise StateUnusable(f"{self._path} cannot be opened ({error}): is another sandbox running there?") from error
        except sqlite3.DatabaseError as error:
            aside = self._put_aside()
            log.warning("%s is damaged (%s). It is now %s, and the sandbox starts empty", self._path, error, aside)
            self._database = self._opened()
        self._trim()

    def keep(self, kind: str, key: str, value: Any, *, lazily: bool = False) -> None:
        """Write the value with the next `save`. It is a dataclass or any JSON value, and is read only then.

        `lazily`: the change need not survive a kill. It is saved together with the next change that must.
        """
        self._waiting[kind, key] = value
        self._due = self._due or not lazily

    def forget(self, kind: str, key: str) -> None:
        """Delete the row with the next `save`."""
        self.keep(kind, key, _Gone)

    def save(self) -> None:
        """Write the changes. A failure is logged as a warning and retried by the next call, so answers are not delayed."""
        if not self._due:
            return
        waiting, now = self._waiting, time.time()
        gone = [_named(*name) for name, value in waiting.items() if value is _Gone]
        rows = [(*_named(*name), now, json.dumps(plain(value))) for name, value in waiting.items() if value is not _Gone]
        self._waiting, self._due = {}, False
        try:
            self._database.execute("BEGIN")
            self._database.executemany("DELETE FROM things WHERE kind = ? AND key = ?", gone)
            self._database.executemany(
                "INSERT INTO things (kind, key, at, value) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (kind, key) DO UPDATE SET at = excluded.at, value = excluded.value",
                rows,
            )
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            self._waiting, self._due = waiting | self._waiting, True
            self._warn(error)
            return
        self._saves += 1
        if self._saves % SAVES_BETWEEN_LOOKS == 0:
            self._trim()

    def rows(self, kind: str) -> Iterator[tuple[str, Any]]:
        """Key and value of each saved row, in the order in which they were first saved."""
        for key, value in self._database.execute("SELECT key, value FROM things WHERE kind = ? ORDER BY id", (kind,)).fetchall():
            yield json.loads(key), json.loads(value)

    def restored(self, kind: str, cls: type[T]) -> Iterator[tuple[str, T]]:
        """The saved rows as objects of the dataclass `cls`. A row that this version cannot read is skipped with a warning."""
        for key, value in self.rows(kind):
            try:
                yield key, restored(cls, value)
            except (TypeError, ValueError, KeyError) as error:
                log.warning("the sandbox's %s %s was written by another version and is left out: %s", kind, key, error)

    def upload(self, name: str) -> Path:
        """The path for the bytes of an unfinished upload, in an existing folder. Names consist of letters, digits and `._~-`."""
        folder = self.folder / "uploads"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder / name

    def keep_uploads(self, kind: str, names: Iterable[str]) -> None:
        """Delete the files of uploads whose names begin with `<kind>.`, except `names`: the others will not be continued."""
        wanted, folder = set(names), self.folder / "uploads"
        for path in folder.iterdir() if folder.exists() else ():
            if path.name.startswith(f"{kind}.") and path.name not in wanted:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Save and close the file."""
        self._due = bool(self._waiting)
        self.save()
        self._database.close()

    def _opened(self) -> sqlite3.Connection:
        # Only the event loop's thread writes, but the application may be created in another thread.
        database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=1.0)
        try:
            for pragma in ("auto_vacuum = INCREMENTAL", "locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = NORMAL"):
                database.execute(f"PRAGMA {pragma}")
            database.execute(
                "CREATE TABLE IF NOT EXISTS things (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, "
                "at REAL NOT NULL, value TEXT NOT NULL, UNIQUE (kind, key))"
            )
            found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            self._path.chmod(0o600)
        except BaseException:
            database.close()
            raise
        return database

    def _put_aside(self) -> Path:
        aside = self._path.with_name(f"state.damaged-{time.time_ns()}.sqlite")
        for suffix in _FILES:
            part = Path(f"{self._path}{suffix}")
            if part.exists():
                part.replace(f"{aside}{suffix}")
        return aside

    def _trim(self) -> None:
        """If the file is full, delete the least recently changed rows until a quarter of it is free."""
        places = ", ".join("?" * len(LASTING))
        try:
            if self._used() <= self._max_bytes:
                return
            tenth = self._database.execute("SELECT max(1, count(*) / 10) FROM things").fetchone()[0]
            oldest = f"SELECT id FROM things WHERE kind NOT IN ({places}) ORDER BY at, id LIMIT {tenth}"  # noqa: S608 - contains no foreign value
            while self._used() > self._max_bytes * 3 // 4:
                if self._database.execute(f"DELETE FROM things WHERE id IN ({oldest})", LASTING).rowcount == 0:  # noqa: S608
                    return
            self._database.executescript("PRAGMA incremental_vacuum")  # `execute` would free only one page
        except sqlite3.Error as error:
            self._warn(error)

    def _used(self) -> int:
        pages, free, size = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _warn(self, error: sqlite3.Error) -> None:
        if time.monotonic() - self._warned_at > WARN_SECONDS:
            self._warned_at = time.monotonic()
            log.warning("the sandbox cannot save in %s (%s): what it receives now would not survive a kill", self._path, error)


def _named(kind: str, key: str) -> tuple[str, str]:
    return kind, json.dumps(key)  # a key may contain characters that UTF-8 cannot encode


def plain(thing: Any) -> Any:
    """Convert to JSON values. A dataclass becomes its fields, without those whose metadata say `saved: False`.

    Bytes become base64. Only the name of a path is kept, because the folder may be moved between two starts.
    """
    if not is_dataclass(thing):
        return thing
    kind: type = type(thing)
    return {name: _plain(getattr(thing, name)) for name, _ in _fields(kind)}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    return value.name if isinstance(value, Path) else value


def restored(cls: type[T], values: dict[str, Any]) -> T:
    """The object from its `plain` form. Raises TypeError, ValueError or KeyError if the values do not match the class."""
    made: type = cls
    return cls(**{name: _restored(kind, values[name]) for name, kind in _fields(made) if name in values})


def _restored(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind.startswith("bytes"):
        return base64.b64decode(value)
    if kind.startswith("bytearray"):
        return bytearray(base64.b64decode(value))
    if kind.startswith("Path"):
        return Path(value)
    return tuple(value) if kind.startswith("tuple") else value


@cache
def _fields(cls: type) -> tuple[tuple[str, str], ...]:
    """The name and the annotated type of each saved field."""
    return tuple((f.name, str(f.type)) for f in fields(cls) if f.init and f.metadata.get("saved", True))
