"""An API key as people and programs write it down: in quotes, after its name, on Windows."""

from __future__ import annotations

import re
from typing import Final

from downloader.rules.id_cells import BLANKS, unquoted

_NAMED: Final = re.compile(
    r"(?:export\s+|set\s+|\$env:)?(?:CAMB_API_KEY|x-api-key)[\"']?\s*[=:]\s*(?P<key>.*)",
    re.IGNORECASE,
)


def key_in(text: str) -> str:
    """Return the key that a variable or a file holds; empty where there is none.

    Of several lines it is that which names it (`CAMB_API_KEY=…`, as in a file of settings); one
    without a name has to stand alone but for comments. What is no key is returned as it is.
    """
    lines = [line.strip(BLANKS) for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    named = [found["key"] for line in lines if (found := _NAMED.fullmatch(line))]
    return unquoted((named or ["\n".join(lines)])[-1])
