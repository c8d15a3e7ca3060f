"""The closed lists of words that say what went wrong: what may be a label of a metric."""

from __future__ import annotations

from typing import Final

TRANSFER_ERRORS: Final = frozenset(
    {
        *("url_expired", "url_refused"),
        *("network", "stalled", "too_slow", "truncated"),
        *("storage_busy", "storage_error", "storage_refused", "missing"),
        *("empty", "error_page", "not_audio", "too_long", "unverifiable_length"),
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
        *("server_error", "unexpected_redirect", "unexpected_status", "unreadable_answer"),
        *("bad_request", "not_found", "invalid_request", "refused"),
    }
)
"""Why the API gave no usable answer, or refused a batch."""

RUN_ERRORS: Final = TRANSFER_ERRORS | {"provider_failed", "bad_run", "forbidden", "deadline"}
"""Why a run failed."""

BLOCKS: Final = frozenset(
    {
        ("api", "key_refused"),
        ("api", "payment_required"),
        ("disk", "disk_full"),
        ("disk", "output_unusable"),
    }
)
"""What blocks the service as a whole: the scope, and the reason."""
