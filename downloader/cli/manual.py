"""The manual pages, made of the commands' own help: `python -m downloader.cli.manual FOLDER`.

One page for the program, and one for each command, as git has them. Written in the macros of
man(7), which both groff and mandoc read.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from downloader import __version__
from downloader.cli.main import cli
from downloader.cli.options import Command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_EXIT_CODES: Final = (
    ("0", "nothing is left undone that this call was to do; a daemon was asked to end"),
    ("1", "one or more runs failed in this call; `verify` or `doctor` found something wrong"),
    ("2", "usage, configuration or a bad id: nothing was changed"),
    (
        "3",
        (
            "blocked: the key is refused, payment is due, the disk is full, the output folder "
            "cannot be used, the database is kept locked; with --once also an API that gives no "
            "answer, or a storage out of reach"
        ),
    ),
    ("4", "ended by a signal, by --max-duration or as runs were submitted: work is left"),
)
"""As in README.md, which a test holds this to."""

_ENVIRONMENT: Final = (
    ("CAMB_API_KEY", "The API key."),
    ("CAMB_API_KEY_FILE", "The path of a file with it, where CAMB_API_KEY is not set."),
    (
        "DOWNLOADER_*",
        (
            "Most options, in capitals and with underscores: DOWNLOADER_OUTPUT stands for "
            "--output. An option on the command line goes before it."
        ),
    ),
    ("DOWNLOADER_CONFIG", "A TOML file with settings; both others go before it."),
    ("DOWNLOADER_TRACEBACK", "1 shows where an error that should not happen came from."),
    ("NO_COLOR", "No colours."),
    (
        "SSL_CERT_FILE, SSL_CERT_DIR, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY",
        "Certificates and proxies, as usual.",
    ),
)

_FILES: Final = (
    ("~/.local/share/downloader/downloader.sqlite3", "The database, on Linux, by default."),
    ("~/.config/downloader/config.toml", "Settings, on Linux, where there is such a file."),
)


def pages() -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    root = click.Context(cli, info_name="downloader", **cli.context_settings)
    commands = list(_commands(root, cli))
    found = {"downloader.1": _text(_program(root, commands))}
    for ctx in commands:
        found[f"downloader-{ctx.info_name}.1"] = _text(_command(ctx))
        if isinstance(ctx.command, click.Group):
            for below in _commands(ctx, ctx.command):
                name = f"downloader-{ctx.info_name}-{below.info_name}.1"
                found[name] = _text(_command(below))
    return found


def write(folder: Path) -> None:
    """Write every page into a folder, and remove those of commands that are no more."""
    made = pages()
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("downloader*.1"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _commands(parent: click.Context, group: click.Group) -> Iterator[click.Context]:
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command is not None and not command.hidden:
            yield click.Context(command, info_name=name, parent=parent)


def _program(root: click.Context, commands: list[click.Context]) -> Iterator[str]:
    yield from _heading("downloader", cli.get_short_help_str(200))
    yield from (".SH SYNOPSIS", ".B downloader", "[OPTIONS] COMMAND [ARGS]...")
    yield ".SH DESCRIPTION"
    yield from _prose(cli.help)
    yield ".SH OPTIONS"
    yield from _records(cli.get_params(root), root)
    yield ".SH COMMANDS"
    for ctx in commands:
        yield from (".TP", f".BR downloader-{_escaped(str(ctx.info_name))} (1)")
        yield from _filled(ctx.command.get_short_help_str(200))
    for title, rows in (
        ("EXIT STATUS", _EXIT_CODES),
        ("ENVIRONMENT", _ENVIRONMENT),
        ("FILES", _FILES),
    ):
        yield f".SH {title}"
        for name, meaning in rows:
            yield from (".TP", f".B {_escaped(name)}", *_filled(meaning))
    yield ".SH SEE ALSO"
    names = [f".BR downloader-{_escaped(str(ctx.info_name))} (1)" for ctx in commands]
    yield from [f"{name}," for name in names[:-1]]
    yield names[-1]


def _command(ctx: click.Context) -> Iterator[str]:
    name, command = ctx.command_path.removeprefix("downloader ").replace(" ", "-"), ctx.command
    yield from _heading(f"downloader-{name}", command.get_short_help_str(200))
    yield ".SH SYNOPSIS"
    yield from _usage(ctx)
    yield ".SH DESCRIPTION"
    yield from _prose(command.help)
    if isinstance(command, click.Group):
        yield ".SH COMMANDS"
        for below in _commands(ctx, command):
            yield f".SS {_escaped(f'downloader {name} {below.info_name}')}"
            yield from _usage(below)
            yield ".PP"
            yield from _prose(below.command.help)
            yield from _records(below.command.get_params(below), below)
            yield ".PP"
            yield from _prose(below.command.epilog)
    elif isinstance(command, Command):
        for title, parameters in command.options_by_section(ctx).items():
            if parameters:
                yield ".SH OPTIONS" if title == "Options" else f".SS {_escaped(title)}"
                yield from _records(parameters, ctx)
    else:
        yield ".SH OPTIONS"
        yield from _records(command.get_params(ctx), ctx)
    if command.epilog:
        yield ".SH EXAMPLES"
        epilog = inspect.cleandoc(command.epilog)
        yield from _prose(re.sub(r"\A(\x08\n)?Examples?:\s*?[ \n]", r"\1", epilog))
    yield from (".SH SEE ALSO", ".BR downloader (1)")


def _heading(name: str, short: str) -> Iterator[str]:
    title = _escaped(name.upper())
    yield ".\\\" Made by python -m downloader.cli.manual docs/man; change the commands' help."
    yield f'.TH {title} 1 "" "downloader {__version__}" "downloader"'
    yield from (".SH NAME", f"{_escaped(name)} \\- {_escaped(short.rstrip('.'))}")


def _usage(ctx: click.Context) -> Iterator[str]:
    yield f".B {_escaped(ctx.command_path)}"
    yield _line(" ".join(ctx.command.collect_usage_pieces(ctx)))


def _records(parameters: Iterable[click.Parameter], ctx: click.Context) -> Iterator[str]:
    for one in parameters:
        record = one.get_help_record(ctx) if isinstance(one, click.Option) else None
        if record is not None:
            names, meaning = record
            yield ".TP"
            yield ", ".join(_named(name) for name in names.split(", "))
            yield from _filled(meaning)


def _named(option: str) -> str:
    """Return one form of an option: its name bold, what it takes slanted."""
    name, _, value = option.partition(" ")
    return f"\\fB{_escaped(name)}\\fR" + (f" \\fI{_escaped(value)}\\fR" if value else "")


def _prose(text: str | None) -> Iterator[str]:
    r"""Yield paragraphs; one that begins with \b is kept line by line, as click keeps it."""
    for number, block in enumerate(re.split(r"\n\s*\n", inspect.cleandoc(text or ""))):
        lines = block.splitlines()
        if not lines:
            continue
        if number:
            yield ".PP"
        if lines[0].strip() == "\b":
            yield from (".RS", ".nf", *map(_line, lines[1:]), ".fi", ".RE")
        else:
            yield from _filled(" ".join(line.strip() for line in lines))


def _filled(text: str) -> Iterator[str]:
    """Yield a paragraph in lines that no reader of its source finds too long."""
    yield from map(_line, textwrap.wrap(text, 64, break_long_words=False, break_on_hyphens=False))


def _line(text: str) -> str:
    """Return a line of text, which must not be taken for a macro."""
    escaped = _escaped(text)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _escaped(text: str) -> str:
    """Return text in which nothing means something to roff: no escape, no hyphen for a minus."""
    return (
        text.replace("\\", "\\e")
        .replace("-", "\\-")
        .replace("~", "\\(ti")
        .replace("^", "\\(ha")
        .replace("`", "\\(ga")
        .replace("'", "\\(aq")
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]))
