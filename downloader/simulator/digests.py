"""The digests of a file that a storage may tell, each in its own header."""

from __future__ import annotations

import base64
import hashlib
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from downloader.simulator.audio import AudioName, audio_file

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORMS: Final[Mapping[str, tuple[str, str]]] = {
    "content-md5": ("md5", "{base64}"),
    "x-goog-hash": ("md5", "md5={base64}"),
    "x-amz-checksum-sha256": ("sha256", "{base64}"),
    "x-amz-checksum-sha1": ("sha1", "{base64}"),
    "x-amz-checksum-crc32": ("crc32", "{base64}"),
    "repr-digest": ("sha256", "sha-256=:{base64}:"),
    "content-digest": ("sha256", "sha-256=:{base64}:"),
    "digest": ("sha256", "SHA-256={base64}"),
    "etag": ("md5", '"{hex}"'),
}

OF_WHAT_IS_SENT: Final = frozenset({"content-md5", "content-digest"})
"""Those that a part of the file has of itself, and not of the whole."""


def digest(name: AudioName, header: str, *, wrong: bool) -> dict[str, str]:
    """Return the header, one of `catalogue.DIGESTS`, with the digest of a file, or of another."""
    algorithm, form = _FORMS[header]
    found = _hashed(name, algorithm, wrong=wrong)
    return {header: form.format(base64=base64.b64encode(found).decode(), hex=found.hex())}


@lru_cache(maxsize=1024)
def _hashed(name: AudioName, algorithm: str, *, wrong: bool) -> bytes:
    file = audio_file(name)
    parts = [b"".join(file.read(0, file.size)), b"more" if wrong else b""]
    if algorithm == "crc32":
        return zlib.crc32(b"".join(parts)).to_bytes(4, "big")
    return hashlib.new(algorithm, b"".join(parts), usedforsecurity=False).digest()
