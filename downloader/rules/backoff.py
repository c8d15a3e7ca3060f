"""How long to wait before the next try: exponential, capped, spread by jitter.

Every delay grows from the count of tries before the one that has just ended, except that
attempts count it too. `jitter` is a random number in [0, 1) drawn by the caller.
"""

from __future__ import annotations

from typing import Final

NO_ANSWER_FACTOR: Final = 1.6
MAX_NO_ANSWER_DELAY_SECONDS: Final = 60.0
"""An API that fails slows all requests down by itself; a run is not to suffer for it for long."""

SPREAD: Final = 0.2
"""Delays are spread by ±20 %, so that runs submitted together are not for ever polled together."""

FIRST_ATTEMPT_DELAY_SECONDS: Final = 1.0
MAX_ATTEMPT_DELAY_SECONDS: Final = 300.0
MAX_HOST_DELAY_SECONDS: Final = 60.0
FIRST_DISK_PROBE_DELAY_SECONDS: Final = 5.0
MAX_DISK_PROBE_DELAY_SECONDS: Final = 60.0
FIRST_PROBE_DELAY_SECONDS: Final = 30.0
MAX_PROBE_DELAY_SECONDS: Final = 900.0
"""A blocked service is probed at least every quarter of an hour, so that it resumes by itself."""

_MAX_EXPONENT: Final = 64
"""2**64 passes every maximum that makes sense, and no float overflows on the way."""


def no_answer_delay_seconds(errors: int, minimum: float, maximum: float, jitter: float) -> float:
    """Return the seconds to the next poll after one without an answer, and `errors` before it.

    These are the ones in a row: what was answered before says nothing of how long it lasts.

    `minimum` for none, then growing 1.6-fold up to a minute; never below 0.8 `minimum`, never
    above `maximum`.
    """
    most = max(minimum, min(maximum, MAX_NO_ANSWER_DELAY_SECONDS))
    return _delay(errors, minimum, most, NO_ANSWER_FACTOR, jitter)


def attempt_delay_seconds(attempts: int, jitter: float) -> float:
    """Return the seconds to the next attempt at a transfer after `attempts` failed ones.

    1 s after the first, then doubling, at most 300 s.
    """
    first, longest = FIRST_ATTEMPT_DELAY_SECONDS, MAX_ATTEMPT_DELAY_SECONDS
    return _delay(attempts - 1, first, longest, 2.0, jitter)


def host_delay_seconds(tries: int, jitter: float) -> float:
    """Return the seconds to the next try at a storage host, after `tries` tries in vain.

    1 s after the one that has found it out of reach, then doubling, at most 60 s.
    """
    return _delay(tries, FIRST_ATTEMPT_DELAY_SECONDS, MAX_HOST_DELAY_SECONDS, 2.0, jitter)


def refresh_delay_seconds(refreshes: int, jitter: float) -> float:
    """Return the seconds before a run that had `refreshes` new URLs is asked about once more.

    The first refresh waits for nothing, since a URL that died in a queue says nothing of the
    service; then 1 s, doubling, at most 300 s.
    """
    return 0.0 if refreshes <= 0 else attempt_delay_seconds(refreshes, jitter)


def probe_delay_seconds(probes: int, jitter: float) -> float:
    """Return the seconds to the next probe of a blocked service that was probed `probes` times.

    30 s where it was not probed yet, then doubling, at most 15 min.
    """
    return _delay(probes, FIRST_PROBE_DELAY_SECONDS, MAX_PROBE_DELAY_SECONDS, 2.0, jitter)


def disk_probe_delay_seconds(probes: int, jitter: float) -> float:
    """Return the seconds to the next look at a disk that was looked at `probes` times in vain.

    5 s at first, then doubling, at most 60 s: a look costs nothing and disturbs nobody.
    """
    return _delay(probes, FIRST_DISK_PROBE_DELAY_SECONDS, MAX_DISK_PROBE_DELAY_SECONDS, 2.0, jitter)


def _delay(exponent: int, minimum: float, maximum: float, factor: float, jitter: float) -> float:
    """Return `minimum` times a power of `factor`, spread by the jitter, within the bounds."""
    base = min(minimum * factor ** min(max(exponent, 0), _MAX_EXPONENT), maximum)
    spread = 1 - SPREAD + 2 * SPREAD * min(max(jitter, 0.0), 1.0)
    return min(base * spread, maximum)
