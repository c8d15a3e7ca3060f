from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.cli.config import config
from downloader.cli.configuration import FILE_KEYS
from downloader.cli.main import cli
from downloader.cli.quantities import Duration, Size
from downloader.rules.redaction import redact_text

if TYPE_CHECKING:
    from pathlib import Path

    from cli.calling import Caller

KEY = "cambKEY.7f3a9c1e5b8d2046"


def test_every_setting_is_shown(call: Caller) -> None:
    """What a file may set is shown, each with its default, and no second list says so."""
    call.monkeypatch.delenv("DOWNLOADER_DATABASE")
    found = call("config", "--json").json
    assert set(found["settings"]) == FILE_KEYS
    assert {parameter.opts[0].removeprefix("--") for parameter in config.params} == {
        *FILE_KEYS,
        "json",
        "check",
    }
    assert {one["source"] for one in found["settings"].values()} == {"default"}
    assert {one["place"] for one in found["settings"].values()} == {None}
    values = {name: one["value"] for name, one in found["settings"].items()}
    assert (values["concurrency"], values["lease"], values["min-free"]) == (16, 60.0, 500_000_000)
    assert values["max-rate"] is None
    assert values["output"].endswith("/downloader/audio")
    assert values["database"].endswith("/downloader/downloader.sqlite3")
    assert found["file"] is None
    assert found["api_key"] == {"source": None, "place": None, "trouble": None}
    assert found["unknown_variables"] == {}


def test_the_settings_are_those_of_the_commands(call: Caller) -> None:
    """An option is the same here as in the command that it is of."""
    assert call.folder.exists()
    context = click.Context(cli)
    run = cli.get_command(context, "run")
    assert run is not None
    own = {parameter.name: parameter for parameter in config.params}
    for parameter in run.params:
        if parameter.opts[0].removeprefix("--") in FILE_KEYS:
            assert own[parameter.name] is parameter


def test_where_a_value_comes_from(call: Caller) -> None:
    """A flag goes before a variable, that before the file, that before the default."""
    path = call.configure('concurrency = 3\nattempts = 4\nmin_poll = "1.5"\nlease = "2m"\n')
    call.set(DOWNLOADER_CONCURRENCY="5", DOWNLOADER_ATTEMPTS="6")
    found = call("--config", path, "config", "--attempts", "7", "--json").json
    settings = found["settings"]
    assert settings["attempts"] == {"value": 7, "source": "flag", "place": "--attempts"}
    assert settings["concurrency"] == {
        "value": 5,
        "source": "environment",
        "place": "DOWNLOADER_CONCURRENCY",
    }
    assert settings["min-poll"] == {"value": 1.5, "source": "file", "place": str(path)}
    assert settings["lease"] == {"value": 120.0, "source": "file", "place": str(path)}
    assert settings["grace"] == {"value": 30.0, "source": "default", "place": None}
    assert found["file"] == str(path)


def test_what_people_read(call: Caller) -> None:
    """Each setting is a line, as it would be typed, with its place."""
    path = call.configure('concurrency = 3\nlease = "120"\nmax-rate = 5000000\n')
    call.set(CAMB_API_KEY=KEY)
    answer = call("--config", path, "config")
    assert (answer.code, answer.err) == (0, "")
    lines = [" ".join(line.split()) for line in answer.out.splitlines()]
    assert f"concurrency 3 ({path})" in lines
    assert f"lease 2m ({path})" in lines
    assert f"max-rate 5M ({path})" in lines
    assert "give-up-after 1d (default)" in lines
    assert f"database {call.database} (DOWNLOADER_DATABASE)" in lines
    assert f"output {call.folder}/audio (default)" in lines
    assert "the API key (not shown) (CAMB_API_KEY)" in lines
    assert f"settings file {path}" in lines
    assert KEY not in answer.out


def test_the_key(call: Caller) -> None:
    """Of the key the place is told, with what is wrong with it, and never the key."""
    path = call.folder / "key"
    call.set(CAMB_API_KEY_FILE=str(path))
    found = call("config", "--json").json["api_key"]
    assert (found["source"], found["place"]) == (None, None)
    assert f"{path}, which cannot be read" in found["trouble"]
    assert "which cannot be read" in call("config").out
    path.write_text(KEY, encoding="ascii")
    path.chmod(0o600)
    answer = call("config", "--json")
    assert answer.json["api_key"] == {"source": "file", "place": str(path), "trouble": None}
    assert KEY not in answer.out
    path.write_text(f"{KEY} {KEY}", encoding="ascii")
    answer = call("config")
    assert "white space" in answer.out
    assert KEY not in answer.out


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("concurrency", "many", "'many' is not a whole number from 1 to 256"),
        ("lease", "soon", "'soon' is not a duration"),
        ("prune-events-after", "30", "'30' has no unit: give 30d"),
        ("min-free", "5X", "'5X' is not a size"),
        ("engine", "wget", "'wget' is not one of"),
        ("type", "song", "'song' is not one of"),
        ("api-url", "http://example.com", "in the clear"),
        ("max-poll", "1s", "less than --min-poll"),
        ("database", "postgresql://h/runs", "not supported"),
    ],
)
def test_a_value_that_will_not_do(call: Caller, name: str, value: str, said: str) -> None:
    """What no option would take is an error that names its place: flag, variable or file."""
    variable = "DOWNLOADER_" + name.upper().replace("-", "_")
    call.monkeypatch.delenv("DOWNLOADER_DATABASE")
    for arguments, place in (
        (["config", f"--{name}", value], f"--{name}"),
        (["config"], variable),
        (["--config", call.configure(f'{name} = "{value}"\n'), "config"], "settings.toml"),
    ):
        with call.monkeypatch.context() as patched:
            if place == variable:
                patched.setenv(variable, value)
            answer = call(*arguments)
            assert (answer.code, answer.out) == (2, "")
            assert said in answer.err
            assert place in answer.err
            assert (variable in answer.err) == (place == variable)


def test_every_command_names_the_place(call: Caller) -> None:
    """Where a value of the file or a variable will not do, `run` names the place as well."""
    path = call.configure("concurrency = 0\n")
    assert f"'--concurrency' (from {path})" in call("--config", path, "run").err
    call.set(DOWNLOADER_LEASE="soon")
    assert "'--lease' (from DOWNLOADER_LEASE)" in call("run").err
    answer = call("run", "--lease", "later")
    assert "'--lease'" in answer.err
    assert "DOWNLOADER_LEASE" not in answer.err


_ANY_TEXT = {"type", "verbose", "output", "database", "metrics-host", "metrics-textfile"}
"""What `run` would begin with, whatever is given."""


def test_a_key_in_the_place_of_a_value(call: Caller) -> None:
    """A key or a signature that is typed where a value belongs is not repeated."""
    call.set(CAMB_API_KEY=KEY)
    signed = "https://s.example/1.wav?X-Amz-Signature=5ec2e75ec2e7"
    for name in FILE_KEYS:
        for value in (KEY, signed):
            for command in ("config", "run"):
                if command == "run" and name in _ANY_TEXT:
                    continue
                answer = call(command, f"--{name}={value}")
                assert KEY not in answer.out + answer.err, name
                assert "5ec2e7" not in answer.out + answer.err, name


def test_variables_that_nothing_reads(call: Caller) -> None:
    """A variable that is misspelt is told with what may be meant; all else is shown."""
    call.set(DOWNLOADER_OUTPUTS="/x", DOWNLOADER_QQQ="1")
    answer = call("config", "--json")
    assert answer.json["unknown_variables"] == {
        "DOWNLOADER_OUTPUTS": "DOWNLOADER_OUTPUT",
        "DOWNLOADER_QQQ": None,
    }
    answer = call("config")
    assert answer.code == 0
    assert "nothing reads DOWNLOADER_OUTPUTS: did you mean DOWNLOADER_OUTPUT?" in answer.err
    assert "nothing reads DOWNLOADER_QQQ: unset it" in answer.err


def test_an_unknown_key_of_the_file(call: Caller) -> None:
    """An unknown setting of the file stays an error, with the nearest name."""
    answer = call("--config", call.configure("concurency = 3\n"), "config")
    assert answer.code == 2
    assert "Did you mean concurrency?" in answer.err


@given(st.integers(0, 10 * 365 * 86400))
def test_durations_are_shown_as_they_are_typed(seconds: int) -> None:
    """What is shown of a duration can be typed, and means the same."""
    assert Duration().convert(Duration.show(float(seconds)), None, None) == seconds


@given(st.integers(0, 10**18))
def test_sizes_are_shown_as_they_are_typed(size: int) -> None:
    """What is shown of a size can be typed, and means the same."""
    assert Size().convert(Size.show(size), None, None) == size


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.05, "0.05s"), (90, "90s"), (5400, "90m"), (172_800, "2d"), (0, "0s")]
)
def test_durations(seconds: float, text: str) -> None:
    """The largest unit of which a duration is a whole number is taken."""
    assert Duration.show(seconds) == text


def test_a_check_is_silent(call: Caller) -> None:
    """`--check` says nothing, with 0, of what `run` would take."""
    call.set(CAMB_API_KEY=KEY)
    path = call.configure("concurrency = 3\n")
    answer = call("--config", path, "config", "--check")
    assert (answer.code, answer.out, answer.err) == (0, "", "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("concurrency = 0", "--concurrency"),
        ('min-poll = "1h"', "--max-poll"),
        ('on-done = "/no/such/hook"', "--on-done"),
        ('metrics-textfile = "/dev/null"', "--metrics-textfile"),
        ('api-url = "http://elsewhere.example/apis"', "in the clear"),
    ],
)
def test_a_check_refuses_what_run_would(call: Caller, line: str, said: str) -> None:
    """`--check` ends with 2, and with the words of `run`, where that would not start."""
    call.set(CAMB_API_KEY=KEY)
    path = call.configure(f"{line}\n")
    checked, started = call("--config", path, "config", "--check"), call("--config", path, "run")
    assert (checked.code, started.code) == (2, 2)
    assert said in checked.err
    assert said in started.err


def test_a_check_wants_a_key(call: Caller, tmp_path: Path) -> None:
    """Without a key `--check` ends with 2; a service with credentials is told of that way too."""
    assert "There is no API key; set CAMB_API_KEY" in call("config", "--check").err
    call.set(CREDENTIALS_DIRECTORY=str(tmp_path))
    answer = call("config", "--check")
    assert answer.code == 2
    assert "the credential camb-api-key (LoadCredential=)" in answer.err
    assert redact_text(answer.err) == answer.err  # nothing of it is lost in a log
    assert call("config", "--check", "--json").code == 2
