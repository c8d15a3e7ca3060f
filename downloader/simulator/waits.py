"""How a server tells a client to wait: three ways, of which a client has to know all."""

from __future__ import annotations

import math
from email.utils import formatdate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from downloader.simulator.faults import Fault


def wait_headers(fault: Fault, now: float) -> dict[str, str]:
    """Retry-After in seconds or as a date, X-RateLimit-Reset in epoch seconds, or nothing."""
    seconds = fault.number("retry_after") if "retry_after" in fault.entry.parameters else None
    if seconds is None:
        return {}
    match fault.text("form"):
        case "date":
            return {"retry-after": formatdate(math.ceil(now + seconds), usegmt=True)}
        case "reset":
            return {"x-ratelimit-reset": str(math.ceil(now + seconds))}
    return {"retry-after": str(math.ceil(seconds))}
