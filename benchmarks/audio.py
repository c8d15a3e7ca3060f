"""The files of the storage: real WAVs of an exact size, each with another sound."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.errors import BenchmarkError
from downloader.simulator.wav import wav_parts

if TYPE_CHECKING:
    from pathlib import Path

_PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class AudioSet:
    """Files of one size under one name; run ids count from 1."""

    name: str
    count: int
    size: int
    digests: tuple[str, ...]
    """The SHA-256 of each, in the order of the run ids."""

    @property
    def run_ids(self) -> range:
        """The run ids of these files."""
        return range(1, self.count + 1)

    @property
    def total_bytes(self) -> int:
        """The size of all files together."""
        return self.count * self.size


def make_set(root: Path, name: str, count: int, size: int) -> AudioSet:
    """Write `count` WAV files of `size` bytes (a multiple of 4) as `<root>/<name>/<run_id>.wav`.

    They are in the page cache afterwards, which is where the storage serves them from.
    """
    folder = root / name
    folder.mkdir(parents=True)
    digests = tuple(
        _write(folder / f"{run_id}.wav", f"{name} {run_id}", size) for run_id in range(1, count + 1)
    )
    return AudioSet(name, count, size, digests)


def _write(path: Path, title: str, size: int) -> str:
    header, period, sound_bytes = wav_parts(title, size, streamed=False)
    if len(header) + sound_bytes != size:
        raise BenchmarkError(f"a WAV of {size} bytes cannot be made")
    piece = period * (_PIECE_BYTES // len(period))
    digest = hashlib.sha256(header)
    with path.open("wb") as file:
        file.write(header)
        left = sound_bytes
        while left:
            part = piece[:left]
            file.write(part)
            digest.update(part)
            left -= len(part)
    return digest.hexdigest()


def check_saved(folder: Path, audio: AudioSet) -> None:
    """Check that just the files of a set are in a folder, each of the right size.

    Raises:
        BenchmarkError: one is missing, has another size, or is none of them.

    """
    found = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    wanted = {f"{run_id}.wav": audio.size for run_id in audio.run_ids}
    if found != wanted:
        wrong = sorted(name for name in found | wanted if found.get(name) != wanted.get(name))
        raise BenchmarkError(f"not what was to be saved: {', '.join(wrong[:5])} of {len(wrong)}")
