"""The connection to the database: how it is opened, and the two kinds of transaction.

SQLite's settings here each have a reason: WAL lets people query while the program
writes; `BEGIN IMMEDIATE` makes a writer wait for its turn, where a deferred one fails at
once with SQLITE_BUSY_SNAPSHOT; synchronous=NORMAL never corrupts but may forget the last
commits on a power cut, so what must not be forgotten is written with `durable=True`.

The log is moved into the database by `empty_log` alone, which keeps writers away meanwhile:
SQLite's automatic checkpoints do not, and up to 3.51.2 (but for 3.50.7 and 3.44.6) a commit
that begins the log anew while a checkpoint runs can, rarely, damage the database (the
"WAL-reset bug", https://sqlite.org/wal.html).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shlex
import sqlite3
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from downloader.durable import closed_on_the_way, free_bytes, make_folders
from downloader.errors import (
    BusyDatabaseError,
    ConfigurationError,
    FullDatabaseError,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY_TIMEOUT_SECONDS: Final = 30.0
MINIMUM_SQLITE: Final = (3, 37, 0)  # STRICT tables; RETURNING came in 3.35

LARGE_LOG_BYTES: Final = 32 * 1024 * 1024
"""From here on the write-ahead log is to be emptied."""

SHORT_LOG_BYTES: Final = 4 * 1024 * 1024
"""From here on a program that writes one thing now and then empties it."""

_LOG_SECONDS: Final = 3.0
_BRIEFLY_SECONDS: Final = 0.1
_LEFT_SECONDS: Final = 5.0
_LOOKING_SECONDS: Final = 2.0
_NO_ROOM_BYTES: Final = 1024 * 1024

_BEGIN: Final = "downloader_begin"
_NO_FILE: Final = "The database must be a file: give a path, or sqlite:////absolute/path."
_CREATING: Final = threading.Lock()

_LOGGING_NAME: Final = "downloader"
# At its level of DEBUG it shows rows, and some have a URL that whoever knows it can use.
logging.getLogger(f"sqlalchemy.engine.Engine.{_LOGGING_NAME}").addFilter(lambda _record: False)


def default_database() -> Path:
    """Return where the database is when nobody says: in the user's data directory."""
    import platformdirs  # noqa: PLC0415 - only when the default is needed: start-up time

    return platformdirs.user_data_path("downloader", appauthor=False) / "downloader.sqlite3"


def database_url(text: str | Path | None) -> sa.URL:
    """Return the URL for a path or a URL that a person gave.

    Raises:
        ConfigurationError: another kind of database than SQLite on a file.

    """
    named = str(text if text is not None else default_database())
    if named == ":memory:" or named.startswith("file:"):
        raise ConfigurationError(_NO_FILE)
    if "://" not in named:
        try:
            path = Path(named).expanduser()
        except RuntimeError:
            raise ConfigurationError(
                f"The database {named[:200]} is no path: whose folder ~ is, is not known."
            ) from None
        return sa.URL.create("sqlite", database=str(path.absolute()))
    try:
        url = sa.make_url(named)
    except (sa.exc.ArgumentError, ValueError) as error:  # ValueError: the port is no number
        raise ConfigurationError(
            f"The database {named.partition('://')[0]}://… is not a valid URL: give a path, "
            "or sqlite:////absolute/path."
        ) from error
    if url.get_backend_name() != "sqlite":
        raise ConfigurationError(
            f"{url.get_backend_name()} databases are not supported by this version: "
            "give a path or a sqlite:/// URL."
        )
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigurationError(_NO_FILE)
    return sa.URL.create("sqlite", database=str(Path(url.database).absolute()))


def existing_url(text: str | Path | None) -> sa.URL:
    """Return the URL for a path or a URL of a database that is there.

    For whoever does not make one: a mistyped name is not to look like a database without runs.

    Raises:
        ConfigurationError: another kind of database than SQLite on a file.
        StoreError: there is none.

    """
    url = database_url(text)
    path = Path(url.database or "")
    closed = closed_on_the_way(path.parent)
    if closed is not None:
        raise StoreError(
            lambda say: (
                f"The database {path} cannot be opened: {closed} may not be searched. "
                f"chmod u+x {shlex.quote(str(closed))}, as its owner, or {say.name_another}."
            )
        )
    if not path.exists():
        raise StoreError(lambda say: f"There is no database at {url.database}: {say.name_one}.")
    return url


class Database:
    """An open database: hands out transactions, and closes.

    Safe to use from several threads; each transaction has a connection of its own. One that is
    `only_looked_at` is not made where there is none, is waited for a moment only, and has its
    log left as it is.
    """

    def __init__(self, url: sa.URL, *, only_looked_at: bool = False) -> None:
        if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
            raise StoreError(
                f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed. "
                "Use a Python that comes with a newer SQLite."
            )
        self.path: Final = Path(url.database or "")
        self._only_looked_at = only_looked_at
        self._busy_seconds = _LOOKING_SECONDS if only_looked_at else BUSY_TIMEOUT_SECONDS
        # SQLite has one writer at a time, and lets others sleep for milliseconds between looks.
        self._turn: Final = threading.Lock()
        self._log_left_until = float("-inf")
        self._create_file()
        self.engine: Final = sa.create_engine(
            url,
            connect_args={"timeout": self._busy_seconds, "check_same_thread": False},
            pool_size=4,
            max_overflow=-1,
            hide_parameters=True,  # URLs are parameters, and errors are printed
            logging_name=_LOGGING_NAME,
        )
        sa.event.listen(self.engine, "connect", _configure)
        sa.event.listen(self.engine, "begin", _begin)

    def _create_file(self) -> None:
        """Create the file readable by its owner alone; SQLite gives WAL and SHM its mode.

        One that is there is not opened here. Closing it would take away the locks that SQLite has
        on it for this whole process (https://sqlite.org/howtocorrupt.html, section 2.2), and
        another process would take it for unused.
        """
        try:
            if self._only_looked_at:
                _check_access(self.path)
                return
            make_folders(self.path.parent, 0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with _CREATING:  # nobody here opens it by SQLite before it is closed again
                try:
                    # Through a link that leads nowhere yet: it is what `O_EXCL` would stumble over.
                    os.close(os.open(os.path.realpath(self.path), flags, 0o600))
                except FileExistsError:
                    _check_access(self.path)
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            said = error.strerror if isinstance(error, OSError) else error
            raise StoreError(
                lambda say: (
                    f"The database {self.path} cannot be opened: {said}. "
                    f"Check the path and its permissions, or {say.name_another}."
                )
            ) from error

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Begin a transaction that only reads; it sees one moment of the database."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextlib.contextmanager
    def write(self, *, durable: bool = False) -> Iterator[sa.Connection]:
        """Begin a transaction that writes, commit at the end, roll back on an error.

        With `durable` the commit is on the disk when this returns, also across a power cut.
        """
        with self._turn, self._transaction("BEGIN IMMEDIATE", durable=durable) as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self, begin: str, *, durable: bool = False) -> Iterator[sa.Connection]:
        with self.connection(begin, durable=durable) as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def connection(self, begin: str, *, durable: bool = False) -> Iterator[sa.Connection]:
        """Lend a connection whose transactions start with the statement `begin`.

        Raises:
            StoreError: the database cannot be used, in words for a person.

        """
        try:
            with self.engine.connect().execution_options(**{_BEGIN: begin}) as connection:
                if durable:
                    _pragma(connection, "synchronous=FULL")
                try:
                    yield connection
                finally:
                    if durable:
                        _pragma(connection, "synchronous=NORMAL")
        except (DatabaseError, sqlite3.Error) as error:  # sqlite3's own: a PRAGMA of `_pragma`
            raise self._explain(error) from error
        except UnicodeDecodeError:  # SQLite quotes a damaged schema, which the driver cannot read
            raise StoreError(
                lambda say: (
                    f"The database {self.path} cannot be used: it is damaged. "
                    f"Restore a backup, or {say.name_another}."
                )
            ) from None

    def _explain(self, error: DatabaseError | sqlite3.Error) -> StoreError:
        """Say in words what SQLite said; the statement and its parameters stay out."""
        said = str(error.orig if isinstance(error, DatabaseError) else error)
        kind: type[StoreError] = StoreError
        advice, or_another = "Check the file", True
        if "locked" in said or "busy" in said:
            kind, or_another = BusyDatabaseError, False
            advice = (
                f"Another program has held it for {self._busy_seconds:.0f} seconds: "
                "find it (for instance an open sqlite3 shell) and end it"
            )
        elif "full" in said or ("I/O" in said and self._has_no_room()):
            kind, or_another, advice = FullDatabaseError, False, "Make room on its disk"
        elif "unable to open" in said:
            advice = "Check the path, its permissions and the limit on open files (ulimit -n)"
        elif "readonly" in said:
            or_another = False
            advice = "The file or its folder may not be written to: check the permissions"
        return kind(
            lambda say: (
                f"The database {self.path} cannot be used: {said}. {advice}"
                + (f", or {say.name_another}." if or_another else ".")
            )
        )

    def _has_no_room(self) -> bool:
        """Return whether the disk is full: SQLite says 'I/O error' where the WAL's index is it."""
        with contextlib.suppress(OSError):
            return free_bytes(self.path.parent) < _NO_ROOM_BYTES
        return False

    def in_wal_mode(self) -> bool:
        """Return whether readers and a writer go beside each other; a restored copy may not."""
        with self.read() as connection:
            return connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"

    def log_bytes(self) -> int:
        """Return the size of the write-ahead log."""
        try:
            return self.path.with_name(self.path.name + "-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def empty_log(self, wait_seconds: float = _LOG_SECONDS) -> bool:
        """Move the write-ahead log into the database and cut it to nothing.

        Waits up to `wait_seconds` for those who read from it, and has writers wait meanwhile.
        Returns False where somebody goes on reading.
        """
        with self.connection("BEGIN") as connection:
            _pragma(connection, f"busy_timeout={wait_seconds * 1000:.0f}")
            try:
                [(busy, _, _)] = _pragma(connection, "wal_checkpoint(TRUNCATE)")
                return not busy
            finally:
                _pragma(connection, f"busy_timeout={self._busy_seconds * 1000:.0f}")

    def keep_log_short(self) -> None:
        """Empty the write-ahead log where it has grown; for a program that writes now and then.

        It is not waited long for who reads from it, and where one does it is left for a while.
        """
        size, now = self.log_bytes(), time.monotonic()
        if size < SHORT_LOG_BYTES or now < self._log_left_until:
            return
        with contextlib.suppress(StoreError):  # what was written is written
            if not self.empty_log(_BRIEFLY_SECONDS):
                self._log_left_until = now + _LEFT_SECONDS

    @contextlib.contextmanager
    def migrating(self) -> Iterator[sa.Connection]:
        """Lend a connection for migrations, to one process at a time.

        The switch to WAL ignores the busy timeout and migrations must not meet, so both
        happen under a lock file. Foreign keys are off: with them on, a table rebuilt by a
        batch migration would take its children with it.
        """
        with self._lock(), self.connection("BEGIN IMMEDIATE") as connection:
            _pragma(connection, "journal_mode=WAL")
            _pragma(connection, "foreign_keys=OFF")
            try:
                yield connection
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                connection.rollback()
                if broken is not None:
                    raise StoreError(
                        f"The migration of {self.path} left rows of {broken[0]} without their "
                        "run. Restore the backup beside it and report this."
                    )
            finally:
                connection.rollback()
                _pragma(connection, "foreign_keys=ON")

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        path = self.path.with_name(self.path.name + ".lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreError(f"The lock {path} cannot be opened: {error.strerror}.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close every connection; the last one of all processes takes the log with it."""
        if self.log_bytes() > LARGE_LOG_BYTES and not self._only_looked_at:
            with contextlib.suppress(StoreError):  # somebody else will, later
                self.empty_log()
        self.engine.dispose()


def _check_access(path: Path) -> None:
    """See that a file can be read and written, without opening it.

    Raises:
        OSError: it cannot, or it is a folder.

    """
    number = None
    if stat.S_ISDIR(path.stat().st_mode):
        number = errno.EISDIR
    elif not os.access(path, os.R_OK | os.W_OK):
        read_only = os.statvfs(path).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
    if number is not None:
        raise OSError(number, os.strerror(number))


def _pragma(connection: sa.Connection, setting: str) -> list[Any]:
    """Set a PRAGMA outside any transaction, as these settings need; return what it answers."""
    raw = connection.connection.dbapi_connection
    if raw is None:  # only after the pool has dropped it, and then there is nothing to set
        return []
    with contextlib.closing(raw.cursor()) as cursor:
        cursor.execute(f"PRAGMA {setting}")
        return list(cursor.fetchall())


def _configure(connection: sqlite3.Connection, _record: Any) -> None:  # noqa: ANN401 - SQLAlchemy's event
    connection.isolation_level = None  # the driver must not begin: `_begin` does
    connection.text_factory = _text
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA wal_autocheckpoint=0")
    cursor.execute("PRAGMA secure_delete=ON")  # a URL that is no longer needed is gone
    cursor.close()


def _text(content: bytes) -> str:
    """Return a text of the database; what is not UTF-8 in it must not stop the whole query.

    The driver's own error would quote the text, and that may be a signed URL.
    """
    return content.decode("utf-8", "replace")


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN IMMEDIATE"))
