from __future__ import annotations

import gzip
import itertools
import json
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hostile.hostile_values import HEADER_VALUES, MB, PEAK, header_fields, run_python, wire_answers
from hypothesis import given
from hypothesis import strategies as st
from transfer.bench import Bench
from transfer.engines import ENGINES
from transfer.wire import Peer, RawServer, answering, fetch, head, ok

from downloader.rules import audio, resume
from downloader.rules.decisions import ProblemKind
from downloader.rules.http_values import MAX_FILE_BYTES
from downloader.transfer.engine import TransferError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transfer.wire import Script

    from downloader.transfer.engine import Engine

    Serve = Callable[[Script], RawServer]
    MakeEngine = Callable[..., Engine]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "5ec2e7"


def wav(data: bytes, *, riff: int | None = None, size: int | None = None) -> bytes:
    """Return a WAV file, whose header may lie about its own size and that of its data."""
    told = [36 + len(data) if riff is None else riff, len(data) if size is None else size]
    riff_bytes, data_bytes = (number.to_bytes(4, "little") for number in told)
    form = (16).to_bytes(4, "little") + bytes.fromhex("010001001f40000000fa000002001000")
    return b"RIFF" + riff_bytes + b"WAVEfmt " + form + b"data" + data_bytes + data


WAV = wav(bytes(range(256)) * 8)

# --------------------------------------------------------------------------- headers, judged


@given(
    status=st.sampled_from([200, 206, 416, 403]) | st.integers(0, 1100),
    headers=header_fields,
    part_bytes=st.integers(0, 2**45),
    etag=st.none() | st.sampled_from(['"tag"', 'W/"tag"', '""']) | st.text(max_size=5),
    total_bytes=st.none() | st.integers(0, 2**63),
    asked_range=st.booleans(),
)
def test_any_headers_are_judged(
    status: int,
    headers: dict[str, str],
    part_bytes: int,
    etag: str | None,
    total_bytes: int | None,
    *,
    asked_range: bool,
) -> None:
    """Whatever the headers, bytes are only taken in full knowledge of what they are."""
    journal = resume.Journal(etag, total_bytes)
    outcome = resume.judge_response(
        status, headers, part_bytes, journal, asked_range=asked_range, now=NOW
    )
    sent = resume.request_headers(part_bytes, journal)
    assert all(value.isascii() and value.isprintable() for value in sent.values())
    match outcome:
        case resume.Append():
            assert (status, asked_range, outcome.etag) == (206, True, etag)
            assert total_bytes in (None, outcome.total_bytes)
        case resume.Restart():
            assert status == 200
            assert outcome.total_bytes is None or 0 <= outcome.total_bytes <= MAX_FILE_BYTES
            assert outcome.etag is None or resume.is_strong(outcome.etag)
        case resume.AlreadyComplete():
            assert (status, asked_range, outcome.total_bytes) == (416, True, part_bytes)
        case resume.Rejected():
            wait = outcome.retry_after_seconds
            assert wait is None or 0 <= wait <= 300
        case resume.Refused() | resume.StartOver():
            pass


@pytest.mark.parametrize(
    "value", [*HEADER_VALUES, str(10**30), "9" * 4000, "0x10", "1_0", "\uff11"]
)
def test_absurd_lengths(value: str) -> None:
    """A length is a plain number of at most a tebibyte, or the answer is none."""
    outcome = resume.judge_response(
        200, {"content-length": value}, 0, resume.Journal(None, None), asked_range=False, now=NOW
    )
    if value in ("0", " 5 ", "5, 5", "253402300800"):
        assert isinstance(outcome, resume.Restart)
    else:
        assert isinstance(outcome, resume.Rejected)
        assert outcome.error_code == "bad_length"


# ------------------------------------------------------------------------ audio headers that lie

_STARTS = (
    *(b"RIFF", b"RF64", b"BW64", b"fLaC", b"OggS", b"\xff\xfb\x90\x00", b"\xfe\xff", b"\xff\xfe"),
    *(b"ID3\x04\0\x10\x7f\x7f\x7f\x7f", b"ID3\x03\0\0\0\0\0\0", b"ID3\x02\0\0\0\0\0\x0a"),
    *(b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0", b"RIFF\x04\0\0\0WAVEdata\0\0\0\0"),
    b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0" + b"\xff" * 24,
    b"fLaC\x80\xff\xff\xff" + b"\xff" * 34,
    b"fLaC\x00\x00\x00\x22" + b"\0" * 34 + b"\x81\xff\xff\xff",
    b"WAVE" + b"LIST\0\0\0\0" * 8,
    b"\xff\xfb\x90\x00" + b"\0" * 32 + b"Xing\0\0\0\x02\xff\xff\xff\xff",
)
heads = st.lists(st.sampled_from(_STARTS) | st.binary(max_size=64), max_size=6).map(b"".join)


@given(
    head_bytes=heads,
    size=st.integers(0, 2**63),
    content_type=st.none() | st.sampled_from(HEADER_VALUES) | st.text(max_size=12),
    path=st.text(max_size=12) | st.just("/a.mp3"),
    delimited=st.booleans(),
)
def test_audio_headers_that_lie(
    head_bytes: bytes, size: int, content_type: str | None, path: str, *, delimited: bool
) -> None:
    """Whatever a header claims, a file smaller than the claim or without its sign is refused."""
    found = audio.check(head_bytes, size, content_type, path, delimited=delimited)
    if isinstance(found, audio.ContentProblem):
        assert found.message.endswith(".")
        return
    claim = audio.read_header(head_bytes, found)
    assert claim.minimum_bytes is None or size >= claim.minimum_bytes
    assert delimited or claim.vouches
    assert size > claim.header_bytes


LIES: dict[str, tuple[bytes, str | None]] = {
    "RIFF size of 4 GB": (wav(b"x" * 500, riff=2**32 - 4097, size=2**32 - 5000), "truncated"),
    "data of 3 GB": (wav(b"x" * 500, size=3 * 10**9), "truncated"),
    "data beyond the RIFF chunk": (wav(b"x" * 500, riff=40, size=5000), "truncated"),
    "RIFF size of nothing": (wav(b"x" * 500, riff=0, size=0), None),
    "64-bit sizes of 2**63": (
        b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0" + b"\xff" * 24 + b"\0" * 4 + WAV[12:],
        None,
    ),
    "ID3 tag of 256 MB": (b"ID3\x03\0\0\x7f\x7f\x7f\x7f" + b"x" * 900, "truncated"),
    "FLAC metadata of 16 MB": (b"fLaC\x80\xff\xff\xff" + b"\x10" * 900, "truncated"),
    "FLAC of 2**36 samples": (
        b"fLaC\x80\0\0\x22\x10\0\x10\0" + b"\xff" * 30 + b"\xff\xf8" + b"x" * 900,
        "truncated",
    ),
    "MP3 that counts 4 GB": (
        b"\xff\xfb\x90\x00" + b"\0" * 32 + b"Xing\0\0\0\x02\xff\xff\xff\xff" + b"x" * 900,
        "not_audio",
    ),
    "PNG by the name of audio": (b"\x89PNG\r\n\x1a\n" + b"x" * 900, "not_audio"),
    "gzip by the name of audio": (gzip.compress(b"no audio" * 200), "not_audio"),
    "a page": (b"<html>" + b"x" * 900, "error_page"),
}


@pytest.mark.parametrize("name", LIES)
def test_files_that_lie(tmp_path: Path, serve: Serve, make_engine: MakeEngine, name: str) -> None:
    """A file whose header promises more than comes is not saved, whatever it is called."""
    content, code = LIES[name]
    server = serve(answering(ok(content, content_type="audio/mpeg")))
    bench = Bench(make_engine(), tmp_path, server.origin + "/a.mp3")
    if code is None:
        bench.save()
        assert bench.files == {"1.wav": content}
    else:
        assert bench.problem().error_code == code
        assert bench.files == {}
    assert bench.parts == []


# ---------------------------------------------------------------------------------- on the wire


class Changing:
    """A server's script whose answer is changed between requests."""

    def __init__(self) -> None:
        self.answer = b""

    def __call__(self, peer: Peer) -> None:
        """Answer one request, and close."""
        if peer.request() is not None:
            peer.send(self.answer)


def test_any_bytes_end_a_transfer(make_engine: MakeEngine) -> None:
    """Whatever comes over the wire ends in a body or in a problem, told without the signature."""
    script = Changing()
    engine = make_engine(stall_seconds=5, connect_seconds=5)
    with RawServer(script) as server:

        @given(answer=wire_answers)
        def ask(answer: bytes) -> None:
            script.answer = answer
            told = "."
            try:
                fetch(engine, f"{server.origin}/x?X-Amz-Signature={SECRET}")
            except TransferError as error:
                told = str(error)
            assert told.endswith(".")
            assert SECRET not in told

        ask()


framings = st.sampled_from(["length", "less", "more", "chunked", "cut", "close"])
extras = st.lists(
    st.sampled_from(
        [
            *("ETag: W/x", 'ETag: "x"', "Content-Range: bytes 5-9/10", "Accept-Ranges: none"),
            *("Content-Type: text/html", "Content-Type: \xff", "Content-Encoding: identity"),
            *("Content-Encoding: gzip", "Content-Encoding: gzip, br", "Last-Modified: never"),
            *("Content-Disposition: attachment; filename=../../x", "Age: -5", "Date: never"),
        ]
    ),
    max_size=4,
)


def framed(framing: str, extra: list[str], lost: int) -> bytes:
    """Return an answer with the WAV file, framed as told; `lost` bytes are those that lie."""
    lines = ["HTTP/1.1 200 OK", *extra]
    by = {"length": 0, "less": -lost, "more": lost}
    body = WAV
    if framing in by:
        lines.append(f"Content-Length: {len(WAV) + by[framing]}")
    elif framing in ("chunked", "cut"):
        lines.append("Transfer-Encoding: chunked")
        cut = WAV if framing == "chunked" else WAV[:-lost]
        body = b"%x\r\n%b\r\n" % (len(cut), cut) + (b"0\r\n\r\n" if framing == "chunked" else b"")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def test_what_is_saved_is_the_file(tmp_path: Path, make_engine: MakeEngine) -> None:
    """However an answer is framed and labelled, what is saved is the very file, or nothing is."""
    script = Changing()
    numbers = itertools.count()
    engine = make_engine()
    with RawServer(script) as server:

        @given(framing=framings, extra=extras, lost=st.integers(1, len(WAV) - 1))
        def save(framing: str, extra: list[str], lost: int) -> None:
            script.answer = framed(framing, extra, lost)
            bench = Bench(engine, tmp_path / str(next(numbers)), server.origin + "/x")
            try:
                bench.save()
            except TransferError:
                assert bench.files == {}
            else:
                assert bench.files == {"1.wav": WAV}
                assert framing in ("length", "chunked", "close")

        save()


def repeated(data: bytes, *, pause: float = 0.0, first: bytes = b"") -> Script:
    """Answer with the same bytes again and again, until the client goes."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(first)
        pace = threading.Event()
        while True:
            peer.send(data)
            if pause:
                pace.wait(pause)

    return script


CHUNKED = head(200, transfer_encoding="chunked")
ENDLESS: dict[str, tuple[Script, str]] = {
    "interim answers": (repeated(head(100)), "stalled or network"),  # libcurl takes so many
    "interim answers, slowly": (repeated(head(103), pause=0.05), "stalled"),
    "headers": (repeated(b"X-A: b\r\n", first=b"HTTP/1.1 200 OK\r\n"), "network"),
    "headers, slowly": (repeated(b"X", pause=0.05, first=b"HTTP/1.1 200 OK\r\nA: "), "stalled"),
    "a chunk's size": (repeated(b"0", pause=0.05, first=CHUNKED), "stalled"),
    "a chunk's extension": (repeated(b"x", pause=0.05, first=CHUNKED + b"1;"), "stalled"),
    "a trailer": (repeated(b"x", pause=0.05, first=CHUNKED + b"1\r\nR\r\n0\r\nX: "), "stalled"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_answers_without_end(serve: Serve, make_engine: MakeEngine, name: str) -> None:
    """What keeps coming without a byte of the file is given up like silence."""
    script, code = ENDLESS[name]
    begun = time.monotonic()
    with pytest.raises(TransferError) as raised:
        fetch(make_engine(stall_seconds=0.4, connect_seconds=0.4), serve(script).origin + "/x")
    assert raised.value.problem.kind is ProblemKind.TRANSIENT
    assert raised.value.problem.error_code in code.split(" or ")
    assert time.monotonic() - begun < 10


def test_slow_bytes_are_bytes(serve: Serve, make_engine: MakeEngine) -> None:
    """A body whose every piece comes in time is taken, however long the whole takes."""

    def slow(peer: Peer) -> None:
        peer.request()
        peer.send(head(200, content_length="8"))
        pace = threading.Event()
        for _ in range(8):
            peer.send(b"x")
            pace.wait(0.25)

    found = fetch(make_engine(stall_seconds=1, connect_seconds=1), serve(slow).origin + "/x")
    assert found.body == b"x" * 8


HEAVY = {
    "10,000 headers": [b"X-%d: y" % number for number in range(10_000)],
    "an ETag of 1 MB": [b'ETag: "' + b"y" * MB + b'"'],
    "10,000 cookies": [b"Set-Cookie: a%d=b; Path=/" % number for number in range(10_000)],
    "a length of 5,000 digits": [b"Content-Length: " + b"9" * 5000],
    "two lengths": [b"Content-Length: 5", b"Content-Length: 6"],
    "a negative length": [b"Content-Length: -1"],
    "a length in words": [b"Content-Length: abc"],
    "chunks of a zettabyte": [b"Transfer-Encoding: chunked", b"", b"f" * 19],
}


@pytest.mark.parametrize("name", HEAVY)
def test_heavy_headers(tmp_path: Path, serve: Serve, make_engine: MakeEngine, name: str) -> None:
    """Headers beyond reason are a problem like any other, and nothing is saved."""
    answer = b"\r\n".join([b"HTTP/1.1 200 OK", *HEAVY[name], b"", WAV])

    def once(peer: Peer) -> None:
        peer.request()
        peer.send(answer)

    bench = Bench(make_engine(), tmp_path, serve(once).origin + "/x")
    code: str | None = None  # many small headers may just pass
    try:
        bench.save()
    except TransferError as error:
        code = error.problem.error_code
        assert bench.files == {}
    else:
        assert bench.files == {"1.wav": WAV}
    assert code in ({None, "network"} if name.startswith("10,000") else {"network", "bad_length"})
    assert bench.parts == []


def test_an_etag_of_some_kilobytes(tmp_path: Path, serve: Serve, make_engine: MakeEngine) -> None:
    """An ETag that no request could carry is of no use, and does no harm."""
    server = serve(answering(ok(WAV, etag='"' + "x" * 20_000 + '"')))
    bench = Bench(make_engine(), tmp_path, server.origin + "/x")
    assert bench.save().etag is None
    assert bench.files == {"1.wav": WAV}


FETCH = f"""{PEAK}
import json, sys
from pathlib import Path
from transfer.bench import Bench
from downloader.transfer.engine import Timing, TransferError
from transfer.engines import ENGINES

bench = Bench(ENGINES[sys.argv[3]](Timing(), connections=2), Path(sys.argv[2]), sys.argv[1] + "/x")
bench.max_bytes = 60_000_000
before = peak()
try:
    bench.save()
    code = None
except TransferError as error:
    code = error.problem.error_code
print(json.dumps([code, peak() - before]))
"""

LARGE: dict[str, tuple[Script, str | None]] = {
    "endless body": (
        repeated(b"x" * 65536, first=head(200) + wav(b"", size=0)),
        "unverifiable_length",
    ),
    "endless chunks": (
        repeated(
            b"10000\r\n" + b"x" * 65536 + b"\r\n", first=CHUNKED + b"2c\r\n" + wav(b"") + b"\r\n"
        ),
        "too_large",
    ),
    "an endless page": (repeated(b"x" * 65536, first=head(200) + b"<html>"), "error_page"),
    "an endless refusal": (repeated(b"x" * 65536, first=head(403)), "url_refused"),
    "gzip bomb": (
        answering(ok(gzip.compress(bytes(50 * MB)), content_encoding="gzip")),
        "encoded_content",
    ),
    "gzip bomb that is not called one": (answering(ok(gzip.compress(bytes(50 * MB)))), "not_audio"),
    "50 MB of audio": (answering(ok(wav(bytes(50 * MB)))), None),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", LARGE)
def test_memory_of_large_bodies(tmp_path: Path, serve: Serve, name: str, engine: str) -> None:
    """A body of any size takes no more memory than a small one."""
    script, wanted = LARGE[name]
    code, grown = json.loads(run_python(FETCH, serve(script).origin, str(tmp_path), engine))
    assert code == wanted
    assert grown < 20 * MB
