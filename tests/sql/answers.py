"""What the queries of docs/sql.md answer of the cases (`cases.py`), row by row."""

from __future__ import annotations

from typing import Any, Final

from store.driving import OTHER_TYPE, TYPE

_FULL: Final = "The disk of /audio has 400 MB left, and 500 MB are to stay free (--min-free)."
_TAKEN: Final = "/audio/202.wav exists and is not this run's: move it away, then retry the run."
_KEY: Final = "The service refused the API key (401)."
_BROKE_OFF: Final = "The transfer broke off: nothing can be received."
_EXPIRED: Final = "The URL expired before it was used."
_ALPHA: Final = "alpha:11:0a0b0c0d"
_LAST: Final = "2026-03-01 12:02:40.500000"

_NOT_FINISHED: Final = "not finished at the provider"
_BLOCKED: Final = "the API refuses the key: see blocks"
_NO_ANSWER: Final = "the API does not answer for it"
_IN_ERRORS: Final = "transfers end in errors"
_REFUSED: Final = "its URLs are refused or expire before use"
_ABANDONED: Final = "its worker is gone: the lease has run out"


def _day(clock: str, day: str = "2026-03-01") -> str:
    """Return a whole second of the day that the cases are looked at, as the database writes it."""
    return f"{day} {clock}.000000"


_HOOKS: Final = _day("19:51:00")

ANSWERS: Final[dict[str, list[tuple[Any, ...]]]] = {
    "contract": [(1, 5)],
    "progress": [
        (TYPE, 27, 10, 4, 55.55, 14_003_600, _day("17:00:00")),
        (OTHER_TYPE, 1, 1, 0, 100.0, 3_000_000, None),
    ],
    # Four within the hour, the first of them half an hour ago: three in half an hour.
    "eta": [(12, 6.0, 7200, _day("22:00:00"))],
    "stuck": [
        (TYPE, 502, "pending", _NOT_FINISHED, None, _day("20:02:00"), _day("17:00:00")),
        (TYPE, 501, "pending", _BLOCKED, None, _day("18:00:00"), _day("18:00:00")),
        (TYPE, 503, "pending", _NO_ANSWER, "throttled", _day("20:00:30"), _day("18:30:00")),
        (TYPE, 505, "ready", _IN_ERRORS, "stalled", _day("20:01:00"), _day("19:30:00")),
        (TYPE, 506, "pending", _REFUSED, "url_refused", _day("20:01:30"), _day("19:35:00")),
        (TYPE, 508, "downloading", _ABANDONED, None, None, _day("19:55:00")),
    ],
    "oldest-unfinished": [
        (TYPE, 502, "pending", "PENDING", 1, _day("17:00:00"), 3.0),
        (TYPE, 501, "pending", None, 0, _day("18:00:00"), 2.0),
        (TYPE, 503, "pending", None, 1, _day("18:30:00"), 1.5),
        (TYPE, 505, "ready", "SUCCESS", 1, _day("19:30:00"), 0.5),
        (TYPE, 506, "pending", "SUCCESS", 1, _day("19:35:00"), 0.4),
        (TYPE, 511, "ready", "SUCCESS", 1, _day("19:40:00"), 0.3),
        (TYPE, 512, "ready", "SUCCESS", 1, _day("19:50:00"), 0.2),
        (TYPE, 508, "downloading", "SUCCESS", 1, _day("19:55:00"), 0.1),
        (TYPE, 504, "ready", "SUCCESS", 1, _day("19:58:00"), 0.0),
        (TYPE, 507, "downloading", "SUCCESS", 1, _day("19:59:00"), 0.0),
    ],
    "queues": [
        ("downloading", "under way", 2, None),
        ("pending", "due", 2, _day("18:00:00")),  # 501, 510
        ("pending", "later", 3, _day("20:00:30")),  # 502, 503, 506
        ("pending", "under way", 1, _day("20:00:30")),  # 509
        ("ready", "due", 3, _day("19:40:00")),  # 504, 511, 512
        ("ready", "later", 1, _day("20:01:00")),  # 505
    ],
    "leases": [
        (_ALPHA, 1, 1, 0, _day("20:00:30")),
        ("beta:22:1a2b3c4d", 0, 1, 1, _day("19:59:00")),
    ],
    "blocked": [
        ("disk", "disk_full", _FULL, _day("19:30:00"), _day("19:36:00"), 2),  # 1 minute, then 11
        ("api", "key_refused", _KEY, _day("19:59:00"), _day("20:04:00"), 1),
    ],
    "expiring": [
        (TYPE, 512, _day("19:59:30"), -30.0),
        (TYPE, 504, _day("20:05:00"), 300.0),
        (TYPE, 505, _day("20:30:00"), 1800.0),
    ],
    "failed-today": [  # not 201, of the day before
        (TYPE, 404, _day("19:45:00"), "bad_run", "The service refused the run (422)."),
        (TYPE, 203, _day("12:15:00"), "provider_failed", "Out of luck"),
        (TYPE, 202, _day("12:11:40"), "name_taken", _TAKEN),
    ],
    "failure-codes": [
        ("provider_failed", 2, _day("12:15:00"), "Out of luck"),
        ("bad_run", 1, _day("19:45:00"), "The service refused the run (422)."),
        ("name_taken", 1, _day("12:11:40"), _TAKEN),
    ],
    "unfinished-codes": [
        ("stalled", "ready", 1, 1, _day("20:01:00")),
        ("throttled", "pending", 1, 0, _day("20:00:30")),
        ("url_refused", "pending", 1, 0, _day("20:01:30")),
    ],
    "lately": [
        ("submitted", None, "pending", 28, _day("19:59:35")),
        ("claimed", "ready", "downloading", 22, _day("19:59:40")),
        ("url_received", "pending", "ready", 21, _day("19:59:00")),
        ("published", "downloading", "done", 11, _day("19:50:00")),
        ("hook_done", "done", "done", 4, _HOOKS),
        ("provider_failed", "pending", "failed", 3, _day("12:16:40")),
        ("hook_failed", "done", "done", 2, _HOOKS),
        ("adopted", "ready", "done", 1, _day("12:26:50")),
        ("bad_run", "pending", "failed", 1, _day("19:45:00")),
        ("cancel", "pending", "cancelled", 1, _day("12:16:40")),
        ("damaged", "done", "pending", 1, _day("12:23:20")),
        ("disk_full", "downloading", "ready", 1, _day("12:30:35")),
        ("hook_interrupted", "done", "done", 1, _HOOKS),
        ("hook_timeout", "done", "done", 1, _HOOKS),
        ("interrupted", "downloading", "ready", 1, _day("12:30:15")),
        ("lease_ran_out", "downloading", "ready", 1, _day("12:30:00")),
        ("name_taken", "downloading", "failed", 1, _day("12:11:40")),
        ("network", "downloading", "ready", 1, _day("12:01:30")),
        ("output_unusable", "downloading", "ready", 1, _day("12:30:55")),
        ("retry", "failed", "pending", 1, _day("12:18:20")),
        ("stalled", "downloading", "ready", 1, _day("19:50:00")),
        ("url_expired", "downloading", "pending", 1, _day("12:02:10")),
        ("url_refused", "downloading", "pending", 1, _day("19:40:00")),
    ],
    "history": [
        (_day("12:00:00"), None, "pending", "submitted", None, None),
        (_day("12:00:00"), "pending", "ready", "url_received", "SUCCESS", 0.0),
        (_day("12:01:00"), "ready", "downloading", "claimed", f"{_ALPHA}:7", 60.0),
        (_day("12:01:30"), "downloading", "ready", "network", _BROKE_OFF, 30.0),
        (_day("12:02:00"), "ready", "downloading", "claimed", f"{_ALPHA}:8", 30.0),
        (_day("12:02:10"), "downloading", "pending", "url_expired", _EXPIRED, 10.0),
        (_day("12:02:20"), "pending", "ready", "url_received", "SUCCESS", 10.0),
        (_day("12:02:30"), "ready", "downloading", "claimed", f"{_ALPHA}:10", 10.0),
        (_LAST, "downloading", "done", "published", "/audio/123.flac", 10.5),
        (_HOOKS, "done", "done", "hook_done", "exit 0, 0.250 s", 28099.5),
    ],
    "fetched-again": [
        (TYPE, 210, 5, 1, 0, 4, _day("12:28:20"), _day("12:31:10")),
        (TYPE, 123, 3, 1, 2, 0, _day("12:01:00"), _day("12:02:30")),
        (TYPE, 206, 2, 2, 0, 0, _day("12:21:40"), _day("12:23:40")),
    ],
    "hours": [  # not 100 and 101, of days before
        ("2026-03-01 12:00:00", 6, 5_003_000),  # 123, 205, 206, 207, 210, 301
        ("2026-03-01 19:00:00", 3, 600),
    ],
    "days": [
        ("2026-02-27", 1, 7_000_000),
        ("2026-02-28", 1, 5_000_000),
        ("2026-03-01", 9, 5_003_600),
    ],
    # 10 (207), 50, 50, 50 (401 to 403), 100, 100 (205, 206), 160.5 (123), 200 (210)
    "durations": [
        (TYPE, 8, 50.0, 200.0, 200.0, 200.0),
        (OTHER_TYPE, 1, 40.0, 40.0, 40.0, 40.0),
    ],
    "saved": [
        (TYPE, "flac", 1, 2_000_000, 2_000_000),
        (TYPE, "wav", 9, 12_003_600, 7_000_000),
        (OTHER_TYPE, "wav", 1, 3_000_000, 3_000_000),
    ],
    "largest": [
        (TYPE, 100, 7_000_000, "wav", "/audio/100.wav"),
        (TYPE, 101, 5_000_000, "wav", "/audio/101.wav"),
        (OTHER_TYPE, 301, 3_000_000, "wav", "/audio/301.wav"),
        (TYPE, 123, 2_000_000, "flac", "/audio/123.flac"),
        (TYPE, 205, 900, "wav", "/audio/205.wav"),
        (TYPE, 206, 800, "wav", "/audio/206.wav"),
        (TYPE, 207, 700, "wav", "/audio/207.wav"),
        (TYPE, 210, 600, "wav", "/audio/210.wav"),
        (TYPE, 403, 300, "wav", "/audio/403.wav"),
        (TYPE, 402, 200, "wav", "/audio/402.wav"),
        (TYPE, 401, 100, "wav", "/audio/401.wav"),
    ],
    "saved-since": [  # not what was saved before event 40
        (41, TYPE, 206, "/audio/206.wav"),
        (44, TYPE, 207, "/audio/207.wav"),
        (56, TYPE, 210, "/audio/210.wav"),
        (60, OTHER_TYPE, 301, "/audio/301.wav"),
        (64, TYPE, 401, "/audio/401.wav"),
        (68, TYPE, 402, "/audio/402.wav"),
        (72, TYPE, 403, "/audio/403.wav"),
    ],
    "hooks-owed": [(TYPE, 403, "done", _day("19:50:00"))],
    "hooks-lost": [(TYPE, 210, "done", _day("12:31:40"))],  # not 101, of the day before
    "hooks-failed": [
        (TYPE, 402, _HOOKS, "done", "hook_failed", "cannot be started: Exec format error"),
        (TYPE, 207, _HOOKS, "done", "hook_failed", "exit 3, 0.017 s"),
        (TYPE, 206, _HOOKS, "done", "hook_interrupted", "signal SIGKILL, 3.100 s"),
        (TYPE, 205, _HOOKS, "done", "hook_timeout", "signal SIGTERM, 60.004 s"),
    ],
}
