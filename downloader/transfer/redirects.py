"""Redirects: which answers are, how many are followed, and how far inside they may lead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from downloader.rules.hosts import may_redirect
from downloader.transfer.addresses import Address, address_of, redirected
from downloader.transfer.engine import MAX_REDIRECTS, TransferError
from downloader.transfer.problems import after_redirect, too_many_redirects, unusable_redirect

if TYPE_CHECKING:
    from downloader.transfer.guard import Guard

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
"""The statuses that lead elsewhere, where the answer says where."""

LOCATION: Final = "location"


class Request(Protocol):
    """Makes one request."""

    def __call__(self, url: str, address: Address) -> str | None:
        """Return where the answer redirects to, None when the sink has its body."""


def follow(url: str, guard: Guard, request: Request) -> None:
    """Make a request, and those that it is redirected to.

    Raises:
        TransferError: an address is none that we go to, or there are too many.
        Interrupted: `guard` said stop.

    """
    given = address = address_of(url)
    for _ in range(MAX_REDIRECTS + 1):
        guard.check()
        try:
            location = request(url, address)
        except TransferError as error:
            # The run's own storage was there: what it redirects this run to holds up no other.
            raise (error if address is given else after_redirect(error)) from None
        if location is None:
            return
        url = redirected(url, location)
        secured, address = address.origin.startswith("https:"), address_of(url)
        if secured and not address.origin.startswith("https:"):
            raise unusable_redirect("it leads from https to plain http")
        if not may_redirect(given.host, address.host):
            raise unusable_redirect("it leads from the internet into a private network")
    raise too_many_redirects()
