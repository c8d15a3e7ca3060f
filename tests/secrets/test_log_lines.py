"""What `logs.configure` lets through: of ourselves redacted lines, of libraries warnings alone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from spilling import signed

from downloader.logger import get_logger
from downloader.observe import logs

if TYPE_CHECKING:
    from spilling import Listener, Secrets

TELLTALES = [
    "httpx",
    "httpcore",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "sqlalchemy.engine",
    "sqlalchemy.engine.Engine",
]


@pytest.mark.parametrize("name", TELLTALES)
def test_telltales_are_silent(
    listener: Listener, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A library that logs URLs, headers or rows is silent, though somebody listens to it itself."""
    logging.getLogger(name).debug("a row")
    logging.getLogger(name).error("a URL")
    assert [line for line in listener.lines if line.startswith(name)] == []
    assert capsys.readouterr().err == ""


def test_telltales_that_come_later(
    listener: Listener, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    """A logger of such a family that nobody has foreseen does not reach the root's listeners."""
    logging.getLogger("httpcore").removeHandler(listener)
    late = logging.getLogger(f"httpcore.{request.node.name}")
    late.error("a URL")
    assert listener.lines == []
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("listener")
def test_a_librarys_warning(capsys: pytest.CaptureFixture[str], secrets: Secrets) -> None:
    """A library's warning is one line of ours: redacted, and without a traceback."""
    url = secrets.also(signed("https://storage.example/1.wav"))
    library = logging.getLogger("some.library")
    library.info("nobody need know")
    library.warning("cannot\nfetch %s", url)
    library.error("it broke", exc_info=ValueError(url))
    first, second = capsys.readouterr().err.splitlines()
    assert "[warning" in first
    assert "library=some.library message='cannot fetch https://storage.example/1.wav?…'" in first
    assert "[error" in second
    assert "it broke: ValueError: https://storage.example/1.wav?…" in second
    assert secrets(first + second) == []


@pytest.mark.usefixtures("listener")
def test_a_librarys_bug(capsys: pytest.CaptureFixture[str]) -> None:
    """A library whose text and arguments do not fit is shown as it is, and ends nothing."""
    record = logging.LogRecord("some.library", logging.ERROR, "", 0, "%d", ("no number",), None)
    logs._LIBRARIES.handle(record)
    assert "library=some.library message=%d" in capsys.readouterr().err


@pytest.mark.usefixtures("listener")
def test_our_own_lines(capsys: pytest.CaptureFixture[str], secrets: Secrets) -> None:
    """Of whatever kind a value is, the signature in it is not shown; what has none is as it was."""
    url = secrets.also(signed("https://storage.example/1.wav"))
    get_logger("tests").debug(
        "an.event",
        text=url,
        texts=[url, 1],
        mapping={url: url},
        error=ValueError(url),
        raw=url.encode(),
        run_ids=(1, 2),
        bytes=3,
    )
    said = capsys.readouterr().err
    assert "run_ids=(1, 2) bytes=3\n" in said
    assert said.count("storage.example/1.wav?…") == 6
    assert secrets(said) == []


def test_configured_again(listener: Listener, capsys: pytest.CaptureFixture[str]) -> None:
    """However often logs are configured, a warning is one line."""
    for verbosity in (0, 2, 9, -1, 0):
        logs.configure(verbosity)
    logging.getLogger("some.library").warning("once")
    assert capsys.readouterr().err.count("once") == 1
    assert sum("once" in line for line in listener.lines) == 1
