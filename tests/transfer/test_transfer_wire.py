"""A transfer against exact bytes: what a resume asks, what content becomes, what a refusal is."""

from __future__ import annotations

import io
import wave
from typing import TYPE_CHECKING

import pytest
from transfer.bench import Bench
from transfer.engines import SIGNED
from transfer.wire import Peer, Script, answering, fields, head, ok

from downloader.rules.decisions import ProblemKind
from downloader.transfer.engine import Timing
from downloader.transfer.transfer import REFUSAL_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness import StartSimulator
    from transfer.engines import MakeEngine, Serve
    from transfer.wire import RawServer

WRONG, TRANSIENT = ProblemKind.WRONG_OBJECT, ProblemKind.TRANSIENT


def wav(frames: int) -> bytes:
    """Make a WAV file of so many frames, two bytes each."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(bytes(number % 251 for number in range(2 * frames)))
    return made.getvalue()


WAV = wav(1_000_000)
SIZE = len(WAV)
CUT = 1_200_000
TAG = '"v1"'
SMALL_WAV = wav(1000)
MP3 = (bytes.fromhex("fffb9000") + bytes(413)) * 10  # MPEG 1 layer III, 128 kbit/s, 44.1 kHz
OGG = b"OggS\x00\x02" + bytes(500)
CONTENTS = {"wav": SMALL_WAV, "mp3": MP3, "ogg": OGG}


@pytest.fixture
def make_bench(make_engine: MakeEngine, tmp_path: Path) -> Callable[..., Bench]:
    """Make the bench for run 1 on a raw server: `make_bench(server)`."""

    def make(server: RawServer, path: str = "/bucket/x.wav", timing: Timing | None = None) -> Bench:
        return Bench(make_engine(timing), tmp_path / "audio", server.origin + path + SIGNED)

    return make


# ------------------------------------------------------------------------------- resume


def cut_then(*answers: bytes) -> Script:
    """Cut the first answer after `CUT` bytes; answer the further requests in turn."""
    turns = iter(answers)
    begun: list[bool] = []

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            if not begun:
                begun.append(True)
                peer.send(head(200, content_length=str(SIZE), etag=TAG), WAV[:CUT])
                return
            peer.send(next(turns))

    return script


def partial(body: bytes = WAV[CUT:], **changes: str | None) -> bytes:
    """Make a right answer to the request for the rest, with some headers changed."""
    headers: dict[str, str | None] = {
        "content_length": str(len(body)),
        "content_range": f"bytes {CUT}-{SIZE - 1}/{SIZE}",
        "etag": TAG,
    }
    kept = {name: value for name, value in (headers | changes).items() if value is not None}
    return head(206, **kept) + body


WHOLE = ok(WAV, etag=TAG)


def test_what_a_resume_asks(serve: Serve, make_bench: Callable[..., Bench]) -> None:
    """A resume asks from where the part ends, tied to the object by its strong ETag."""
    server = serve(cut_then(partial()))
    bench = make_bench(server)
    bench.problem()
    bench.save()
    assert bench.files == {"1.wav": WAV}
    first, second = (fields(request) for request in server.requests)
    assert not {"range", "if-range"} & set(first)
    assert (second["range"], second["if-range"]) == (f"bytes={CUT}-", TAG)
    for sent in (first, second):
        assert sent["accept-encoding"] == "identity"
        assert "x-api-key" not in sent


FITTING = {
    "as asked": partial(),
    "chunked": head(
        206, transfer_encoding="chunked", content_range=f"bytes {CUT}-{SIZE - 1}/{SIZE}", etag=TAG
    )
    + b"%x\r\n%b\r\n0\r\n\r\n" % (SIZE - CUT, WAV[CUT:]),
    "another type": partial(content_type="application/octet-stream"),
}


@pytest.mark.parametrize("answer", FITTING.values(), ids=FITTING.keys())
def test_part_that_fits(serve: Serve, make_bench: Callable[..., Bench], answer: bytes) -> None:
    """The rest is added to the part where everything shows that it belongs there."""
    server = serve(cut_then(answer))
    bench = make_bench(server)
    bench.problem()
    bench.save()
    assert bench.files == {"1.wav": WAV}
    assert bench.received == SIZE


UNFITTING = {
    "another ETag": partial(etag='"v2"'),
    "a weak ETag": partial(etag=f"W/{TAG}"),
    "no ETag": partial(etag=None),
    "no Content-Range": partial(content_range=None),
    "an unreadable Content-Range": partial(content_range="bytes whatever"),
    "from elsewhere": partial(content_range=f"bytes {CUT - 1}-{SIZE - 2}/{SIZE}"),
    "from the start": partial(WAV, content_range=f"bytes 0-{SIZE - 1}/{SIZE}"),
    "another total": partial(content_range=f"bytes {CUT}-{SIZE - 1}/{SIZE + 1}"),
    "an unknown total": partial(content_range=f"bytes {CUT}-{SIZE - 1}/*"),
    "another unit": partial(content_range=f"items {CUT}-{SIZE - 1}/{SIZE}"),
    "a length that contradicts": partial(WAV[CUT:-1]),
    "several ranges": partial(content_type="multipart/byteranges; boundary=x", content_range=None),
    "416, another length": head(416, content_range=f"bytes */{SIZE - 1}", content_length="0"),
    "416, no length": head(416, content_length="0"),
}


@pytest.mark.parametrize("answer", UNFITTING.values(), ids=UNFITTING.keys())
def test_part_that_does_not_fit(
    serve: Serve, make_bench: Callable[..., Bench], answer: bytes
) -> None:
    """Where anything speaks against it nothing is added: the whole is asked for, without Range."""
    server = serve(cut_then(answer, WHOLE))
    bench = make_bench(server)
    bench.problem()
    bench.save()
    assert bench.files == {"1.wav": WAV}
    _, second, third = (fields(request) for request in server.requests)
    assert "range" in second
    assert not {"range", "if-range"} & set(third)


def test_answers_that_never_fit(serve: Serve, make_bench: Callable[..., Bench]) -> None:
    """A storage that sends parts though none was asked for is given up, for this attempt."""
    server = serve(cut_then(*[partial(etag='"v2"')] * 5))
    bench = make_bench(server)
    bench.problem()
    problem = bench.problem()
    assert (problem.kind, problem.error_code) == (TRANSIENT, "unexpected_partial")
    assert len(server.requests) == 3
    assert bench.files == {}


def test_rest_that_is_cut_again(serve: Serve, make_bench: Callable[..., Bench]) -> None:
    """A server that ends each range early leads to the whole file all the same."""
    limit = 500_000

    def script(peer: Peer) -> None:
        start = int(fields(peer.request() or b"").get("range", "bytes=0-")[6:-1])
        span = f"bytes {start}-{SIZE - 1}/{SIZE}"
        length = str(SIZE - start)
        peer.send(head(206 if start else 200, content_length=length, content_range=span, etag=TAG))
        peer.send(WAV[start : start + limit])

    bench = make_bench(serve(script))
    for _ in range(SIZE // limit):
        assert bench.problem().error_code in ("network", "truncated")
    bench.save()
    assert bench.files == {"1.wav": WAV}
    assert bench.received == SIZE


def test_range_that_is_shorter_than_asked(serve: Serve, make_bench: Callable[..., Bench]) -> None:
    """A server that sends less than the rest, and says so, is asked on in the same attempt."""
    middle = CUT + 100_000
    less = partial(WAV[CUT:middle], content_range=f"bytes {CUT}-{middle - 1}/{SIZE}")
    rest = partial(WAV[middle:], content_range=f"bytes {middle}-{SIZE - 1}/{SIZE}")
    server = serve(cut_then(less, rest))
    bench = make_bench(server)
    bench.problem()
    bench.save()
    assert len(server.requests) == 3
    assert bench.files == {"1.wav": WAV}
    assert bench.received == SIZE


def test_more_than_the_rest(serve: Serve, make_bench: Callable[..., Bench]) -> None:
    """Bytes beyond the announced end show that something is wrong: nothing is published."""
    body = WAV[CUT:] + b"more"
    answer = head(
        206, transfer_encoding="chunked", content_range=f"bytes {CUT}-{SIZE - 1}/{SIZE}", etag=TAG
    )
    server = serve(cut_then(answer + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), WHOLE))
    bench = make_bench(server)
    bench.problem()
    problem = bench.problem()
    assert (problem.kind, problem.error_code) == (WRONG, "too_long")
    assert (bench.files, bench.parts) == ({}, [])
    bench.save()
    assert bench.files == {"1.wav": WAV}


# ------------------------------------------------------------------------------ content


@pytest.mark.parametrize(("extension", "content"), CONTENTS.items(), ids=CONTENTS.keys())
@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/bucket/1.flac", {"content_type": "audio/flac"}),
        ("/a/../../../etc/passwd", {"content_disposition": 'attachment; filename="../../e.wav"'}),
        (
            "/x%2F..%2F..%2Fy.exe",
            {"content_disposition": "attachment; filename*=UTF-8''%2e%2e%2fe"},
        ),
        ("/", {"content_disposition": 'inline; filename="/etc/cron.d/x"', "content_type": "*/*"}),
    ],
)
def test_name_by_the_bytes(
    make_bench: Callable[..., Bench],
    serve: Serve,
    *,
    content: bytes,
    extension: str,
    path: str,
    headers: dict[str, str],
) -> None:
    """A file is named after its run and its bytes, whatever the server, or the URL, calls it."""
    bench = make_bench(serve(answering(ok(content, **headers))), path)
    step = bench.save()
    assert bench.files == {f"1.{extension}": content}
    assert step.location == str(bench.folder / f"1.{extension}")
    assert step.audio_format == extension
    assert sorted(found.name for found in bench.folder.iterdir()) == [".partial", f"1.{extension}"]
    assert sorted(found.name for found in bench.folder.parent.iterdir()) == ["audio"]


def framed(body: bytes, framing: str) -> Script:
    """Send a body with a length, in chunks, or ended by closing."""
    answers = {
        "length": ok(body, etag=TAG),
        "chunked": head(200, transfer_encoding="chunked", etag=TAG)
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        "closed": head(200, etag=TAG) + body,
    }

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(answers[framing])

    return script


@pytest.mark.parametrize("framing", ["length", "chunked", "closed"])
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "sized"])
@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_streamed_audio(
    start_simulator: StartSimulator,
    serve: Serve,
    make_bench: Callable[..., Bench],
    audio_format: str,
    framing: str,
    *,
    streamed: bool,
) -> None:
    """A header that does not know its size is fine, where HTTP shows that the file is whole."""
    content = start_simulator(audio_format=audio_format).audio(1, streamed=streamed)
    bench = make_bench(serve(framed(content, framing)))
    # FLAC states samples, not bytes: that is no proof of being whole either.
    if framing == "closed" and (streamed or audio_format == "flac"):
        problem = bench.problem()
        assert (problem.kind, problem.error_code) == (WRONG, "unverifiable_length")
        assert (bench.files, bench.parts) == ({}, [])
    else:
        bench.save()
        assert bench.files == {f"1.{audio_format}": content}


@pytest.mark.parametrize("framing", ["length", "chunked", "closed"])
@pytest.mark.parametrize("missing", [1, 500, len(SMALL_WAV) - 20])
def test_file_shorter_than_its_header(
    serve: Serve, make_bench: Callable[..., Bench], framing: str, missing: int
) -> None:
    """A file that lacks what its own header promises is refused, however whole HTTP calls it."""
    bench = make_bench(serve(framed(SMALL_WAV[:-missing], framing)))
    problem = bench.problem()
    assert (problem.kind, problem.error_code) == (WRONG, "truncated")
    assert (bench.files, bench.parts) == ({}, [])


def test_endless_error_page(serve: Serve, make_bench: Callable[..., Bench]) -> None:
    """What begins as an error page is not fetched to its end."""

    def endless(peer: Peer) -> None:
        peer.request()
        peer.send(head(200, content_length=str(10**9), content_type="audio/wav"))
        peer.send(b"\xef\xbb\xbf\n <?xml version='1.0'?><Error><Code>SlowDown</Code></Error>")
        peer.send(b" " * 2000)
        peer.stall()

    server = serve(endless)
    bench = make_bench(server)
    problem = bench.problem()
    assert (problem.kind, problem.error_code) == (WRONG, "error_page")
    assert server.deserted.wait(10)
    assert (bench.files, bench.parts) == ({}, [])


# ----------------------------------------------------------------------------- refusals


def refusal(body: bytes) -> bytes:
    """Make a refusal with a body."""
    return ok(body, content_type="application/xml").replace(b" 200 ", b" 403 ", 1)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<Error><Code>ExpiredToken</Code></Error>", ProblemKind.EXPIRED),
        (b"<Error>" + b" " * (REFUSAL_BYTES - 100) + b"Expired", ProblemKind.EXPIRED),
        (b"<Error>" + b" " * REFUSAL_BYTES + b"Expired", ProblemKind.REFUSED),
        (b"<Error><Key>expired/1.wav</Key></Error>", ProblemKind.REFUSED),
        (b"", ProblemKind.REFUSED),
        (b"\x00\xff" * 100_000, ProblemKind.REFUSED),
    ],
    ids=["short", "at the end", "beyond the end", "a name", "nothing", "garbage"],
)
def test_what_a_refusal_says(
    serve: Serve, make_bench: Callable[..., Bench], body: bytes, kind: ProblemKind
) -> None:
    """The first 16 KiB of a refusal tell whether the URL has expired."""
    bench = make_bench(serve(answering(refusal(body))))
    assert bench.problem().kind is kind
    assert bench.parts == []


def test_refusal_that_echoes_the_signature(serve: Serve, make_bench: Callable[..., Bench]) -> None:
    """What a refusal says of the signature reaches no message."""
    echo = f"<Error><StringToSign>{SIGNED}</StringToSign></Error>".encode()
    problem = make_bench(serve(answering(refusal(echo)))).problem()
    assert SIGNED[-6:] not in problem.error_message


def test_refusal_without_end(serve: Serve, make_bench: Callable[..., Bench]) -> None:
    """A refusal is not read beyond its first 16 KiB."""

    def endless(peer: Peer) -> None:
        peer.request()
        peer.send(head(403), b"x" * REFUSAL_BYTES)
        peer.stall()

    server = serve(endless)
    problem = make_bench(server).problem()
    assert problem.kind is ProblemKind.REFUSED
    assert server.deserted.wait(10)


def test_refusal_that_breaks_off(serve: Serve, make_bench: Callable[..., Bench]) -> None:
    """A refusal that breaks off before it has said why is a problem of the network."""

    def cut(peer: Peer) -> None:
        peer.request()
        peer.send(head(403, content_length="1000"), b"<Error><Code>Exp")

    assert make_bench(serve(cut)).problem().kind is TRANSIENT


# ---------------------------------------------------------------------- other statuses


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (head(204), TRANSIENT, "unexpected_status"),
        (head(302, content_length="0"), TRANSIENT, "unexpected_redirect"),
        (head(304), TRANSIENT, "unexpected_redirect"),
        (head(418, content_length="0"), TRANSIENT, "storage_refused"),
        (head(200, content_length=str(2**50)), TRANSIENT, "bad_length"),
        (ok(bytes(range(256)), content_encoding="br"), WRONG, "encoded_content"),
    ],
    ids=["204", "302", "304", "418", "2**50 bytes", "br"],
)
def test_odd_answers(
    serve: Serve, make_bench: Callable[..., Bench], answer: bytes, kind: ProblemKind, code: str
) -> None:
    """An answer that is neither a file nor a refusal is tried again later."""
    bench = make_bench(serve(answering(answer)), timing=Timing(stall_seconds=2))
    problem = bench.problem()
    assert (problem.kind, problem.error_code) == (kind, code)
    assert (bench.files, bench.parts) == ({}, [])
