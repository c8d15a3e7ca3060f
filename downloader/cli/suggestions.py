"""What a shell is offered to complete a word with: nothing that takes long to find out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from click.shell_completion import CompletionItem

from downloader.rules.error_codes import API_ERRORS, RUN_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

    from downloader.rules.states import State

_MOST_IDS: Final = 50
_LOOK_SECONDS: Final = 0.3
"""How long the database is looked into: whoever presses a key waits."""


def files(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Have the shell offer files."""
    return [CompletionItem(begun, type="file")]


def error_codes(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Offer the error codes that a run can have."""
    return sorted(code for code in RUN_ERRORS | API_ERRORS if code.startswith(begun))


def ids_of(
    *states: State,
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return what offers the ids of tracked runs in these states, the lowest ones."""

    def offer(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
        from downloader.errors import DownloaderError  # noqa: PLC0415 - start-up time
        from downloader.store.database import database_url  # noqa: PLC0415 - as above
        from downloader.store.suggestions import ids_beginning  # noqa: PLC0415 - as above

        try:
            path = Path(str(database_url(ctx.params.get("database")).database))
        except DownloaderError:
            return []
        run_type, given = str(ctx.params.get("run_type")), ctx.params.get("run_ids") or ()
        ids = ids_beginning(path, run_type, begun, states, most=_MOST_IDS, seconds=_LOOK_SECONDS)
        return [str(one) for one in ids if str(one) not in given]

    return offer
