"""Options that commands share, and where their values come from.

A value comes from the flag, else from `DOWNLOADER_<OPTION>` in the environment, else from
the configuration file, else it is the default.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource

from downloader.camb.run_types import DEFAULT_RUN_TYPE, RUN_TYPES
from downloader.cli.configuration import Configuration, read_configuration
from downloader.cli.hints import typed
from downloader.cli.suggestions import files
from downloader.errors import ConfigurationError, DownloaderError
from downloader.rules.redaction import redact_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

F = TypeVar("F", bound="Callable[..., Any] | click.Command")


def option(name: str, *declarations: str, **attributes: Any) -> Callable[[F], F]:  # noqa: ANN401 - click's own attributes
    """Return a click option that is also an environment variable, shown in its help."""
    variable = "DOWNLOADER_" + name.removeprefix("--").replace("-", "_").upper()
    attributes.setdefault("envvar", variable)
    attributes.setdefault("show_envvar", True)
    return click.option(name, *declarations, **attributes)


_ARGUMENTS: Final = f"{__name__}.arguments"


HELP: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}


class Command(click.Command):
    """A command whose options may also come from the configuration file.

    `sections` groups the options in the help: names of parameters by the title they stand under.
    Those that it does not name come first.
    """

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401 - click's own
        sections: Mapping[str, tuple[str, ...]] | None = None,
        **attributes: Any,  # noqa: ANN401 - as above
    ) -> None:
        # Of its own, for whoever calls it without the group: click keeps the first that it made.
        attributes.setdefault("context_settings", HELP)
        super().__init__(*arguments, **attributes)
        self.sections: Final = dict(sections or {})

    def options_by_section(self, ctx: click.Context) -> dict[str, list[click.Parameter]]:
        """Return the options as they stand in the help, by the title of their section."""
        title_of = {name: title for title, names in self.sections.items() for name in names}
        found: dict[str, list[click.Parameter]] = {
            title: [] for title in ("Options", *self.sections)
        }
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option):
                found[title_of.get(str(parameter.name), "Options")].append(parameter)
        return found

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a list for each section."""
        for title, parameters in self.options_by_section(ctx).items():
            records = [one.get_help_record(ctx) for one in parameters]
            if rows := [record for record in records if record is not None]:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - click's signature
    ) -> click.Context:
        """Lay the file's values under those of the command line and the environment."""
        own = {parameter.name for parameter in self.params}
        values = Configuration() if parent is None else parent.obj or Configuration()
        extra["default_map"] = {
            name: value for key, value in values.items() if (name := _parameter_name(key)) in own
        }
        given = list(args)  # click takes them from the list
        try:
            context = super().make_context(info_name, args, parent, **extra)
        except click.BadParameter as error:
            if error.ctx is None or not isinstance(error.param, click.Option):
                raise
            hint = _hint(error.ctx, error.param, values)
            raise click.BadParameter(
                hidden(error.message), ctx=error.ctx, param=error.param, param_hint=hint
            ) from None
        except click.NoSuchOption as error:
            if error.option_name != "--config":
                raise
            raise click.UsageError(
                f"--config stands before the command: downloader --config FILE {self.name}",
                error.ctx,
            ) from None
        context.meta[_ARGUMENTS] = given
        return context

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        """Run the command; the commands that an error names can be typed as they stand."""
        try:
            return super().invoke(ctx)
        except DownloaderError as error:
            error.args = (typed(str(error)),)
            raise


def _hint(ctx: click.Context, parameter: click.Option, values: Configuration) -> str:
    """Name an option, and where its value comes from, if that is not the command line."""
    name = f"'{parameter.opts[0]}'"
    place = place_of(ctx, parameter, values)
    return name if place in (None, parameter.opts[0]) else f"{name} (from {place})"


def place_of(ctx: click.Context, parameter: click.Option, values: Configuration) -> str | None:
    """Return where an option's value comes from: a flag, a variable, a file; None: the default."""
    source = ctx.get_parameter_source(parameter.name or "")
    if source is ParameterSource.COMMANDLINE:
        return parameter.opts[0]
    if source is ParameterSource.ENVIRONMENT:
        return str(parameter.envvar)
    if source is ParameterSource.DEFAULT_MAP:
        return str(values.path)
    return None


def hidden(text: str, key: str | None = None) -> str:
    """Return what may be shown of a text that somebody may have put a secret into by mistake.

    `key` is the API key, where it is not that of CAMB_API_KEY.
    """
    from downloader.rules.answers import MIN_SECRET_CHARACTERS  # noqa: PLC0415 - start-up time
    from downloader.rules.keys import key_in  # noqa: PLC0415 - as above

    text = redact_text(text)
    for secret in (key, key_in(os.environ.get("CAMB_API_KEY", ""))):
        if secret is not None and len(secret) >= MIN_SECRET_CHARACTERS:
            text = text.replace(secret, "(key)")
    return text


def shared(command: click.Command, *names: str) -> list[click.Parameter]:
    """Return these options of another command, such as `--engine`, to be those of this one too."""
    found = {parameter.opts[0]: parameter for parameter in command.params}
    return [found[name] for name in names]


def read_again(context: click.Context) -> dict[str, Any]:
    """Return a command's options as they would be if it were started now, with its own arguments.

    Raises:
        ConfigurationError: the configuration file is wrong, or one of its values.

    """
    group = context.parent
    assert group is not None  # noqa: S101 - every command has one
    anew = click.Context(group.command, info_name=group.info_name)
    anew.obj = read_configuration(group.params["config"])
    try:
        return context.command.make_context(
            context.info_name, list(context.meta[_ARGUMENTS]), anew
        ).params
    except click.ClickException as error:
        raise ConfigurationError(error.format_message()) from None


def _parameter_name(key: str) -> str:
    return "run_type" if key == "type" else key.replace("-", "_")


def database_option(command: F) -> F:
    """Add `--database`."""
    return option(
        "--database",
        metavar="PATH|URL",
        shell_complete=files,
        help="The database that tracks the runs. Default: in your data directory.",
    )(command)


def output_option(command: F) -> F:
    """Add `--output`."""
    return option(
        "--output",
        type=click.Path(file_okay=False, readable=False, path_type=Path),
        help="The folder for saved files. Default: audio, beside the database.",
    )(command)


def type_option(command: F) -> F:
    """Add `--type`."""
    return option(
        "--type",
        "run_type",
        type=click.Choice(sorted(RUN_TYPES)),
        default=DEFAULT_RUN_TYPE,
        show_default=True,
        help="The kind of run the ids are of.",
        envvar="DOWNLOADER_TYPE",
    )(command)


def json_option(command: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def verbose_option(command: F) -> F:
    """Add `--verbose`."""
    return option(
        "--verbose",
        "-v",
        count=True,
        help="Log more to standard error: -v what is done, -vv everything.",
    )(command)
