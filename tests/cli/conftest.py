"""What the command line's tests share: calls in this process, on a database made once."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from cli.calling import Caller
from store.driving import Driver

from downloader.store.database import Database, database_url
from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def migrated_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrate an empty database; the file is for copying."""
    path = tmp_path_factory.mktemp("migrated") / "runs.sqlite3"
    open_database(path).close()
    return path


@pytest.fixture
def call(
    tmp_path: Path,
    migrated_once: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Caller:
    """Call the command line with an empty database, and nothing of the caller's own settings."""
    for name in os.environ:
        if name.startswith(("DOWNLOADER_", "CAMB_", "XDG_", "CREDENTIALS_")):
            monkeypatch.delenv(name)
    caller = Caller(tmp_path, monkeypatch, capsys)
    caller.set(HOME=str(tmp_path / "home"), DOWNLOADER_DATABASE=str(caller.database))
    shutil.copy(migrated_once, caller.database)
    monkeypatch.chdir(tmp_path)
    return caller


@pytest.fixture
def driver(call: Caller) -> Iterator[Driver]:
    """Drive runs through the database that the calls use."""
    with closing(Database(database_url(call.database))) as opened:
        yield Driver(opened)
