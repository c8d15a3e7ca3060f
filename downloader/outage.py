"""What the API's answers say of it, taken together: that it is down, or is not there."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from downloader.logger import get_logger
from downloader.rules.answers import Answered, RetryLater, Suspect

if TYPE_CHECKING:
    from downloader.camb.client import Reply

_log = get_logger(__name__)

_LASTING: Final = 2
"""From which failure in a row on it is told: a single one may be over the next time."""


@dataclass(slots=True)
class Outage:
    """Tells once when the API begins to give no usable answer, and once when it does again."""

    told_at_the_end: bool
    """By the call itself, which ends with it."""
    _since: float = math.inf  # by the monotonic clock
    _told: bool = False

    def failed(self, answer: RetryLater, asked_at: float, failures: int, pause: float) -> None:
        """Note the last of so many failures in a row, and how many seconds are waited now."""
        self._since = min(self._since, asked_at)
        lasts = failures >= _LASTING and answer.error_code != "throttled"
        if not lasts or self._told or self.told_at_the_end:
            return
        self._told = True
        _log.warning(
            "api.down",
            error_code=answer.error_code,
            message=answer.message,
            pause_seconds=round(pause, 1),
        )

    def over(self) -> None:
        """Note an answer that was of use."""
        if self._told:
            _log.warning("api.back", seconds=round(time.monotonic() - self._since, 1))
        self._told, self._since = False, math.inf


@dataclass(slots=True)
class Place:
    """Whether the API is where it is asked at: of a run alone 404 says only that it is not ready.

    Where a batch gets it as well, and no request anything else, the path is another's.
    """

    api_url: str
    batches_not_found: bool = False
    found: bool = False

    def doubts(self, reply: Reply) -> bool:
        """Note an answer; return whether it only seems to be one, while nothing has been found."""
        if reply.status != 404:
            self.found = self.found or not isinstance(reply.judgement, RetryLater)
            return False
        if isinstance(reply.judgement, Suspect):
            self.batches_not_found = True
        doubtful = isinstance(reply.judgement, Answered)
        return doubtful and self.batches_not_found and not self.found

    @property
    def not_found(self) -> RetryLater:
        """What is to be said where nothing is found at all."""
        return RetryLater(
            "api_not_found",
            f"Nothing that is asked for is found at {self.api_url} (404): check that URL, and "
            "whose runs these are.",
        )
