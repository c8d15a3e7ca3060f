"""FLAC (RFC 9639) without compression: verbatim subframes, real checksums.

All whole frames carry the same samples, and differ only in their number and checksums. The
CRC-16 of a frame is had from those of its header and its body, because a CRC is linear: no
byte of the body is looked at twice, and any frame can be made without the ones before it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from downloader.simulator.tone import PERIOD, SAMPLE_RATE, Tone, big_endian, tone

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCK_SIZE: Final = 4096
"""Samples of one channel in a whole frame; a multiple of the sound's period."""

_STREAM_INFO, _VORBIS_COMMENT = 0, 4
_LAST_BLOCK: Final = 0x80
_VERBATIM: Final = b"\x02"
_SUBFRAMES: Final = 2
_FRAME_SYNC: Final = b"\xff\xf8"  # fixed block size
_RATE_48_KHZ, _SIZE_4096, _SIZE_16_BIT_AT_END = 0xA, 0xC, 0x7
_STEREO_16_BIT: Final = b"\x18"


def _crc_table(polynomial: int, bits: int) -> tuple[int, ...]:
    top, mask = 1 << (bits - 1), (1 << bits) - 1
    table = []
    for byte in range(256):
        crc = byte << (bits - 8)
        for _ in range(8):
            crc = ((crc << 1) ^ polynomial if crc & top else crc << 1) & mask
        table.append(crc)
    return tuple(table)


_CRC8: Final = _crc_table(0x07, 8)
_CRC16: Final = _crc_table(0x8005, 16)


def crc8(data: bytes) -> int:
    """CRC-8 of a frame's header (RFC 9639, section 9.1.8)."""
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc


def crc16(data: bytes, crc: int = 0) -> int:
    """CRC-16 of a frame (RFC 9639, section 9.3), going on from `crc`."""
    table = _CRC16
    for byte in data:
        crc = ((crc << 8) & 0xFFFF) ^ table[crc >> 8 ^ byte]
    return crc


@lru_cache(maxsize=4096)
def _zeros_operator(length: int) -> tuple[int, ...]:
    """Return what `length` zero bytes make of each single bit of a CRC-16."""
    if length == 1:
        return tuple(crc16(b"\0", 1 << bit) for bit in range(16))
    half = _zeros_operator(length // 2)
    columns = tuple(_apply(half, column) for column in half)
    if length % 2:
        columns = tuple(crc16(b"\0", column) for column in columns)
    return columns


def _apply(columns: Sequence[int], crc: int) -> int:
    result = 0
    for column in columns:
        if crc & 1:
            result ^= column
        crc >>= 1
    return result


def coded_number(number: int) -> bytes:
    """Code a frame number as FLAC does: UTF-8's scheme, up to 31 bits in 6 bytes."""
    if number < 0x80:
        return bytes([number])
    tail: list[int] = []
    limit = 0x3F
    while number > limit:
        tail.append(0x80 | number & 0x3F)
        number >>= 6
        limit >>= 1
    return bytes([0xFF ^ (limit << 1 | 1) | number, *reversed(tail)])


@dataclass(frozen=True)
class Frames:
    """The frames of one file: `whole` ones of `BLOCK_SIZE` samples and a last one of `rest`."""

    body: bytes
    body_crc: int
    last_body: bytes
    whole: int
    rest: int

    def frame(self, number: int) -> bytes:
        """One frame, from its sync code to its CRC-16."""
        if number < self.whole:
            header = _FRAME_SYNC + bytes([_SIZE_4096 << 4 | _RATE_48_KHZ]) + _STEREO_16_BIT
            header += coded_number(number)
            header += bytes([crc8(header)])
            crc = _apply(_zeros_operator(len(self.body)), crc16(header)) ^ self.body_crc
            return b"".join((header, self.body, struct.pack(">H", crc)))
        header = _FRAME_SYNC + bytes([_SIZE_16_BIT_AT_END << 4 | _RATE_48_KHZ]) + _STEREO_16_BIT
        header += coded_number(number) + struct.pack(">H", self.rest - 1)
        header += bytes([crc8(header)])
        return b"".join(
            (header, self.last_body, struct.pack(">H", crc16(self.last_body, crc16(header))))
        )

    @property
    def count(self) -> int:
        """How many frames there are."""
        return self.whole + (self.rest > 0)

    def offset(self, number: int) -> int:
        """Bytes before this whole frame, or before the last one (`number == whole`)."""
        return number * (_overhead(whole=True) + len(self.body)) + _coded_sizes(number)

    def at(self, offset: int) -> int:
        """Return the frame that the byte at `offset` of the frames is in."""
        low, high = 0, self.whole
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.offset(middle) <= offset else (low, middle - 1)
        return low

    @property
    def size(self) -> int:
        """Bytes of all frames."""
        if not self.rest:
            return self.offset(self.whole)
        last = _overhead(whole=False) + len(coded_number(self.whole)) + len(self.last_body)
        return self.offset(self.whole) + last


def _overhead(*, whole: bool) -> int:
    # sync 2, block size and rate 1, channels and depth 1, CRC-8 1, CRC-16 2, own block size 2
    return 7 if whole else 9


def _coded_sizes(count: int) -> int:
    """Bytes that the numbers of the first `count` frames take."""
    total, start = 0, 0
    for length, end in enumerate((0x80, 0x800, 0x10000, 0x200000, 0x4000000, 0x80000000), 1):
        total += length * (min(count, end) - start)
        if count <= end:
            break
        start = end
    return total


def flac_parts(name: str, size: int, *, streamed: bool) -> tuple[bytes, Frames]:
    """Make the metadata and the frames, for about `size` bytes in all."""
    sound = tone(name)
    metadata_size = len(_metadata(name, b"\0" * 34))
    whole, rest = _fit(max(size - metadata_size, 0))
    frames = _frames(sound, whole, rest)
    samples = whole * BLOCK_SIZE + rest
    info = struct.pack(">HH", BLOCK_SIZE, BLOCK_SIZE) + bytes(6)  # frame sizes: unknown
    packed = SAMPLE_RATE << 44 | (_SUBFRAMES - 1) << 41 | 15 << 36 | (0 if streamed else samples)
    info += struct.pack(">Q", packed) + (bytes(16) if streamed else _md5(sound, samples))
    return _metadata(name, info), frames


def _metadata(name: str, stream_info: bytes) -> bytes:
    vendor, title = b"downloader simulate", b"TITLE=" + name.encode()
    comment = struct.pack("<I", len(vendor)) + vendor + struct.pack("<II", 1, len(title)) + title
    return b"".join(
        (
            b"fLaC",
            struct.pack(">I", _STREAM_INFO << 24 | len(stream_info)),
            stream_info,
            struct.pack(">I", (_LAST_BLOCK | _VORBIS_COMMENT) << 24 | len(comment)),
            comment,
        )
    )


def _fit(room: int) -> tuple[int, int]:
    """How many whole frames and further samples fill about `room` bytes; at least 16 samples."""
    body = _SUBFRAMES * (1 + 2 * BLOCK_SIZE)
    whole = room // (_overhead(whole=True) + body)
    while whole and whole * (_overhead(whole=True) + body) + _coded_sizes(whole) > room:
        whole -= 1
    left = room - whole * (_overhead(whole=True) + body) - _coded_sizes(whole)
    left -= _overhead(whole=False) + len(coded_number(whole)) + _SUBFRAMES
    rest = min(left // 4, BLOCK_SIZE - 1)
    return whole, max(rest, 0) if whole else max(rest, 16)


def _frames(sound: Tone, whole: int, rest: int) -> Frames:
    left, right = big_endian(sound.left), big_endian(sound.right)
    body = b""
    if whole:
        times = BLOCK_SIZE // PERIOD
        body = _VERBATIM + left * times + _VERBATIM + right * times
    times = -(-rest // PERIOD)
    last_body = _VERBATIM + (left * times)[: 2 * rest] + _VERBATIM + (right * times)[: 2 * rest]
    return Frames(body, crc16(body), last_body, whole, rest)


def _md5(sound: Tone, samples: int) -> bytes:
    """MD5 of the decoded samples, as STREAMINFO wants it."""
    period = sound.interleaved
    tile = period * 256
    digest = hashlib.md5(usedforsecurity=False)
    left = samples * 4
    while left > 0:
        digest.update(tile[:left])
        left -= len(tile)
    return digest.digest()
