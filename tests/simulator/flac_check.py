"""A small reader of FLAC (RFC 9639), written apart from the simulator's writer.

It decodes what the simulator writes (verbatim subframes, 16-bit stereo) and checks all that a
decoder checks: metadata, frame numbers, block sizes, CRC-8, CRC-16, sample count and MD5.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple


class Decoded(NamedTuple):
    """What is in a FLAC file."""

    sample_rate: int
    samples: int
    """Of one channel, as counted."""
    declared_samples: int
    pcm: bytes
    """Little-endian, interleaved."""
    declared_md5: bytes
    title: str

    @property
    def md5(self) -> bytes:
        """MD5 of the decoded samples."""
        return hashlib.md5(self.pcm, usedforsecurity=False).digest()


def _crc(data: bytes, polynomial: int, width: int) -> int:
    register = 0
    for byte in data:
        register ^= byte << (width - 8)
        for _ in range(8):
            carry = register >> (width - 1)
            register = (register << 1 & (1 << width) - 1) ^ (polynomial if carry else 0)
    return register


def _coded_number(data: bytes) -> tuple[int, int]:
    """Read a number and how many bytes it takes."""
    first = data[0]
    if first < 0x80:
        return first, 1
    length = 8 - (first ^ 0xFF).bit_length()
    number = first & (1 << (7 - length)) - 1
    for byte in data[1:length]:
        assert byte >> 6 == 0b10
        number = number << 6 | byte & 0x3F
    return number, length


def decode(data: bytes) -> Decoded:
    """Read a whole file; assert where it is not valid."""
    assert data[:4] == b"fLaC"
    position, last, blocks = 4, False, {}
    while not last:
        header = data[position]
        last, kind = bool(header & 0x80), header & 0x7F
        length = int.from_bytes(data[position + 1 : position + 4], "big")
        blocks[kind] = data[position + 4 : position + 4 + length]
        position += 4 + length
    info = blocks[0]
    assert len(info) == 34
    smallest, largest = struct.unpack(">HH", info[:4])
    packed = int.from_bytes(info[10:18], "big")
    assert (packed >> 41 & 7, packed >> 36 & 31) == (1, 15)  # stereo, 16 bits
    pcm, count, number = [], 0, 0
    while position < len(data):
        frame, samples = _frame(data[position:], number)
        assert samples <= largest
        assert samples >= smallest or position + frame[0] == len(data)
        pcm.append(frame[1])
        position += frame[0]
        count, number = count + samples, number + 1
    comment = blocks[4]
    return Decoded(
        sample_rate=packed >> 44,
        samples=count,
        declared_samples=packed & (1 << 36) - 1,
        pcm=b"".join(pcm),
        declared_md5=info[18:],
        title=comment[comment.index(b"TITLE=") + 6 :].decode(),
    )


def _frame(data: bytes, number: int) -> tuple[tuple[int, bytes], int]:
    """One frame: its length in bytes and its samples, and how many those are."""
    assert data[:2] == b"\xff\xf8"
    size_code, rate_code = data[2] >> 4, data[2] & 15
    assert (rate_code, data[3]) == (0b1010, 0b0001_100_0)
    found, width = _coded_number(data[4:11])
    assert found == number
    position = 4 + width
    if size_code == 0b0111:
        samples = int.from_bytes(data[position : position + 2], "big") + 1
        position += 2
    else:
        samples = 256 << (size_code - 8)
    assert _crc(data[:position], 0x07, 8) == data[position]
    position += 1
    channels = []
    for _ in range(2):
        assert data[position] == 0b0_000001_0  # verbatim, no wasted bits
        channels.append(data[position + 1 : position + 1 + 2 * samples])
        position += 1 + 2 * samples
    assert _crc(data[:position], 0x8005, 16) == int.from_bytes(data[position : position + 2], "big")
    pcm = bytearray(4 * samples)
    (pcm[1::4], pcm[0::4]), (pcm[3::4], pcm[2::4]) = (
        (channel[0::2], channel[1::2]) for channel in channels
    )
    return (position + 2, bytes(pcm)), samples
