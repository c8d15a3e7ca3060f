"""Programs that only some machines have: required where CI runs, which installs them."""

from __future__ import annotations

import os
import shutil

import pytest


def needed(program: str) -> str:
    """Return the path of a program; skip the test where there is none, but fail in CI."""
    found = shutil.which(program)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is not installed: see .ci/run")
        pytest.skip(f"{program} is not installed")
    return found
