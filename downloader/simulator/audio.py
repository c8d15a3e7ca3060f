"""The file of a run: real audio, made when it is asked for and never held whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from downloader.simulator.flac import Frames, flac_parts
from downloader.simulator.rules import chance
from downloader.simulator.wav import wav_parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from downloader.simulator.options import SimulatorOptions

CONTENT_TYPES: Final = {"wav": "audio/wav", "flac": "audio/flac"}

_TILE: Final = 1 << 17
"""Bytes of sound kept ready for one file."""


@dataclass(frozen=True)
class AudioName:
    """Which file: all that its bytes depend on."""

    run_type: str
    run_id: int
    version: int
    extension: str
    size: int
    streamed: bool = False

    @property
    def title(self) -> str:
        """What the file says of itself; the sound follows from it too."""
        version = "" if self.version == 1 else f" version {self.version}"
        return f"{self.run_type} {self.run_id}{version}"

    @property
    def etag(self) -> str:
        """A strong entity tag, with its quotes; equal for equal bytes."""
        return f'"{hashlib.blake2b(repr(self).encode(), digest_size=16).hexdigest()}"'


def extension_of(options: SimulatorOptions, run_type: str, run_id: int) -> str:
    """`wav` or `flac`, for this run."""
    if options.audio_format != "mixed":
        return options.audio_format
    return "flac" if chance(0, "format", run_type, run_id) < 0.5 else "wav"


def audio_name(
    options: SimulatorOptions,
    run_type: str,
    run_id: int,
    *,
    version: int = 1,
    streamed: bool = False,
) -> AudioName:
    """Which file this run has under these options."""
    spread = options.max_size - options.min_size
    size = options.min_size + int(chance(0, "size", run_type, run_id, version) * (spread + 1))
    extension = extension_of(options, run_type, run_id)
    return AudioName(run_type, run_id, version, extension, size, streamed)


class WavFile:
    """A header and a sound that repeats."""

    def __init__(self, header: bytes, period: bytes, sound_size: int) -> None:
        self._header = header
        self._period = len(period)
        self._tile = period * max(1, min(_TILE, sound_size) // len(period) + 1)
        self.size = len(header) + sound_size

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to before `stop`, some at a time."""
        if start < len(self._header):
            yield self._header[start:stop]
            start = len(self._header)
        while start < stop:
            phase = (start - len(self._header)) % self._period
            part = self._tile[phase : phase + stop - start]
            yield part
            start += len(part)


class FlacFile:
    """Metadata and frames, each made when its turn comes."""

    def __init__(self, header: bytes, frames: Frames) -> None:
        self._header = header
        self._frames = frames
        self.size = len(header) + frames.size

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to before `stop`, some at a time."""
        if start < len(self._header):
            yield self._header[start:stop]
            start = len(self._header)
        if start >= stop:
            return
        first = number = self._frames.at(start - len(self._header))
        position = len(self._header) + self._frames.offset(first)
        gathered: list[bytes] = []
        while position < stop:
            frame = self._frames.frame(number)
            gathered.append(frame[max(start - position, 0) : stop - position])
            position += len(frame)
            number += 1
            if len(gathered) == 8:
                yield b"".join(gathered)
                gathered.clear()
        if gathered:
            yield b"".join(gathered)


class Stored:
    """Bytes that are held."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to before `stop`."""
        yield self._content[start:stop]


AudioFile = WavFile | FlacFile | Stored


@lru_cache(maxsize=128)
def audio_file(name: AudioName) -> AudioFile:
    """Make the file of this name: a millisecond or two, and for FLAC an MD5 of the whole."""
    if name.extension == "flac":
        return FlacFile(*flac_parts(name.title, name.size, streamed=name.streamed))
    return WavFile(*wav_parts(name.title, name.size, streamed=name.streamed))
