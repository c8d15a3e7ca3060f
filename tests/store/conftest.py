"""What the store's tests share: a database that is migrated once and copied for each test."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from store.driving import Driver

from downloader.store.database import Database, database_url
from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrate an empty database; the file is for copying."""
    path = tmp_path_factory.mktemp("migrated") / "runs.sqlite3"
    open_database(path).close()
    return path


@pytest.fixture
def database_file(migrated_file: Path, tmp_path: Path) -> Path:
    """Give the test a database file of its own."""
    return Path(shutil.copy(migrated_file, tmp_path / "runs.sqlite3"))


@pytest.fixture
def database(database_file: Path) -> Iterator[Database]:
    """Open the test's own database."""
    with closing(Database(database_url(database_file))) as opened:
        yield opened


@pytest.fixture
def driver(database: Database) -> Driver:
    """Drive runs through the test's own database."""
    return Driver(database)
