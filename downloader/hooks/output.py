"""What a hook printed: the end of it, fit for one line of our log."""

from __future__ import annotations

from typing import Final

from downloader.rules.redaction import clean_text

_KEPT_BYTES: Final = 16 * 1024
_SHOWN_CHARACTERS: Final = 2000
_HIDDEN: Final = b"..."


class Output:
    """Keeps the end of an output of any length: errors come last."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._tail = bytearray()
        self._cut = False
        self.bytes = 0
        """How many there were in all."""

    def add(self, chunk: bytes) -> None:
        """Take what was printed."""
        self.bytes += len(chunk)
        self._tail += chunk
        if len(self._tail) > 2 * _KEPT_BYTES:
            self._drop()

    def _drop(self) -> None:
        del self._tail[:-_KEPT_BYTES]
        self._cut = True

    def shown(self) -> str:
        """Return its end, without secrets and control characters.

        It begins with a whole line: of one that is cut nobody could tell whether what is left
        of it is a part of a secret.
        """
        if len(self._tail) > _KEPT_BYTES:
            self._drop()
        tail = bytes(self._tail)
        if self._cut:
            tail = tail.partition(b"\n")[2]
        if self._secret:
            tail = tail.replace(self._secret, _HIDDEN)
        text = clean_text(tail.decode("utf-8", "replace"), _KEPT_BYTES)
        if len(text) > _SHOWN_CHARACTERS:
            text = text[-_SHOWN_CHARACTERS:].partition(" ")[2]
            return f"... {text}"
        return f"... {text}" if self._cut else text
