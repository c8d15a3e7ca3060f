"""Places at which tests make this program die, freeze or run out of disk, by name.

The environment variable `DOWNLOADER_FAILPOINTS` arms them: `NAME=ACTION` or `NAME=ACTION@N`
for the N-th time the place is reached in a process, several separated by commas. The action is
`kill` (SIGKILL), `stop` (SIGSTOP), `hang` (the thread stays there for ever), or the name of an
error number such as `ENOSPC`, which is raised as an OSError. Where nothing is armed `reach` is a
look at an empty dictionary.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from enum import StrEnum
from typing import Final

from downloader.errors import ConfigurationError

VARIABLE: Final = "DOWNLOADER_FAILPOINTS"


class At(StrEnum):
    """The places, in the order in which a run passes them."""

    SUBMIT_COLLECTED = "submit.collected"  # the ids are read, nothing is recorded
    SUBMIT_WRITTEN = "submit.written"  # recorded, not committed
    SUBMIT_COMMITTED = "submit.committed"
    POLL_CLAIMED = "poll.claimed"
    POLL_ANSWERED = "poll.answered"  # the API has answered, nothing is recorded
    POLL_SPLIT = "poll.split"  # a batch was refused; its parts are not asked for yet
    POLL_RECORDED = "poll.recorded"
    TRANSFER_CLAIMED = "transfer.claimed"
    TRANSFER_NOTED = "transfer.noted"  # which object the part is of
    TRANSFER_WRITING = "transfer.writing"  # a chunk is to be written
    TRANSFER_WRITTEN = "transfer.written"  # verified, not synced
    TRANSFER_SYNCED = "transfer.synced"  # the lease is checked, the name not given yet
    TRANSFER_PUBLISHED = "transfer.published"  # the name is given, its folder not synced
    TRANSFER_DELIVERED = "transfer.delivered"  # on the disk, the outcome not yet recorded
    LEASES_EXTENDED = "leases.extended"  # the heartbeat, in the event loop, is to extend some
    RECORD_WRITTEN = "record.written"  # the outcomes are written, not committed
    RECORD_COMMITTED = "record.committed"  # committed, the part not removed
    MIGRATE_BACKED_UP = "migrate.backed_up"  # where a backup is due
    MIGRATE_APPLIED = "migrate.applied"  # a script has run, its transaction is open
    BACKUP_COPYING = "backup.copying"  # some pages are copied
    BACKUP_COPIED = "backup.copied"  # all are, under the name of a part
    VERIFY_REPAIRING = "verify.repairing"  # damage is found, nothing is repaired


class _Armed:
    """One armed place: what happens there, and how often it is to be passed before."""

    def __init__(self, action: str, passes: int) -> None:
        self._action = action
        self._passes = passes
        self._lock = threading.Lock()

    def reach(self, at: At) -> None:
        with self._lock:
            self._passes -= 1
            if self._passes != 0:
                return
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._action == "stop":
            # To this thread: one sent to the process may let it run on for a moment.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        elif self._action == "hang":
            threading.Event().wait()
        else:
            raise OSError(getattr(errno, self._action), f"failpoint {at}")


def parse(text: str) -> dict[At, _Armed]:
    """Return what `text` arms.

    Raises:
        ConfigurationError: it names a place or an action that there is not.

    """
    armed = {}
    for one in filter(None, text.split(",")):
        name, _, rest = one.partition("=")
        action, _, passes = rest.partition("@")
        known = action in ("kill", "stop", "hang") or action in errno.errorcode.values()
        if name not in set(At) or not known or not (passes or "1").isdecimal():
            raise ConfigurationError(f"{VARIABLE}: {one!r} is not NAME=ACTION or NAME=ACTION@N.")
        armed[At(name)] = _Armed(action, int(passes or "1"))
    return armed


_armed: dict[At, _Armed] = {}


def arm(text: str) -> None:
    """Arm what `text` names, and nothing else; see `parse` for the errors."""
    _armed.clear()
    _armed.update(parse(text))


def reach(at: At) -> None:
    """Pass a place: nothing happens there unless a test has armed it."""
    if _armed and at in _armed:
        _armed[at].reach(at)
