from __future__ import annotations

import io
import subprocess
import sys
import wave

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator.flac_check import decode

from downloader.simulator.audio import AudioName, audio_file, audio_name
from downloader.simulator.flac import coded_number
from downloader.simulator.options import MIN_SIZE, SimulatorOptions


def named(extension: str, size: int, run_id: int = 1, **more: int) -> AudioName:
    """Make a file's name with the rest filled in."""
    return AudioName("text-to-sound", run_id, more.get("version", 1), extension, size)


def whole(name: AudioName) -> bytes:
    """Read the bytes of a file."""
    file = audio_file(name)
    data = b"".join(file.read(0, file.size))
    assert len(data) == file.size
    return data


@pytest.mark.parametrize("size", [MIN_SIZE, 1000, 4096, 200_000])
def test_wav_is_wav(size: int) -> None:
    """The `wave` module opens the file and finds every sample that the header promises."""
    data = whole(named("wav", size))

    with wave.open(io.BytesIO(data)) as sound:
        assert sound.getparams()[:3] == (2, 2, 48_000)
        frames = sound.readframes(sound.getnframes())
    assert len(frames) == 4 * sound.getnframes()
    assert len(set(frames)) > 16
    assert len(data) == int.from_bytes(data[4:8], "little") + 8


@pytest.mark.parametrize("size", [MIN_SIZE, 1000, 16_500, 33_000, 100_001])
def test_flac_is_flac(size: int) -> None:
    """Every checksum, number and count of the file holds, and the decoded sound has its MD5."""
    sound = decode(whole(named("flac", size)))

    assert sound.sample_rate == 48_000
    assert sound.samples == sound.declared_samples
    assert sound.md5 == sound.declared_md5
    assert sound.title == "text-to-sound 1"


def test_wav_and_flac_of_a_run_are_the_same_sound() -> None:
    """Both formats carry the same samples."""
    with wave.open(io.BytesIO(whole(named("wav", 20_000)))) as sound:
        samples = sound.readframes(4000)

    assert decode(whole(named("flac", 20_000))).pcm[: len(samples)] == samples


@given(st.integers(0, 2**31 - 1))
def test_frame_numbers_are_coded_as_utf8_codes_characters(number: int) -> None:
    """Where Python can say it too, the coding of a number is UTF-8's."""
    coded = coded_number(number)

    if number < 0xD800:
        assert coded == chr(number).encode()
    assert len(coded) <= 6
    assert len({coded[0] >> 6, 0b11}) == 1 or len(coded) == 1


@settings(deadline=None)
@given(
    extension=st.sampled_from(["wav", "flac"]),
    size=st.integers(MIN_SIZE, 300_000),
    bounds=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_any_part_can_be_read_alone(extension: str, size: int, bounds: tuple[float, float]) -> None:
    """A part is what the whole has there, and the size is what was asked for, nearly."""
    name = named(extension, size)
    data = whole(name)
    start, stop = sorted(int(bound * len(data)) for bound in bounds)

    assert b"".join(audio_file(name).read(start, stop)) == data[start:stop]
    assert size - 32 < len(data) <= size


@pytest.mark.parametrize("size", [1000, 4096, 1_000_000])
def test_a_wav_size_divisible_by_four_is_exact(size: int) -> None:
    """Whole frames of four bytes fill the size to the last byte."""
    assert audio_file(named("wav", size)).size == size


@pytest.mark.parametrize("extension", ["wav", "flac"])
def test_each_run_and_version_has_its_own_sound(extension: str) -> None:
    """Neither the head nor the tail of two files is the same."""
    names = [named(extension, 2000, run_id) for run_id in range(1, 200)]
    names.append(named(extension, 2000, 1, version=2))
    tails = {whole(name)[-500:] for name in names}

    assert len({whole(name) for name in names}) == len(names)
    assert len(tails) == len(names)
    assert len({name.etag for name in names}) == len(names)


def test_a_run_has_the_same_file_in_every_process() -> None:
    """The bytes depend on run and options alone: another process makes the same."""
    options = SimulatorOptions(audio_format="mixed", min_size=1000, max_size=9000)
    program = (
        "import hashlib\n"
        "from downloader.simulator.audio import audio_file, audio_name\n"
        "from downloader.simulator.options import SimulatorOptions\n"
        f"options = {options!r}\n"
        "for run_id in range(1, 9):\n"
        "    file = audio_file(audio_name(options, 'tts', run_id))\n"
        "    print(b''.join(file.read(0, file.size)).hex())\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()

    assert printed == [whole(audio_name(options, "tts", run_id)).hex() for run_id in range(1, 9)]
    assert len({len(line) for line in printed}) > 1
    assert {line[:8] for line in printed} == {b"RIFF".hex(), b"fLaC".hex()}
