"""`downloader simulate`: the local stand-in for the service and its storage."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from downloader.cli.quantities import Duration, Size, Whole
from downloader.errors import ConfigurationError
from downloader.simulator.catalogue import UNFINISHED_SHAPES
from downloader.simulator.errors import SimulatorError
from downloader.simulator.faults import describe
from downloader.simulator.options import (
    FORMATS,
    SINGLE_KEYS,
    SINGLE_UNFINISHED,
    STORES,
    SimulatorOptions,
    loopback,
)
from downloader.simulator.rules import Rule, one_rule, read_rules

if TYPE_CHECKING:
    from collections.abc import Callable

_EPILOG: Final = """
\b
Examples:
  # a service on this machine; every run id is finished at once
  downloader simulate --port 8400
  # in another terminal, with any key and a folder of its own
  CAMB_API_KEY=any downloader run --database trial/d.sqlite3 --api-url http://127.0.0.1:8400/apis

\b
  # runs that take their time, URLs that expire, a network that fails
  downloader simulate --finish-after 5 --finish-spread 30 --url-lifetime 20 --fault-rate 0.1

\b
  # a rule file: runs 100 to 120 are cut off once, every 7th run fails at the provider
  {"rules": [
    {"runs": "100-120", "where": "storage", "fault": {"kind": "truncate"}, "times": 1},
    {"runs": {"modulo": 7}, "where": "api", "fault": {"kind": "word", "word": "ERROR"}}
  ]}
  # the faults there are
  downloader simulate --list-faults

\b
  # bad weather: the API is out of reach from second 30 to 90
  downloader simulate --rule '{"where": "api", "fault": "refuse", "during": [30, 90]}'

A rule has `where` (api or storage) and `fault`: a kind, or an object with parameters. It is of all
runs and requests, unless it has `runs`, `run_type`, `endpoint` (bulk or single), `times` and `skip`
(of a run's requests), `probability` (0 to 1) or `during` ([from, until] in seconds after the start,
or after the rules were replaced). The first that applies wins. docs/simulator.md has more examples.

A GET of /_simulator/stats at the API's origin says what was asked and answered; POST
/_simulator/reset counts from zero, PUT /_simulator/rules replaces the rules.
"""


def _option(name: str, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # noqa: ANN401 - click's own
    envvar = f"DOWNLOADER_SIMULATE_{name.lstrip('-').replace('-', '_').upper()}"
    return click.option(name, envvar=envvar, show_envvar=True, **settings)


def _checked_host(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        loopback(value)
    except SimulatorError as error:
        raise click.BadParameter(str(error)) from None
    return value


def _list_faults(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click calls it so
    if wanted and not context.resilient_parsing:
        click.echo(describe())
        context.exit()


_SECONDS: Final = Duration()
_PORT: Final = Whole(0, 65_535)
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_DEFAULTS: Final = SimulatorOptions()


@click.command("simulate", short_help="Run a stand-in for the service.", epilog=_EPILOG)
@_option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    callback=_checked_host,
    help="Loopback address to listen on.",
)
@_option("--port", type=_PORT, default=0, help="Port of the API; 0 takes a free one.")
@_option(
    "--storage-port",
    type=_PORT,
    help="Port of the storage; by default the one after --port, where the URLs of a simulator "
    "that was started so before lead; 0 takes a free one.",
)
@_option("--certfile", type=_FILE, help="PEM certificate: serve https.")
@_option("--keyfile", type=_FILE, help="PEM key of the certificate, where it is another file.")
@_option(
    "--https",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Make an authority and serve https by it; its certificate is written to this file, for "
    "SSL_CERT_FILE.",
)
@_option("--api-key", help="The only key that is accepted; without it, any is.")
@_option(
    "--finish-after",
    type=_SECONDS,
    default=0.0,
    metavar="DURATION",
    help="Runs are finished this long after the start.",
)
@_option(
    "--finish-spread",
    type=_SECONDS,
    default=0.0,
    metavar="DURATION",
    help="They finish over this long, each at its own moment.",
)
@_option(
    "--fail",
    metavar="RUNS",
    help="Runs that fail at the provider: a list of ids and ranges such as 3,7-9.",
)
@_option(
    "--unfinished",
    type=click.Choice(UNFINISHED_SHAPES),
    default=_DEFAULTS.unfinished,
    show_default=True,
    help="How a bulk answer says that a run is not finished.",
)
@_option(
    "--single-key",
    type=click.Choice(SINGLE_KEYS),
    default=_DEFAULTS.single_key,
    show_default=True,
    help="Key of the single-run answer.",
)
@_option(
    "--single-unfinished",
    type=click.Choice(SINGLE_UNFINISHED),
    default=_DEFAULTS.single_unfinished,
    show_default=True,
    help="What the single-run endpoint says of an unfinished run.",
)
@_option(
    "--url-lifetime",
    type=Duration(-math.inf),
    default=_DEFAULTS.url_lifetime,
    show_default=True,
    metavar="DURATION",
    help="Presigned URLs expire after this long; 0: at once.",
)
@_option(
    "--store",
    type=click.Choice(STORES),
    default=_DEFAULTS.store,
    show_default=True,
    help="Whose presigned URLs and refusals the storage imitates.",
)
@_option(
    "--clock-skew",
    type=Duration(-math.inf),
    default=0.0,
    metavar="DURATION",
    help="How far the simulator's clock is ahead of this machine's.",
)
@_option(
    "--format",
    type=click.Choice(FORMATS),
    default=_DEFAULTS.audio_format,
    show_default=True,
    help="What the runs' audio is.",
)
@_option("--size", type=Size(), metavar="SIZE", help="Size of every file.")
@_option(
    "--min-size",
    type=Size(),
    default=_DEFAULTS.min_size,
    show_default=True,
    metavar="SIZE",
    help="Size of the smallest file.",
)
@_option(
    "--max-size",
    type=Size(),
    default=_DEFAULTS.max_size,
    show_default=True,
    metavar="SIZE",
    help="Size of the largest file.",
)
@_option(
    "--api-latency",
    type=_SECONDS,
    default=0.0,
    metavar="DURATION",
    help="The API answers after this long.",
)
@_option(
    "--storage-latency",
    type=_SECONDS,
    default=0.0,
    metavar="DURATION",
    help="The storage's first byte comes after this long.",
)
@_option(
    "--bandwidth",
    type=Size(),
    metavar="SIZE",
    help="Bytes per second of one connection to the storage, such as 10M.",
)
@_option(
    "--rate-limit",
    type=float,
    metavar="REQUESTS",
    help="Requests per second before the API answers 429.",
)
@_option(
    "--fault-rate",
    type=float,
    default=0.0,
    metavar="SHARE",
    help="Share of requests, 0 to 1, that meet a transient fault.",
)
@_option("--seed", type=int, default=0, help="Another seed, other chance decisions.")
@_option("--rules", type=_FILE, help="JSON file: which runs meet which fault (see below).")
@click.option(
    "--rule",
    "single_rules",
    multiple=True,
    metavar="JSON",
    help="One rule, as in the file, after those there; may be repeated.",
)
@click.option(
    "--list-faults",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_faults,
    help="Say which faults a rule can name, and exit.",
)
def simulate(
    *,
    host: str,
    port: int,
    storage_port: int | None,
    certfile: Path | None,
    keyfile: Path | None,
    size: int | None,
    fail: str | None,
    rules: Path | None,
    single_rules: tuple[str, ...],
    https: Path | None,
    **knobs: Any,  # noqa: ANN401 - click's values; SimulatorOptions checks them
) -> None:
    """Run a local stand-in for the service and its storage.

    It answers as the service does, hands out presigned URLs that expire, and serves real audio
    for any run id, so that a pipeline can be tried without spending credits. It listens on
    loopback only, and stops on Ctrl+C.
    """
    try:
        failing = (Rule.of(fail, "api", "word"),) if fail else ()
        read = read_rules(rules) if rules else ()
        knobs["rules"] = (*failing, *read, *map(one_rule, single_rules))
        options = _options(knobs, size)
    except SimulatorError as error:
        raise click.UsageError(str(error)) from None
    try:
        from downloader.simulator.server import serve  # noqa: PLC0415 - it takes half a second
    except ImportError as error:
        raise ConfigurationError(
            "The simulator needs fastapi and uvicorn: pip install fastapi uvicorn."
        ) from error
    if storage_port is None:  # after the last one, and after none, is any
        storage_port = (port + 1) % 65_536 if port else 0
    try:
        serve(options, host, port, storage_port, certfile=certfile, keyfile=keyfile, https=https)
    except SimulatorError as error:
        raise ConfigurationError(str(error)) from error


def _options(knobs: dict[str, Any], size: int | None) -> SimulatorOptions:
    if size is not None:
        knobs["min_size"] = knobs["max_size"] = size
    knobs["audio_format"] = knobs.pop("format")
    return SimulatorOptions(**knobs)
