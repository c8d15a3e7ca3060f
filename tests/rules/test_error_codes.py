"""What can be done about each error code."""

from __future__ import annotations

from downloader.rules.error_codes import REMEDIES, RUN_ERRORS


def test_every_code_has_a_remedy() -> None:
    """Of each code a run can fail with, and of no other, it is said whether a retry is of use."""
    assert set(REMEDIES) == RUN_ERRORS
    unsaid = {code for code, one in REMEDIES.items() if "retry" not in one}
    assert unsaid == {"unusable_url"}  # of which only the provider knows more
