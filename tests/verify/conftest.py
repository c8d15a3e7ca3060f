"""What the tests of `verify` share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from verify.verify_rig import Rig

if TYPE_CHECKING:
    from harness import Program


@pytest.fixture
def rig(program: Program) -> Rig:
    """Make an empty database with an output folder."""
    return Rig(program)
