"""Recording submitted runs: whole or not at all, in bounded memory, durable at return."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, NamedTuple

from downloader.failpoints import At, reach
from downloader.store.schema import to_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from downloader.store.database import Database

_ROWS_A_STATEMENT: Final = 10_000

# Written as SQL: these statements move whole tables, which SQLAlchemy's builder only obscures.
_COLLECT: Final = "INSERT OR IGNORE INTO temp.incoming (run_id) VALUES (?)"
_FORGET_KNOWN: Final = """
    DELETE FROM temp.incoming
    WHERE EXISTS (SELECT 1 FROM runs WHERE runs.run_type = ? AND runs.run_id = incoming.run_id)
"""
_TRACK: Final = """
    INSERT INTO runs (run_type, run_id, state, next_attempt_at, submitted_at, updated_at)
    SELECT ?, run_id, 'pending', ?, ?, ? FROM temp.incoming
"""
_REMEMBER: Final = """
    INSERT INTO run_events (run_type, run_id, at, to_state, reason)
    SELECT ?, run_id, ?, 'pending', 'submitted' FROM temp.incoming
"""


class Submission(NamedTuple):
    """How many of the ids are new, and how many were tracked already (or came twice)."""

    submitted: int
    known: int


def submit(database: Database, run_type: str, run_ids: Iterable[int], now: datetime) -> Submission:
    """Track runs that are not tracked yet, in one durable transaction.

    The ids are first read to their end into a table of this connection alone, on the disk:
    a slow or endless source holds nobody up, and an error while reading records nothing.
    """
    moment = to_text(now)
    with database.connection("BEGIN", durable=True) as connection:
        # A plain BEGIN takes no lock while only temporary tables are touched.
        with connection.begin():
            connection.exec_driver_sql("CREATE TEMP TABLE incoming (run_id INTEGER PRIMARY KEY)")
        try:
            read = 0
            with connection.begin():
                ids = iter(run_ids)
                while rows := [(run_id,) for run_id in itertools.islice(ids, _ROWS_A_STATEMENT)]:
                    connection.exec_driver_sql(_COLLECT, rows)
                    read += len(rows)
            reach(At.SUBMIT_COLLECTED)
            writer = connection.execution_options(downloader_begin="BEGIN IMMEDIATE")
            with writer.begin():
                writer.exec_driver_sql(_FORGET_KNOWN, (run_type,))
                new = writer.exec_driver_sql(_TRACK, (run_type, moment, moment, moment)).rowcount
                writer.exec_driver_sql(_REMEMBER, (run_type, moment))
                reach(At.SUBMIT_WRITTEN)
            reach(At.SUBMIT_COMMITTED)
        finally:
            # Once recorded, it must not wait for another writer, nor fail over one.
            reader = connection.execution_options(downloader_begin="BEGIN")
            with reader.begin():
                reader.exec_driver_sql("DROP TABLE temp.incoming")
    return Submission(submitted=new, known=read - new)
