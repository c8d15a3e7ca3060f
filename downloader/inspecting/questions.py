"""Questions that ask for something, such as a run: what they are asked with where nothing is given.

Datasette would ask them with nothing, and answer nothing.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

from downloader.inspecting.described import DATABASE, examples, query_name
from downloader.store import shown

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from downloader.store.contract import Page


class Questions:
    """Fills in what a request leaves open: the run that changed last, or the page's example."""

    def __init__(self, app: ASGIApp, page: Page, database: Any) -> None:  # noqa: ANN401 - Datasette's, without types
        self._app: Final = app
        self._database: Final = database
        self._examples: Final = {
            f"/{DATABASE}/{query_name(query.name)}{kind}": examples(query)
            for query in page.queries()
            if examples(query)
            for kind in ("", ".json", ".csv")
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, with all that its question asks for."""
        asked = self._examples.get(scope.get("path", ""))
        if asked is not None:
            given = parse_qsl(scope["query_string"].decode("latin-1"))
            open_ = asked.keys() - dict(given).keys()
            if open_:
                values = asked | await self._last_run() if open_ == asked.keys() else asked
                given += [(name, values[name]) for name in asked if name in open_]
            scope = {**scope, "query_string": urlencode(given).encode()}
        await self._app(scope, receive, send)

    async def _last_run(self) -> dict[str, str]:
        # Where the database cannot be asked, the page that was asked for says why.
        with contextlib.suppress(Exception):
            row = (await self._database.execute(shown.LAST_RUN)).first()
            if row is not None:
                return {name: str(row[name]) for name in row.keys()}  # noqa: SIM118 - a row is no dict
        return {}
