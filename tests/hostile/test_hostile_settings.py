from __future__ import annotations

import json
import os
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hostile.hostile_values import MB, assert_told, measured
from hypothesis import example, given
from hypothesis import strategies as st

from downloader.camb.client import ApiClient
from downloader.cli import configuration
from downloader.cli import run as run_command
from downloader.cli.configuration import FILE_KEYS
from downloader.errors import ConfigurationError
from downloader.observe.tally import Tally
from downloader.rules.batching import Batch
from downloader.service import Result
from downloader.settings import check_api_url

if TYPE_CHECKING:
    from pathlib import Path

    from cli.calling import Caller
    from harness import Program

    from downloader.settings import Settings

VALUES = [
    *("", " ", "nan", "inf", "-inf", "1e309", "-1", "-0", "+1", "\u0663", "\uff11", "1_0", "0x10"),
    *("1.5.5", "9" * 400, "9" * 5000, "x" * 20_000, "1d1", "1s ", "99999d", "None", "true", "[]"),
    *("-", "--", "/dev/null", "/dev/null/x", "\x1b[31m", "a\nb", "\udcff", "../..", "file:x"),
    *("http://[", "http://[::1%25eth0]/", "http://a b/", "https://u:p@h/", "https://h:99999/"),
    *("https://h/?q", "//h", "https://", "https://xn--/", "http://127.1/", "https://\u2028/"),
    *("sqlite://", "sqlite:///:memory:", "sqlite:///a?x=%", "postgresql://h/x", "x://[::1"),
]
FILE_VALUES = [
    *("nan", "inf", "-inf", "1e400", "-0.0", "0", "-5", "9" * 5000, "0x7fffffffffffffffff"),
    *("true", "[]", "[[1]]", "{}", "{a = 1}", "2026-01-01", "12:00:00", "2026-01-01T00:00:00Z"),
    *('""', '"a\\u0000b"', '"a\\nb"', "'''\na\nb\n'''", '"\\u202e"', '"' + "x" * 20_000 + '"'),
]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Keep `run` from running; what it was to run with is here."""
    found: list[Settings] = []

    def execute(settings: Settings, *_: Any, **__: Any) -> Result:  # noqa: ANN401 - not looked at
        found.append(settings)
        return Result(Tally(), None, False, None, settings.output, 0)  # noqa: FBT003 - in its order

    monkeypatch.setattr(run_command, "execute", execute)
    return found


def assert_judged(call: Caller, started: list[Settings], *arguments: str | Path) -> None:
    """Assert that a call has either taken its settings or said what is wrong with them."""
    started.clear()
    answer = call(*arguments)
    assert_told(answer, 0, 2)
    assert (answer.code == 0) == bool(started)
    assert len(answer.err) < 30_000
    for settings in started:
        seconds = (settings.lease_seconds, settings.grace_seconds, settings.stall_seconds)
        assert all(0 <= one <= 10 * 366 * 86_400 for one in seconds)
        assert 1 <= settings.concurrency <= 256
        assert "\0" not in str(settings.output)


NAMES = sorted(FILE_KEYS - {"type", "verbose"})


@pytest.mark.parametrize("name", NAMES)
def test_values_of_flags(call: Caller, started: list[Settings], name: str) -> None:
    """Whatever a flag is set to, it is taken within its bounds or refused in words."""
    for value in VALUES:
        assert_judged(call, started, "run", "--drain", f"--{name}={value}")


@pytest.mark.parametrize("name", [*NAMES, "type", "verbose", "config"])
def test_values_of_the_environment(call: Caller, started: list[Settings], name: str) -> None:
    """Whatever a variable is set to, it is taken within its bounds or refused in words."""
    variable = "DOWNLOADER_" + name.upper().replace("-", "_")
    for value in VALUES:
        if name == "config" and value == "\udcff":
            continue  # named in the message, which this process's own capture cannot encode
        call.set(**{variable: value})
        assert_judged(call, started, "run", "--drain")


@pytest.mark.parametrize("name", [*NAMES, "type", "verbose"])
def test_values_of_the_file(call: Caller, started: list[Settings], name: str) -> None:
    """Whatever a setting of the file is, it is taken within its bounds or refused in words."""
    call.monkeypatch.delenv("DOWNLOADER_" + name.upper().replace("-", "_"), raising=False)
    written = [json.dumps(value) for value in VALUES if value != "\udcff"] + FILE_VALUES
    for value in written:
        config = call.configure(f"{name} = {value}\n")
        assert_judged(call, started, "--config", config, "run", "--drain")


BROKEN_FILES: dict[str, bytes] = {
    "not UTF-8": b"output = '\xff'",
    "UTF-16": "output = 'x'".encode("utf-16"),
    "zeros": bytes(500),
    "random bytes": bytes(range(256)),
    "nested arrays": b"concurrency = " + b"[" * 100_000,
    "nested tables": b"concurrency = " + b"{a=" * 100_000,
    "dotted": b"a." * 50_000 + b"b = 1",
    "dotted in lines": b"".join(b"%d." % n + b"a." * 3900 + b"b = 1\n" for n in range(3)),
    "a number of 5,000 digits": b"concurrency = " + b"9" * 5000,
    "twice": b"lease = 5\nlease = 6",
    "a table": b"[output]\nx = 1",
    "a long key": b'"' + b"k" * 100_000 + b'" = 1',
    "an empty key": b'"" = 1',
    "a key with an escape": b'"\\u001b[31m" = 1',
    "the API key": b"api_key = 'abcdef0123456789'",
    "not closed": b"output = '''x",
    "2 MB": b"# " + b"x" * 2 * MB,
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_files_that_are_no_settings(call: Caller, started: list[Settings], name: str) -> None:
    """A file of anything but settings is refused, and what it holds is not shown."""
    path = call.folder / "settings.toml"
    path.write_bytes(BROKEN_FILES[name])
    answer = call("--config", path, "run", "--drain")
    assert_told(answer, 2)
    assert str(path) in answer.err
    assert len(answer.err) < 1000
    assert "abcdef0123456789" not in answer.err
    assert "\x1b" not in answer.err
    assert started == []


def test_paths_that_are_no_files(call: Caller) -> None:
    """A folder, a loop of links and the home of nobody are told as such."""
    (call.folder / "loop").symlink_to("loop")
    for named in (
        call.folder,
        call.folder / "loop",
        "~nobody-of-that-name/x",
        "x" * 5000,
        "/dev/zero",
    ):
        assert_told(call("--config", named, "status"), 2)


def test_a_pipe_that_nobody_writes_to(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody writes to is not waited for without end."""
    monkeypatch.setattr(configuration, "_PIPE_SECONDS", 0.2)
    os.mkfifo(call.folder / "pipe")
    answer = call("--config", call.folder / "pipe", "status")
    assert_told(answer, 2)
    assert "nothing came in 0.2 seconds" in answer.err


def test_a_pipe_with_settings(call: Caller, started: list[Settings]) -> None:
    """Settings may come through a pipe, piece by piece."""
    path = call.folder / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for piece in (b"lea", b"se = 77\n", b"# " + b"x" * 8000, b"\n# x"):
                pipe.write(piece)

    writer = threading.Thread(target=write)
    writer.start()
    answer = call("--config", path, "run", "--drain")
    writer.join()
    assert answer.code == 0, answer
    assert started[0].lease_seconds == 77


@pytest.mark.parametrize("what", ["settings", "key"])
def test_memory_of_huge_files(program: Program, tmp_path: Path, what: str) -> None:
    """A file of many gigabytes, named by mistake, is not read whole."""
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(16 * 1024 * MB)
    environment = program.environment() | {"DOWNLOADER_API_URL": "http://127.0.0.1:9/apis"}
    if what == "settings":
        environment["DOWNLOADER_CONFIG"] = str(path)
    else:
        del environment["CAMB_API_KEY"]
        environment["CAMB_API_KEY_FILE"] = str(path)
    code, said, peak = measured("run", "--once", env=environment)
    assert code == 2
    assert str(path) in said
    assert peak < 100 * MB


KEY_FILES: dict[str, bytes] = {
    "nothing": b"",
    "zeros": bytes(100),
    "random bytes": bytes(range(256)),
    "UTF-16 cut short": "abcdef0123456789".encode("utf-16")[:-1],
    "two lines": b"abcdef0123456789\nabcdef\n",
    "an escape": b"\x1b[31mabcdef0123456789",
    "a line of 2 MB": b"abcdef0123456789" * 131_072,
}


@pytest.mark.parametrize("name", KEY_FILES)
def test_files_that_hold_no_key(call: Caller, started: list[Settings], name: str) -> None:
    """A file of anything but a key is refused, and what it holds is not shown."""
    path = call.folder / "key"
    path.write_bytes(KEY_FILES[name])
    path.chmod(0o600)
    call.monkeypatch.delenv("CAMB_API_KEY")
    call.set(CAMB_API_KEY_FILE=str(path))
    answer = call("run", "--once")
    assert_told(answer, 2)
    assert "abcdef" not in answer.err
    assert len(answer.err) < 500
    assert started == []


def test_paths_that_hold_no_key(call: Caller) -> None:
    """A folder, a pipe, a device and the home of nobody hold no key, and nothing is waited for."""
    os.mkfifo(call.folder / "pipe")
    call.monkeypatch.delenv("CAMB_API_KEY")
    for named in (call.folder, call.folder / "pipe", "/dev/zero", "~nobody-of-that-name/x", "/x\n"):
        call.set(CAMB_API_KEY_FILE=str(named))
        assert_told(call("run", "--once"), 2)


def test_names_that_no_encoding_has(program: Program) -> None:
    """A file whose name is no text is named in the message as well as can be."""
    program.env["DOWNLOADER_CONFIG"] = "\udcff\udcfe"
    answer = program("status")
    assert answer.returncode == 2
    assert (
        answer.stderr == "downloader: \\udcff\\udcfe cannot be read: No such file or directory.\n"
    )


_URL_PIECES = (
    *"ab\N{LATIN SMALL LETTER E WITH ACUTE}1.:/[]@%?#\\ -_~\u2028\u3002\uff11\x7f\udcff",
    *("xn--", "localhost", "127.0.0.1", "::1", "%25", "..", ":99999", ":0"),
)


@given(
    start=st.sampled_from(["https://", "http://", "HTTPS:", "https:/", ""]),
    pieces=st.lists(st.sampled_from(_URL_PIECES), max_size=8),
)
@example("https://", ["xn--"])
@example("http://127.0.0.1", [":0"])
def test_any_api_url(start: str, pieces: list[str]) -> None:
    """An API URL is refused when it is set, or can be asked for as long as the service runs."""
    url = start + "".join(pieces)
    try:
        check_api_url(url)
        client = ApiClient(url, "test-key-0123456789")
    except ConfigurationError:
        return
    with (
        closing(client),
        mock.patch("socket.create_connection", side_effect=OSError("unplugged")),
    ):
        for batch in (Batch("tts", (1,)), Batch("tts", (1, 2))):
            assert "cannot be reached" in getattr(client.ask(batch).judgement, "message", "")
