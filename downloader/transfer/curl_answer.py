"""What comes in for one request by libcurl: header lines and bytes, on their way to a fetch."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

from downloader.transfer.curl_library import pycurl
from downloader.transfer.pace import Pace
from downloader.transfer.problems import begin, broke_off, stalled
from downloader.transfer.redirects import LOCATION, REDIRECTS

if TYPE_CHECKING:
    from downloader.transfer.addresses import Address
    from downloader.transfer.engine import Fetch, Timing
    from downloader.transfer.rate_limit import RateLimit

MAX_HEADER_BYTES: Final = 128 * 1024
"""More than this is no head of an answer; libcurl's own bound is new, and of some 300 KiB."""

GATHERED_BYTES: Final = 128 * 1024
"""How much of a body is gathered before it is handed on: each piece is hashed and written, and
costs a thread its turn several times over."""

NO_HTTP: Final = "what came is no answer of HTTP"
"""What is said of an answer that cannot be read."""

_STATUS_LINE: Final = re.compile(rb"HTTP/\d+(?:\.\d+)? +(\d{3})(?!\d)")
_ABORT: Final = -1


class Answer:
    """One answer, and when it is due; its methods are libcurl's callbacks.

    libcurl prints what a callback raises and forgets it: here it is kept as `failure`, and the
    request is aborted, as it is where no more of the answer is wanted. `connected` says whether
    the request went out, `location` where the answer redirects to, and `has_enough` whether the
    fetch wants no more. Until `paused_until` (monotonic clock) a limit allows no more bytes.
    """

    def __init__(
        self, address: Address, fetch: Fetch, timing: Timing, limit: RateLimit | None
    ) -> None:
        self._address = address
        self._fetch = fetch
        self._timing = timing
        self._limit = limit
        self._pace: Pace | None = None
        self._status: int | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._header_bytes = 0
        self._final = False
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._heard_at = time.monotonic()
        self._final_due = self._heard_at + timing.connect_seconds + timing.stall_seconds
        self._paused_at = 0.0
        self._limit_changes = 0
        self.paused_until: float | None = None
        self.connected = False
        self.body_bytes = 0
        self.failure: BaseException | None = None
        self.location: str | None = None
        self.has_enough = False

    @property
    def begun(self) -> bool:
        """Whether the fetch was told status and headers."""
        return self._pace is not None

    def heard(self) -> None:
        """Note that something has happened on the connection."""
        self._heard_at = time.monotonic()

    def excuse(self, seconds: float) -> None:
        """Leave out a time in which nothing could be heard."""
        self._heard_at += seconds
        self._final_due += seconds
        if self._pace is not None:
            self._pace.excuse(seconds)

    @property
    def may_resume(self) -> bool:
        """Whether a pause is over, or of a limit that is no more."""
        if self.paused_until is None or self._limit is None:
            return False
        return time.monotonic() >= self.paused_until or self._limit.changes != self._limit_changes

    def resume(self) -> None:
        """End a pause, which was none of the storage's."""
        self.paused_until = None
        self.excuse(time.monotonic() - self._paused_at)

    def check(self) -> None:
        """See whether the transfer may go on.

        Raises:
            Interrupted: the guard said stop.
            TransferError: `stalled`; the next byte of the body, or the head, is overdue.

        """
        self._fetch.guard.check()
        if self.paused_until is not None:
            return
        due = self._final_due
        if self._pace is not None:
            # Whatever frames a body can drip for days without a byte of the body itself.
            due = self._pace.silent_since + self._timing.stall_seconds
        elif self.connected:
            due = min(due, self._heard_at + self._timing.stall_seconds)
        if time.monotonic() >= due:
            raise stalled(self._timing)

    def on_connected(self, *_: object) -> int:
        """Note that the request goes out now; until here libcurl's connect time-out counts."""
        self.connected = True
        self.heard()
        return 0

    def on_header(self, line: bytes) -> int | None:
        """Take a line of a head."""
        try:
            return self._header(line)
        except BaseException as error:  # noqa: BLE001 - carried through libcurl, raised behind it
            self.failure = error
            return _ABORT

    def on_body(self, chunk: bytes) -> int | None:
        """Take bytes of the body: 16 KiB at the most, as libcurl has it."""
        if self._pace is None:  # a redirect's
            return _ABORT
        if self.paused_until is not None:
            return pycurl.WRITEFUNC_PAUSE  # libcurl keeps it, and reads no more
        self.body_bytes += len(chunk)
        self._gathered.append(chunk)
        self._gathered_bytes += len(chunk)
        if self._gathered_bytes < GATHERED_BYTES:
            return None
        try:
            self.hand_on()
        except BaseException as error:  # noqa: BLE001 - as above
            self.failure = error
            return _ABORT
        return _ABORT if self.has_enough else None

    def hand_on(self) -> None:
        """Let the fetch have what has come; raises what that does."""
        if self._pace is None or not self._gathered_bytes:
            return
        body = b"".join(self._gathered)
        self._gathered, self._gathered_bytes = [], 0
        self._fetch.guard.check()
        seconds = 0.0
        if self._limit is not None:
            self._limit_changes = self._limit.changes
            seconds = self._limit.book(len(body))
            self._paused_at = time.monotonic()
        self.has_enough = not self._pace.push(self._fetch, body)
        if seconds > 0:
            self._paused_at, self.paused_until = time.monotonic(), self._paused_at + seconds

    def _header(self, line: bytes) -> int | None:
        if self._final:  # a trailer
            return None
        self._header_bytes += len(line)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise broke_off("the head of the answer is larger than any is")
        text = line.rstrip(b"\r\n")
        if self._status is None:
            self.check()  # heads that come without end leave libcurl no time to return
            status = _STATUS_LINE.match(text)
            if status is None:
                raise broke_off(NO_HTTP)
            self._status = int(status[1])
        elif text[:1] in (b" ", b"\t") and self._fields:  # a line that was folded, long ago
            name, value = self._fields[-1]
            self._fields[-1] = (name, value + b" " + text.strip())
        elif text:
            name, _, value = text.partition(b":")
            self._fields.append((name.strip(), value.strip()))
        else:
            return self._end_of_head(self._status)
        return None

    def _end_of_head(self, status: int) -> int | None:
        headers = _joined(self._fields)
        self._status, self._fields, self._header_bytes = None, [], 0
        if status < 200:  # an interim answer
            return None
        if "content-length" in headers:
            # Not every libcurl minds lengths that contradict each other.
            lengths = {length.strip() for length in headers["content-length"].split(",")}
            if len(lengths) > 1:
                raise broke_off(NO_HTTP)
            headers["content-length"] = lengths.pop()
        self._final = True
        if status in REDIRECTS and LOCATION in headers:
            self.location = headers[LOCATION]
            # Its body is not waited for; without one the connection can be kept.
            return None if headers.get("content-length") == "0" else _ABORT
        begin(self._fetch, status, headers, self._address)
        self._pace = Pace(self._timing)
        return None


def _joined(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by name in lower case, repeated ones joined by ", ": the rules know that."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = _text(raw_name).lower(), _text(raw_value)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _text(raw: bytes) -> str:
    """Return what a header says: UTF-8 if it can be that, as httpx has it, else Latin-1."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
