"""Large files, bad lines and URLs of tomorrow, through the whole service: what costs what."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import time
import wave
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from harness import Service
from transfer.wire import Peer, RawServer, fields, head, ok

from downloader.rules.states import RunKey
from downloader.store import control
from downloader.transfer.layout import PARTIAL
from downloader.transfer.part import KEPT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

TYPE = "text-to-sound"
MakeSmall = Callable[..., tuple["Small", Service]]


def wav(frames: int) -> bytes:
    """Make a WAV file of so many frames, two bytes each."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(hashlib.shake_256(b"sound").digest(2 * frames))
    return made.getvalue()


@dataclass
class Small:
    """A service and its storage in a few lines: what it answers is the test's to change."""

    content: bytes
    cut: int | None = None
    """After so many bytes of each answer the line breaks."""
    etag: str | None = '"v1"'
    missing: int = 0
    """How many requests find no object yet."""
    query: Callable[[], str] = lambda: ""
    """What a URL says of itself."""
    refuses: Callable[[str], bytes | None] = lambda _: None
    packs_answers: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    sent: int = 0
    asked: int = 0
    urls: int = 0
    server: RawServer = field(init=False)

    def __post_init__(self) -> None:
        self.server = RawServer(self._serve)

    @property
    def api_url(self) -> str:
        """Where the service is."""
        return f"{self.server.origin}/apis"

    def _serve(self, peer: Peer) -> None:
        while (request := peer.request()) is not None:
            line, told = request.split(b"\r\n")[0].decode(), fields(request)
            if line.startswith("POST"):
                asked = json.loads(peer.body(int(told["content-length"])))["run_ids"]
                self._answer(peer, {str(run_id): {"output_url": self._url()} for run_id in asked})
            elif "/apis/" in line:
                self._answer(peer, {"output_url": self._url()})
            elif not self._deliver(peer, line, told):
                return

    def _url(self) -> str:
        self.urls += 1
        return f"{self.server.origin}/x.wav?{self.query()}&n={self.urls}"

    def _answer(self, peer: Peer, value: object) -> None:
        body = json.dumps(value).encode()
        if self.packs_answers:
            peer.send(ok(gzip.compress(body), content_encoding="gzip"))
        else:
            peer.send(ok(body, content_type="application/json"))

    def _deliver(self, peer: Peer, line: str, told: dict[str, str]) -> bool:
        self.asked += 1
        refusal = self.refuses(line)
        if refusal is not None:
            peer.send(refusal)
            return True
        if self.asked <= self.missing:
            peer.send(head(404, content_length="0"))
            return True
        start = 0
        if self.etag is not None and told.get("if-range") == self.etag:
            start = int(told["range"][6:-1])
        stop = len(self.content)
        headers = {"content_length": str(stop - start), **self.headers}
        if self.etag is not None:
            headers["etag"] = self.etag
        if start:
            headers["content_range"] = f"bytes {start}-{stop - 1}/{stop}"
        body = self.content[start:stop][: self.cut]
        peer.send(head(206 if start else 200, **headers), body)
        self.sent += len(body)
        return len(body) == stop - start


@pytest.fixture
def make_small(make_service: Callable[[Any], Service]) -> Iterator[MakeSmall]:
    """Make a small service, and ours for it: `make_small(content, cut=…)`."""
    with contextlib.ExitStack() as stack:

        def make(content: bytes, **options: Any) -> tuple[Small, Service]:  # noqa: ANN401 - Small's fields
            small = Small(content, **options)
            stack.enter_context(small.server)
            return small, make_service(small)

        yield make


def tries(service: Service, number: int) -> None:
    """Have the service make so many tries, and no more for the sake of time."""
    limits = replace(service.settings.limits, attempts=number, patience_seconds=0)
    service.settings = replace(service.settings, limits=limits)


def refusal(status: int, body: bytes) -> bytes:
    """Make a refusal with a body."""
    return ok(body).replace(b" 200 ", b" %d " % status, 1)


def saved(service: Service, run_id: int = 1) -> bytes:
    """Return a saved file."""
    return (service.settings.output / f"{run_id}.wav").read_bytes()


def parts(service: Service) -> list[int]:
    """Return the sizes of the parts that are kept."""
    return [path.stat().st_size for path in (service.settings.output / PARTIAL).iterdir()]


def test_48_mb_cut_every_4_mb(make_small: MakeSmall) -> None:
    """A file of 48 MB on a line that breaks every 4 MB is saved, each byte fetched once."""
    content = wav(24_000_000)
    small, service = make_small(content, cut=4_000_000)
    service.submit(1)
    assert service.run().tally.done == 1
    assert saved(service) == content
    assert small.sent == len(content)
    assert service.rows("attempts, refreshes, etag, failing_since") == [(1, 0, '"v1"', None)]
    begun = [state for state in service.ways(1) if state == "downloading"]
    assert len(begun) == 13


def test_a_part_outlives_failure(make_small: MakeSmall) -> None:
    """What a failed run has of its file is kept, and `retry` goes on with it."""
    content = wav(1_000_000)
    small, service = make_small(content, cut=1_500_000)
    tries(service, 1)
    down = refusal(500, b"<Error/>")
    small.refuses = lambda _: down if small.asked > 1 else None
    service.submit(1)
    assert service.run(max_duration_seconds=60).tally.failed == 1
    [(code, etag, size)] = service.rows("error_code, etag, bytes")
    assert (code, etag, size) == ("storage_error", '"v1"', len(content))
    assert parts(service) == [1_500_000]
    small.refuses = lambda _: None
    service.submit(2)  # another call, which tidies up, leaves it
    control.retry(service.database, [RunKey(TYPE, 1)], datetime.now(UTC))
    small.sent = 0
    assert service.run().tally.done == 2
    assert saved(service) == saved(service, 2) == content
    assert small.sent == len(content) - 1_500_000 + len(content)
    assert parts(service) == []


def test_old_parts_go(make_small: MakeSmall) -> None:
    """The part of a run that failed a week ago is removed, and that of a cancelled one at once."""
    small, service = make_small(wav(1_000_000), cut=1_500_000)
    tries(service, 1)
    down = refusal(500, b"<Error/>")
    small.refuses = lambda _: None if small.asked % 2 else down
    for run_id in (1, 2):  # one by one: what all are refused alike fails none
        service.submit(run_id)
        assert service.run(max_duration_seconds=60).tally.failed == 1
    assert len(parts(service)) == 2
    long_ago = (datetime.now(UTC) - timedelta(seconds=KEPT_SECONDS + 60)).strftime(
        "%Y-%m-%d %H:%M:%S.%f"
    )
    with service.database.write() as connection:
        connection.exec_driver_sql("UPDATE runs SET updated_at = ? WHERE run_id = 2", (long_ago,))
    small.refuses, small.cut = (lambda _: None), None
    service.submit(3)
    service.run()
    assert len(parts(service)) == 1
    control.retry(service.database, [RunKey(TYPE, 1)], datetime.now(UTC))
    control.cancel(service.database, [RunKey(TYPE, 1)], datetime.now(UTC))
    service.submit(4)
    service.run()
    assert parts(service) == []


def test_a_line_that_brings_nothing(make_small: MakeSmall) -> None:
    """Without anything to tie a range to, each try begins from zero, and counts."""
    _, service = make_small(wav(200_000), cut=100_000, etag=None)
    tries(service, 3)
    service.submit(1)
    assert service.run(max_duration_seconds=60).tally.failed == 1
    [(attempts, failing)] = service.rows("attempts, failing_since")
    assert attempts == 3
    assert failing is not None


def amazon(moment: float) -> str:
    """Return what a URL of S3 says that was signed at a moment."""
    signed = datetime.fromtimestamp(moment, UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"X-Amz-Date={signed}&X-Amz-Expires=86400&X-Amz-Signature=1"


def not_yet(line: str) -> bytes | None:
    """Refuse a URL before its time, as S3 does."""
    said = line.partition("X-Amz-Date=")[2].partition("&")[0]
    starts = datetime.strptime(said, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if starts <= datetime.now(UTC):
        return None
    error = b"<Error><Code>AccessDenied</Code><Message>Request is not valid yet</Message></Error>"
    return refusal(403, error)


def test_a_url_of_the_near_future(make_small: MakeSmall) -> None:
    """A URL that says itself that it is valid later is not tried before, nor exchanged."""
    content = wav(1000)
    small, service = make_small(content, query=lambda: amazon(time.time() + 5), refuses=not_yet)
    service.submit(1)
    assert service.run().tally.done == 1
    assert saved(service) == content
    assert (small.urls, small.asked) == (1, 1)
    assert service.rows("attempts, refreshes") == [(1, 0)]


def test_a_clock_that_is_ahead(make_small: MakeSmall) -> None:
    """Where who signs is ahead of the storage, by their clocks, its 'not yet' is waited for."""
    content = wav(1000)
    starts: list[float] = []
    early = refusal(403, b"<Error><Code>RequestTimeTooSkewed</Code></Error>")

    def query() -> str:
        starts.append(time.time() + 6)
        return amazon(starts[0] - 3600)

    def refuses(_: str) -> bytes | None:
        date = datetime.fromtimestamp(time.time() - 3600, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        told = early.replace(b"\r\n", f"\r\nDate: {date}\r\n".encode(), 1)
        return told if time.time() < starts[0] else None

    small, service = make_small(content, query=query, refuses=refuses)
    service.submit(1)
    assert service.run().tally.done == 1
    assert small.urls == 1
    assert small.asked <= 3  # by clocks that are told in whole seconds
    assert service.rows("attempts, refreshes") == [(1, 0)]
    assert "url_not_yet_valid" in service.reasons(1)


def test_a_url_before_its_object(make_small: MakeSmall) -> None:
    """A file that comes only after more tries than are allowed is saved, and not missing."""
    content = wav(1000)
    small, service = make_small(content, missing=4)
    limits = replace(service.settings.limits, attempts=2)
    service.settings = replace(service.settings, limits=limits)
    service.submit(1)
    assert service.run().tally.done == 1
    assert saved(service) == content
    assert small.asked == 5


def test_an_api_that_packs_its_answers(make_small: MakeSmall) -> None:
    """An API that compresses what it was asked not to is understood."""
    content = wav(1000)
    _, service = make_small(content, packs_answers=True)
    service.submit(1, 2, 3)
    assert service.run().tally.done == 3


def test_what_will_not_change(make_small: MakeSmall) -> None:
    """What is no audio, twice the very same, is failed after two looks at its start."""
    content = bytes(range(256)) * 80_000  # 20 MB
    small, service = make_small(content)
    limits = replace(service.settings.limits, patience_seconds=0)  # else it is looked at a while
    service.settings = replace(service.settings, limits=limits)
    service.submit(1)
    assert service.run(max_duration_seconds=60).tally.failed == 1
    assert service.rows("error_code") == [("not_audio",)]
    assert small.asked == 2


def test_a_digest_is_recorded(make_small: MakeSmall) -> None:
    """Which digest of the storage the saved bytes agreed with is told by the database."""
    content = wav(1000)
    digest = hashlib.sha256(content).digest()
    told = {"repr_digest": f"sha-256=:{base64.b64encode(digest).decode()}:"}
    _, service = make_small(content, headers=told)
    service.submit(1)
    assert service.run().tally.done == 1
    assert service.rows("digest, sha256") == [("repr-digest sha-256", digest.hex())]
