"""What an audio file's own header says of its length: WAV, FLAC and MP3.

A claim is a lower bound on the file's size. Where it vouches, a file of that size is whole;
where sizes are unknown, as in streamed files, nothing is claimed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class AudioFormat(StrEnum):
    """A format that is recognised; its value is the file name's extension."""

    WAV = "wav"
    FLAC = "flac"
    MP3 = "mp3"
    OGG = "ogg"


@dataclass(frozen=True, slots=True)
class Claim:
    """What the header says of the file's size.

    `minimum_bytes` is the size below which the file is truncated (None: unknown), `exact`
    whether it is a stated size rather than a lower bound, and `vouches` whether a file of at
    least that size is shown to be whole. A file of `header_bytes` or fewer holds no audio.
    """

    minimum_bytes: int | None
    exact: bool = False
    vouches: bool = False
    header_bytes: int = 0


UNKNOWN: Final = Claim(None)

_UNKNOWN_32: Final = 0xFFFFF000
_UNKNOWN_31: Final = range(0x7FFFF000, 0x80000000)
_MAX_SANE_64: Final = 2**50
_CHUNK_HEADER_BYTES: Final = 8
_RIFF_HEADER_BYTES: Final = 12

_FLAC_MAGIC_BYTES: Final = 4
_STREAMINFO_BYTES: Final = 34
_SMALLEST_FLAC_FRAME_BYTES: Final = 10
"""RFC 9639 section 9: 6 of header, 2 of the shortest subframe, 2 of CRC."""

_ID3_HEADER_BYTES: Final = 10
_BITRATES_V1: Final = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_BITRATES_V2: Final = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES: Final = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def read_header(head: bytes, audio_format: AudioFormat) -> Claim:
    """Return what a file's header claims, from its first bytes (64 KiB are plenty)."""
    if audio_format is AudioFormat.WAV:
        return _read_wav(head)
    if audio_format is AudioFormat.FLAC:
        return _read_flac(head[id3_bytes(head) :], id3_bytes(head))
    if audio_format is AudioFormat.MP3:
        return _read_mp3(head)
    return UNKNOWN


def id3_bytes(head: bytes) -> int:
    """Return the size of the ID3v2 tags that the bytes start with; 0 if there are none."""
    total = 0
    while size := _one_id3_bytes(head[total : total + _ID3_HEADER_BYTES]):
        total += size
    return total


def _one_id3_bytes(tag: bytes) -> int:
    if len(tag) < _ID3_HEADER_BYTES or tag[:3] != b"ID3":
        return 0
    if tag[3] not in {2, 3, 4} or tag[4] == 0xFF or any(byte > 0x7F for byte in tag[6:]):
        return 0
    size = tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9]
    footer = _ID3_HEADER_BYTES if tag[3] == 4 and tag[5] & 0x10 else 0
    return _ID3_HEADER_BYTES + size + footer


def mpeg_frame_bytes(head: bytes, offset: int) -> int | None:
    """Return the length of the MPEG Layer III frame at an offset; None if there is none.

    ISO/IEC 11172-3 section 2.4.1.3: eleven bits of sync, then a version, layer, bitrate and
    sampling rate that are not reserved. The free format, of unstated length, is not taken.
    """
    header = head[offset : offset + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bitrate_index, rate_index = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer != 1 or bitrate_index in {0, 15} or rate_index == 3:
        return None
    if header[3] & 3 == 2:  # reserved emphasis
        return None
    bitrate = (_BITRATES_V1 if version == 3 else _BITRATES_V2)[bitrate_index] * 1000
    samples_by_8 = 144 if version == 3 else 72
    return samples_by_8 * bitrate // _RATES[version][rate_index] + (header[2] >> 1 & 1)


def _read_wav(head: bytes) -> Claim:
    """Read RIFF, RF64 (EBU Tech 3306) and BW64 (ITU-R BS.2088)."""
    riff_size = _size_32(head, 4)
    long_sizes = _ds64(head) if head[:4] in {b"RF64", b"BW64"} else (None, None)
    if riff_size is None:
        riff_size = long_sizes[0]
    riff_end = None if riff_size is None else _CHUNK_HEADER_BYTES + riff_size
    header = _data_offset(head)
    if header is None:
        sane = riff_end is not None
        return Claim(riff_end, exact=sane, vouches=sane, header_bytes=len(head))
    data_size = _size_32(head, header - 4)
    if data_size is None:
        data_size = long_sizes[1]
    if data_size is None:
        # The data run to the end of the RIFF chunk, where that is known to hold any.
        if riff_end is None or riff_end <= header + _CHUNK_HEADER_BYTES:
            return Claim(None, header_bytes=header)
        return Claim(riff_end, exact=True, vouches=True, header_bytes=header)
    data_end = header + data_size
    pad = data_size & 1
    # Up to eight bytes more than the data are no chunk: some writers put the file's size into
    # the RIFF size, some count a pad byte that they do not write.
    if riff_end is None or riff_end <= data_end + pad + _CHUNK_HEADER_BYTES:
        return Claim(data_end, exact=True, vouches=True, header_bytes=header)
    # Chunks follow; the pad byte of the last one may be counted and not written.
    return Claim(riff_end - 1, exact=True, vouches=True, header_bytes=header)


def _size_32(head: bytes, offset: int) -> int | None:
    """Return a RIFF size in bytes; None where the writer did not know it."""
    size = int.from_bytes(head[offset : offset + 4], "little")
    if len(head) < offset + 4 or size == 0 or size in _UNKNOWN_31 or size >= _UNKNOWN_32:
        return None
    return size


def _ds64(head: bytes) -> tuple[int | None, int | None]:
    if head[12:16] != b"ds64" or len(head) < 36:
        return None, None
    riff_size, data_size = (
        int.from_bytes(head[offset : offset + 8], "little") for offset in (20, 28)
    )
    return (
        riff_size if 0 < riff_size < _MAX_SANE_64 else None,
        data_size if 0 < data_size < _MAX_SANE_64 else None,
    )


def _data_offset(head: bytes) -> int | None:
    """Return where the audio starts, by walking the chunks; None if not within the head."""
    offset = _RIFF_HEADER_BYTES
    while offset + _CHUNK_HEADER_BYTES <= len(head):
        size = int.from_bytes(head[offset + 4 : offset + 8], "little")
        if head[offset : offset + 4] == b"data":
            return offset + _CHUNK_HEADER_BYTES
        offset += _CHUNK_HEADER_BYTES + size + (size & 1)
    return None


def _read_flac(head: bytes, start: int) -> Claim:
    """Read STREAMINFO (RFC 9639 section 8.2): a lower bound, since frames are compressed."""
    info = head[_FLAC_MAGIC_BYTES + 4 : _FLAC_MAGIC_BYTES + 4 + _STREAMINFO_BYTES]
    if len(info) < _STREAMINFO_BYTES or head[_FLAC_MAGIC_BYTES] & 0x7F != 0:
        return Claim(start + _FLAC_MAGIC_BYTES + 4 + _STREAMINFO_BYTES)
    metadata_end = _flac_metadata_end(head)
    largest_block = int.from_bytes(info[2:4], "big")
    smallest_frame = int.from_bytes(info[4:7], "big")
    samples = int.from_bytes(info[13:18], "big") & (2**36 - 1)
    if samples == 0 or largest_block == 0:
        return Claim(None, header_bytes=start + metadata_end)
    frames = -(-samples // largest_block)
    # The last frame may be a short one.
    audio = (frames - 1) * max(smallest_frame, _SMALLEST_FLAC_FRAME_BYTES)
    minimum = start + metadata_end + audio + _SMALLEST_FLAC_FRAME_BYTES
    return Claim(minimum, header_bytes=start + metadata_end)


def _flac_metadata_end(head: bytes) -> int:
    offset = _FLAC_MAGIC_BYTES
    while offset + 4 <= len(head):
        last = head[offset] & 0x80
        offset += 4 + int.from_bytes(head[offset + 1 : offset + 4], "big")
        if last:
            break
    return offset


def _read_mp3(head: bytes) -> Claim:
    """Read the byte count of a Xing, Info or VBRI header; else at least one frame is due."""
    start = id3_bytes(head)
    frame = mpeg_frame_bytes(head, start)
    if frame is None:
        return Claim(start + 4, header_bytes=start)
    counted = _vbr_bytes(head, start)
    if counted is None or counted < frame:
        return Claim(start + frame, header_bytes=start)
    return Claim(start + counted, exact=True, vouches=True, header_bytes=start)


def _vbr_bytes(head: bytes, start: int) -> int | None:
    version_1, mono = head[start + 1] >> 3 & 3 == 3, head[start + 3] >> 6 == 3
    side_bytes = (17 if mono else 32) if version_1 else (9 if mono else 17)
    xing = start + 4 + side_bytes
    if head[xing : xing + 4] in {b"Xing", b"Info"}:
        flags = int.from_bytes(head[xing + 4 : xing + 8], "big")
        field = xing + 8 + (4 if flags & 1 else 0)
        counted = int.from_bytes(head[field : field + 4], "big") if flags & 2 else 0
        return counted or None
    vbri = start + 4 + 32
    if head[vbri : vbri + 4] == b"VBRI":
        return int.from_bytes(head[vbri + 10 : vbri + 14], "big") or None
    return None
