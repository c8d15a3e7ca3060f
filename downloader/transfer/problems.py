"""What an engine may have to say of a transfer: the same words for the same trouble.

None of them quotes what a peer has sent, nor any part of a URL but its host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from downloader.certificates import CERTIFICATE, proxy_refused, why_untrusted
from downloader.rules.decisions import UNREACHABLE, Problem, ProblemKind
from downloader.transfer.engine import MAX_REDIRECTS, TransferError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from downloader.transfer.addresses import Address
    from downloader.transfer.engine import Fetch, Timing


def begin(fetch: Fetch, status: int, headers: Mapping[str, str], address: Address) -> None:
    """Let a fetch have the head of an answer, unless it is a proxy's: no storage answers 407."""
    if status == 407:
        raise unreachable(address, proxy_refused(status))
    fetch.begin(status, headers)


def broke_off(said: str) -> TransferError:
    """Return what ends a transfer that the network, or the peer, broke off."""
    return _transient("network", f"The transfer broke off: {said}.")


def unreachable(address: Address, said: str) -> TransferError:
    """Return what ends a transfer that got no connection: the host's trouble, and no run's."""
    return _of_the_host(UNREACHABLE, address, f"cannot be reached: {said}.")


def untrusted(address: Address, proxy: str | None) -> TransferError:
    """Return what ends a transfer from a host whose certificate is not to be trusted."""
    said = why_untrusted(address.origin, proxy)
    return _of_the_host(CERTIFICATE, address, f"cannot be trusted: {said}.")


def _of_the_host(code: str, address: Address, said: str) -> TransferError:
    host = urlsplit(address.origin).netloc
    return TransferError(Problem(ProblemKind.UNREACHABLE, code, f"The storage at {host} {said}"))


def not_connected(address: Address, timing: Timing) -> TransferError:
    """Return what ends a transfer that got no connection in time."""
    return unreachable(address, f"it took no connection in {timing.connect_seconds:g} seconds")


def after_redirect(error: TransferError) -> TransferError:
    """Return an error of where a run was redirected to: one that is not reached is the run's."""
    if error.problem.kind is not ProblemKind.UNREACHABLE:
        return error
    code = error.problem.error_code
    return _transient("network" if code == UNREACHABLE else code, error.problem.error_message)


def stalled(timing: Timing) -> TransferError:
    """Return what ends a transfer that waits for bytes in vain."""
    return _transient("stalled", f"The storage sent no byte for {timing.stall_seconds:g} seconds.")


def too_slow(timing: Timing, seconds: float) -> TransferError:
    """Return what ends a transfer below the floor speed."""
    return _transient(
        "too_slow",
        f"The transfer was slower than {timing.floor_bytes_per_second:.0f} bytes "
        f"a second over {seconds:.0f} seconds.",
    )


def unusable_url(why: str) -> TransferError:
    """Return what ends a transfer whose URL cannot be asked for; `why` is a sentence."""
    return _wrong_object("unusable_url", why)


def unusable_redirect(why: str) -> TransferError:
    """Return what ends a transfer that was redirected to where we do not go."""
    return _wrong_object(
        "unusable_redirect",
        f"The storage redirected to an address that is not followed: {why}.",
    )


def too_many_redirects() -> TransferError:
    """Return what ends a transfer that is led on and on."""
    return _wrong_object(
        "too_many_redirects", f"The storage redirected more than {MAX_REDIRECTS} times."
    )


def _transient(code: str, message: str) -> TransferError:
    return TransferError(Problem(ProblemKind.TRANSIENT, code, message))


def _wrong_object(code: str, message: str) -> TransferError:
    return TransferError(Problem(ProblemKind.WRONG_OBJECT, code, message))
