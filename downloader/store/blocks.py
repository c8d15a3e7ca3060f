"""What is blocked for every process: one row a key or an output folder, honoured by all."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

import sqlalchemy as sa

from downloader.store.schema import blocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from downloader.store.database import Database

Scope = Literal["api", "disk"]


class Block(NamedTuple):
    """Why what has this key or folder for its `subject` is stopped, and when it is tried again."""

    scope: str
    reason: str
    message: str
    since: datetime
    until: datetime
    probes: int
    subject: str = ""


def _is(scope: Scope, subject: str) -> sa.ColumnElement[bool]:
    return sa.and_(blocks.c.scope == scope, blocks.c.subject == subject)


def block(
    database: Database,
    scope: Scope,
    reason: str,
    message: str,
    *,
    subject: str = "",
    now: datetime,
    pause_seconds: Callable[[int], float],
    probing: datetime | None = None,
) -> datetime:
    """Stop what has this key or folder; return when it is to be tried again.

    `pause_seconds` says how long to wait after so many failed tries. Many tasks that meet a trouble
    at once are one try; what was met last is told. `probing` is until when the caller was to probe.
    """
    with database.write() as connection:
        known = connection.execute(
            sa.select(blocks.c.until, blocks.c.probes, blocks.c.reason, blocks.c.since).where(
                _is(scope, subject)
            )
        ).first()
        if known is None:
            until = now + timedelta(seconds=pause_seconds(0))
            connection.execute(
                sa.insert(blocks).values(
                    scope=scope,
                    subject=subject,
                    reason=reason,
                    message=message,
                    since=now,
                    until=until,
                    probes=1,
                )
            )
            return until
        until, probes, before, since = known
        if until <= now or until == probing:
            until = now + timedelta(seconds=pause_seconds(probes))
            probes += 1
        connection.execute(
            sa.update(blocks)
            .where(_is(scope, subject))
            .values(
                reason=reason,
                message=message,
                since=since if reason == before else now,
                until=until,
                probes=probes,
            )
        )
        return until


def unblock(database: Database, scope: Scope, *, subject: str = "") -> bool:
    """Let it go on; return whether it was stopped."""
    with database.write() as connection:
        return connection.execute(sa.delete(blocks).where(_is(scope, subject))).rowcount > 0


def unblock_all(database: Database, scope: Scope) -> bool:
    """Let go on all that is stopped in a scope, to be met again if it is still of no use.

    Returns whether anything was stopped.
    """
    if not any(one.scope == scope for one in current_blocks(database)):
        return False
    with database.write() as connection:
        return connection.execute(sa.delete(blocks).where(blocks.c.scope == scope)).rowcount > 0


def take_probe(
    database: Database, scope: Scope, *, seen: datetime, until: datetime, subject: str = ""
) -> bool:
    """Become the one that probes until then; False where another process was faster."""
    with database.write() as connection:
        taken = connection.execute(
            sa.update(blocks).where(_is(scope, subject), blocks.c.until == seen).values(until=until)
        )
        return taken.rowcount > 0


def current_block(database: Database, scope: Scope, *, subject: str = "") -> Block | None:
    """Return what stops a key or folder, None where nothing does."""
    found = current_blocks(database)
    return next((one for one in found if (one.scope, one.subject) == (scope, subject)), None)


def current_blocks(database: Database) -> list[Block]:
    """Return what is stopped, the longest first."""
    with database.read() as connection:
        rows = connection.execute(
            sa.select(
                blocks.c.scope,
                blocks.c.reason,
                blocks.c.message,
                blocks.c.since,
                blocks.c.until,
                blocks.c.probes,
                blocks.c.subject,
            ).order_by(blocks.c.since)
        )
        return [Block(*row) for row in rows]
