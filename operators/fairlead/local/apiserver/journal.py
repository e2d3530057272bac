"""Objects on disk: SQLite in write-ahead mode, one row an object.

A write is committed before it is seen by anyone, in 20-40 us: the commit goes to the write-ahead log without waiting for the
disk (`synchronous=NORMAL`). So a killed process loses nothing; a power failure may lose the last moments, never consistency.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from .errors import StatusError, storage_failed


class Row(NamedTuple):
    group: str
    plural: str
    namespace: str
    name: str
    version: int
    body: bytes


class Journal(Protocol):
    """Where the store leaves what must outlive the process."""

    def load(self) -> Iterator[Row]: ...
    def version(self) -> int:
        """The last resource version that was given out."""

    def put(self, row: Row) -> None: ...
    def delete(self, row: Row, version: int) -> None: ...
    def close(self) -> None: ...


class Nowhere:
    """The journal of `--ephemeral`."""

    def load(self) -> Iterator[Row]:
        return iter(())

    def version(self) -> int:
        return 0

    def put(self, row: Row) -> None:
        pass

    def delete(self, row: Row, version: int) -> None:
        pass

    def close(self) -> None:
        pass


_TABLES = """
CREATE TABLE IF NOT EXISTS objects (
  grp TEXT, plural TEXT, namespace TEXT, name TEXT, version INTEGER, body BLOB,
  PRIMARY KEY (grp, plural, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deleted (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER);
"""


class SqliteJournal:
    """The journal in one file. Raises StatusError 507 when the disk takes no more; the file stays as it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=NORMAL")
        self.connection.executescript(_TABLES)
        path.chmod(0o600)  # Secrets are in it

    def load(self) -> Iterator[Row]:
        rows = self.connection.execute(
            "SELECT grp, plural, namespace, name, version, body FROM objects ORDER BY version"
        )
        return (Row(*row) for row in rows)

    def version(self) -> int:
        query = "SELECT max((SELECT coalesce(max(version), 0) FROM objects), (SELECT coalesce(max(version), 0) FROM deleted))"
        return int(self.connection.execute(query).fetchone()[0])

    def put(self, row: Row) -> None:
        self._write([("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)", tuple(row))])

    def delete(self, row: Row, version: int) -> None:
        self._write(
            [
                ("BEGIN", ()),
                ("DELETE FROM objects WHERE grp=? AND plural=? AND namespace=? AND name=?", tuple(row[:4])),
                ("INSERT OR REPLACE INTO deleted VALUES (1, ?)", (version,)),
                ("COMMIT", ()),
            ]
        )

    def _write(self, statements: list[tuple[str, tuple[object, ...]]]) -> None:
        try:
            for text, values in statements:
                self.connection.execute(text, values)
        except sqlite3.Error as fault:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise self._failed(fault) from fault

    def _failed(self, fault: sqlite3.Error) -> StatusError:
        return storage_failed(str(self.path.parent), str(fault))

    def close(self) -> None:
        self.connection.close()
