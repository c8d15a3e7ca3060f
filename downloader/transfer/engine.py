"""The push interface between an engine, which moves bytes, and a fetch, which judges them.

An engine knows HTTP and nothing of runs; a fetch knows runs and nothing of sockets. Another
engine is another module with this interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from downloader.rules.decisions import Problem
    from downloader.transfer.guard import Guard

MAX_REDIRECTS: Final = 5


@dataclass(frozen=True, slots=True)
class Timing:
    """When a transfer counts as dead; seconds, and bytes a second.

    `floor_bytes_per_second` is the mean over the whole transfer, looked at once
    `floor_after_seconds` have passed: a drip of bytes beats every time-out on silence.
    """

    connect_seconds: float = 10.0
    stall_seconds: float = 30.0
    floor_bytes_per_second: float = 1024.0
    floor_after_seconds: float = 60.0


class TransferError(Exception):
    """A transfer ended without a file; `problem` says why and what it calls for."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.error_message)
        self.problem = problem


class Fetch(Protocol):
    """One request, with those that it is redirected to, and what takes its answer.

    An engine calls it in threads of its own, one call at a time. What `ask`, `begin` or `write`
    raises ends this fetch alone. They hold up others while they last, so they do not wait.
    """

    url: str
    guard: Guard

    def ask(self) -> Mapping[str, str]:
        """Return the headers to ask with; the request goes out next."""

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the final status and headers (lower-case names), redirects behind it."""

    def write(self, chunk: bytes) -> bool:
        """Take bytes of the body; False says that no more are wanted."""

    def ended(self, error: BaseException | None) -> None:
        """Take how it ended: exactly once, last; None is well. May start another fetch.

        A `TransferError`: the network failed, stalled or broke off, or a redirect is unusable.
        `Interrupted`: the guard said stop, or the engine is closed. A `DiskError`: no more files,
        and so no connections, can be opened. Anything else is what the other methods raised.
        """


class Engine(Protocol):
    """What moves the bytes."""

    name: str

    def start(self, fetch: Fetch) -> None:
        """GET its URL, sent byte for byte, and push the answer into it; return at once.

        Follows at most `MAX_REDIRECTS` redirects, to http and https only. Bytes come as sent:
        no content decoding. A guard that says stop is heard within a tenth of a second.
        """

    def resize(self, connections: int) -> None:
        """Be ready for so many transfers at a time, more or fewer than before."""

    def close(self) -> None:
        """Close idle connections; those in use are closed as their transfers end."""
