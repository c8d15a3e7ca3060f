"""Files that come compressed, or are said to: their first bytes decide what is saved."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from typing import TYPE_CHECKING

import pytest
from transfer.bench import Bench
from transfer.engines import SIGNED
from transfer.test_large_files import ranged
from transfer.test_transfer_wire import SMALL_WAV, TAG, WAV
from transfer.wire import answering, head, ok

from downloader.rules.decisions import ProblemKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transfer.engines import MakeEngine, Serve
    from transfer.wire import RawServer

PACKED = gzip.compress(WAV, mtime=0)
SILENCE = WAV[:44] + bytes(len(WAV) - 44)


@pytest.fixture
def make_bench(make_engine: MakeEngine, tmp_path: Path) -> Callable[[RawServer], Bench]:
    """Make the bench for run 1 on a raw server: `make_bench(server)`."""
    return lambda server: Bench(
        make_engine(), tmp_path / "audio", server.origin + "/bucket/x.wav" + SIGNED
    )


@pytest.mark.parametrize(
    "encoding",
    [
        *("aws-chunked", "identity", "binary", "utf-8", "none", "8bit", "null", "audio/wav", ""),
        *("gzip", "x-gzip", "deflate", "br", "zstd", "gzip, aws-chunked", "compress"),
    ],
)
@pytest.mark.parametrize("content", [SMALL_WAV, WAV], ids=["small", "large"])
def test_plain_bytes_whatever_they_are_called(
    serve: Serve, make_bench: Callable[[RawServer], Bench], encoding: str, content: bytes
) -> None:
    """Plain audio is saved as it is, with whatever Content-Encoding it comes."""
    bench = make_bench(serve(answering(ok(content, content_encoding=encoding, etag=TAG))))
    bench.save()
    assert bench.files == {"1.wav": content}


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


FORMS = {
    "gzip": (PACKED, {"content_encoding": "gzip"}),
    "x-gzip, aws-chunked": (PACKED, {"content_encoding": "x-gzip, aws-chunked"}),
    "gzip that nothing names": (PACKED, {}),
    "gzip called br": (PACKED, {"content_encoding": "br"}),
    "several members": (
        gzip.compress(WAV[:9]) + gzip.compress(WAV[9:-1]) + gzip.compress(WAV[-1:]),
        {"content_encoding": "gzip"},
    ),
    "padded with zeros": (PACKED + bytes(512), {"content_encoding": "gzip"}),
    "deflate": (zlib.compress(WAV), {"content_encoding": "deflate"}),
    "raw deflate": (_raw_deflate(WAV), {"content_encoding": "deflate"}),
}


@pytest.mark.parametrize(("body", "headers"), FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("framing", ["length", "chunked", "closed"])
def test_packed_files(
    serve: Serve,
    make_bench: Callable[[RawServer], Bench],
    body: bytes,
    headers: dict[str, str],
    framing: str,
) -> None:
    """A packed file is unpacked: what is saved, hashed and recorded is the audio."""
    chunked = head(200, transfer_encoding="chunked", **headers) + b"%x\r\n%b\r\n0\r\n\r\n" % (
        len(body),
        body,
    )
    answer = {"length": ok(body, **headers), "chunked": chunked}.get(framing)
    script = (
        answering(answer)
        if answer is not None
        else lambda peer: (peer.request(), peer.send(head(200, **headers), body), None)[2]
    )
    bench = make_bench(serve(script))
    step = bench.save()
    assert bench.files == {"1.wav": WAV}
    assert (step.bytes, step.sha256) == (len(WAV), hashlib.sha256(WAV).hexdigest())
    assert bench.received == len(body)
    assert bench.parts == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (PACKED[:-4], "truncated"),
        (PACKED[:2000], "truncated"),
        (PACKED[:-8] + bytes(8), "encoded_content"),
        (PACKED + b"more", "encoded_content"),
        (PACKED[:10] + b"\xff" * 5000, "encoded_content"),
        (gzip.compress(bytes(range(256)) * 2000), "encoded_content"),
        (gzip.compress(b"<html>Bad gateway</html>"), "error_page"),
        (gzip.compress(WAV[:-10]), "truncated"),
    ],
    ids=["no end", "cut", "a wrong sum", "more behind it", "no data", "no audio", "page", "short"],
)
def test_packed_files_that_are_none(
    serve: Serve, make_bench: Callable[[RawServer], Bench], body: bytes, code: str
) -> None:
    """A packed file that breaks off, or has no whole audio in it, is not saved."""
    bench = make_bench(serve(answering(ok(body, content_encoding="gzip"))))
    problem = bench.problem()
    assert (problem.kind, problem.error_code) == (ProblemKind.WRONG_OBJECT, code)
    assert (bench.files, bench.parts) == ({}, [])


def test_a_bomb(serve: Serve, make_bench: Callable[[RawServer], Bench]) -> None:
    """What unpacks to far more than any audio does is not unpacked to its end."""
    bomb = gzip.compress(WAV[:44] + bytes(100_000_000))
    bench = make_bench(serve(answering(ok(bomb, content_encoding="gzip"))))
    problem = bench.problem()
    assert (problem.kind, problem.error_code) == (ProblemKind.WRONG_OBJECT, "encoded_content")
    smaller = make_bench(serve(answering(ok(PACKED, content_encoding="gzip"))))
    smaller.max_bytes = len(WAV) - 1
    problem = smaller.problem()
    assert (problem.kind, problem.error_code) == (ProblemKind.HOPELESS, "too_large")
    assert (bench.files, bench.parts) == ({}, [])


def test_a_packed_file_on_a_bad_line(
    serve: Serve, make_bench: Callable[[RawServer], Bench]
) -> None:
    """A part holds what the storage sends: a packed file is resumed as any other."""
    noise = hashlib.shake_256(b"noise").digest(400_000)
    content = WAV[:44] + noise + WAV[44 + len(noise) :]
    body = gzip.compress(content)
    server = serve(ranged(body, {"etag": TAG, "content_encoding": "gzip"}, cut=150_000))
    bench = make_bench(server)
    for _ in range(len(body) // 150_000):
        assert bench.problem().progressed
    step = bench.save()
    assert bench.files == {"1.wav": content}
    assert step.bytes == len(content)
    assert bench.received == len(body)


def test_silence_may_be_small(serve: Serve, make_bench: Callable[[RawServer], Bench]) -> None:
    """Silence packs a thousandfold, and is audio all the same."""
    bench = make_bench(serve(answering(ok(gzip.compress(SILENCE)))))
    bench.save()
    assert bench.files == {"1.wav": SILENCE}
