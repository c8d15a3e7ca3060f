"""Whether bytes are a whole audio file, and of which format.

The bytes decide. Content-Type, and where that says nothing the URL's path, are asked only
where the bytes leave it open: an MP3 whose first frame comes after some junk. Bytes without
any sign of audio are refused whatever the server calls them, since a file that is published
has been verified.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Final

from downloader.rules.audio_headers import (
    AudioFormat,
    Claim,
    id3_bytes,
    mpeg_frame_bytes,
    read_header,
)
from downloader.rules.http_values import MAX_FILE_BYTES

__all__ = [
    "HEAD_BYTES",
    "AudioFormat",
    "Claim",
    "ContentProblem",
    "check",
    "check_start",
    "identify",
    "is_error_page",
    "read_header",
]

HEAD_BYTES: Final = 64 * 1024
"""How much of a file's start is judged: room for tags, metadata and headers."""

_RIFF_MAGICS: Final = (b"RIFF", b"RF64", b"BW64")
_JUNK_BYTES: Final = 4096
"""How far into a file the first MPEG frame is looked for, where the server calls it MP3."""
_FRAMES_IN_A_ROW: Final = 3
"""As many frames, each where the one before ends, are no accident."""

ERROR_PAGE: Final = "The storage sent an error page instead of audio."

_ERROR_STARTS: Final = ("<?xml", "<error", "<html", "<!doctype", "{")
_MP3_TYPES: Final = frozenset({"audio/mpeg", "audio/mp3", "audio/mpeg3", "audio/x-mpeg-3"})
_UNTOLD_TYPES: Final = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/x-download"}
)
_OTHER_MAGICS: Final = (b"PK\x03\x04", b"\x89PNG", b"%PDF", b"\x1f\x8b", b"GIF8", b"\xff\xd8\xff")


@dataclass(frozen=True, slots=True)
class ContentProblem:
    """Why a file is not published.

    The codes: `empty`, `error_page`, `not_audio`, `truncated`, `unverifiable_length`.
    """

    error_code: str
    message: str


def identify(head: bytes, content_type: str | None, url_path: str) -> AudioFormat | None:
    """Return the format of a file that starts with `head`; None if it is no audio we know."""
    if is_error_page(head):
        return None
    tag_bytes = id3_bytes(head)
    if head[:4] in _RIFF_MAGICS and head[8:12] == b"WAVE":
        return AudioFormat.WAV
    if head[tag_bytes : tag_bytes + 4] == b"fLaC":
        return AudioFormat.FLAC
    if head[:4] == b"OggS":
        return AudioFormat.OGG
    if _has_frames(head, tag_bytes):
        return AudioFormat.MP3
    called_mp3 = _is_called_mp3(content_type, url_path) and not head.startswith(_OTHER_MAGICS)
    if tag_bytes or called_mp3:
        junk = range(tag_bytes + 1, min(tag_bytes + _JUNK_BYTES, len(head)))
        if any(_has_frames(head, offset, whole=True) for offset in junk):
            return AudioFormat.MP3
    return None


def is_error_page(head: bytes) -> bool:
    """Tell whether the bytes, after byte-order mark and white space, start as XML, HTML or JSON."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = head[:1024].decode("utf-16", "ignore")
    else:
        text = head.removeprefix(codecs.BOM_UTF8).lstrip()[:32].decode("latin-1")
    return text.lstrip("\ufeff \t\r\n\v\f").lower().startswith(_ERROR_STARTS)


def check(
    head: bytes, size: int, content_type: str | None, url_path: str, *, delimited: bool
) -> AudioFormat | ContentProblem:
    """Judge a fetched file of `size` bytes by its first bytes, up to `HEAD_BYTES`.

    `delimited` says that HTTP showed where the body ends. Where it did not, a cut connection
    looks like the end, and the audio's own header must vouch for the length.
    """
    if size == 0:
        return ContentProblem("empty", "The storage sent an empty file.")
    if is_error_page(head):
        return ContentProblem("error_page", ERROR_PAGE)
    audio_format = identify(head, content_type, url_path)
    if audio_format is None:
        if _is_beginning(head, size):
            return ContentProblem("truncated", f"The file breaks off after {size} bytes.")
        return ContentProblem("not_audio", "The file is not WAV, FLAC, MP3 or Ogg audio.")
    return _check_size(audio_format, read_header(head, audio_format), size, delimited=delimited)


def check_start(
    head: bytes,
    total_bytes: int | None,
    content_type: str | None,
    url_path: str,
    *,
    delimited: bool,
) -> ContentProblem | None:
    """Judge a file by its start, as soon as `HEAD_BYTES` of it are there: what more would not mend.

    `total_bytes` is how long it will be, None where that is not known.
    """
    size = MAX_FILE_BYTES if total_bytes is None else total_bytes
    found = check(head, size, content_type, url_path, delimited=delimited)
    return found if isinstance(found, ContentProblem) else None


def _check_size(
    audio_format: AudioFormat, claim: Claim, size: int, *, delimited: bool
) -> AudioFormat | ContentProblem:
    name = audio_format.name
    if claim.minimum_bytes is not None and size < claim.minimum_bytes:
        least = "" if claim.exact else "at least "
        return ContentProblem(
            "truncated",
            f"The {name} file has {size} bytes; its header asks for {least}{claim.minimum_bytes}.",
        )
    if not delimited and not claim.vouches:
        return ContentProblem(
            "unverifiable_length",
            f"Neither the storage nor the {name} file itself says how long the file is.",
        )
    if size <= claim.header_bytes:
        return ContentProblem("empty", f"The {name} file has a header and no audio.")
    return audio_format


def _has_frames(head: bytes, offset: int, *, whole: bool = False) -> bool:
    """Tell whether MPEG frames follow one another; `whole` if the last must be in the head."""
    for _ in range(_FRAMES_IN_A_ROW):
        if offset + 4 > len(head):
            return not whole and offset > 0
        frame = mpeg_frame_bytes(head, offset)
        if frame is None:
            return False
        offset += frame
    return True


def _is_called_mp3(content_type: str | None, url_path: str) -> bool:
    essence = (content_type or "").partition(";")[0].strip().lower()
    if essence in _UNTOLD_TYPES:
        return url_path.lower().endswith(".mp3")
    return essence in _MP3_TYPES


def _is_beginning(head: bytes, size: int) -> bool:
    """Tell whether a file too short to be told is the start of a known one."""
    if size >= 12:
        return False
    start, form = head[:4], head[8:12]
    if len(start) < 4:
        return any(magic.startswith(start) for magic in (*_RIFF_MAGICS, b"fLaC", b"OggS", b"ID3"))
    return start in _RIFF_MAGICS and b"WAVE".startswith(form)
