"""What the tests of metrics share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness import Program


@pytest.fixture
def quick(program: Program) -> Program:
    """Have the program ask for results again soon."""
    program.env |= {"DOWNLOADER_MIN_POLL": "0.05", "DOWNLOADER_MAX_POLL": "0.2"}
    return program
