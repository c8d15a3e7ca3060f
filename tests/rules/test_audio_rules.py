from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.audio import (
    HEAD_BYTES,
    AudioFormat,
    Claim,
    ContentProblem,
    check,
    identify,
    is_error_page,
    read_header,
)

UNKNOWN_SIZES = [0, 0x7FFFF000, 0x7FFFFFFF, 0x7FFFFFDB, 0xFFFFFFFF, 0xFFFFFFDB]


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    """Return a RIFF chunk, with a pad byte where its size is odd."""
    size = len(content) if size is None else size
    return name + struct.pack("<I", size) + content + b"\0" * (len(content) & 1)


def wav(
    data: bytes = b"\1\2" * 50,
    *,
    before: bytes = b"",
    after: bytes = b"",
    riff_size: int | None = None,
    data_size: int | None = None,
    magic: bytes = b"RIFF",
) -> bytes:
    """Return a WAV file; the sizes in it are right unless given."""
    form = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 2, 48000, 192000, 4, 16))
    body = b"WAVE" + before + form + chunk(b"data", data, data_size) + after
    return magic + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def rf64(data: bytes, magic: bytes = b"RF64", *, known: bool = True) -> bytes:
    """Return a WAV file with 64-bit sizes."""
    riff_size = 4 + 36 + 24 + 8 + len(data)
    sizes = (riff_size, len(data)) if known else (0, 0)
    ds64 = chunk(b"ds64", struct.pack("<QQQI", *sizes, 0, 0))
    return wav(data, before=ds64, riff_size=0xFFFFFFFF, data_size=0xFFFFFFFF, magic=magic)


def flac(
    samples: int = 48000, smallest_frame: int = 100, audio: bytes = b"\xff\xf8" * 1500
) -> bytes:
    """Return the metadata of a FLAC file, with something behind it."""
    info = struct.pack(">HH", 4096, 4096) + smallest_frame.to_bytes(3, "big") + b"\0" * 3
    info += (48000 << 44 | 1 << 41 | 15 << 36 | samples).to_bytes(8, "big") + b"\0" * 16
    return b"fLaC\x80" + len(info).to_bytes(3, "big") + info + audio


FRAME = b"\xff\xfb\x90\x00" + b"\0" * 413  # MPEG 1 Layer III, 128 kbit/s, 44.1 kHz


def mp3(frames: int = 5, tag: bytes = b"") -> bytes:
    """Return MP3 frames behind an ID3 tag."""
    return tag + FRAME * frames


def id3(size: int) -> bytes:
    """Return an ID3v2.3 tag with so many bytes of content."""
    sizes = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + sizes + b"\0" * size


def xing(frames: int, counted: int | None = None) -> bytes:
    """Return MP3 frames of which the first counts the bytes."""
    counted = len(FRAME) * frames if counted is None else counted
    info = b"Info" + struct.pack(">III", 3, frames, counted)
    first = FRAME[:36] + info + FRAME[36 + len(info) :]
    return first + FRAME * (frames - 1)


OGG = b"OggS\0\2" + b"\0" * 100


def judge(
    content: bytes, *, delimited: bool = True, content_type: str = "", path: str = "/x"
) -> AudioFormat | ContentProblem:
    """Check a whole file."""
    return check(content[:HEAD_BYTES], len(content), content_type, path, delimited=delimited)


def code(outcome: AudioFormat | ContentProblem) -> str:
    """Return the error code, or the format."""
    return outcome.error_code if isinstance(outcome, ContentProblem) else outcome.value


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        pytest.param(wav(), AudioFormat.WAV, id="wav"),
        pytest.param(wav(magic=b"RF64"), AudioFormat.WAV, id="rf64"),
        pytest.param(wav(magic=b"BW64"), AudioFormat.WAV, id="bw64"),
        pytest.param(flac(), AudioFormat.FLAC, id="flac"),
        pytest.param(id3(50) + flac(), AudioFormat.FLAC, id="flac-with-id3"),
        pytest.param(OGG, AudioFormat.OGG, id="ogg"),
        pytest.param(mp3(), AudioFormat.MP3, id="mp3"),
        pytest.param(mp3(tag=id3(300)), AudioFormat.MP3, id="mp3-with-id3"),
        pytest.param(mp3(tag=id3(30) + id3(9)), AudioFormat.MP3, id="two-tags"),
        pytest.param(mp3(tag=id3(300) + b"\0" * 99), AudioFormat.MP3, id="padded-id3"),
        pytest.param(id3(99_999)[:HEAD_BYTES], AudioFormat.MP3, id="long-id3"),
        pytest.param(b"RIFF\x10\0\0\0AVI LIST", None, id="avi"),
        pytest.param(b"\xff\xf1\x50\x80" + b"\0" * 99, None, id="aac"),
        pytest.param(b"\xff\xfeH\0i\0", None, id="utf-16"),
        pytest.param(b"\xff\xfb\x90\x00" + b"\0" * 900, None, id="one-frame-and-junk"),
        pytest.param(b"\xff\xfb\xf0\x00" + b"\0" * 900, None, id="bad-bitrate"),
        pytest.param(b"ID3 is a tag of MP3 files", None, id="text-about-id3"),
        pytest.param(b"\x89PNG\r\n\x1a\n", None, id="png"),
        pytest.param(b"plain words", None, id="text"),
        pytest.param(b"", None, id="empty"),
    ],
)
def test_formats(head: bytes, expected: AudioFormat | None) -> None:
    """The format is told by the bytes, whatever the server calls them."""
    assert identify(head, None, "") is expected
    assert identify(head, "audio/wav; charset=x", "/a.flac") is expected
    assert identify(head, "audio/mpeg", "/a.mp3") is expected


@pytest.mark.parametrize(
    ("content_type", "path", "expected"),
    [
        ("audio/mpeg", "/a.bin", AudioFormat.MP3),
        ("Audio/MP3; x=y", "/a", AudioFormat.MP3),
        (None, "/a.MP3", AudioFormat.MP3),
        ("application/octet-stream", "/a.mp3", AudioFormat.MP3),
        ("audio/wav", "/a.mp3", None),
        (None, "/a.wav", None),
    ],
)
def test_mp3_behind_junk(content_type: str | None, path: str, expected: AudioFormat | None) -> None:
    """Frames that come after some junk count only where the server calls the file MP3."""
    assert identify(b"\0" * 100 + mp3(), content_type, path) is expected
    assert identify(b"PK\x03\x04" + mp3(), content_type, path) is None


@pytest.mark.parametrize(
    ("head", "page"),
    [
        (b"<?xml version='1.0'?>", True),
        (b"\xef\xbb\xbf \r\n<Error>", True),
        (b"<HTML>", True),
        (b"<!DOCTYPE html>", True),
        (b" " * 900 + b'{"detail": 1}', True),
        ("<html>".encode("utf-16"), True),
        (b"RIFF", False),
        (b"", False),
    ],
)
def test_error_pages(head: bytes, page: bool) -> None:  # noqa: FBT001 - a column of the table
    """XML, HTML and JSON are error pages, after byte-order mark and white space."""
    assert is_error_page(head) is page
    if page:
        assert code(judge(head, content_type="audio/wav", path="/a.wav")) == "error_page"


@pytest.mark.parametrize(
    ("content", "claim"),
    [
        pytest.param(
            wav(b"\0" * 8), Claim(52, exact=True, vouches=True, header_bytes=44), id="wav"
        ),
        pytest.param(
            wav(b"\0" * 8, riff_size=52),
            Claim(52, exact=True, vouches=True, header_bytes=44),
            id="file-size-as-riff-size",
        ),
        pytest.param(
            wav(b"\0" * 7), Claim(51, exact=True, vouches=True, header_bytes=44), id="odd-data"
        ),
        pytest.param(
            wav(b"\0" * 8, after=chunk(b"LIST", b"\0" * 20)),
            Claim(79, exact=True, vouches=True, header_bytes=44),
            id="chunk-behind",
        ),
        pytest.param(
            wav(b"\0" * 8, before=chunk(b"junk", b"\0" * 5)),
            Claim(66, exact=True, vouches=True, header_bytes=58),
            id="odd-chunk-before",
        ),
        pytest.param(
            wav(b"\0" * 8, riff_size=0xFFFFFFFF),
            Claim(52, exact=True, vouches=True, header_bytes=44),
            id="riff-unknown",
        ),
        pytest.param(
            wav(b"\0" * 20, data_size=0),
            Claim(64, exact=True, vouches=True, header_bytes=44),
            id="data-unknown",
        ),
        pytest.param(
            rf64(b"\0" * 8), Claim(88, exact=True, vouches=True, header_bytes=80), id="rf64"
        ),
        pytest.param(
            rf64(b"\0" * 8, b"BW64"),
            Claim(88, exact=True, vouches=True, header_bytes=80),
            id="bw64",
        ),
        pytest.param(rf64(b"\0" * 8, known=False), Claim(None, header_bytes=80), id="rf64-unknown"),
        *(
            pytest.param(
                wav(riff_size=size, data_size=size),
                Claim(None, header_bytes=44),
                id=f"streamed-{size:x}",
            )
            for size in UNKNOWN_SIZES
        ),
        pytest.param(flac(48000, 100), Claim(42 + 11 * 100 + 10, header_bytes=42), id="flac"),
        pytest.param(
            flac(48000, 0), Claim(42 + 12 * 10, header_bytes=42), id="flac-frames-unknown"
        ),
        pytest.param(flac(0), Claim(None, header_bytes=42), id="flac-streamed"),
        pytest.param(mp3(), Claim(417), id="mp3"),
        pytest.param(mp3(tag=id3(90)), Claim(517, header_bytes=100), id="mp3-with-id3"),
        pytest.param(xing(4), Claim(4 * 417, exact=True, vouches=True), id="xing"),
        pytest.param(xing(4, 0), Claim(417), id="xing-unknown"),
    ],
)
def test_claims(content: bytes, claim: Claim) -> None:
    """What a header says of the file's size is read, and no more."""
    audio_format = identify(content, None, "")
    assert audio_format is not None
    assert read_header(content, audio_format) == claim
    assert code(judge(content)) == audio_format.value


@pytest.mark.parametrize(
    ("content", "with_end", "without_end"),
    [
        pytest.param(wav(), "wav", "wav", id="wav"),
        pytest.param(wav() + b"more", "wav", "wav", id="more-than-it-says"),
        pytest.param(wav(b"\0" * 7)[:-1], "wav", "wav", id="missing-pad-byte"),
        pytest.param(wav(b"\0" * 900_000), "wav", "wav", id="longer-than-the-head"),
        pytest.param(wav()[:-1], "truncated", "truncated", id="wav-cut"),
        pytest.param(
            wav(riff_size=0, data_size=0), "wav", "unverifiable_length", id="wav-streamed"
        ),
        pytest.param(wav(b"", riff_size=0), "empty", "unverifiable_length", id="wav-no-audio"),
        pytest.param(
            wav(riff_size=0xFFFFFFFF)[:30], "empty", "unverifiable_length", id="wav-no-data"
        ),
        pytest.param(flac(), "flac", "unverifiable_length", id="flac"),
        pytest.param(flac()[:500], "truncated", "truncated", id="flac-cut"),
        pytest.param(flac()[:20], "truncated", "truncated", id="flac-cut-early"),
        pytest.param(flac(0)[:42], "empty", "unverifiable_length", id="flac-no-audio"),
        pytest.param(mp3(), "mp3", "unverifiable_length", id="mp3"),
        pytest.param(mp3()[:400], "truncated", "truncated", id="mp3-cut"),
        pytest.param(id3(90), "truncated", "truncated", id="mp3-tag-alone"),
        pytest.param(xing(9), "mp3", "mp3", id="xing"),
        pytest.param(xing(9)[:-1], "truncated", "truncated", id="xing-cut"),
        pytest.param(OGG, "ogg", "unverifiable_length", id="ogg"),
        pytest.param(b"", "empty", "empty", id="empty"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + b"\0" * 99, "not_audio", "not_audio", id="png"),
        pytest.param(b"RIF", "truncated", "truncated", id="beginning"),
        pytest.param(b"nonsense", "not_audio", "not_audio", id="nonsense"),
    ],
)
def test_checks(content: bytes, with_end: str, without_end: str) -> None:
    """A file is taken if it is audio and whole; where HTTP shows no end, its header must."""
    assert code(judge(content)) == with_end
    assert code(judge(content, delimited=False)) == without_end


@given(
    data=st.binary(min_size=1, max_size=40).map(lambda half: half * 2),
    before=st.binary(max_size=9),
    delimited=st.booleans(),
)
def test_no_prefix_of_a_wav_passes(data: bytes, before: bytes, *, delimited: bool) -> None:
    """A WAV file whose sizes are sane is refused however little of it is missing."""
    content = wav(data, before=chunk(b"LIST", before))
    assert judge(content, delimited=delimited) is AudioFormat.WAV
    for size in range(1, len(content)):
        assert code(judge(content[:size], delimited=delimited)) == "truncated"


@given(
    start=st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"fLaC", b"OggS", id3(5), FRAME, wav()[:40]]),
    rest=st.binary(max_size=80),
    size=st.integers(0, 2**40),
    content_type=st.none() | st.sampled_from(["audio/mpeg", "audio/wav"]) | st.text(max_size=9),
    path=st.text(max_size=9),
    delimited=st.booleans(),
)
def test_no_bytes_raise(
    start: bytes, rest: bytes, size: int, content_type: str | None, path: str, *, delimited: bool
) -> None:
    """Whatever the bytes are, they are judged, and an error page is never audio."""
    head = (start + rest)[:size]
    outcome = check(head, size, content_type, path, delimited=delimited)
    assert not is_error_page(head) or isinstance(outcome, ContentProblem)
    for audio_format in AudioFormat:
        read_header(head, audio_format)
