from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest
    from cli.calling import Caller


def test_engine_that_nobody_has(call: Caller) -> None:
    """An engine that is none is an error of usage, which names those that are."""
    answer = call("run", "--once", "--engine", "wget")
    assert answer.code == 2
    assert "'auto', 'httpx', 'curl'" in answer.err


def test_engine_that_is_not_installed(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for libcurl where pycurl is missing is told what to install, in one line."""
    for name in list(sys.modules):
        if name.startswith(("pycurl", "downloader.transfer.curl")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pycurl", None)
    call.set(CAMB_API_KEY="test-key-0123456789", DOWNLOADER_ENGINE="curl")
    answer = call("run", "--once", "--api-url", "http://127.0.0.1:9/apis")
    assert answer.code == 2
    assert "pip install pycurl" in answer.err
    assert len(answer.err.strip().splitlines()) == 1
