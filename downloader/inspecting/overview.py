"""The first page: where everything stands, and how fast it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode

from downloader.clock import utc_now
from downloader.inspecting.charts import HOURS, MINUTES, Chart, draw
from downloader.inspecting.described import DATABASE, query_name
from downloader.rules.states import State
from downloader.store import shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from downloader.store.contract import Page

_COLUMNS: Final = {
    State.PENDING: ("remote_status", "polls", "next_attempt_at", "error_code", "error_message"),
    State.READY: ("attempts", "refreshes", "next_attempt_at", "url_expires_at", "error_code"),
    State.DOWNLOADING: ("attempts", "ready_at", "bytes", "lease_expires_at", "lease_owner"),
    State.DONE: ("location", "bytes", "audio_format", "done_at"),
    State.FAILED: ("error_code", "error_message", "polls", "attempts", "updated_at"),
    State.CANCELLED: ("error_code", "submitted_at", "updated_at"),
}
"""What tells of a run in each state: all columns at once are wider than any window."""


def _runs(state: State, *asked: tuple[str, str]) -> str:
    columns = [("_col", column) for column in _COLUMNS[state]]
    return f"/{DATABASE}/runs?{urlencode([*asked, *columns])}"


SAVED: Final = _runs(State.DONE, ("_where", shown.IS_SAVED), ("_sort_desc", "done_at"))
"""The table of saved runs, the newest first, with a player in each row."""


class Written(NamedTuple):
    """How numbers are written for people."""

    size: Callable[[float], str]
    span: Callable[[float], str]


class Share(NamedTuple):
    """How many runs of a type are in a state, how much of a bar that is, and where they are."""

    state: str
    runs: int
    percent: float
    path: str


class OfType(NamedTuple):
    """Where the runs of a type stand."""

    run_type: str
    runs: int
    bytes: str
    shares: list[Share]


class Overview:
    """Asks the database for what the first page shows, in queries of docs/sql.md where it can."""

    def __init__(self, page: Page, written: Written) -> None:
        self._queries: Final = {query.name: query for query in page.queries()}
        self._written: Final = written

    async def look(self, database: Any) -> dict[str, Any]:  # noqa: ANN401 - Datasette's, without types
        """Return what the template needs."""
        now = utc_now()
        [eta] = await self._ask(database, "eta")
        left = eta["seconds_left"]
        return {
            "now": now.strftime("%Y-%m-%d %H:%M:%S UTC"),
            "types": [self._of_type(row) for row in (await database.execute(shown.STATES)).rows],
            "eta": eta,
            "left": None if left is None else self._written.span(left),
            "blocked": await self._ask(database, "blocked"),
            "charts": await self._charts(database, now),
            "questions": [
                (f"/{DATABASE}/{query_name(one.name)}", one.question)
                for one in self._queries.values()
            ],
            "database_path": f"/{DATABASE}",
            "saved_path": SAVED,
        }

    async def _ask(self, database: Any, name: str) -> list[Any]:  # noqa: ANN401 - as above
        return list((await database.execute(self._queries[name].sql)).rows)

    async def _charts(self, database: Any, now: datetime) -> list[Chart]:  # noqa: ANN401 - as above
        hours = {row["hour"]: row for row in await self._ask(database, "hours")}
        minutes = {
            row["minute"]: row for row in (await database.execute(shown.SAVED_BY_MINUTE)).rows
        }
        return [
            draw(
                f"{what} saved each {name}, last {span}",
                slots,
                {begin: row[column] for begin, row in found.items()},
                now,
                written,
            )
            for name, span, slots, found in (
                ("hour", "day", HOURS, hours),
                ("minute", "hour", MINUTES, minutes),
            )
            for what, column, written in (
                ("Runs", "runs", _number),
                ("Bytes", "bytes", self._written.size),
            )
        ]

    def _of_type(self, row: Any) -> OfType:  # noqa: ANN401 - as above
        run_type, runs = row["run_type"], row["runs"]
        shares = [
            Share(
                state.value,
                row[state.value],
                row[state.value] / runs * 100,
                _runs(state, ("run_type", run_type), ("state", state.value)),
            )
            for state in State
        ]
        return OfType(run_type, runs, self._written.size(row["bytes"]), shares)


def _number(value: int) -> str:
    return f"{value:,}"
