"""libcurl, where it can do what is asked of it here; importing this fails where it cannot."""

from __future__ import annotations

import pycurl

__all__ = ["pycurl"]

if not hasattr(pycurl, "PREREQFUNCTION"):
    raise ImportError("it is too old: 7.46 is needed", name="pycurl")
if "https" not in pycurl.version_info()[8]:
    raise ImportError("its libcurl speaks no TLS", name="pycurl")
