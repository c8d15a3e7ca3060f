"""What the tests of the Python API share: a process in which no command line has set logging up."""

from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from downloader.logger import TELLTALES

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _nobody_has_set_logging_up() -> Iterator[None]:
    """Take back what the command line has set up in this process, and put it back in the end."""
    was_configured, configuration = structlog.is_configured(), structlog.get_config()
    root, telltales = logging.getLogger(), [logging.getLogger(name) for name in TELLTALES]
    ours = [one for one in root.handlers if type(one).__module__.startswith("downloader.")]
    states = [(one, one.disabled, one.propagate) for one in telltales]
    structlog.reset_defaults()
    gc.unfreeze()
    for handler in ours:
        root.removeHandler(handler)
    for one in telltales:
        one.disabled, one.propagate = False, True
    yield
    for handler in ours:
        root.addHandler(handler)
    for one, disabled, propagate in states:
        one.disabled, one.propagate = disabled, propagate
    if was_configured:
        structlog.configure(**configuration)
