"""Which engine moves the bytes: the one that is asked for, or the best that is installed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from downloader.errors import ConfigurationError
from downloader.settings import Settings
from downloader.transfer.choice import make_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

BROKEN = 'raise ImportError("libssl.so.3: cannot open shared object file")\n'
OLD = "def version_info(): return (*[None] * 8, ('http', 'https'))\n"
NO_TLS = "PREREQFUNCTION = 1\ndef version_info(): return (*[None] * 8, ('http',))\n"


@pytest.fixture
def without_pycurl(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have nothing loaded of libcurl, and load it anew."""
    for name in list(sys.modules):
        if name == "pycurl" or name.startswith(("pycurl.", "downloader.transfer.curl")):
            monkeypatch.delitem(sys.modules, name)
    yield
    for name in list(sys.modules):
        if name == "pycurl" or name.startswith("downloader.transfer.curl"):
            del sys.modules[name]


def engine_of(kind: str) -> str:
    """Make an engine, and return its name."""
    with contextlib.closing(make_engine(Settings(Path(), "key", engine=kind))) as engine:
        return engine.name


@pytest.mark.parametrize(("kind", "name"), [("auto", "curl"), ("curl", "curl"), ("httpx", "httpx")])
def test_engine_that_is_there(kind: str, name: str) -> None:
    """Both engines can be asked for; by itself the program takes libcurl."""
    with structlog.testing.capture_logs() as logged:
        assert engine_of(kind) == name
    assert logged == []


@pytest.mark.usefixtures("without_pycurl")
def test_pycurl_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pycurl httpx does, and who asks for libcurl is told what to install."""
    monkeypatch.setitem(sys.modules, "pycurl", None)
    with structlog.testing.capture_logs() as logged:
        assert engine_of("auto") == "httpx"
    assert logged == []
    with pytest.raises(ConfigurationError, match=r"not installed: pip install pycurl\."):
        engine_of("curl")


@pytest.mark.usefixtures("without_pycurl")
@pytest.mark.parametrize(
    ("content", "why"), [(BROKEN, "libssl"), (OLD, "too old"), (NO_TLS, "no TLS")]
)
def test_pycurl_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, why: str
) -> None:
    """A pycurl that is of no use is told, even where httpx takes its place."""
    (tmp_path / "pycurl.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with structlog.testing.capture_logs() as logged:
        assert engine_of("auto") == "httpx"
    [line] = logged
    assert (line["log_level"], line["event"]) == ("warning", "engine.curl_unusable")
    assert why in line["error"]
    with pytest.raises(ConfigurationError, match=why):
        engine_of("curl")


LOADED = """
import sys
from pathlib import Path
from downloader.transfer.choice import make_engine
from downloader.settings import Settings

kinds = {"pycurl", "downloader.transfer.httpx_engine"}
assert not kinds & set(sys.modules), "loaded before it is needed"
make_engine(Settings(Path(), "key", engine=sys.argv[1])).close()
print(*kinds & set(sys.modules))
"""


@pytest.mark.parametrize(
    ("kind", "loaded"), [("curl", "pycurl"), ("httpx", "downloader.transfer.httpx_engine")]
)
def test_only_what_is_used_is_loaded(kind: str, loaded: str) -> None:
    """An engine costs no start-up time where it is not used."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, kind], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [loaded]
