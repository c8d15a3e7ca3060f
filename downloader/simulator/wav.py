"""RIFF/WAVE: a header, a title, and the sound's period over and over."""

from __future__ import annotations

import struct
from typing import Final

from downloader.simulator.tone import FRAME_BYTES, SAMPLE_RATE, tone

UNKNOWN_SIZE: Final = 0xFFFFFFFF
"""What a program writes into a header that it cannot come back to."""


def wav_parts(name: str, size: int, *, streamed: bool) -> tuple[bytes, bytes, int]:
    """Make the header, the repeating part and the bytes of sound, for about `size` bytes."""
    title = name.encode() + b"\0"
    title += b"\0" * (-len(title) % FRAME_BYTES)  # so that sizes divisible by 4 come out exact
    info = b"INFO" + b"INAM" + struct.pack("<I", len(title)) + title
    listing = b"LIST" + struct.pack("<I", len(info)) + info
    layout = struct.pack(
        "<HHIIHH", 1, 2, SAMPLE_RATE, SAMPLE_RATE * FRAME_BYTES, FRAME_BYTES, 8 * FRAME_BYTES // 2
    )
    chunks = b"WAVE" + b"fmt " + struct.pack("<I", len(layout)) + layout + listing
    header_size = 8 + len(chunks) + 8
    sound = max(size - header_size, FRAME_BYTES) // FRAME_BYTES * FRAME_BYTES
    riff_size, data_size = len(chunks) + 8 + sound, sound
    if streamed:
        riff_size = data_size = UNKNOWN_SIZE
    header = (
        b"RIFF" + struct.pack("<I", riff_size) + chunks + b"data" + struct.pack("<I", data_size)
    )
    return header, tone(name).interleaved, sound
