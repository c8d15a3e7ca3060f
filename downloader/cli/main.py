"""The command `downloader`: finds the command that was named, and how it all ends."""

from __future__ import annotations

import contextlib
import difflib
import gc
import importlib
import io
import os
import sys
import threading
import time
from typing import Any, Final, NoReturn

import click

from downloader import __version__, failpoints
from downloader.cli import streams
from downloader.cli.configuration import read_configuration
from downloader.cli.options import HELP
from downloader.cli.suggestions import files
from downloader.errors import DownloaderError
from downloader.observe import journal
from downloader.rules.redaction import clean_text

_COLLECT_EVERY: Final = 10_000
"""After how many new objects Python looks for garbage: its 700 are for less than we import."""

_THREADS_SECONDS: Final = 0.5
"""How long threads that are about to end may take."""

# Imported when named: `status` shall not wait for what only `run` needs.
_COMMANDS: Final = {
    "submit": "downloader.cli.submit:submit",
    "run": "downloader.cli.run:run",
    "status": "downloader.cli.status:status",
    "list": "downloader.cli.listing:list_runs",
    "show": "downloader.cli.listing:show",
    "export": "downloader.cli.export:export",
    "retry": "downloader.cli.control:retry",
    "cancel": "downloader.cli.control:cancel",
    "verify": "downloader.cli.verify:verify",
    "doctor": "downloader.cli.doctor:doctor",
    "config": "downloader.cli.config:config",
    "inspect": "downloader.cli.inspecting:inspect",
    "db": "downloader.cli.database:db",
    "simulate": "downloader.cli.simulate:simulate",
    "demo": "downloader.cli.demo:demo",
    "completion": "downloader.cli.completion:completion",
}
# These only show what is there: where that cannot be written they have nothing left to do.
_SHOWING: Final = frozenset({"status", "list", "show", "export", "config", "completion"})


class _Commands(click.Group):
    """A group that imports a command when it is asked for."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options before the command; of one that belongs behind it say so."""
        words = list(args)  # click takes them from the list
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            named = next((word for word in words if word in _COMMANDS), "COMMAND")
            raise click.UsageError(
                f"{error.option_name} is no option of downloader itself. Those of a command stand "
                f"behind its name: downloader {named} {error.option_name} …",
                ctx,
            ) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; where there is none of that name, say which may be meant."""
        if args and self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            near = difflib.get_close_matches(args[0], _COMMANDS, 1)
            meant = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{clean_text(args[0], 60)}'.{meant}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order in which they are used."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """Import a command."""
        if cmd_name == "help":
            return _help
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)  # noqa: S101 - of our own table
        return command

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        """Run a command; one that only shows something ends where that cannot be written."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if (output := streams.output()) is None or output.error is not error:
                raise
            return 0  # `_told` has more to say


@click.command("help", hidden=True)
@click.argument("names", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def _help(ctx: click.Context, *, names: tuple[str, ...]) -> None:
    """Show the help of the program, or of a command."""
    at, command = ctx.find_root(), ctx.find_root().command
    for name in names:
        below = command.get_command(at, name) if isinstance(command, click.Group) else None
        if below is None:
            ctx.fail(f"No such command '{clean_text(name, 60)}'.")
        at, command = click.Context(below, info_name=name, parent=at), below
    click.echo(command.get_help(at))


@click.group(cls=_Commands, context_settings=HELP)
@click.version_option(__version__, prog_name="downloader")
@click.option(
    "--config",
    metavar="FILE",
    envvar="DOWNLOADER_CONFIG",
    show_envvar=True,
    shell_complete=files,
    help="A TOML file with settings, named as the options are.",
)
@click.pass_context
def cli(ctx: click.Context, config: str | None) -> None:
    """Bring home the audio of Camb.ai Sound and Music runs, and keep track of every one.

    \b
    downloader demo                      see it work, against a simulator
    downloader submit --file ids.txt     track runs
    downloader run --drain               save everything that is or gets finished
    downloader status                    see where it stands
    """  # noqa: D301 - \b keeps click from joining the lines
    from downloader.observe import logs  # noqa: PLC0415 - `--version` needs no logs

    logs.configure(0)
    if ctx.invoked_subcommand in _SHOWING:
        streams.show_only()
    else:
        streams.work()
    failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
    ctx.obj = read_configuration(config)


def main() -> None:
    """Run the command line and exit: 0 done, 1 failures, 2 usage, 3 blocked, 4 stopped early."""
    gc.set_threshold(_COLLECT_EVERY)
    streams.take()
    _leave(_told(_exit_code()))


def _told(code: int) -> int:
    """Return the exit code, with regard to what could not be written to standard output."""
    error = streams.finish()
    output = streams.output()
    if error is None or output is None or output.is_unread:
        return code
    said = f"downloader: standard output cannot be written to: {error.strerror}"
    if output.is_all:
        journal.tell("error", f"{said}.")
        return code or 1
    if not output.is_closed:  # else it was not to be told
        done = "; what was to be done is done" if code == 0 else ""
        journal.tell("warning", f"{said}{done}.")
    return code


def _leave(code: int) -> NoReturn:
    """Exit now: a thread that still waits for a server has nothing left to do."""
    others = [
        one
        for one in threading.enumerate()
        if one is not threading.main_thread() and not one.daemon
    ]
    ends_at = time.monotonic() + _THREADS_SECONDS
    for one in others:
        one.join(max(0.0, ends_at - time.monotonic()))
    if any(one.is_alive() for one in others):
        # Everything is recorded and closed by now; Python itself would wait for the threads.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _exit_code() -> int:
    try:
        code: Any = cli.main(prog_name="downloader", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Stopped.", err=True)
        return 130
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        journal.tell("error", said.getvalue())
        return 2
    except DownloaderError as error:
        journal.tell("error", f"downloader: {error}")
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort of a program for people
        return _bug(error)
    return code if isinstance(code, int) else 0


def _bug(error: Exception) -> int:
    """Tell of an error that nobody foresaw, without a traceback unless it is asked for."""
    if os.environ.get("DOWNLOADER_TRACEBACK"):
        raise error
    from downloader.rules.redaction import redact_text  # noqa: PLC0415 - not on a good day

    journal.tell(
        "error",
        f"downloader: an error that should not happen: {type(error).__name__}: "
        f"{redact_text(str(error))[:300]}\n"
        "Nothing recorded is lost. Please report it; DOWNLOADER_TRACEBACK=1 shows where it was.",
    )
    return 1
