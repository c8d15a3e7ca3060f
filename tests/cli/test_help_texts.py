from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from downloader import __version__
from downloader.cli import main as main_module
from downloader.cli.main import _COMMANDS, cli
from downloader.errors import BlockedError

if TYPE_CHECKING:
    from cli.calling import Caller


def _paths() -> list[tuple[str, ...]]:
    """Return every command and subcommand that does something."""
    context = click.Context(cli)
    found: list[tuple[str, ...]] = []
    for name in _COMMANDS:
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            found += [(name, below) for below in command.list_commands(context)]
        else:
            found.append((name,))
    return found


def test_version(call: Caller) -> None:
    """`--version` tells the version."""
    assert call("--version").out == f"downloader, version {__version__}\n"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(call: Caller, flag: str) -> None:
    """The help names every command with what it does."""
    answer = call(flag)
    assert (answer.code, answer.err) == (0, "")
    for name in _COMMANDS:
        assert f"\n  {name} " in answer.out


def test_no_command(call: Caller) -> None:
    """Without a command the help is shown, and an unknown one is a mistake."""
    answer = call()
    assert answer.code == 2
    assert "Commands:" in answer.err
    answer = call("sumbit", "1")
    assert answer.code == 2
    assert "sumbit" in answer.err


@pytest.mark.parametrize("path", _paths(), ids=" ".join)
def test_help_of_each_command(call: Caller, path: tuple[str, ...]) -> None:
    """Each command explains itself, and its options, with an example that names it."""
    answer = call(*path, "--help")
    assert (answer.code, answer.err) == (0, "")
    example = rf"Examples?:\s(.*\s)?downloader {' '.join(path)}\b"
    assert re.search(example, answer.out, re.DOTALL)
    command: click.Command | None = cli
    for name in path:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help
    undescribed = [
        parameter.name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert undescribed == []


def _examples() -> list[str]:
    """Return every example in a help: of the program, of its groups, and of their commands."""
    commands: list[click.Command] = [cli]
    for command in commands:
        if isinstance(command, click.Group):
            context = click.Context(command)
            below = [command.get_command(context, name) for name in command.list_commands(context)]
            commands += filter(None, below)
    found: list[str] = []
    for command in commands:
        said = "\n".join(filter(None, [command.help, command.epilog]))
        own = re.findall(r"(?:^|Examples?:)\s*(?:\w+=\w+ )?(downloader .+)$", said, re.MULTILINE)
        assert own, f"{command.name} has no example"
        found += own
    return found


@pytest.mark.parametrize("example", _examples())
def test_examples(example: str) -> None:
    """Every example in a help is a command line that the program takes."""
    line = re.split(r"\s{3,}|\s[>|]\s", example)[0]
    _, *words = shlex.split(line)
    command: click.Command | None = cli
    context = None
    while isinstance(command, click.Group):
        # With the settings: a command keeps the first `--help` that it is asked to make.
        context = click.Context(command, parent=context, **cli.context_settings)
        command = command.get_command(context, words.pop(0))
    assert command is not None
    with contextlib.suppress(click.exceptions.Exit):  # of an option that shows something
        assert command.make_context(command.name, words, parent=context).args == []


def test_help_needs_no_working_database(call: Caller) -> None:
    """Help can be read where nothing else works."""
    assert call("status", "--help", "--database", call.folder).code == 0


def _failing(error: BaseException) -> click.Command:
    @click.command()
    def fails() -> None:
        raise error

    return fails


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BlockedError("The key was refused."), 3, "downloader: The key was refused."),
        (KeyboardInterrupt(), 130, "Stopped."),
        (ZeroDivisionError("at https://s/1?sig=5ec2e7"), 1, "an error that should not happen"),
        (BrokenPipeError(32, "Broken pipe"), 1, ""),
    ],
)
def test_how_errors_end(
    call: Caller,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    said: str,
) -> None:
    """Each kind of error has its exit code and its line; none shows a traceback or a signature."""
    command = _failing(error)
    monkeypatch.setattr(main_module._Commands, "get_command", lambda *_: command)
    answer = call("run")
    assert answer.code == code
    assert said in answer.err
    assert "5ec2e7" not in answer.err


def test_a_traceback_for_those_who_ask(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """DOWNLOADER_TRACEBACK=1 shows where an unforeseen error was."""
    command = _failing(ZeroDivisionError("here"))
    monkeypatch.setattr(main_module._Commands, "get_command", lambda *_: command)
    monkeypatch.setattr(sys, "argv", ["downloader", "run"])
    call.set(DOWNLOADER_TRACEBACK="1")
    with pytest.raises(ZeroDivisionError, match="here"):
        main_module._exit_code()


def test_what_a_quick_command_imports() -> None:
    """Asking for the status loads none of what only a transfer, a migration or a table needs."""
    heavy = ["httpx", "anyio", "alembic", "fastapi", "uvicorn", "datasette", "tqdm"]
    code = (
        "import sys\n"
        "from downloader.cli.main import cli\n"
        "import click\n"
        "cli.get_command(click.Context(cli), 'status')\n"
        "from downloader.store import migrate, status\n"
        f"print(*[name for name in {heavy} if name in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "\n"
