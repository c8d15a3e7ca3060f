"""`downloader doctor`: check the installation, and say what to do."""

from __future__ import annotations

import json
import shutil
import textwrap
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from downloader.cli.hints import typed
from downloader.cli.key import find_api_key
from downloader.cli.options import (
    Command,
    database_option,
    hidden,
    json_option,
    output_option,
    shared,
)
from downloader.cli.run import run
from downloader.cli.variables import unknown_variables
from downloader.errors import ConfigurationError
from downloader.settings import check_api_key, check_api_url

if TYPE_CHECKING:
    from downloader.diagnosis.findings import Check
    from downloader.diagnosis.network import Key

_WIDEST: Final = 100


@click.command(
    cls=Command,
    short_help="Check the installation, and say what to do.",
    epilog="Example: downloader doctor",
    params=shared(run, "--api-url", "--concurrency", "--engine", "--min-free"),
)
@click.option(
    "--quick",
    is_flag=True,
    help="Only the database, the disks and what is blocked: asks nobody, writes nothing.",
)
@output_option
@database_option
@json_option
@click.pass_context
def doctor(
    ctx: click.Context,
    /,
    *,
    api_url: str,
    concurrency: int,
    engine: str,
    min_free: int,
    quick: bool,
    output: Path | None,
    database: str | None,
    as_json: bool,
) -> int:
    """Check whether `downloader run` can do its work here, and say what to do where it cannot.

    Looked at are the API key, the API, the storage, TLS and proxies, the clock, the database,
    the disks, the engine, and what is blocked. The API is asked once for a run's result, which
    changes and costs nothing; it has 5 seconds to connect and 10 to answer, the storage 5.
    No database and no folder is made.

    --quick is for a container's health check: it tells of a `downloader run` that is gone or
    hangs in mid-transfer, too.

    Exit codes: 0 no problem (there may be warnings), 1 a problem, 2 usage.
    """
    from downloader.diagnosis.doctor import Installation, examine  # noqa: PLC0415 - start-up time
    from downloader.store.database import database_url  # noqa: PLC0415 - as above

    check_api_url(api_url)
    path = Path(database_url(database).database or "")
    installation = Installation(
        database=path,
        output=(output if output is not None else path.parent / "audio").absolute(),
        api_url=api_url,
        min_free_bytes=min_free,
        concurrency=concurrency,
        engine=engine,
    )
    key = None
    if not quick:
        found = _find_key()
        key = found.key
        installation = replace(installation, key=found, unknown_variables=unknown_variables(ctx))
    checks = []
    for one in examine(installation, quick=quick):
        check = replace(
            one,
            finding=hidden(one.finding, key),
            advice=None if one.advice is None else hidden(one.advice, key),
        )
        checks.append(check)
        if not as_json:
            click.echo(_as_text(check))
    problems = sum(check.status == "problem" for check in checks)
    if as_json:
        click.echo(json.dumps({"ok": not problems, "checks": [asdict(one) for one in checks]}))
    else:
        warnings = sum(check.status == "warning" for check in checks)
        click.echo(f"{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}")
    return 1 if problems else 0


def _find_key() -> Key:
    from downloader.diagnosis.network import Key  # noqa: PLC0415 - start-up time

    try:
        found = find_api_key()
        if found is None:
            return Key(None, None)
        check_api_key(found.key)
    except ConfigurationError as error:
        return Key(None, None, trouble=str(error))
    return Key(found.key, found.place, readers_warning=found.readers_warning)


def _as_text(check: Check) -> str:
    """Return a finding as people read it, in the width that they have."""
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    first = f"{check.status:<9}{check.name.replace('_', ' ')}: "
    lines = _wrapped(first + check.finding, width)
    if check.advice is not None:
        lines += _wrapped(f"{'':<9}> {typed(check.advice)}", width)
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        max(40, width),
        subsequent_indent=" " * 11,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
