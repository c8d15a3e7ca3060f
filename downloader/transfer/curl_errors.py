"""What libcurl's error codes mean, in words of our own: its texts may quote what a peer sent."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from downloader.certificates import proxy_refused
from downloader.transfer.curl_answer import NO_HTTP
from downloader.transfer.curl_library import pycurl
from downloader.transfer.problems import broke_off, not_connected, unreachable, unusable_url
from downloader.transfer.unusable import TOO_MANY_FILES, too_many_files

if TYPE_CHECKING:
    from downloader.transfer.addresses import Address
    from downloader.transfer.engine import Timing, TransferError
    from downloader.transfer.unusable import DiskError

_NO_TLS: Final = "no TLS connection came about"
_TOO_LARGE_HEAD: Final = "the head of the answer is larger than any is"
_OUT_OF_USE: Final = "libcurl cannot do here what is asked of it: --engine httpx does without it"

# Those that pycurl does not name are numbers (CURLE_…), and what HTTP cannot lead to is left out.
_WORDS: Final[dict[int, str]] = {
    pycurl.E_COULDNT_RESOLVE_HOST: "the name of the host {host} cannot be looked up",
    pycurl.E_COULDNT_RESOLVE_PROXY: "the name of the proxy cannot be looked up",
    pycurl.E_COULDNT_CONNECT: "no connection came about",
    97: "the proxy gives no connection",  # PROXY
    pycurl.E_SSL_CACERT_BADFILE: "the certificates of authorities cannot be read",
    pycurl.E_SSL_CRL_BADFILE: "the certificates of authorities cannot be read",
    pycurl.E_GOT_NOTHING: "the connection was closed without an answer",
    pycurl.E_PARTIAL_FILE: "the connection was closed before all had come",
    pycurl.E_RECV_ERROR: "nothing can be received",
    pycurl.E_SEND_ERROR: "nothing can be sent",
    pycurl.E_SEND_FAIL_REWIND: "nothing can be sent",
    pycurl.E_WRITE_ERROR: "what came could not be taken",
    pycurl.E_OUT_OF_MEMORY: "the answer is larger than memory",
    pycurl.E_INTERFACE_FAILED: "the network interface cannot be used",
    pycurl.E_NO_CONNECTION_AVAILABLE: "there is no connection to be had",
    pycurl.E_LOGIN_DENIED: "what gives access is refused",
    94: "what gives access is refused",  # AUTH_ERROR
    99: "the connection can no longer be watched",  # UNRECOVERABLE_POLL
    100: _TOO_LARGE_HEAD,  # TOO_LARGE
    **dict.fromkeys(
        (
            pycurl.E_SSL_CONNECT_ERROR,
            pycurl.E_SSL_CIPHER,
            pycurl.E_SSL_CERTPROBLEM,
            pycurl.E_SSL_SHUTDOWN_FAILED,
            pycurl.E_USE_SSL_FAILED,
            *(98, 101),  # SSL_CLIENTCERT, ECH_REQUIRED
        ),
        _NO_TLS,
    ),
    **dict.fromkeys(
        (
            pycurl.E_FTP_WEIRD_SERVER_REPLY,
            pycurl.E_UNSUPPORTED_PROTOCOL,
            pycurl.E_BAD_CONTENT_ENCODING,
            *(16, 92, 95, 96),  # HTTP2, HTTP2_STREAM, HTTP3, QUIC_CONNECT_ERROR
        ),
        NO_HTTP,
    ),
}

# Where the system has a word of its own: connection refused, reset by the peer.
_OF_THE_SYSTEM: Final = frozenset(
    {pycurl.E_COULDNT_CONNECT, pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR}
)


NOT_TRUSTED: Final = frozenset(
    {
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_INVALIDCERTSTATUS,
        pycurl.E_SSL_PINNEDPUBKEYNOTMATCH,
    }
)
"""What is the certificate's, of which `untrusted` tells more."""


def failure_of(
    code: int, easy: pycurl.Curl, address: Address, timing: Timing, *, connected: bool
) -> TransferError | DiskError:
    """Return what ends a request that libcurl ended with a code; `connected`: it had gone out."""
    if code == pycurl.E_URL_MALFORMAT:
        return unusable_url("The URL's host name is none that can be looked up.")
    if code == pycurl.E_OPERATION_TIMEDOUT:  # no other time-out is left to libcurl
        return not_connected(address, timing)
    said = _WORDS.get(code, f"{_OUT_OF_USE} (its error {code})").format(host=address.host)
    number = easy.getinfo(pycurl.OS_ERRNO)
    if number in TOO_MANY_FILES:
        return too_many_files()
    refused = easy.getinfo(pycurl.HTTP_CONNECTCODE)
    if refused >= 300:
        said = proxy_refused(refused)
    elif code in _OF_THE_SYSTEM and number:
        said += f": {os.strerror(number)}"
    return broke_off(said) if connected else unreachable(address, said)
