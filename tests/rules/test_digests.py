"""Digests that a storage tells: which are of the whole object, and what the database keeps."""

from __future__ import annotations

import base64
import hashlib

from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.digests import Digest, from_text, hasher_of, to_text, told

MD5 = hashlib.md5(b"x", usedforsecurity=False).digest()
SHA = hashlib.sha256(b"x").digest()


def coded(value: bytes) -> str:
    """Return a digest as headers have it."""
    return base64.b64encode(value).decode()


ALL = {
    "content-md5": coded(MD5),
    "content-digest": f"sha-256=:{coded(SHA)}:",
    "x-amz-checksum-sha256": coded(SHA),
    "repr-digest": f"sha-256=:{coded(SHA)}:",
    "x-goog-hash": f"crc32c=AAAAAA==, md5={coded(MD5)}",
    "x-ms-blob-content-md5": coded(MD5),
    "x-bz-content-sha1": "none",
}


def test_of_a_part_and_of_the_whole() -> None:
    """Of a range that was sent only what is told of the whole counts; the strongest comes first."""
    whole = {one.source for one in told(ALL, partial=False)}
    assert whole == set(ALL) - {"x-bz-content-sha1"}
    partial = [one.name for one in told(ALL, partial=True)]
    assert partial == ["repr-digest sha-256", "x-goog-hash md5", "x-ms-blob-content-md5"]


def test_backblaze() -> None:
    """Backblaze tells the SHA-1 of a file, but of a large one that it has none."""
    value = hashlib.sha1(b"x", usedforsecurity=False)
    headers = {"x-bz-content-sha1": value.hexdigest()}
    assert told(headers, partial=True) == (Digest("x-bz-content-sha1", "sha1", value.digest()),)
    assert told({"x-bz-content-sha1": f"unverified:{value.hexdigest()}"}, partial=True) == ()


def test_in_the_database() -> None:
    """What is told is kept as a text, and read again; garbage in its place is nothing."""
    digests = told(ALL, partial=False)
    assert from_text(to_text(digests)) == digests
    assert to_text(()) is None
    assert from_text(None) == from_text("content-md5") == from_text("x/md5=00 y/rot13=0000") == ()


def test_every_algorithm_is_made() -> None:
    """Each algorithm that is told of can be computed."""
    for algorithm, size in {
        "sha-512": 64,
        "sha-256": 32,
        "sha1": 20,
        "md5": 16,
        "crc32": 4,
    }.items():
        hasher = hasher_of(algorithm)
        hasher.update(b"x")
        assert len(hasher.digest()) == size


@given(st.dictionaries(st.sampled_from([*ALL, "etag", "digest", "server"]), st.text()))
def test_whatever_the_headers_say(headers: dict[str, str]) -> None:
    """Nothing in a header makes it fail."""
    found = told(headers, partial=False)
    assert from_text(to_text(found)) == found
