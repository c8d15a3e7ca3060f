"""Redirects: which answers are, how many are followed, and how far inside they may lead."""

from __future__ import annotations

from typing import Final

from downloader.rules.hosts import may_redirect
from downloader.transfer.addresses import address_of, redirected
from downloader.transfer.engine import MAX_REDIRECTS, TransferError
from downloader.transfer.problems import after_redirect, too_many_redirects, unusable_redirect

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
"""The statuses that lead elsewhere, where the answer says where."""

LOCATION: Final = "location"


class Route:
    """Where a fetch goes: its own address, and those that it is redirected to.

    Raises:
        TransferError: the URL is none that can be asked for.

    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.address = self._given = address_of(url)
        self._redirects = 0

    def lead(self, location: str) -> None:
        """Follow a redirect.

        Raises:
            TransferError: it leads to where we do not go, or there are too many.

        """
        self.url = redirected(self.url, location)
        secured, self.address = self.address.origin.startswith("https:"), address_of(self.url)
        if secured and not self.address.origin.startswith("https:"):
            raise unusable_redirect("it leads from https to plain http")
        if not may_redirect(self._given.host, self.address.host):
            raise unusable_redirect("it leads from the internet into a private network")
        self._redirects += 1
        if self._redirects > MAX_REDIRECTS:
            raise too_many_redirects()

    def seen(self, error: BaseException) -> BaseException:
        """Return what an error of a request comes to.

        The run's own storage was there: what it redirects this run to holds up no other.
        """
        if self.address is self._given or not isinstance(error, TransferError):
            return error
        return after_redirect(error)
