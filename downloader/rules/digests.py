"""What a storage tells of an object's bytes: which digests, of what, and whether they agree.

Only what is told of the whole object counts: in a 206 `Content-MD5`, `Content-Digest` and Amazon's
checksums are of the part that was sent. CRC-32C and CRC-64 are not compared: Python has neither.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

MD5: Final = "md5"
SHA_256: Final = "sha-256"


class Hasher(Protocol):
    """What takes bytes and gives their digest."""

    def update(self, data: bytes, /) -> object:
        """Take bytes."""

    def digest(self) -> bytes:
        """Return the digest of all that came."""


class Digest(NamedTuple):
    """A digest of an object, and which header, or rule of the store, tells it."""

    source: str
    algorithm: str
    value: bytes

    @property
    def name(self) -> str:
        """What is recorded: the source, and the algorithm where that does not name it."""
        named = self.algorithm.replace("-", "") in self.source
        return self.source if named else f"{self.source} {self.algorithm}"


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def _hasher(name: str) -> Callable[[], Hasher]:
    return lambda: hashlib.new(name, usedforsecurity=False)


# The strongest first: that one is recorded.
_HASHERS: Final[Mapping[str, Callable[[], Hasher]]] = {
    "sha-512": _hasher("sha512"),
    SHA_256: _hasher("sha256"),
    "sha1": _hasher("sha1"),
    MD5: _hasher("md5"),
    "crc32": _Crc32,
}
_SIZES: Final = {"sha-512": 64, SHA_256: 32, "sha1": 20, MD5: 16, "crc32": 4}
_STRENGTH: Final = list(_HASHERS)

_AMAZON: Final = {"sha256": SHA_256, "sha512": "sha-512", "sha1": "sha1", "md5": MD5} | {
    "crc32": "crc32"
}
_FIELDS: Final = {"sha": "sha1", "sha-1": "sha1", SHA_256: SHA_256, "sha-512": "sha-512", MD5: MD5}
# RFC 9530 section 2: a dictionary whose values are byte sequences between colons; the older
# Digest (RFC 3230) has them bare.
_MEMBER: Final = re.compile(r"([A-Za-z0-9-]+)\s*=\s*(:?)([A-Za-z0-9+/=]+)\2(?:;[^,]*)?")
_HEX_MD5: Final = re.compile(r'"([0-9a-f]{32})"')
_HEX_SHA1: Final = re.compile(r"[0-9a-fA-F]{40}")
_TEXT: Final = re.compile(r"([a-z0-9-]+)/([a-z0-9-]+)=([0-9a-f]+)")


def hasher_of(algorithm: str) -> Hasher:
    """Return what makes a digest of this algorithm, one of those that `told` names."""
    return _HASHERS[algorithm]()


def told(headers: Mapping[str, str], *, partial: bool) -> tuple[Digest, ...]:
    """Return the digests that an answer (header names in lower case) tells of the whole object.

    `partial` says that it has only a range of it. Never raises; what cannot be read, and what is a
    digest of digests (Amazon's of several parts), is left out.
    """
    found = [*_whatever_was_sent(headers)]
    if not partial:
        found += _of_what_was_sent(headers)
    if not found:
        found += _entity_tag(headers)
    fitting = {one for one in found if len(one.value) == _SIZES[one.algorithm]}
    return tuple(sorted(fitting, key=lambda one: (_STRENGTH.index(one.algorithm), one.source)))


def to_text(digests: Iterable[Digest]) -> str | None:
    """Return digests as a text for the database; None for none."""
    text = " ".join(f"{one.source}/{one.algorithm}={one.value.hex()}" for one in digests)
    return text or None


def from_text(text: str | None) -> tuple[Digest, ...]:
    """Return the digests that `to_text` wrote; what is none of ours is left out."""
    return tuple(
        Digest(source, algorithm, bytes.fromhex(value))
        for source, algorithm, value in _TEXT.findall(text or "")
        if _SIZES.get(algorithm) == len(value) / 2
    )


def _whatever_was_sent(headers: Mapping[str, str]) -> Iterator[Digest]:
    """Yield what is of the whole object, whichever bytes of it were sent."""
    yield from _members(headers, "repr-digest", _FIELDS)
    yield from _members(headers, "digest", _FIELDS)
    if not _was_unpacked(headers):
        yield from _members(headers, "x-goog-hash", {MD5: MD5})
    yield from _coded(headers, "x-ms-blob-content-md5", MD5)
    sha1 = headers.get("x-bz-content-sha1", "")
    if _HEX_SHA1.fullmatch(sha1):  # "none", or "unverified:", of a large file
        yield Digest("x-bz-content-sha1", "sha1", bytes.fromhex(sha1))


def _of_what_was_sent(headers: Mapping[str, str]) -> Iterator[Digest]:
    """Yield what is of the bytes in the answer."""
    yield from _members(headers, "content-digest", _FIELDS)
    yield from _coded(headers, "content-md5", MD5)
    if headers.get("x-amz-checksum-type", "FULL_OBJECT").upper() == "FULL_OBJECT":
        for name, algorithm in _AMAZON.items():
            yield from _coded(headers, f"x-amz-checksum-{name}", algorithm)


def _entity_tag(headers: Mapping[str, str]) -> Iterator[Digest]:
    """Yield the ETag where it is an MD5 by Amazon's own rules, and not by its looks alone.

    Of an object that was put at once, and is not encrypted but with S3's own keys (Amazon S3 API,
    type Object, ETag). A directory bucket's is none, and no other store promises it.
    """
    if headers.get("server") != "AmazonS3" or "x-amz-id-2" not in headers:
        return
    if headers.get("x-amz-server-side-encryption", "AES256") != "AES256":
        return
    if any(name.startswith("x-amz-server-side-encryption-") for name in headers):
        return
    if headers.get("x-amz-storage-class") == "EXPRESS_ONEZONE" or "x-amz-mp-parts-count" in headers:
        return
    match = _HEX_MD5.fullmatch(headers.get("etag", ""))
    if match is not None:
        yield Digest("etag", MD5, bytes.fromhex(match[1]))


def _was_unpacked(headers: Mapping[str, str]) -> bool:
    """Tell whether Google's storage has unpacked the object for us: its hashes are of the other."""
    stored = headers.get("x-goog-stored-content-encoding", "identity").lower()
    return stored != "identity" and headers.get("content-encoding", "").lower() != stored


def _members(
    headers: Mapping[str, str], name: str, algorithms: Mapping[str, str]
) -> Iterator[Digest]:
    for member in headers.get(name, "").split(","):
        match = _MEMBER.fullmatch(member.strip())
        if match is None or match[1].lower() not in algorithms:
            continue
        if (value := _decoded(match[3])) is not None:
            yield Digest(name, algorithms[match[1].lower()], value)


def _coded(headers: Mapping[str, str], name: str, algorithm: str) -> Iterator[Digest]:
    value = _decoded(headers.get(name, "").strip())
    if value is not None:
        yield Digest(name, algorithm, value)


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) or None
    except (binascii.Error, ValueError):
        return None
