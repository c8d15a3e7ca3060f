"""A bell: rung by any thread, heard by one that waits on a descriptor, as poll(2) does."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final

_ONE: Final = (1).to_bytes(8, sys.byteorder)  # an eventfd takes numbers of 8 bytes


class Bell:
    """Readable at `descriptor` from when it is rung until it is hushed; `close` it in the end.

    Raises:
        OSError: there is no descriptor left.

    """

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):  # Linux; half the descriptors
            self.descriptor = self._other = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            return
        self.descriptor, self._other = os.pipe()
        for end in (self.descriptor, self._other):
            os.set_blocking(end, False)

    def ring(self) -> None:
        """Wake whoever waits, and the next one who will."""
        with contextlib.suppress(BlockingIOError):  # so full that it is heard anyway
            os.write(self._other, _ONE)

    def hush(self) -> None:
        """Take notice: what is rung from here on is heard anew."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)

    def close(self) -> None:
        """Free the descriptors; nobody may ring or wait any more."""
        for end in {self.descriptor, self._other}:
            os.close(end)
