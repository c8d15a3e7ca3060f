"""A connection by itself, over which nothing is asked; and what is wrong with a certificate.

libcurl says little of it, and no library says whom a certificate is for, when it ran out, or who
has signed it. So the server is asked for it once more, for clients of every make.
"""

from __future__ import annotations

import base64
import contextlib
import re
import ssl
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from downloader.network import Tcp, Tls, connect
from downloader.rules.redaction import clean_text
from downloader.trust import tls_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from downloader.network import Wire

CERTIFICATE: Final = "certificate"
"""The error code of a host whose certificate is not to be trusted."""

_PROBE_SECONDS: Final = 3.0
_KEPT_SECONDS: Final = 60.0
_MAX_HEAD_BYTES: Final = 64 * 1024
_SHOWN_NAMES: Final = 3
_SHOWN_CHARACTERS: Final = 100

# What OpenSSL calls them (X509_V_ERR_…): of the times, of who has signed, of the names.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_SELF_SIGNED: Final = 18
_UNKNOWN_AUTHORITY: Final = frozenset({2, 19, 20, 21, 27})
_OTHER_NAME: Final = frozenset({62, 63, 64})
_NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, not named by the library

_STATUS: Final = re.compile(rb"HTTP/\d\.\d (\d{3})")


def proxy_refused(status: int) -> str:
    """Return what a proxy's refusal means, in words."""
    if status == 407:
        return "the proxy asks for a user and a password, or does not take those given (HTTP 407)"
    if status in (502, 503, 504):
        return f"the proxy gets no connection to it (HTTP {status})"
    return f"the proxy refused a connection (HTTP {status})"


@contextlib.contextmanager
def connection(
    origin: str, proxy: str | None, context: ssl.SSLContext, *, timeout_seconds: float
) -> Iterator[Wire]:
    """Connect to an origin, with TLS where it is https, and send it nothing.

    Through a SOCKS proxy only the proxy itself is connected to.

    Raises:
        OSError: it cannot be reached, or cannot be trusted.
        ValueError: the origin is none.

    """
    until = time.monotonic() + timeout_seconds
    target, first = urlsplit(origin), urlsplit(proxy or origin)
    port = first.port or {"http": 80, "https": 443}.get(first.scheme, 1080)
    with contextlib.closing(connect(first.hostname or "", port, timeout_seconds)) as connected:
        wire: Wire = Tcp(connected)
        if first.scheme == "https":
            wire = Tls(wire, context, first.hostname, until)
        if proxy is not None and target.scheme == "https" and first.scheme in ("http", "https"):
            _open_tunnel(wire, f"{target.netloc.rpartition('@')[2]}", proxy, until)
            wire = Tls(wire, context, target.hostname, until)
        yield wire


def _open_tunnel(wire: Wire, place: str, proxy: str, until: float) -> None:
    place = place if urlsplit(f"//{place}").port else f"{place}:443"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}", *_credentials(proxy), "", ""]
    wire.send("\r\n".join(lines).encode("ascii"), until)
    head = b""
    while b"\r\n\r\n" not in head:
        came = wire.receive(_MAX_HEAD_BYTES, until)
        head += came
        if not came or len(head) > _MAX_HEAD_BYTES:
            raise OSError("the proxy's answer is none")
    status = _STATUS.match(head)
    if status is None:
        raise OSError("the proxy's answer is none of HTTP")
    if not status[1].startswith(b"2"):
        raise OSError(proxy_refused(int(status[1])))


def _credentials(proxy: str) -> list[str]:
    """Return the header by which a proxy knows us, where its address has a user (RFC 9110, 11)."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return []
    named = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return ["Proxy-Authorization: Basic " + base64.b64encode(named.encode()).decode("ascii")]


# --------------------------------------------------------------------- what is wrong with it


_known: Final[dict[tuple[str, str | None], tuple[float, str]]] = {}


def why_untrusted(origin: str, proxy: str | None) -> str:
    """Return what is wrong with the certificate of an origin, in words without a full stop.

    Asked again within a minute, it says the same. Raises what `waits` has it raise.
    """
    found = _known.get((origin, proxy))
    if found is None or found[0] < time.monotonic() - _KEPT_SECONDS:
        said = None
        if proxy is not None and proxy.startswith("https:"):
            said = _look(proxy, None)
            said = said and f"of its proxy, {said}"
        said = said or _look(origin, proxy) or "its certificate was not accepted"
        found = _known[origin, proxy] = (time.monotonic(), said)
    return found[1]


def _look(origin: str, proxy: str | None) -> str | None:
    """Return what is wrong with a certificate; None where nothing is, or it cannot be had."""
    try:
        with connection(origin, proxy, tls_context(), timeout_seconds=_PROBE_SECONDS):
            return None
    except ssl.SSLCertVerificationError as error:
        with contextlib.suppress(OSError, ValueError):
            return _said_of(error, _certificate(origin, proxy), urlsplit(origin).hostname or "")
        return f"its certificate is not accepted ({clean_text(error.verify_message)})"
    except (OSError, ValueError):
        return None


def _certificate(origin: str, proxy: str | None) -> dict[str, Any]:
    """Return the certificate of an origin, as the standard library tells of one it has verified.

    So it is verified against itself alone, and neither its names nor its times are looked at.
    """
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    with connection(origin, proxy, anybody, timeout_seconds=_PROBE_SECONDS) as wire:
        itself = wire.tls.getpeercert(binary_form=True) if isinstance(wire, Tls) else None
    this = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    this.check_hostname = False
    this.load_verify_locations(cadata=itself)
    this.verify_flags = ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    with connection(origin, proxy, this, timeout_seconds=_PROBE_SECONDS) as wire:
        return wire.tls.getpeercert() or {} if isinstance(wire, Tls) else {}


def _said_of(error: ssl.SSLCertVerificationError, certificate: dict[str, Any], host: str) -> str:
    code = error.verify_code
    issuer = _name_of(certificate.get("issuer", ()))
    if code == _EXPIRED:
        over = _time(certificate["notAfter"])
        if over > datetime.now(UTC):
            return (
                f"the certificate of the authority that has signed its own, {issuer}, has expired"
            )
        return f"its certificate expired on {over:%Y-%m-%d at %H:%M} UTC"
    if code == _NOT_YET_VALID:
        begin = _time(certificate["notBefore"])
        return (
            f"its certificate is valid only from {begin:%Y-%m-%d at %H:%M} UTC on, and this "
            "machine's clock is before that"
        )
    if code in _OTHER_NAME:
        names = [value for _, value in certificate.get("subjectAltName", ())]
        names = names or [_name_of(certificate.get("subject", ()))]
        shown = ", ".join(names[:_SHOWN_NAMES]) + (", ..." if len(names) > _SHOWN_NAMES else "")
        return f"its certificate is for {_shown(shown)}, and not for {host}"
    if code == _SELF_SIGNED or certificate.get("issuer") == certificate.get("subject"):
        return f"its certificate is signed by itself ({issuer}), and by no authority"
    if code in _UNKNOWN_AUTHORITY:
        return f"its certificate is signed by {issuer}, which is no authority that is trusted here"
    return f"its certificate is not accepted ({clean_text(error.verify_message)})"


def _name_of(name: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    parts = dict(part for group in name for part in group)
    called = [parts[key] for key in ("commonName", "organizationName") if key in parts]
    return _shown(" of ".join(called)) or "nobody that it names"


def _shown(text: str) -> str:
    return clean_text(text, _SHOWN_CHARACTERS)


def _time(told: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(told), UTC)
