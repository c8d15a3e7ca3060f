"""An authority of the simulator's own, and certificates by it, right and wrong."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trustme

from downloader.simulator.errors import SimulatorError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Authority:
    """Issues the certificate of a host, and those that no client should trust for it."""

    def __init__(self, host: str) -> None:
        self._authority = trustme.CA()
        own, day, now = self._authority.issue_cert, timedelta(days=1), datetime.now(UTC)
        self._right = _context(own(host))
        self._wrong = {
            "expired": _context(own(host, not_before=now - 90 * day, not_after=now - day)),
            "not-yet": _context(own(host, not_before=now + day, not_after=now + 90 * day)),
            "other-name": _context(own("other.invalid")),
            "other-authority": _context(trustme.CA().issue_cert(host)),
        }

    def write(self, path: Path) -> None:
        """Write the authority's own certificate, for clients to trust."""
        try:
            path.write_bytes(self._authority.cert_pem.bytes())
        except OSError as error:
            raise SimulatorError(f"cannot write {path}: {error.strerror}") from error

    def context(self, wrong: Callable[[], str | None]) -> ssl.SSLContext:
        """Return what a listener serves by: at each handshake `wrong` says what is, if anything."""
        context = _context(self._authority.issue_cert("unused.invalid"))

        def choose(secured: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            kind = wrong()
            secured.context = self._right if kind is None else self._wrong[kind]

        context.sni_callback = choose
        return context


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_TICKET  # a session that goes on shows no certificate
    context.num_tickets = 0
    certificate.configure_cert(context)
    return context
