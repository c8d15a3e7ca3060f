"""`downloader config`: each setting, and where its value comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
from click.core import ParameterSource

from downloader.cli.configuration import FILE_KEYS, Configuration
from downloader.cli.execution import settings_of
from downloader.cli.key import credential_is_withheld, find_api_key
from downloader.cli.options import Command, hidden, json_option, place_of
from downloader.cli.quantities import Duration, Size
from downloader.cli.run import run
from downloader.cli.submit import submit
from downloader.cli.variables import unknown_variables
from downloader.errors import ConfigurationError
from downloader.settings import check_api_key, check_api_url, check_polls

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOURCES: Final = {
    ParameterSource.COMMANDLINE: "flag",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "file",
}


class _Setting(NamedTuple):
    """A setting's name, its value as it is used and as it is typed, and where that comes from."""

    name: str
    value: object
    text: str
    source: str
    place: str | None


class _Origin(NamedTuple):
    """Where the API key comes from; `trouble` says why it cannot be taken from there."""

    source: str | None
    place: str | None
    trouble: str | None


def _name(option: click.Parameter) -> str:
    return option.opts[0].removeprefix("--")


def _settings() -> list[click.Parameter]:
    """Return the options that a file may set, of the commands that have them."""
    found: dict[str, click.Parameter] = {}
    for command in (run, submit):
        for option in command.params:
            if _name(option) in FILE_KEYS:
                found.setdefault(_name(option), option)
    return list(found.values())


@click.command(
    cls=Command,
    short_help="Show each setting, and where its value comes from.",
    epilog="Example: downloader config",
    params=_settings(),
)
@json_option
@click.option("--check", is_flag=True, help="Show nothing; see whether `run` would start with it.")
@click.pass_context
def config(ctx: click.Context, /, *, as_json: bool, check: bool, **_values: object) -> None:
    """Show each setting with its value, and where that comes from.

    A value comes from a flag, else from the environment, else from the configuration file, else
    it is the default. The options are those that a configuration file may set. Of the API key
    only the place is told.

    With --check it is silent, and ends with 0, where `run` would take all that and the API key;
    else it says what is wrong, and ends with 2. Disks and ports are not looked at.
    """
    if check and as_json:
        raise click.UsageError("--check and --json exclude each other.")
    parent = ctx.parent
    file = parent.obj if parent is not None and parent.obj is not None else Configuration()
    settings = {one.name: one for one in _resolved(ctx, file)}
    if check:
        _check_as_run(ctx.params)
        return
    key, unknown = _key_origin(), unknown_variables(ctx)
    if as_json:
        shown = {
            one.name: {"value": one.value, "source": one.source, "place": one.place}
            for one in settings.values()
        }
        path = None if file.path is None else hidden(str(file.path))
        found = {"file": path, "settings": shown, "api_key": key._asdict()}
        click.echo(json.dumps({**found, "unknown_variables": unknown}))
        return
    for one in settings.values():
        click.echo(f"{one.name:<15} {one.text}  ({one.place or 'default'})")
    said = key.trouble or ("none is set" if key.place is None else f"(not shown)  ({key.place})")
    click.echo(f"{'the API key':<15} {said}")
    click.echo(f"{'settings file':<15} {'none' if file.path is None else hidden(str(file.path))}")
    for name, near in unknown.items():
        meant = "unset it" if near is None else f"did you mean {near}?"
        click.echo(f"downloader: nothing reads {name}: {meant}", err=True)


def _check_as_run(options: dict[str, Any]) -> None:
    """Check what `run` checks beside single values before it begins.

    Raises:
        ConfigurationError: it would not begin.

    """
    from downloader.cli.metrics import check  # noqa: PLC0415 - start-up time
    from downloader.transfer.choice import check_engine  # noqa: PLC0415 - as above

    # A reload hands over no other credential: it is of no matter to it.
    settings = settings_of(options, "withheld" if credential_is_withheld() else None)
    check(settings)
    check_engine(settings)


def _resolved(ctx: click.Context, file: Configuration) -> Iterator[_Setting]:
    """Yield the settings, checked as `run` would check them.

    Raises:
        ConfigurationError: a value will not do; its place is told.

    """
    options = {_name(one): one for one in ctx.command.params if _name(one) in FILE_KEYS}
    places = {
        name: place_of(ctx, option, file)
        for name, option in options.items()
        if isinstance(option, click.Option)
    }
    values: dict[str, Any] = {name: ctx.params[one.name or ""] for name, one in options.items()}
    values |= _checked(values, places)
    for name, option in options.items():
        source = ctx.get_parameter_source(option.name or "")
        value, place = values[name], places[name]
        yield _Setting(
            name,
            hidden(value) if isinstance(value, str) else value,
            hidden(_typed(option.type, value)),
            "default" if source is None else _SOURCES.get(source, "default"),
            None if place is None else hidden(place),
        )


def _checked(values: dict[str, Any], places: dict[str, str | None]) -> dict[str, Any]:
    """Check what no option can, and return the paths as they are used."""
    from downloader.store.database import database_url  # noqa: PLC0415 - start-up time

    name, other = "api-url", None
    try:
        check_api_url(values[name])
        name, other = "min-poll", "max-poll"
        check_polls(values[name], values[other])
        name, other = "database", None
        database = Path(database_url(values[name]).database or "")
    except ConfigurationError as error:
        named = [f"{one} from {places[one]}" for one in (name, other) if one and places[one]]
        raise ConfigurationError(
            f"{error} ({hidden('; '.join(named))})" if named else str(error)
        ) from None
    output = values["output"]
    folder = database.parent / "audio" if output is None else Path(output).absolute()
    return {"database": str(database), "output": str(folder)}


def _typed(kind: click.ParamType[Any], value: object) -> str:
    """Return a value as a person would type it."""
    if value is None:
        return "none"  # of the limits, and of what is exported: there need not be any
    if isinstance(kind, Duration) and isinstance(value, float):
        return kind.show(value)
    if isinstance(kind, Size) and isinstance(value, int):
        return kind.show(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _key_origin() -> _Origin:
    try:
        found = find_api_key()
        if found is None:
            return _Origin(None, None, None)
        check_api_key(found.key)
    except ConfigurationError as error:
        return _Origin(None, None, str(error))
    source = "environment" if found.place == "CAMB_API_KEY" else "file"
    return _Origin(source, hidden(found.place, found.key), None)
