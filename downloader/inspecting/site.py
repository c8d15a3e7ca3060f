"""Datasette as we have it: our database, our words, our pages, and nothing that writes.

Each connection is a guarded one (`downloader.store.guarded`), so that no page, renderer, facet or
filter of Datasette's can show more than SQL typed by hand could.
"""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from datasette import hookimpl  # type: ignore[import-untyped] # it has no types
from datasette.app import Datasette  # type: ignore[import-untyped] # as above
from datasette.database import Database, QueryInterrupted  # type: ignore[import-untyped] # as above
from datasette.plugins import pm  # type: ignore[import-untyped] # as above
from datasette.utils import tilde_encode  # type: ignore[import-untyped] # as above
from datasette.utils.asgi import (  # type: ignore[import-untyped] # as above
    Base400,
    NotFound,
    Response,
)
from datasette.views.base import DatasetteError  # type: ignore[import-untyped] # as above
from markupsafe import Markup
from starlette.responses import FileResponse

from downloader.inspecting import overview, recordings
from downloader.inspecting.described import DATABASE, metadata, query_name
from downloader.inspecting.front import Front
from downloader.inspecting.questions import Questions
from downloader.logger import get_logger
from downloader.rules.redaction import clean_text
from downloader.rules.states import RunKey, State
from downloader.store import shown
from downloader.store.contract import read_page
from downloader.store.guarded import SECRET, open_guarded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from downloader.inspecting.overview import Written
    from downloader.store.guarded import Guarded

_log = get_logger(__name__)

_QUERY_MILLISECONDS: Final = 5000
"""The longest that a query may take: while one reads, the write-ahead log cannot be emptied."""

_SETTINGS: Final = {
    "allow_download": False,
    "default_cache_ttl": 0,  # it changes all the time
    "sql_time_limit_ms": _QUERY_MILLISECONDS,
    "suggest_facets": False,  # each would read a million rows, unasked
}


_TOO_LONG: Final = (
    f"The question was ended: it may take {_QUERY_MILLISECONDS // 1000} seconds here. "
    "Ask for less, such as one state, the last day, or a run by run_type and run_id; "
    "or ask it in the sqlite3 shell, which lets it take as long as it needs."
)
_HAS_A_URL: Final = (State.READY, State.DOWNLOADING)


class _LiveDatabase(Database):  # type: ignore[misc] # it has no types
    """The database, by guarded connections alone, as long as it is where it was."""

    def __init__(self, datasette: Any, path: Path) -> None:  # noqa: ANN401 - as above
        super().__init__(datasette, str(path))
        self._opened: Final = path.stat()

    def connect(self, write: bool = False) -> Guarded:  # noqa: FBT001, FBT002 - Datasette's signature
        """Open a connection that reads."""
        if write:
            raise DatasetteError("Nothing can be changed here.", status=403)
        self._must_be_there()
        return open_guarded(Path(self.path))

    async def execute_fn(self, fn: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - as above
        """Call a function with a connection; one that is open would go on reading a moved file."""

        def call(connection: Any) -> Any:  # noqa: ANN401 - as above
            self._must_be_there()
            return fn(connection)

        return await super().execute_fn(call)

    async def execute(self, sql: str, params: Any = None, **options: Any) -> Any:  # noqa: ANN401 - as above
        """Execute a query; what is wrong with it is told on the page, not on the terminal."""
        return await super().execute(sql, params, **(options | {"log_sql_errors": False}))

    def _must_be_there(self) -> None:
        try:
            found = Path(self.path).stat()
        except OSError as error:
            raise DatasetteError(
                f"The database was at {self.path}, and cannot be reached there any more: "
                f"{error.strerror}. Put it back, or end `downloader inspect` with Ctrl-C and start "
                "it where the database is now (--database).",
                title="The database is gone",
                status=503,
            ) from error
        if not os.path.samestat(found, self._opened):
            raise DatasetteError(
                f"{self.path} is another file than when `downloader inspect` began: end it with "
                "Ctrl-C and start it again.",
                title="The database was replaced",
                status=503,
            )


class _Plugin:
    """What we add to Datasette's pages."""

    __name__ = "downloader"  # Datasette wants a plugin to have one

    def __init__(self, output: Path, written: Written) -> None:
        self._recordings: Final = recordings.Recordings(output)
        self._overview: Final = overview.Overview(read_page(), written)
        self._written: Final = written

    @hookimpl  # type: ignore[untyped-decorator] # as above
    def register_routes(self) -> list[tuple[str, Callable[..., Awaitable[Any]]]]:
        """Add the first page and the player's files."""
        return [(r"^/$", self._first_page), (recordings.PATH, self._play)]

    @hookimpl  # type: ignore[untyped-decorator] # as above
    def menu_links(self) -> list[dict[str, str]]:
        """Add what there is to the menu of every page."""
        return [
            {"href": "/", "label": "Overview"},
            {"href": f"/{DATABASE}", "label": "Questions, tables, views"},
            {"href": overview.SAVED, "label": "Saved files"},
        ]

    @hookimpl  # type: ignore[untyped-decorator] # as above
    def render_cell(self, row: Any, value: object, column: str, table: str | None) -> Markup | None:  # noqa: ANN401 - a row
        """Have a run id lead to its run, a path be played where its row says whose it is."""
        names = row.keys()
        if column == "run_id":
            return run_link(row["run_type"] if "run_type" in names else None, value)
        if table not in ("runs", None):
            return None
        if column.lower() == SECRET and value is None:
            may_have_one = "state" not in names or row["state"] in _HAS_A_URL
            return Markup('<span class="hidden-url">hidden</span>') if may_have_one else None
        if column != "location" or not value or "run_type" not in names or "run_id" not in names:
            return None
        return player(row["run_type"], row["run_id"]) + Markup("<br>") + html_text(value)

    @hookimpl  # type: ignore[untyped-decorator] # as above
    def extra_template_vars(
        self,
        datasette: Any,  # noqa: ANN401 - as above
        table: str | None,
        request: Any,  # noqa: ANN401 - as above
    ) -> dict[str, Any]:
        """Give the page of a run its history and its player, that of the saved files their sum."""
        if table != "runs":
            return {}
        asked = [(name, request.args.getlist(name)) for name in request.args if name[0] != "_"]
        only_saved = request.args.getlist("_where") == [shown.IS_SAVED] and not asked

        async def all_saved() -> str:
            [found] = (await datasette.get_database(DATABASE).execute(shown.ALL_SAVED)).rows
            size = self._written.size(found["bytes"])
            return f"{found['files']:,} file{'' if found['files'] == 1 else 's'}, {size}"

        async def history(run_type: str, run_id: int) -> list[Any]:
            found = await datasette.get_database(DATABASE).execute(
                shown.HISTORY, {"run_type": run_type, "run_id": run_id}
            )
            return list(found.rows)

        def history_path(run_type: str, run_id: int) -> str:
            asked = urlencode({"run_type": run_type, "run_id": run_id})
            return f"/{DATABASE}/{query_name('history')}?{asked}"

        return {
            "history": history,
            "history_path": history_path,
            "player": player,
            "all_saved": all_saved if only_saved else None,
        }

    @hookimpl  # type: ignore[untyped-decorator] # as above
    def handle_exception(
        self,
        datasette: Any,  # noqa: ANN401 - as above
        request: Any,  # noqa: ANN401 - as above
        exception: Exception,
    ) -> Awaitable[Any]:
        """Say what was wrong on the page; Datasette would print a traceback on the terminal."""
        return _error(datasette, request, exception)

    async def _first_page(self, datasette: Any, request: Any) -> Any:  # noqa: ANN401 - as above
        told = await self._overview.look(datasette.get_database(DATABASE))
        page = await datasette.render_template("overview.html", told, request=request)
        return Response.html(page)

    async def _play(
        self,
        datasette: Any,  # noqa: ANN401 - as above
        request: Any,  # noqa: ANN401 - as above
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        key = recordings.asked_for(request.url_vars["run_type"], request.url_vars["run_id"])
        found = None
        if key is not None:
            rows = await datasette.get_database(DATABASE).execute(shown.SAVED_FILE, key._asdict())
            row = rows.first()
            found = None if row is None else self._recordings.find(key, *row)
        if found is None:
            raise NotFound("There is no saved file of this run in the output folder.")
        answer = FileResponse(found.path, media_type=found.media_type, stat_result=found.found)
        await answer(scope, receive, send)


def player(run_type: object, run_id: object) -> Markup:
    """Return a player of a run's file; nothing where no run is named so."""
    if not isinstance(run_type, str) or not isinstance(run_id, int):
        return Markup()
    source = html_text(recordings.address(RunKey(run_type, run_id)))
    # Nothing is fetched before somebody plays it: a page has a hundred.
    return Markup('<audio controls preload="none" src="{}"></audio>').format(source)


def run_link(run_type: object, run_id: object) -> Markup | None:
    """Return a run id that leads to the run's page, or to all of that id where no type is said."""
    if not isinstance(run_id, int):
        return None
    path = f"/{DATABASE}/runs?run_id={run_id}"
    if isinstance(run_type, str):
        path = f"/{DATABASE}/runs/{tilde_encode(run_type)},{run_id}"
    return Markup('<a href="{}">{}</a>').format(path, run_id)


def html_text(value: object) -> Markup:
    """Return a text as a page can have it."""
    return Markup(html.escape(str(value)))  # noqa: S704 - escaped


async def _error(datasette: Any, request: Any, error: Exception) -> Any:  # noqa: ANN401 - as above
    status, title = 500, None
    if isinstance(error, QueryInterrupted) or isinstance(error.__context__, QueryInterrupted):
        status, title, message = 400, "It took too long", _TOO_LONG
    elif isinstance(error, DatasetteError):
        # Its 500 is what it says of a mistake for which it has no other number.
        status, title = 400 if error.status == 500 else error.status, error.title
        message = Markup(error.message) if error.message_is_html else str(error.message)  # noqa: S704 - Datasette's own
    elif isinstance(error, Base400):
        status, message = error.status, str(error.args[0])
    else:
        message = clean_text(str(error)) or type(error).__name__
        _log.warning("inspect.failed", error=f"{type(error).__name__}: {message}")
    if request.path.endswith(".json"):
        told = {"ok": False, "error": message, "status": status, "title": title}
        return Response.json(told, status=status)
    told = {"error": message, "status": status, "title": title, "sql": request.args.get("sql")}
    page = await datasette.render_template(["error.html"], told, request=request)
    return Response.html(page, status=status)


def site(database: Path, output: Path, written: Written) -> Front:
    """Return the whole as an ASGI application.

    Raises:
        StoreError: docs/sql.md did not come with the program.

    """
    # What else is installed for Datasette in this environment has no part in this.
    for plugin, _ in pm.list_plugin_distinfo():
        pm.unregister(plugin)
    pm.unregister(
        name="datasette.handle_exception"
    )  # it prints tracebacks, and where rich is, values
    pm.register(_Plugin(output, written))
    page = read_page()
    datasette = Datasette(
        metadata=metadata(page, database),
        settings=_SETTINGS,
        template_dir=str(Path(__file__).resolve().parent / "templates"),
    )
    datasette.remove_database("_memory")
    live = _LiveDatabase(datasette, database)
    datasette.add_database(live, name=DATABASE)
    return Front(Questions(datasette.app(), page, live))
