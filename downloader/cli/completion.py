"""`downloader completion`: the script by which a shell completes what is typed."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from downloader.cli.options import Command

_SHELLS = ("bash", "zsh", "fish")


@click.command(
    cls=Command,
    epilog="\b\nExample:\n"
    "  downloader completion fish > ~/.config/fish/completions/downloader.fish",
)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the script by which bash, zsh or fish completes commands, options and values.

    Put it where the shell looks for such scripts, and open a new shell:

    \b
    bash  ~/.local/share/bash-completion/completions/downloader
    zsh   a file _downloader in a folder of $fpath
    fish  ~/.config/fish/completions/downloader.fish

    bash and zsh can also take it at each start, from ~/.bashrc, or from ~/.zshrc below compinit:

    \b
    eval "$(downloader completion bash)"

    Run ids are completed from the database, as far as they are found at once.
    """  # noqa: D301 - \b keeps click from joining the lines
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - of our own list
    # The words are those of the command itself, by the name that it has everywhere.
    made = found(ctx.find_root().command, {}, "downloader", "_DOWNLOADER_COMPLETE")
    # Without a look for the bash that is installed here, which `source()` takes.
    click.echo(made.source_template % made.source_vars())
