"""Have the scenarios' own assertions tell as much as those of the tests."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("torture")
