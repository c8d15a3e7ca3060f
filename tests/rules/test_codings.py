"""Compressed bodies: what they are by their first bytes, and unpacking them in pieces."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.codings import (
    DEFLATE,
    GZIP,
    BrokenOffError,
    Unpacker,
    UnpackError,
    compression,
    packed_as,
    unpacked,
    unpacked_head,
)


@pytest.mark.parametrize(
    ("content_encoding", "coding"),
    [
        ("gzip", "gzip"),
        ("X-GZIP", "gzip"),
        ("aws-chunked, gzip", "gzip"),
        ("gzip, identity,", "gzip"),
        ("deflate", "deflate"),
        ("br", "br"),
        ("gzip, br", "gzip, br"),
        ("aws-chunked", None),
        ("utf-8", None),
        ("", None),
        (None, None),
    ],
)
def test_what_compresses(content_encoding: str | None, coding: str | None) -> None:
    """Of the words of a Content-Encoding only some compress anything."""
    assert compression(content_encoding) == coding


@pytest.mark.parametrize(
    ("head", "content_encoding", "packed"),
    [
        (gzip.compress(b"x", mtime=0), None, GZIP),
        (gzip.compress(b"x", mtime=0), "br", GZIP),
        (b"RIFF", "gzip", None),
        (zlib.compress(b"x" * 100), "deflate", DEFLATE),
        (zlib.compress(b"x" * 100), None, None),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "deflate", None),
        (b"", "gzip", None),
        (b"", "deflate", None),
    ],
)
def test_what_is_packed(head: bytes, content_encoding: str | None, packed: str | None) -> None:
    """The first bytes decide; deflate must be named too."""
    assert packed_as(head, content_encoding) == packed


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@given(
    data=st.binary(max_size=500),
    repeated=st.integers(1, 2000),
    size=st.integers(1, 700),
    most=st.integers(1, 5000),
    form=st.sampled_from(["gzip", "members", "zlib", "raw"]),
)
def test_in_pieces(data: bytes, repeated: int, size: int, most: int, form: str) -> None:
    """Whatever the pieces are that come, and the bound on those that go: nothing is lost."""
    whole = data * repeated
    packed = {
        "gzip": gzip.compress,
        "members": lambda some: gzip.compress(some[:7]) + gzip.compress(some[7:]) + bytes(9),
        "zlib": zlib.compress,
        "raw": _raw_deflate,
    }[form](whole)
    unpacker, found = Unpacker(GZIP if form in ("gzip", "members") else DEFLATE), []
    first = max(size, 2)  # enough to tell deflate's two forms apart
    for start in (0, *range(first, len(packed), size)):
        chunk = packed[start : first if start == 0 else start + size]
        found += list(unpacker.feed(chunk, most))
    unpacker.finish()
    assert b"".join(found) == whole
    assert max(map(len, found), default=0) <= most


@given(st.binary(max_size=300), st.integers(1, 200))
def test_an_end_that_is_missing(data: bytes, missing: int) -> None:
    """Packed data that breaks off is told from data that ends."""
    packed = gzip.compress(data)
    unpacker = Unpacker(GZIP)
    list(unpacker.feed(packed[: -min(missing, len(packed))]))
    with pytest.raises(BrokenOffError):
        unpacker.finish()


@given(st.binary(min_size=1, max_size=300))
def test_garbage(data: bytes) -> None:
    """What is not packed says so, and nothing else happens."""
    for coding in (GZIP, DEFLATE):
        try:
            list(Unpacker(coding).feed(data))
            unpacked_head(data, coding)
        except UnpackError as error:
            assert str(error).endswith(".")  # noqa: PT017 - not each garbage is none


def test_small_bodies() -> None:
    """A body is unpacked within a bound, and stays as it is where it cannot be."""
    packed = gzip.compress(b'{"1": null}')
    assert unpacked(packed, None, 100) == b'{"1": null}'
    assert unpacked(packed[:-1], "gzip", 100) == packed[:-1]
    assert unpacked(b"{}", "gzip", 100) == b"{}"
    assert unpacked(zlib.compress(b"{}"), "deflate", 100) == b"{}"
    assert len(unpacked(gzip.compress(bytes(10**7)), "gzip", 1000)) == 1001
