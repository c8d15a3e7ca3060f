"""What happens to a run next: one class a transition, so that no combination can be wrong.

The decisions (`decisions.py`) return these; the store carries each out as one conditional
UPDATE and one event.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class UrlReceived:
    """pending → ready: the API gave a URL; `next_attempt_at` where it is valid only from then.

    pending → downloading where a worker takes the run at once.
    """

    url: str = field(repr=False)
    url_expires_at: datetime | None
    remote_status: str | None
    next_attempt_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PollLater:
    """pending → pending: not finished yet, or no usable answer; ask again at `next_attempt_at`.

    `asked` says whether the run was asked for at all: a claim given back counts no poll. With an
    error there was no answer; `blamed` says that others had one meanwhile. With
    `unknown_answers` the service does not know the run: so often in a row, since `unknown_since`.
    """

    next_attempt_at: datetime
    remote_status: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    asked: bool = True
    unknown_since: datetime | None = None
    unknown_answers: int = 0
    blamed: bool = False


@dataclass(frozen=True, slots=True)
class PollFailed:
    """pending → failed: the provider says so, or the deadline has passed.

    `answered` says whether this poll had an answer about the run.
    """

    error_code: str
    error_message: str
    remote_status: str | None = None
    answered: bool = True


@dataclass(frozen=True, slots=True)
class Published:
    """downloading → done: the file is on the disk under its final name."""

    location: str
    bytes: int
    sha256: str
    audio_format: str
    etag: str | None
    adopted: bool = False
    last_modified: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class TryAgain:
    """downloading → ready: once more with the same URL.

    An attempt is spent, and others are left; or the try has brought bytes, and spent none.
    """

    next_attempt_at: datetime
    error_code: str
    error_message: str
    attempts: int


@dataclass(frozen=True, slots=True)
class HeldUp:
    """downloading or ready → ready: its storage is out of reach, or the URL not valid yet.

    Nothing is spent.
    """

    next_attempt_at: datetime
    error_code: str
    error_message: str


@dataclass(frozen=True, slots=True)
class NewUrl:
    """downloading or ready → pending: the URL is of no more use.

    An expired one spends a refresh, one that does not lead to the file an attempt.
    """

    next_attempt_at: datetime
    error_code: str
    error_message: str
    attempts: int
    refreshes: int


@dataclass(frozen=True, slots=True)
class PutBack:
    """downloading → ready: cut off from outside; nothing is spent."""

    next_attempt_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class TransferFailed:
    """downloading or ready → failed: attempts or refreshes are spent."""

    error_code: str
    error_message: str
    attempts: int
    refreshes: int


PollStep = UrlReceived | PollLater | PollFailed
ReadyStep = HeldUp | NewUrl | TransferFailed
TransferStep = Published | TryAgain | HeldUp | NewUrl | PutBack | TransferFailed
