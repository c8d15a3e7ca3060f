"""The order of the checks, and what each is told."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from downloader.camb.run_types import RUN_TYPES
from downloader.diagnosis import databases, disks
from downloader.diagnosis.findings import Check, problem
from downloader.durable import closed_on_the_way
from downloader.errors import ConfigurationError, DownloaderError, StoreError
from downloader.ownership import why_not_ours
from downloader.rules.redaction import clean_text
from downloader.settings import check_output
from downloader.store import checkup, inspection
from downloader.store.database import Database, database_url
from downloader.store.migrate import current_revision
from downloader.store.schema import SCHEMA_REVISION
from downloader.transfer.layout import PARTIAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from downloader.diagnosis.network import Key
    from downloader.rules.states import RunKey

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Installation:
    """What is to be checked; sizes in bytes."""

    database: Path
    output: Path
    api_url: str
    min_free_bytes: int
    concurrency: int
    engine: str
    key: Key | None = field(repr=False, default=None)
    unknown_variables: Mapping[str, str | None] = field(default_factory=dict)


class _Tracked(NamedTuple):
    """What the database knows that the network can be asked about; the URL is a secret."""

    url: str | None = None
    saved: RunKey | None = None
    nothing_found: bool = False


def examine(installation: Installation, *, quick: bool) -> Iterator[Check]:
    """Yield what each check has found, as it is found.

    A `quick` look asks nobody, and writes nothing.
    """
    if not quick:
        yield from _guarded("program_checks", lambda: _check_program(installation))
        yield from _guarded("network_checks", lambda: _check_network(installation))
    yield from _guarded(
        "database_checks", lambda: databases.check_database(installation.database, quick=quick)
    )
    yield from _guarded("disk_checks", lambda: _check_disks(installation, quick=quick))


def _check_program(installation: Installation) -> Iterator[Check]:
    from downloader.diagnosis import machine  # noqa: PLC0415 - a quick look needs none of it

    yield machine.check_program()
    yield machine.check_environment(installation.unknown_variables)
    yield machine.check_engine(installation.engine)
    yield machine.check_open_files(installation.concurrency, installation.engine)


def _check_network(installation: Installation) -> Iterator[Check]:
    from downloader.diagnosis import network, trust  # noqa: PLC0415 - as above

    tracked = _tracked(installation)
    yield trust.check_certificates()
    yield trust.check_proxy(installation.api_url, tracked.url)
    key = installation.key or network.Key(None, None)
    yield from network.check_api(
        installation.api_url, key, tracked.saved, nothing_found=tracked.nothing_found
    )
    yield network.check_storage(tracked.url)


def _tracked(installation: Installation) -> _Tracked:
    def look(database: Database) -> _Tracked:
        saved = inspection.any_done(database)
        asked = saved if saved is not None and saved.run_type in RUN_TYPES else None
        nothing_found = checkup.any_unfinished_with(database, "api_not_found")
        return _Tracked(checkup.any_url(database), asked, nothing_found)

    return _asked(installation.database, look) or _Tracked()


def _asked(path: Path, look: Callable[[Database], T]) -> T | None:
    """Return what a look into the database finds, None where it cannot be looked into."""
    try:
        with closing(Database(database_url(path), only_looked_at=True)) as database:
            if current_revision(database) == SCHEMA_REVISION:
                return look(database)
    except StoreError:  # the check of the database says why
        pass
    return None


def _check_disks(installation: Installation, *, quick: bool) -> Iterator[Check]:
    path, output = installation.database, installation.output
    if not quick:
        yield disks.check_database_file_system(path)
    yield disks.check_room("database_disk", path.parent, installation.min_free_bytes)
    try:
        check_output(output)
    except ConfigurationError as error:
        said, _, advice = str(error).rstrip(".").rpartition(": ")
        yield problem("output", said, advice)
        return
    not_ours = None
    if not os.path.lexists(output / PARTIAL) and closed_on_the_way(output) is None:
        not_ours = _asked(path, lambda database: why_not_ours(database, output))
    if not_ours is not None:
        yield problem("output", *not_ours)
    else:
        yield from disks.check_output(output, probe=not quick)
    if not quick:
        yield disks.check_output_file_system(output)
    yield disks.check_room("output_disk", output, installation.min_free_bytes)


def _guarded(name: str, checks: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """Yield what checks find; one that fails itself is a finding, and ends its group alone."""
    try:
        yield from checks()
    except Exception as error:  # noqa: BLE001 - whoever is ill here, the others are to be looked at
        said = str(error) if isinstance(error, DownloaderError | OSError) else ""
        yield problem(
            name,
            f"could not be looked at: {type(error).__name__} {clean_text(said)}".rstrip(),
            "please report it, with the version of the program",
        )
