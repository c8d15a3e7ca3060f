"""What stops the service as a whole: one row a scope, seen and honoured by every process."""

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
    """Why the service is stopped, since when, and when it will try again."""

    scope: str
    reason: str
    message: str
    since: datetime
    until: datetime
    probes: int


def block(
    database: Database,
    scope: Scope,
    reason: str,
    message: str,
    *,
    now: datetime,
    pause_seconds: Callable[[int], float],
    probing: datetime | None = None,
) -> datetime:
    """Stop one scope of the service; return when it is to be tried again.

    `pause_seconds` says how long to wait after so many vain tries. Many tasks that meet a trouble
    at once are one try; what was met last is told. `probing` is until when the caller was to probe.
    """
    with database.write() as connection:
        known = connection.execute(
            sa.select(blocks.c.until, blocks.c.probes, blocks.c.reason, blocks.c.since).where(
                blocks.c.scope == scope
            )
        ).first()
        if known is None:
            until = now + timedelta(seconds=pause_seconds(0))
            connection.execute(
                sa.insert(blocks).values(
                    scope=scope, reason=reason, message=message, since=now, until=until, probes=1
                )
            )
            return until
        until, probes, before, since = known
        if until <= now or until == probing:
            until = now + timedelta(seconds=pause_seconds(probes))
            probes += 1
        connection.execute(
            sa.update(blocks)
            .where(blocks.c.scope == scope)
            .values(
                reason=reason,
                message=message,
                since=since if reason == before else now,
                until=until,
                probes=probes,
            )
        )
        return until


def unblock(database: Database, scope: Scope) -> bool:
    """Let one scope go on; return whether it was stopped."""
    with database.write() as connection:
        return connection.execute(sa.delete(blocks).where(blocks.c.scope == scope)).rowcount > 0


def take_probe(database: Database, scope: Scope, *, seen: datetime, until: datetime) -> bool:
    """Become the one that probes until then; False where another process was faster."""
    with database.write() as connection:
        taken = connection.execute(
            sa.update(blocks)
            .where(blocks.c.scope == scope, blocks.c.until == seen)
            .values(until=until)
        )
        return taken.rowcount > 0


def current_block(database: Database, scope: Scope) -> Block | None:
    """Return what stops one scope, None where nothing does."""
    return next((one for one in current_blocks(database) if one.scope == scope), None)


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
            ).order_by(blocks.c.since)
        )
        return [Block(*row) for row in rows]
