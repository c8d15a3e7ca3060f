"""The closed lists of words that say what went wrong: what may be a label of a metric."""

from __future__ import annotations

from typing import Final

TRANSFER_ERRORS: Final = frozenset(
    {
        *("url_expired", "url_refused", "url_not_yet_valid"),
        *("storage_unreachable", "certificate", "network", "stalled", "too_slow", "truncated"),
        *("storage_busy", "storage_error", "storage_refused", "missing"),
        *("empty", "error_page", "not_audio", "too_long", "unverifiable_length"),
        "digest_mismatch",
        *("encoded_content", "bad_length", "unexpected_partial", "unusable_range"),
        *("unexpected_redirect", "unexpected_status", "too_many_redirects"),
        *("unusable_redirect", "unusable_url"),
        *("name_taken", "too_large", "bad_run"),
    }
)
"""Why a transfer did not end in a file."""

API_ERRORS: Final = frozenset(
    {
        *("api_unreachable", "api_timeout", "conflict", "too_early", "throttled", "unavailable"),
        "certificate",
        *("server_error", "unexpected_redirect", "unexpected_status", "unreadable_answer"),
        *("bad_request", "not_found", "invalid_request", "refused", "api_not_found"),
    }
)
"""Why the API gave no usable answer, or refused a batch."""

RUN_ERRORS: Final = TRANSFER_ERRORS | {
    *("provider_failed", "bad_run", "unknown_run", "forbidden", "deadline"),
}
"""Why a run failed."""

_TRY_LATER: Final = "the network or the storage was at fault: retry it when that is well again"
_NEW_TRY: Final = "retry it once, in case the file was stored anew; else ask the provider"
_SETTINGS: Final = (
    "the storage, or a proxy on the way, answers as none should: see `downloader doctor`, "
    "then retry it"
)

REMEDIES: Final = {
    **dict.fromkeys(("network", "truncated", "storage_busy", "storage_error"), _TRY_LATER),
    **dict.fromkeys(("missing", "empty", "error_page", "not_audio", "too_long"), _NEW_TRY),
    **dict.fromkeys(("unverifiable_length", "encoded_content", "bad_length"), _SETTINGS),
    **dict.fromkeys(("unexpected_partial", "unusable_range", "unexpected_status"), _SETTINGS),
    **dict.fromkeys(("unexpected_redirect", "too_many_redirects", "unusable_redirect"), _SETTINGS),
    "storage_unreachable": "nothing led to the storage for long: see `downloader doctor`, then "
    "retry it",
    "certificate": "the storage cannot prove who it is: see `downloader doctor`, then retry it",
    "stalled": "the network was at fault: retry it, or give it more time with --stall",
    "too_slow": "the line was too slow for it: retry it, with a lower --concurrency",
    "url_expired": "URLs expire sooner than transfers begin: retry it, with a lower --concurrency; "
    "if that is no help, check this machine's clock with `downloader doctor`",
    "url_refused": "the storage takes no URL of it: check this machine's clock with "
    "`downloader doctor`, then retry it; else ask the provider",
    "url_not_yet_valid": "its URL is valid only later: retry it then; if that takes hours, check "
    "the clocks with `downloader doctor`",
    "digest_mismatch": "what came is not what the storage says that it has: retry it; if that is "
    "no help, something on the way changes it, or it is stored damaged: ask the provider",
    "storage_refused": "the storage refuses it: retry it once, then ask the provider",
    "unusable_url": "the service gave a URL that cannot be used: ask the provider",
    "name_taken": "move the file that has its name away, then retry it",
    "too_large": "raise --max-file-size, or save on a file system that takes such files; "
    "then retry it",
    "provider_failed": "no use in a retry, unless the fault was the provider's: start a new run, "
    "and submit its id",
    "bad_run": "no use in a retry: check the run id and its --type",
    "unknown_run": "no use in a retry as it is: check the run id, its --type and whose key it is",
    "forbidden": "no use in a retry with this API key: take that of the run's account",
    "deadline": "retry it to wait once more, longer with --give-up-after; or ask the provider",
}
"""What a person can do for a run that has failed so: is there any use in a retry, and when."""

BLOCKS: Final = frozenset(
    {
        ("api", "key_refused"),
        ("api", "payment_required"),
        ("disk", "disk_full"),
        ("disk", "output_unusable"),
    }
)
"""What blocks the service as a whole: the scope, and the reason."""
