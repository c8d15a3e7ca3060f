"""Who holds a claim: every claim has a name of its own.

A worker that was frozen past its lease must not be taken for the one that holds the run
now, not even where both are tasks of one process: so a name is never used twice.
"""

from __future__ import annotations

import itertools
import os
import secrets
import socket


class Owner:
    """One process; gives each of its claims a new `lease_owner`."""

    def __init__(self) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._numbers = itertools.count(1)

    def new_lease(self) -> str:
        """Return a `lease_owner` that no claim has had."""
        return f"{self.name}:{next(self._numbers)}"
