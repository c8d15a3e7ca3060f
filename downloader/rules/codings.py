"""Bodies that come compressed although nobody asked for it: whether they are, and unpacking them.

What a Content-Encoding calls a body is a hint. Many words of it compress nothing (`aws-chunked`,
`identity`, `binary`, `utf-8`, ...), and some servers say `gzip` of plain bytes, or nothing of gzip:
so the first bytes decide.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

GZIP: Final = "gzip"
DEFLATE: Final = "deflate"

_COMPRESSING: Final = {
    **dict.fromkeys((GZIP, "x-gzip"), GZIP),
    DEFLATE: DEFLATE,
    **{name: name for name in ("br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi")},
}
_GZIP_MAGIC: Final = b"\x1f\x8b\x08"  # RFC 1952 section 2.3.1: ID1, ID2, and the one method
_ZLIB_DEFLATE: Final = 8  # RFC 1950 section 2.2: CM
_ZLIB_WINDOW: Final = 7
_GZIP_WINDOW_BITS: Final = 31
_RAW_WINDOW_BITS: Final = -15

_PIECE_BYTES: Final = 256 * 1024
"""How much is unpacked at a time: a small piece may hold a thousand times as much."""


_HEAD_BYTES: Final = 64 * 1024


class UnpackError(Exception):
    """Bytes cannot be unpacked; the message is a sentence."""


class BrokenOffError(UnpackError):
    """They end before the compressed data does."""


def compression(content_encoding: str | None) -> str | None:
    """Return how a Content-Encoding says that a body is compressed; None where it says it is not.

    Several layers are one that nobody knows. A word that is not known compresses nothing.
    """
    words = [word.strip().lower() for word in (content_encoding or "").split(",")]
    layers = [_COMPRESSING[word] for word in words if word in _COMPRESSING]
    if not layers:
        return None
    return layers[0] if len(layers) == 1 else ", ".join(layers)


def packed_as(head: bytes, content_encoding: str | None) -> str | None:
    """Return `gzip` or `deflate` where a body that begins with `head` is so packed, by its bytes.

    gzip shows itself; deflate has next to nothing to be known by, and must be named too.
    """
    if head.startswith(_GZIP_MAGIC):
        return GZIP
    if compression(content_encoding) == DEFLATE and _unpacks(head):
        return DEFLATE
    return None


def _unpacks(head: bytes) -> bool:
    try:
        return bool(unpacked_head(head, DEFLATE))
    except UnpackError:
        return False


def unpacked_head(head: bytes, coding: str) -> bytes:
    """Return the first bytes, up to 64 KiB, of what a packed body's first bytes hold.

    Raises:
        UnpackError: they are not so packed.

    """
    found = bytearray()
    for piece in Unpacker(coding).feed(head, _HEAD_BYTES):
        found += piece
        if len(found) >= _HEAD_BYTES:
            break
    return bytes(found[:_HEAD_BYTES])


class Unpacker:
    """Unpacks gzip (all its members, RFC 1952 section 2.2) or deflate, a piece at a time."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._decoder = self._new_decoder(b"") if coding == GZIP else None
        self._begun = False

    def feed(self, chunk: bytes, most: int = _PIECE_BYTES) -> Iterator[bytes]:
        """Yield what a chunk holds, in pieces of at most `most` bytes.

        Raises:
            UnpackError: the bytes are not so packed, or others follow.

        """
        held_back = False  # output that did not fit: zlib may have taken all input by then
        while chunk or held_back:
            if self._decoder is None:
                # Between members tape drives, and some writers, leave zeros.
                chunk = chunk.lstrip(b"\0") if self._begun else chunk
                if not chunk:
                    return
                if self._begun and self._coding != GZIP:
                    raise UnpackError("Bytes follow behind the end of the compressed file.")
                self._decoder = self._new_decoder(chunk)
            self._begun = True
            decoder = self._decoder
            try:
                piece = decoder.decompress(chunk, most)
            except zlib.error:
                raise UnpackError(f"The file is not {self._coding}, though it says so.") from None
            chunk = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            held_back = not decoder.eof and len(piece) == most
            if decoder.eof:
                self._decoder = None
            if piece:
                yield piece

    def finish(self) -> None:
        """See that the compressed data has ended.

        Raises:
            BrokenOffError: it has not.

        """
        if self._decoder is not None or not self._begun:
            raise BrokenOffError("The compressed file breaks off.")

    def _new_decoder(self, chunk: bytes) -> zlib._Decompress:
        if self._coding == GZIP:
            return zlib.decompressobj(_GZIP_WINDOW_BITS)
        return (
            zlib.decompressobj()
            if _has_zlib_header(chunk)
            else zlib.decompressobj(
                _RAW_WINDOW_BITS  # what some servers send as deflate, RFC 9110 section 8.4.1.2
            )
        )


def unpacked(body: bytes, content_encoding: str | None, most: int) -> bytes:
    """Return a small body unpacked, up to `most` bytes and one; as it is where it is not packed.

    One that cannot be unpacked comes back as it is: whoever reads it says what is wrong with it.
    """
    coding = packed_as(body, content_encoding)
    if coding is None:
        return body
    unpacker, found = Unpacker(coding), bytearray()
    try:
        for piece in unpacker.feed(body):
            found += piece
            if len(found) > most:
                return bytes(found[: most + 1])
        unpacker.finish()
    except UnpackError:
        return body
    return bytes(found)


def _has_zlib_header(head: bytes) -> bool:
    """Tell whether bytes begin as RFC 1950 section 2.2 has it."""
    if len(head) < 2 or head[0] & 15 != _ZLIB_DEFLATE or head[0] >> 4 > _ZLIB_WINDOW:
        return False
    return (head[0] << 8 | head[1]) % 31 == 0
