"""The engines, all of them, and what the fixtures of these tests are."""

from __future__ import annotations

import contextlib
import traceback
from typing import TYPE_CHECKING, Protocol

import pytest
from transfer.wire import Script, fetch

from downloader.transfer.curl_engine import CurlEngine
from downloader.transfer.engine import Engine, Timing, TransferError
from downloader.transfer.httpx_engine import HttpxEngine

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from transfer.wire import RawServer

    from downloader.rules.decisions import Problem
    from downloader.transfer.rate_limit import RateLimit

# One line an engine: each goes through the whole suite.
ENGINES: dict[str, type[HttpxEngine | CurlEngine]] = {"httpx": HttpxEngine, "curl": CurlEngine}

SECRET = "5ec2e7"
"""Stands for a signature."""

SIGNED = f"?X-Amz-Date=20250101T000000Z&X-Amz-Signature={SECRET}"


class MakeEngine(Protocol):
    """Makes engines that are closed with the test."""

    def __call__(
        self,
        timing: Timing | None = None,
        connections: int = 4,
        rate_limit: RateLimit | None = None,
    ) -> Engine:
        """Make one; patient with silence, and as fast as can be, unless told otherwise."""


class Serve(Protocol):
    """Starts raw servers that end with the test."""

    def __call__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> RawServer:
        """Start one."""


def problem_of(engine: Engine, url: str, headers: Mapping[str, str] | None = None) -> Problem:
    """Fetch a URL, signed, that cannot be; return why, having seen that no signature is shown."""
    with pytest.raises(TransferError) as raised:
        fetch(engine, url + SIGNED, headers)
    told = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert SECRET not in told
    assert "X-Amz" not in told
    assert raised.value.problem.error_message.endswith(".")
    return raised.value.problem


def make_engines(kind: str, stack: contextlib.ExitStack) -> MakeEngine:
    """Return what makes engines of one kind, closed with the stack."""

    def make(
        timing: Timing | None = None, connections: int = 4, rate_limit: RateLimit | None = None
    ) -> Engine:
        engine = ENGINES[kind](timing or Timing(), connections=connections, rate_limit=rate_limit)
        return stack.enter_context(contextlib.closing(engine))

    return make
