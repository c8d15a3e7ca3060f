"""The record of the runs, for a program that creates some: submit, ask, and read what is saved."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from downloader.api.arguments import database_of, told_in_python
from downloader.camb.run_types import DEFAULT_RUN_TYPE, RUN_TYPES
from downloader.clock import utc_now
from downloader.errors import InputError, StoreError
from downloader.rules.ids import parse_id, show_id
from downloader.rules.states import UNFINISHED, RunKey, State
from downloader.store import control, intake, listing, migrate
from downloader.store import status as store_status

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from types import TracebackType
    from typing import Any, SupportsIndex

    from downloader.store.database import Database

_PAGE: Final = 1000
"""How many rows are read at a time."""

_MOST_BITS: Final = 256
"""Of a number with more than this, Python takes its time to write the digits, or refuses to."""


@dataclass(frozen=True, slots=True)
class Submission:
    """How many of the ids are tracked from now on, and how many were already (or came twice)."""

    submitted: int
    known: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How many runs are in each state; how many bytes are saved.

    `blocked` says in words why the service as a whole cannot go on; None: it can.
    """

    pending: int
    ready: int
    downloading: int
    done: int
    failed: int
    cancelled: int
    bytes: int
    blocked: str | None

    @property
    def unfinished(self) -> int:
        """How many runs are neither saved nor given up."""
        return sum(getattr(self, state.value) for state in UNFINISHED)


class Saved(NamedTuple):
    """A run whose file is on the disk under `location`: whole, verified, of this size and hash."""

    run_type: str
    run_id: int
    location: Path
    bytes: int
    sha256: str
    audio_format: str
    submitted_at: datetime
    done_at: datetime


class Failed(NamedTuple):
    """A run that was given up, and why."""

    run_type: str
    run_id: int
    error_code: str
    error_message: str
    failed_at: datetime


class Run(NamedTuple):
    """Where a run stands: its state, the file it has when it is done, the error it met last."""

    run_type: str
    run_id: int
    state: str
    location: Path | None
    error_code: str | None
    error_message: str | None
    submitted_at: datetime
    updated_at: datetime


class Tracker:
    """An open database of runs; `downloader.open` makes it.

    Its methods block, most for milliseconds. Threads may share it; so may other processes, the
    command `downloader` among them, share the database. Close it in the end, or use it in a `with`
    statement.

    Every method raises StoreError where the database cannot be used, or is closed.
    """

    def __init__(self, database: Database) -> None:
        self._opened: Database | None = database
        self._path = database.path

    @property
    def path(self) -> Path:
        """Where the database is."""
        return self._path

    @property
    def database(self) -> Database:
        """The database itself; not part of what is promised to stay."""
        if self._opened is None:
            raise StoreError(f"The database {self._path} has been closed: open it again.")
        return self._opened

    @told_in_python()
    def submit(
        self, run_ids: Iterable[SupportsIndex], *, run_type: str = DEFAULT_RUN_TYPE
    ) -> Submission:
        """Track runs by their run ids: all of them, or on any error none.

        When this returns they are on the disk, also across a power cut. Ids that are tracked
        already are counted and not changed, so that submitting again does no harm. `run_ids` may
        be a generator of a million; what it raises goes through, and nothing is recorded. An id is
        an int, or what Python takes for one: an integer of numpy, say, but no bool.

        Raises:
            InputError: an id is none, or there is no such run type.

        """
        _check_type(run_type)
        found = intake.submit(self.database, run_type, _checked(run_ids), utc_now())
        self.database.keep_log_short()
        return Submission(found.submitted, found.known)

    @told_in_python()
    def progress(self) -> Progress:
        """Return how everything stands, at one moment."""
        found = store_status.status(self.database, utc_now())
        blocked = found.blocked[0].message if found.blocked else None
        return Progress(**found.runs, bytes=found.bytes, blocked=blocked)

    @told_in_python()
    def get(self, run_id: SupportsIndex, *, run_type: str = DEFAULT_RUN_TYPE) -> Run | None:
        """Return where one run stands, None where it is not tracked.

        Raises:
            InputError: it is no run id, or there is no such run type.

        """
        _check_type(run_type)
        checked = _run_id(run_id)
        if isinstance(checked, str):
            raise InputError(f"run_id {checked}.")
        row = listing.standing(self.database, RunKey(run_type, checked))
        return None if row is None else _run(row)

    def saved(self, *, run_type: str | None = None) -> Iterator[Saved]:
        """Yield what is saved, by run type and run id; of one type, if it is given.

        Read in pieces: what is saved meanwhile may be yielded or not, nothing comes twice, and the
        loop may take as long as it likes.
        """
        for row in self._pages(listing.saved_page, run_type):
            yield Saved(**{**row, "location": Path(row["location"])})

    def failed(self, *, run_type: str | None = None) -> Iterator[Failed]:
        """Yield the runs that were given up, in the manner of `saved`."""
        for row in self._pages(listing.failed_page, run_type):
            yield Failed(**row)

    def unfinished(self, *, run_type: str | None = None) -> Iterator[Run]:
        """Yield the runs that are neither saved nor given up, in the manner of `saved`."""
        for row in self._pages(listing.standing_page, run_type, states=tuple(UNFINISHED)):
            yield _run(row)

    def _pages(
        self,
        read_page: Callable[..., list[dict[str, Any]]],
        run_type: str | None,
        states: tuple[State, ...] = (),
    ) -> Iterator[dict[str, Any]]:
        if run_type is not None:
            _check_type(run_type)
        which, after = listing.Filter(states, run_type), None
        while True:
            with told_in_python():
                rows = read_page(self.database, which, after=after, most=_PAGE)
            if not rows:
                return
            yield from rows
            after = RunKey(rows[-1]["run_type"], rows[-1]["run_id"])

    @told_in_python()
    def retry_failed(self, *, run_type: str | None = None) -> int:
        """Put every run that was given up back in the queue, as new; return how many."""
        if run_type is not None:
            _check_type(run_type)
        retried = control.retry_failed(self.database, run_type, utc_now())
        self.database.keep_log_short()
        return retried

    @told_in_python()
    def cancel(self, run_ids: Iterable[SupportsIndex], *, run_type: str = DEFAULT_RUN_TYPE) -> int:
        """Give up runs that are not finished, of whatever process; return how many were.

        Raises:
            InputError: one of them is no run id or is not tracked; then none is changed.

        """
        _check_type(run_type)
        keys = [RunKey(run_type, run_id) for run_id in _checked(run_ids)]
        cancelled = control.cancel(self.database, keys, utc_now()).changed
        self.database.keep_log_short()
        return len(cancelled)

    def close(self) -> None:
        """Close the database; once is enough, and again does no harm."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


def open(path: str | os.PathLike[str] | None = None) -> Tracker:  # noqa: A001 - as gzip.open: used as downloader.open
    """Open the database at a path, made or migrated to this version's schema where needed.

    Without a path it is the one that the command `downloader` uses unless told otherwise, in the
    user's data directory. The environment and configuration files are not asked.

    Raises:
        ConfigurationError: the path is none: a URL, say, or `:memory:`.
        NewerDatabaseError: a newer version made it.
        StoreError: it cannot be opened, or is another program's.

    """
    return opened(None if path is None else database_of("path", path))


@told_in_python()
def opened(path: str | None, *, existing: bool = False) -> Tracker:
    """Open the database at a path; one that is not there is made, unless it has to be."""
    return Tracker(migrate.open_database(path, existing=existing))


def _check_type(run_type: str) -> None:
    names = sorted(RUN_TYPES)  # a list: what is in none need not have a hash
    if run_type not in names:
        known = " or ".join(repr(name) for name in names)
        raise InputError(f"{show_id(str(run_type))!r} is no run type: it is {known}.")


def _run(row: dict[str, Any]) -> Run:
    location = row["location"]
    return Run(**{**row, "location": None if location is None else Path(location)})


def _run_id(value: SupportsIndex) -> int | str:
    """Return the run id that a value stands for, or what is wrong with it."""
    try:
        number = None if isinstance(value, bool) else int(operator.index(value))
    except TypeError:
        number = None
    if number is None:
        return f"is of type {type(value).__name__}: a run id is an int"
    if number.bit_length() > _MOST_BITS:
        return "has more digits than any run id"
    found = parse_id(str(number))
    return found if isinstance(found, int) else f"({number}) {found}"


def _checked(run_ids: Iterable[SupportsIndex]) -> Iterator[int]:
    """Yield ids that can be some; a text is none, or "123" would be three of them."""
    try:
        ids = iter(run_ids)
    except TypeError:
        raise InputError("Run ids come as several: give a list of them, such as [12345].") from None
    for position, value in enumerate(ids):
        found = _run_id(value)
        if isinstance(found, str):
            raise InputError(f"run_ids[{position}] {found}. Nothing was changed.")
        yield found
