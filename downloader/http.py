"""How both HTTP clients are made: nothing followed, nothing decoded, nothing remembered.

The API's client and the storage's share these rules and nothing else: the one has the key, the
other must never see it.
"""

from __future__ import annotations

import re
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Final

import httpx

from downloader import __version__
from downloader.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_QUOTED_BYTES: Final = re.compile(r""":? (?:bytearray\()?b['"].*""", re.DOTALL)
_WORDS_CHARACTERS: Final = 200


def make_client(
    timeout: httpx.Timeout,
    *,
    keepalive_connections: int,
    headers: Mapping[str, str],
    on_response: Callable[[httpx.Response], None],
) -> httpx.Client:
    """Return a blocking client that any number of threads may share.

    Raises:
        ConfigurationError: the environment's proxy or TLS settings cannot be used.

    """
    try:
        client = httpx.Client(
            follow_redirects=False,
            timeout=timeout,
            # No bound on connections: the number of threads is one, and waiting for a
            # connection would only hide a leak.
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=keepalive_connections
            ),
            headers={
                "user-agent": f"downloader/{__version__}",
                "accept-encoding": "identity",  # bytes are counted and hashed as they come
                **headers,
            },
            event_hooks={"response": [on_response]},
        )
    except (ImportError, OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigurationError(
            "The environment's proxy or TLS settings cannot be used "
            f"({type(error).__name__}): check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY (http and https "
            "proxies are supported), SSL_CERT_FILE and SSL_CERT_DIR."
        ) from error
    # One answer has no say in the next request.
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))
    return client


def words_of(error: Exception) -> str:
    """Return an error's own words, without a full stop: they name hosts and system errors.

    The bytes that a protocol error quotes are left out: they may be our own header, or a URL
    that a peer has sent back.
    """
    said = _QUOTED_BYTES.sub("", str(error))[:_WORDS_CHARACTERS].rstrip(".")
    return said or type(error).__name__
