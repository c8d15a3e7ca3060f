"""What can go wrong with a benchmark."""

from __future__ import annotations


class BenchmarkError(Exception):
    """A side failed, or is not what it was measured for; the message is for a person."""
