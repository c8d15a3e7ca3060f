"""What libcurl's error codes mean, in words of our own: its texts may quote what a peer sent."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from downloader.transfer.curl_answer import NO_HTTP
from downloader.transfer.curl_library import pycurl
from downloader.transfer.problems import broke_off, not_connected, unreachable, unusable_url
from downloader.transfer.unusable import TOO_MANY_FILES, too_many_files

if TYPE_CHECKING:
    from downloader.transfer.addresses import Address
    from downloader.transfer.engine import Timing, TransferError
    from downloader.transfer.unusable import DiskError

# CURLE_PROXY, not named by pycurl.
_E_PROXY: Final = 97

_WORDS: Final[dict[int, str]] = {
    pycurl.E_COULDNT_RESOLVE_HOST: "the name of the host {host} cannot be looked up",
    pycurl.E_COULDNT_RESOLVE_PROXY: "the name of the proxy cannot be looked up",
    pycurl.E_COULDNT_CONNECT: "no connection came about",
    _E_PROXY: "the proxy gives no connection",
    pycurl.E_SSL_CONNECT_ERROR: "no TLS connection came about",
    pycurl.E_PEER_FAILED_VERIFICATION: "the certificate of {host} is not one to be trusted",
    pycurl.E_SSL_CACERT_BADFILE: "the certificates of SSL_CERT_FILE cannot be read",
    pycurl.E_GOT_NOTHING: "the connection was closed without an answer",
    pycurl.E_PARTIAL_FILE: "the connection was closed before all had come",
    pycurl.E_RECV_ERROR: "nothing can be received",
    pycurl.E_SEND_ERROR: "nothing can be sent",
    pycurl.E_FTP_WEIRD_SERVER_REPLY: NO_HTTP,
    pycurl.E_UNSUPPORTED_PROTOCOL: NO_HTTP,
    pycurl.E_BAD_CONTENT_ENCODING: NO_HTTP,
    pycurl.E_OUT_OF_MEMORY: "the answer is larger than memory",
}

# Where the system has a word of its own: connection refused, reset by the peer.
_OF_THE_SYSTEM: Final = frozenset(
    {pycurl.E_COULDNT_CONNECT, pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR}
)


_NOT_TRUSTED: Final = frozenset({pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE})


def failure_of(
    code: int, easy: pycurl.Curl, address: Address, timing: Timing, *, connected: bool
) -> TransferError | DiskError:
    """Return what ends a request that libcurl ended with a code; `connected`: it had gone out."""
    if code == pycurl.E_URL_MALFORMAT:
        return unusable_url("The URL's host name is none that can be looked up.")
    if code == pycurl.E_OPERATION_TIMEDOUT:  # no other time-out is left to libcurl
        return not_connected(address, timing)
    said = _WORDS.get(code, f"libcurl's error {code}").format(host=address.host)
    number = easy.getinfo(pycurl.OS_ERRNO)
    if number in TOO_MANY_FILES:
        return too_many_files()
    refused = easy.getinfo(pycurl.HTTP_CONNECTCODE)
    if refused >= 300:
        said = f"the proxy refused a connection (HTTP {refused})"
    elif code in _OF_THE_SYSTEM and number:
        said += f": {os.strerror(number)}"
    # Of a certificate it is not the network that is to be waited for.
    if connected or code in _NOT_TRUSTED:
        return broke_off(said)
    return unreachable(address, said)
