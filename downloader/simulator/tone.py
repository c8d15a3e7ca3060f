"""The sound itself: a steady chord, different for each run and the same each time.

One period of it is computed and the rest is repetition, so that a file of any size costs a
millisecond to prepare and a range of it can start anywhere.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

SAMPLE_RATE: Final = 48_000
"""Hz; 16-bit stereo, as the service's own sounds."""
PERIOD: Final = 512
"""Frames after which the sound repeats; 48,000 / 512 = 93.75 Hz is its lowest note."""
FRAME_BYTES: Final = 4
"""Two channels of 16 bits."""

_SINE: Final = [math.sin(2 * math.pi * index / PERIOD) for index in range(PERIOD)]


@dataclass(frozen=True)
class Tone:
    """One period of each channel, 16-bit samples."""

    left: array[int]
    right: array[int]

    @property
    def interleaved(self) -> bytes:
        """One period as PCM: little-endian, left and right by turns."""
        samples = array("h", bytes(PERIOD * FRAME_BYTES))
        samples[0::2], samples[1::2] = self.left, self.right
        return little_endian(samples)


def little_endian(samples: array[int]) -> bytes:
    """16-bit samples as little-endian bytes, on any machine."""
    return samples.tobytes() if _NATIVE_IS_LITTLE else _swapped(samples)


def big_endian(samples: array[int]) -> bytes:
    """16-bit samples as big-endian bytes, on any machine."""
    return _swapped(samples) if _NATIVE_IS_LITTLE else samples.tobytes()


def _swapped(samples: array[int]) -> bytes:
    copy = array("h", samples)
    copy.byteswap()
    return copy.tobytes()


_NATIVE_IS_LITTLE: Final = array("h", [1]).tobytes() == b"\x01\x00"


@lru_cache(maxsize=256)
def tone(name: str) -> Tone:
    """Make the sound of this name; two names have different ones (but for one in some 10**9)."""
    digest = hashlib.sha256(name.encode()).digest()
    return Tone(left=_channel(digest[0:8]), right=_channel(digest[8:16]))


def _channel(digest: bytes) -> array[int]:
    low, high = 1 + digest[0] % 8, 2 + digest[1] % 22
    phase = digest[2] * 2
    loud, soft = 4_000 + 16 * digest[3] + digest[4], 2_000 + 8 * digest[5] + digest[6]
    return array(
        "h",
        [
            round(
                loud * _SINE[(low * index + phase) % PERIOD] + soft * _SINE[high * index % PERIOD]
            )
            for index in range(PERIOD)
        ],
    )
