from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
import platformdirs
import pytest
from click.testing import CliRunner

from downloader.cli import run as run_module
from downloader.cli.configuration import FILE_KEYS
from downloader.cli.options import Command
from downloader.cli.quantities import Duration
from downloader.store.schema import SCHEMA_REVISION

if TYPE_CHECKING:
    from cli.calling import Caller

    from downloader.settings import Settings


@pytest.fixture
def started(call: Caller, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, str | None]]:
    """Collect what `run` would start the service with."""
    found: list[tuple[Settings, str | None]] = []

    def execute(settings: Settings, database: str | None, *_: object, **__: object) -> None:
        found.append((settings, database))

    monkeypatch.setattr(run_module, "execute", execute)
    monkeypatch.setattr(run_module, "conclude", lambda *_, **__: 0)
    call.set(CAMB_API_KEY="the-key")
    return found


def test_flag_over_environment_over_file(
    call: Caller, started: list[tuple[Settings, str | None]]
) -> None:
    """A flag goes before the environment, that before the file, and that before the default."""
    config = call.configure('concurrency = 3\nattempts = 4\nlease = "2m"\n')
    call.set(DOWNLOADER_CONCURRENCY="5", DOWNLOADER_ATTEMPTS="6")
    assert call("--config", config, "run", "--once", "--attempts", "7").code == 0
    [(settings, _)] = started
    assert (settings.limits.attempts, settings.concurrency) == (7, 5)
    assert (settings.lease_seconds, settings.grace_seconds) == (120, 30)


def test_a_file_may_set_everything(
    call: Caller, started: list[tuple[Settings, str | None]], tmp_path: Path
) -> None:
    """Each setting that a file may have reaches the service, with - or _ in its name."""
    config = call.configure(
        f'database = "{tmp_path}/other.db"\noutput = "{tmp_path}/out"\n'
        'api-url = "https://example.com/apis"\nconcurrency = 2\nlease = 90\ngrace = "5s"\n'
        'max-duration = "1h"\nattempts = 3\nrefreshes = 4\ngive-up-after = "2d"\nmin_poll = 1.5\n'
        'unknown-after = "1m"\nmax_poll = "30s"\nstall = "10"\nengine = "httpx"\n'
        'min-free = "2G"\nmax_file_size = 77\n'
        'max-rate = "5M"\napi_rate = 0.5\n'
        f'metrics-port = 9464\nmetrics-host = "::1"\nmetrics_textfile = "{tmp_path}/m.prom"\n'
        'on-done = "true"\non_failed = "sh -c true"\nhook-concurrency = 5\n'
        'hook_timeout = "2m"\nprune-events-after = "30d"\n'
        'type = "tts"\nverbose = 1\nlog-format = "json"\n'
    )
    assert {line.partition(" ")[0].replace("_", "-") for line in config.read_text().split("\n")} - {
        ""
    } == FILE_KEYS
    call.monkeypatch.delenv("DOWNLOADER_DATABASE")
    answer = call("--config", config, "run", "--drain")
    assert (answer.code, answer.err) == (0, "")
    [(settings, database)] = started
    assert database == f"{tmp_path}/other.db"
    assert (str(settings.output), settings.api_url) == (
        f"{tmp_path}/out",
        "https://example.com/apis",
    )
    assert (settings.concurrency, settings.lease_seconds, settings.grace_seconds) == (2, 90, 5)
    assert (settings.max_duration_seconds, settings.stall_seconds) == (3600, 10)
    assert settings.engine == "httpx"
    assert (settings.min_free_bytes, settings.max_file_bytes) == (2 * 10**9, 77)
    assert (settings.max_bytes_per_second, settings.api_requests_per_second) == (5 * 10**6, 0.5)
    assert (settings.metrics_host, settings.metrics_port) == ("::1", 9464)
    assert settings.metrics_textfile == tmp_path / "m.prom"
    assert [Path(settings.on_done[0]).name, settings.on_failed[1:]] == ["true", ("-c", "true")]
    assert (settings.hook_concurrency, settings.hook_timeout_seconds) == (5, 120)
    assert settings.prune_events_after_seconds == 30 * 86_400
    limits = settings.limits
    assert (limits.attempts, limits.refreshes, limits.give_up_after_seconds) == (3, 4, 172_800)
    assert limits.unknown_after_seconds == 60
    assert (limits.min_poll_seconds, limits.max_poll_seconds) == (1.5, 30)
    call("--config", config, "submit", "1")
    found = call("list", "--json", "--database", f"{tmp_path}/other.db").json
    assert found["run_type"] == "tts"


def test_the_file_named_by_the_environment(call: Caller) -> None:
    """The file may be named by DOWNLOADER_CONFIG; its database is the one used, in groups too."""
    call.monkeypatch.delenv("DOWNLOADER_DATABASE")
    path = call.folder / "named.sqlite3"
    call.set(DOWNLOADER_CONFIG=str(call.configure(f'database = "{path}"\n')))
    assert call("db", "upgrade").out == f"{path}: revision {SCHEMA_REVISION}\n"
    assert call("status", "--json").json["database"] == str(path)


def test_the_file_in_its_usual_place(call: Caller) -> None:
    """The file in the person's configuration folder is read without being named."""
    call.set(HOME=str(call.folder), XDG_CONFIG_HOME=str(call.folder / "config"))
    folder = platformdirs.user_config_path("downloader", appauthor=False)
    assert folder.is_relative_to(call.folder)
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("oops = 1\n", encoding="utf-8")
    answer = call("status")
    assert answer.code == 2
    assert "oops" in answer.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('databse = "x"', "unknown setting 'databse'. Did you mean database?"),
        ("max_durations = 5", "unknown setting 'max_durations'. Did you mean max-duration?"),
        ("[run]\nconcurrency = 3", "unknown setting 'run'."),
        ('api_key = "5ec2e7"', "CAMB_API_KEY"),
        ('camb-api-key = "5ec2e7"', "CAMB_API_KEY"),
        ("x = ", "is not valid TOML"),
        ('database = "a"\ndatabase = "b"', "is not valid TOML"),
        ("database = {a = 1}", "database must be a text or a number"),
        ('database = ["a", "b"]', "database must be a text or a number"),
        ("output = true", "output must be a text or a number"),
        ("output = 5", "output must be a text, in quotes"),
        ("on-done = 1.5", "on-done must be a text, in quotes"),
        ("output = 1979-05-27", "output must be a text or a number"),
        ("concurrency = true", "concurrency must be a text or a number"),
    ],
)
def test_a_file_that_is_wrong(call: Caller, text: str, said: str) -> None:
    """A mistake in the file is named with the file, and never a key's value."""
    config = call.configure(text)
    for command in ("status", "run"):
        answer = call("--config", config, command)
        assert (answer.code, answer.out) == (2, "")
        assert said in answer.err
        assert str(config) in answer.err
        assert "5ec2e7" not in answer.err


def test_a_file_that_cannot_be_read(call: Caller) -> None:
    """A named file that is not there, a folder, and what is not text are told as such."""
    for path, said in (("missing.toml", "No such file"), (call.folder, "Is a directory")):
        answer = call("--config", path, "status")
        assert answer.code == 2
        assert said in answer.err
    (call.folder / "binary").write_bytes(b"\xff\xfe")
    assert "is not valid TOML" in call("--config", "binary", "status").err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--lease", "soon"],
        ["--lease", "-5"],
        ["--lease", "0"],
        ["--lease", "1e3"],
        ["--lease", "5 m"],
        ["--lease", "5y"],
        ["--lease", ""],
        ["--lease", "nan"],
        ["--give-up-after", "4000d"],
        ["--min-poll", "0"],
        ["--concurrency", "0"],
        ["--concurrency", "1.5"],
        ["--concurrency", "257"],
        ["--max-rate", "0"],
        ["--max-rate", "-5M"],
        ["--max-rate", "999"],
        ["--max-rate", "fast"],
        ["--max-rate", "1.5M"],
        ["--api-rate", "0"],
        ["--api-rate", "-1"],
        ["--api-rate", "0.001"],
        ["--api-rate", "1001"],
        ["--api-rate", "1e2"],
        ["--api-rate", "nan"],
        ["--api-rate", "inf"],
        ["--api-rate", ""],
        ["--attempts", "0"],
        ["--once", "--drain"],
        ["--max-poll", "1s", "--min-poll", "2s"],
        ["--api-url", "http://example.com"],
        ["--api-url", "http://127.0.0.1.example.com"],
        ["--api-url", "example.com"],
        ["--api-url", "ftp://example.com"],
        ["--api-url", "https://me:secret@example.com"],
        ["--api-url", "https://example.com/?a=secret"],
        ["--api-url", "https://"],
        ["--nonsense"],
        ["extra"],
    ],
)
def test_options_that_are_wrong(
    call: Caller, started: list[tuple[Settings, str | None]], arguments: list[str]
) -> None:
    """A value that will not do ends in 2 with its option named, and nothing is started."""
    answer = call("run", *arguments)
    assert (answer.code, answer.out, started) == (2, "", [])
    assert arguments[0] in answer.err
    assert "secret" not in answer.err
    assert "the-key" not in answer.err


@pytest.mark.parametrize("text", ["concurrency = 1.5", 'lease = "soon"', "attempts = -1"])
def test_values_of_the_file_are_judged_alike(
    call: Caller, started: list[tuple[Settings, str | None]], text: str
) -> None:
    """A value of the file is judged as one of the command line is."""
    answer = call("--config", call.configure(text), "run", "--once")
    assert (answer.code, started) == (2, [])
    assert f"--{text.partition(' ')[0]}" in answer.err


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/apis", "http://localhost:1", "http://[::1]:8000"]
)
def test_a_simulator_of_this_machine(
    call: Caller, started: list[tuple[Settings, str | None]], url: str
) -> None:
    """Plain http is for an API on this machine."""
    assert call("run", "--once", "--api-url", url).code == 0
    assert started[0][0].api_url == url


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1.5m", 90),
        ("24h", 86400),
        ("2d", 172_800),
        (" 5M ", 300),
        ("0", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """A duration is a number of seconds, or of s, m, h or d."""
    assert Duration().convert(text, None, None) == seconds


def test_the_key_of_the_environment(
    call: Caller, started: list[tuple[Settings, str | None]]
) -> None:
    """CAMB_API_KEY is the key; the line end of a careless export is not part of it."""
    call.set(CAMB_API_KEY="a-key\n")
    assert call("run", "--once").code == 0
    assert started[0][0].api_key == "a-key"
    assert "a-key" not in repr(started[0][0])


def test_the_key_of_a_file(call: Caller, started: list[tuple[Settings, str | None]]) -> None:
    """CAMB_API_KEY_FILE names a file with the key; systemd's credential is the last resort."""
    call.monkeypatch.delenv("CAMB_API_KEY")
    (call.folder / "camb-api-key").write_text("of-systemd\n", encoding="utf-8")
    call.set(CREDENTIALS_DIRECTORY=str(call.folder))
    call("run", "--once")
    (call.folder / "key").write_text("of-the-file\r\n", encoding="utf-8")
    call.set(CAMB_API_KEY_FILE=str(call.folder / "key"))
    call("run", "--once")
    call.set(CAMB_API_KEY="of-the-environment")
    call("run", "--once")
    keys = [settings.api_key for settings, _ in started]
    assert keys == ["of-systemd", "of-the-file", "of-the-environment"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"5ec\n2e7", "has white space"),
        (b"5ec 2e7", "has white space"),
        (b"5ec\x002e7", "has white space"),
        ("5ec2e7é".encode(), "has white space"),
        (b"", "which is empty"),
        (b" \n", "which is empty"),
        (b"\xff5ec2e7", "it is not text"),
        (None, "No such file"),
    ],
)
def test_a_key_that_is_none(
    call: Caller,
    started: list[tuple[Settings, str | None]],
    content: bytes | None,
    said: str,
) -> None:
    """What cannot be a key is refused without being shown."""
    call.monkeypatch.delenv("CAMB_API_KEY")
    path = call.folder / "key"
    if content is not None:
        path.write_bytes(content)
    call.set(CAMB_API_KEY_FILE=str(path))
    answer = call("run", "--once")
    assert (answer.code, answer.out, started) == (2, "", [])
    assert said in answer.err
    assert not {"5ec", "2e7"} & {answer.err[i : i + 3] for i in range(len(answer.err))}


def test_no_key(call: Caller, started: list[tuple[Settings, str | None]]) -> None:
    """Without a key `run` says where to put one; what needs no key asks for none."""
    call.monkeypatch.delenv("CAMB_API_KEY")
    answer = call("run", "--once")
    assert (answer.code, started) == (2, [])
    assert "CAMB_API_KEY_FILE" in answer.err
    assert call("submit", "1").code == 0


def test_every_setting_of_the_file_is_an_option() -> None:
    """What a file may set is also a flag of some command, and a variable of the environment."""
    from downloader.cli.main import _COMMANDS, cli  # noqa: PLC0415 - the table of commands

    context = click.Context(cli)
    variables = {}
    for name in _COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            if isinstance(parameter, click.Option) and isinstance(parameter.envvar, str):
                variables[parameter.opts[0].removeprefix("--")] = parameter.envvar
    assert set(variables) >= FILE_KEYS
    for name in FILE_KEYS:
        assert variables[name] == "DOWNLOADER_" + name.upper().replace("-", "_")


def test_a_command_of_its_own() -> None:
    """A command without a group has no file to read."""

    @click.command(cls=Command)
    @click.option("--value", default="default")
    def command(value: str) -> None:
        click.echo(json.dumps(value))

    assert CliRunner().invoke(command, []).output == '"default"\n'
