"""`downloader inspect`: the live database in a browser, to read."""

from __future__ import annotations

import threading
import webbrowser
from contextlib import closing
from typing import TYPE_CHECKING

import click

from downloader.cli import words
from downloader.cli.options import Command, database_option, output_option
from downloader.cli.quantities import Whole
from downloader.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@click.command(
    "inspect",
    cls=Command,
    short_help="Look into the database in a browser.",
    epilog="Example: downloader inspect --open",
)
@click.option(
    "--port",
    type=Whole(0, 65535),
    default=8001,
    show_default=True,
    help="The port of this machine to serve it at; 0 takes a free one.",
)
@click.option("--open/--no-open", "opened", help="Open it in your browser. Default: print where.")
@output_option
@database_option
def inspect(*, port: int, opened: bool, output: Path | None, database: str | None) -> None:
    """Serve the database to a browser on this machine, read-only, until Ctrl-C.

    Datasette shows tables, views and the questions of docs/sql.md with their answers, charts how
    it goes, and plays what is saved. It may run beside `downloader run`. Presigned URLs are not
    shown, and only files in the output folder are played.
    """
    from downloader.store.database import Database, existing_url  # noqa: PLC0415 - start-up time
    from downloader.store.migrate import must_be_current  # noqa: PLC0415 - as above

    with closing(Database(existing_url(database))) as looked_at:
        must_be_current(looked_at)
        path = looked_at.path
    _must_have_datasette()
    from downloader.inspecting.overview import Written  # noqa: PLC0415 - slow to import
    from downloader.inspecting.server import bind, serve  # noqa: PLC0415 - as above
    from downloader.inspecting.site import site  # noqa: PLC0415 - as above

    folder = output if output is not None else path.parent / "audio"
    app = site(path, folder, Written(words.size, words.span))

    def ready(address: str) -> None:
        click.echo(f"{path} is shown at {address}\nCtrl-C ends it.")
        if opened:  # in a thread: some browsers are waited for
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    with bind(port) as listening:
        serve(app, listening, ready)


def _must_have_datasette() -> None:
    """Say what is missing, where the extra is not installed.

    Raises:
        ConfigurationError: it is not, or cannot be used.

    """
    try:
        import downloader.inspecting.server  # noqa: PLC0415 - an extra
        import downloader.inspecting.site  # noqa: F401, PLC0415 - as above
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        why = f"{error.name} is not installed" if missing else f"it cannot be used ({error})"
        raise ConfigurationError(
            f"`downloader inspect` needs Datasette, and {why}: "
            "in a checkout of downloader, pip install '.[inspect]'."
        ) from error
