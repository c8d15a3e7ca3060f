"""What the storage tells of an object's bytes: it is compared, and recorded what agreed."""

from __future__ import annotations

import base64
import gzip
import hashlib
import zlib
from typing import TYPE_CHECKING

import pytest
from transfer.bench import Bench
from transfer.engines import SIGNED
from transfer.test_transfer_wire import CUT, SIZE, SMALL_WAV, TAG, WAV
from transfer.wire import Peer, answering, head, ok

from downloader.rules.decisions import ProblemKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transfer.engines import MakeEngine, Serve
    from transfer.wire import RawServer


@pytest.fixture
def make_bench(make_engine: MakeEngine, tmp_path: Path) -> Callable[[RawServer], Bench]:
    """Make the bench for run 1 on a raw server: `make_bench(server)`."""
    return lambda server: Bench(
        make_engine(), tmp_path / "audio", server.origin + "/bucket/x.wav" + SIGNED
    )


def md5(data: bytes) -> str:
    """Return an MD5 as headers have it."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def sha(data: bytes, bits: int = 256) -> str:
    """Return a SHA digest as headers have it."""
    return base64.b64encode(hashlib.new(f"sha{bits}", data).digest()).decode()


def crc32(data: bytes) -> str:
    """Return a CRC-32 as headers have it."""
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def hex_md5(data: bytes) -> str:
    """Return an MD5 as an ETag has it."""
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


S3 = {"server": "AmazonS3", "x_amz_id_2": "x"}
TOLD: dict[str, tuple[Callable[[bytes], dict[str, str]], str]] = {
    "Content-MD5": (lambda data: {"content_md5": md5(data)}, "content-md5"),
    "x-goog-hash": (
        lambda data: {"x_goog_hash": f"crc32c=AAAAAA==,md5={md5(data)}"},
        "x-goog-hash md5",
    ),
    "SHA-256 of S3": (lambda data: {"x_amz_checksum_sha256": sha(data)}, "x-amz-checksum-sha256"),
    "SHA-1 of S3": (lambda data: {"x_amz_checksum_sha1": sha(data, 1)}, "x-amz-checksum-sha1"),
    "CRC-32 of S3": (lambda data: {"x_amz_checksum_crc32": crc32(data)}, "x-amz-checksum-crc32"),
    "Repr-Digest": (
        lambda data: {"repr_digest": f"unixsum=:AAAA:, sha-256=:{sha(data)}:"},
        "repr-digest sha-256",
    ),
    "Content-Digest": (
        lambda data: {"content_digest": f"sha-512=:{sha(data, 512)}:, sha-256=:{sha(data)}:"},
        "content-digest sha-512",
    ),
    "Digest": (lambda data: {"digest": f"SHA-256={sha(data)}"}, "digest sha-256"),
    "Azure": (lambda data: {"x_ms_blob_content_md5": md5(data)}, "x-ms-blob-content-md5"),
    "ETag of S3": (lambda data: {"etag": hex_md5(data), **S3}, "etag md5"),
    "ETag of S3 with its own key": (
        lambda data: {"etag": hex_md5(data), "x_amz_server_side_encryption": "AES256", **S3},
        "etag md5",
    ),
}


@pytest.mark.parametrize(("told", "name"), TOLD.values(), ids=TOLD.keys())
@pytest.mark.parametrize("content", [SMALL_WAV, WAV], ids=["small", "large"])
def test_what_agrees_is_recorded(
    serve: Serve,
    make_bench: Callable[[RawServer], Bench],
    told: Callable[[bytes], dict[str, str]],
    name: str,
    content: bytes,
) -> None:
    """Each digest that is told is compared with all bytes, and the strongest is recorded."""
    step = make_bench(serve(answering(ok(content, **told(content))))).save()
    assert step.digest == name


@pytest.mark.parametrize(("told", "name"), TOLD.values(), ids=TOLD.keys())
def test_what_contradicts_is_an_error(
    serve: Serve,
    make_bench: Callable[[RawServer], Bench],
    told: Callable[[bytes], dict[str, str]],
    name: str,
) -> None:
    """A file that is another than the storage tells is not saved, and begun from zero."""
    damaged = SMALL_WAV[:-1] + b"\xff"
    answers = [ok(damaged, **told(SMALL_WAV)), ok(SMALL_WAV, **told(SMALL_WAV))]
    bench = make_bench(serve(answering(*answers)))
    problem = bench.problem()
    assert (problem.kind, problem.error_code) == (ProblemKind.WRONG_OBJECT, "digest_mismatch")
    assert name in problem.error_message
    assert (bench.files, bench.parts) == ({}, [])
    assert bench.save().digest == name


NO_DIGEST = {
    "looks like an MD5": {"etag": '"00112233445566778899aabbccddeeff"'},
    "S3 with a key of KMS": {
        "etag": '"00112233445566778899aabbccddeeff"',
        "x_amz_server_side_encryption": "aws:kms",
        **S3,
    },
    "S3 with a key of the customer": {
        "etag": '"00112233445566778899aabbccddeeff"',
        "x_amz_server_side_encryption_customer_algorithm": "AES256",
        **S3,
    },
    "S3, in parts": {"etag": '"00112233445566778899aabbccddeeff-3"', **S3},
    "checksum of checksums": {"x_amz_checksum_sha256": f"{sha(b'parts')}-3"},
    "composite": {"x_amz_checksum_crc32": crc32(b"x"), "x_amz_checksum_type": "COMPOSITE"},
    "no base64": {"content_md5": "!!!"},
    "too short": {"content_md5": "AAAA"},
    "CRC-32C": {"x_goog_hash": "crc32c=AAAAAA=="},
    "of another algorithm": {"repr_digest": "unixsum=:AAAA:"},
    "of what Google stores packed": {
        "x_goog_hash": f"md5={md5(b'packed')}",
        "x_goog_stored_content_encoding": "gzip",
    },
}


@pytest.mark.parametrize("headers", NO_DIGEST.values(), ids=NO_DIGEST.keys())
def test_what_is_no_digest_of_the_file(
    serve: Serve, make_bench: Callable[[RawServer], Bench], headers: dict[str, str]
) -> None:
    """No good file is turned away for what only looks like a digest of it."""
    assert make_bench(serve(answering(ok(SMALL_WAV, **headers)))).save().digest is None


@pytest.mark.parametrize("wrong", [False, True])
def test_a_digest_over_a_resume(
    serve: Serve, make_bench: Callable[[RawServer], Bench], *, wrong: bool
) -> None:
    """What was told before a cut counts after it, what a 206 tells of its own bytes does not."""
    told = {"content_md5": md5(b"other" if wrong else WAV), "etag": TAG}
    span = f"bytes {CUT}-{SIZE - 1}/{SIZE}"
    rest = {"content_md5": md5(WAV[CUT:]), "etag": TAG, "content_range": span}
    turns = iter(
        [
            head(200, content_length=str(SIZE), **told) + WAV[:CUT],
            head(206, content_length=str(SIZE - CUT), **rest) + WAV[CUT:],
        ]
    )

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(next(turns))

    bench = make_bench(serve(script))
    bench.problem()
    if wrong:
        assert bench.problem().error_code == "digest_mismatch"
        assert (bench.files, bench.parts) == ({}, [])
    else:
        assert bench.save().digest == "content-md5"


def test_a_damaged_part(serve: Serve, make_bench: Callable[[RawServer], Bench]) -> None:
    """Bytes from before a resume are compared too."""
    told = {"repr_digest": f"sha-256=:{sha(WAV)}:", "etag": TAG}
    span = f"bytes {CUT}-{SIZE - 1}/{SIZE}"
    turns = iter(
        [
            head(200, content_length=str(SIZE), etag=TAG) + WAV[:CUT],
            head(206, content_length=str(SIZE - CUT), content_range=span, **told) + WAV[CUT:],
        ]
    )

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(next(turns))

    bench = make_bench(serve(script))
    bench.problem()
    [part] = bench.parts
    part.write_bytes(WAV[: CUT - 1] + bytes([WAV[CUT - 1] ^ 1]))
    assert bench.problem().error_code == "digest_mismatch"


@pytest.mark.parametrize("of_the_packed", [True, False])
def test_a_digest_of_a_packed_file(
    serve: Serve, make_bench: Callable[[RawServer], Bench], *, of_the_packed: bool
) -> None:
    """A digest of the file as it was sent counts, and one of what was packed on the way."""
    packed = gzip.compress(SMALL_WAV)
    told = md5(packed if of_the_packed else SMALL_WAV)
    bench = make_bench(serve(answering(ok(packed, content_encoding="gzip", content_md5=told))))
    assert bench.save().digest == "content-md5"
    wrong = ok(packed, content_encoding="gzip", content_md5=md5(b""))
    (bench.folder / "1.wav").unlink()
    problem = make_bench(serve(answering(wrong))).problem()
    assert problem.error_code == "digest_mismatch"
