"""The catalogue of faults: what can go wrong where, and with which parameters.

One table is the validation of a rule file, the help of `downloader simulate --list-faults`
and the documentation. What each fault does on the wire is in `answers` (the API) and
`deliveries` (the storage).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from downloader.simulator.parameters import Parameter

if TYPE_CHECKING:
    from collections.abc import Mapping


class Place(StrEnum):
    """Which of the two services a fault is for."""

    API = "api"
    STORAGE = "storage"


@dataclass(frozen=True)
class Kind:
    """One kind of fault."""

    meaning: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    whole_request: bool = True
    """At the API: it takes the whole request, not only this run's place in a bulk answer."""
    connection: bool = False
    """It befalls every connection, before it is known what is asked for."""


UNFINISHED_SHAPES: Final = ("omit", "null", "url-null", "url-empty", "url-missing", "status")
"""How an answer may say that a run is not finished."""

_SECONDS_SLOW = Parameter(float, 1.0, "seconds to wait before answering", least=0)
_AFTER = Parameter(int, None, "bytes of the body to send first (default: half of it)", least=0)
_AT = Parameter(str, "body", "before the status line, or in the body", ("headers", "body"))
_WAITS: Final[Mapping[str, Parameter]] = {
    "retry_after": Parameter(
        float, None, "seconds to tell the client to wait (default: not told)", least=0
    ),
    "form": Parameter(
        str,
        "seconds",
        "how the wait is told: Retry-After in seconds or as a date, or X-RateLimit-Reset",
        ("seconds", "date", "reset"),
    ),
}

_CONNECTION: Final[Mapping[str, Kind]] = {
    "refuse": Kind("connections are refused", connection=True),
    "drop": Kind("no connection comes about: what is sent is dropped (Linux)", connection=True),
    "hang": Kind("connections come about, and nothing comes after, nor any TLS", connection=True),
    "abort": Kind("each connection is reset as soon as it is there", connection=True),
    "certificate": Kind(
        "with --https: a certificate that is not to be trusted",
        {
            "what": Parameter(
                str,
                "expired",
                "what is wrong with it",
                ("expired", "not-yet", "other-name", "other-authority"),
            )
        },
        connection=True,
    ),
}
_SURPLUS: Final = Kind(
    "something more comes behind the answer, on a connection that is kept",
    {
        "what": Parameter(
            str,
            "answer",
            "the answer once more, an unasked 408, or stray bytes",
            ("answer", "timeout", "bytes"),
        )
    },
)

API_FAULTS: Final[Mapping[str, Kind]] = {
    # one run's place in an answer
    "pending": Kind(
        "the run is not finished",
        {
            "shape": Parameter(
                str, None, "how it is said (default: --unfinished)", UNFINISHED_SHAPES
            ),
            "status": Parameter(str, "PENDING", "the provider's word, in the shape `status`"),
        },
        whole_request=False,
    ),
    "word": Kind(
        "the provider says this word instead of a URL",
        {
            "word": Parameter(str, "ERROR", "ERROR, TIMEOUT, PAYMENT_REQUIRED or any other"),
            "reason": Parameter(str, "Simulated failure", "exception_reason"),
        },
        whole_request=False,
    ),
    "plain-string": Kind("the URL itself where an object is expected", whole_request=False),
    "value": Kind(
        "this JSON value in the run's place",
        {"value": Parameter(object, None, "any JSON value")},
        whole_request=False,
    ),
    "url": Kind(
        "this text as output_url",
        {"url": Parameter(str, "ftp://127.0.0.1/audio.wav", "the text")},
        whole_request=False,
    ),
    "url-lifetime": Kind(
        "the URL lives this long",
        {"seconds": Parameter(float, -60.0, "0 or less: it has expired when it is handed out")},
        whole_request=False,
    ),
    "url-later": Kind(
        "the URL is signed ahead: it is of no use until then (stores whose URLs have a beginning)",
        {"seconds": Parameter(float, 60.0, "how far ahead", least=0)},
        whole_request=False,
    ),
    "unknown": Kind(
        "the service does not know the run: not in a bulk answer, 404 alone", whole_request=False
    ),
    "extra-id": Kind(
        "a run that was not asked for is in the answer too",
        {"run_id": Parameter(int, None, "the run (default: the asked one + 1,000,000)")},
        whole_request=False,
    ),
    # the whole answer
    "status": Kind(
        "the request is refused with this status",
        {
            "status": Parameter(int, 500, "400 to 599"),
            "detail": Parameter(object, None, "the `detail` of the answer (default: by status)"),
            **_WAITS,
        },
    ),
    "empty": Kind("`{}`, whatever was asked for", _WAITS),
    "results-list": Kind('`{"results": [{"run_id", "output_url"}, ...]}`'),
    "not-json": Kind(
        "an HTML page, as of a gateway or of a network that wants a login",
        {"status": Parameter(int, 200, "the status it comes with, 200 to 599"), **_WAITS},
    ),
    "other-shape": Kind(
        "JSON of another shape",
        {"body": Parameter(object, ["unexpected"], "any JSON value"), **_WAITS},
    ),
    "gzip": Kind("Content-Encoding: gzip, asked for or not"),
    "surplus": _SURPLUS,
    "truncate": Kind("Content-Length says more than is sent", {"after": _AFTER}),
    "reset": Kind("the connection is reset instead of an answer"),
    "stall": Kind(
        "no answer",
        {"seconds": Parameter(float, None, "then it goes on (default: never)", least=0)},
    ),
    "slow": Kind("the answer is late", {"seconds": _SECONDS_SLOW}, whole_request=False),
    "redirect": Kind(
        "a redirect to another origin",
        {
            "status": Parameter(int, 307, "301, 302, 303, 307 or 308"),
            "to": Parameter(
                str, None, "the address (default: the same path at the storage)", header=True
            ),
            **_WAITS,
        },
    ),
    **_CONNECTION,
}

DIGESTS: Final = (
    "content-md5",
    "x-goog-hash",
    "x-amz-checksum-sha256",
    "x-amz-checksum-sha1",
    "x-amz-checksum-crc32",
    "repr-digest",
    "content-digest",
    "digest",
    "etag",
)
"""The headers that tell a digest; `etag`: the MD5 in hex, as S3 has it of plain uploads."""

STORAGE_FAULTS: Final[Mapping[str, Kind]] = {
    # refusals
    "expired": Kind("the store's answer to an expired URL, whatever the URL says", _WAITS),
    "late": Kind(
        "404: the object is there only some time after a URL of the run was first given",
        {"seconds": Parameter(float, 60.0, "how long after", least=0), **_WAITS},
    ),
    "status": Kind(
        "an S3 error",
        {
            "status": Parameter(int, 500, "400 to 599"),
            "code": Parameter(str, None, "S3's code (default: by status)"),
            "message": Parameter(str, "Simulated fault", "S3's message"),
            **_WAITS,
        },
    ),
    # the connection
    "reset": Kind("the connection is reset", {"at": _AT, "after": _AFTER}),
    "stall": Kind(
        "nothing more comes, and the connection stays open",
        {
            "at": _AT,
            "after": _AFTER,
            "seconds": Parameter(float, None, "then it goes on (default: never)", least=0),
        },
    ),
    "slow": Kind("the first byte is late", {"seconds": _SECONDS_SLOW}),
    "drip": Kind(
        "the body comes slowly", {"rate": Parameter(float, 100.0, "bytes per second", least=1)}
    ),
    # framing
    "truncate": Kind(
        "the connection closes before the body is whole",
        {
            "after": _AFTER,
            "framing": Parameter(
                str,
                "length",
                "Content-Length, chunked without its end, or neither",
                ("length", "chunked", "close"),
            ),
        },
    ),
    "framing": Kind(
        "the whole body, without Content-Length",
        {"form": Parameter(str, "chunked", "chunked, or ended by closing", ("chunked", "close"))},
    ),
    "wrong-length": Kind(
        "Content-Length is wrong, the body is whole",
        {"by": Parameter(int, 1000, "how much too large (negative: too small)")},
    ),
    "gzip": Kind("the object is stored gzipped: Content-Encoding: gzip, asked for or not"),
    "surplus": _SURPLUS,
    # ranges and validators
    "ignore-range": Kind("200 and the whole body, whatever Range says"),
    "partial": Kind(
        "206 with some of the range asked for",
        {
            "bytes": Parameter(int, None, "at most so many (default: all)", least=1),
            "unasked": Parameter(bool, True, "206 also where no range was asked for"),  # noqa: FBT003 - a default
        },
    ),
    "wrong-content-range": Kind(
        "a Content-Range that is not the range asked for",
        {
            "what": Parameter(str, "start", "which part is wrong", ("start", "total")),
            "by": Parameter(int, 1, "how much too large"),
        },
    ),
    "weak-etag": Kind("the ETag is weak"),
    "no-etag": Kind(
        "there is no ETag, Last-Modified alone",
        {
            "modified": Parameter(
                float, None, "seconds ago, as the rules came (default: in 2025)", least=0
            ),
        },
    ),
    "digest": Kind(
        "a digest of the file is told",
        {
            "header": Parameter(str, "content-md5", "which", DIGESTS),
            "wrong": Parameter(
                str,
                "nothing",
                "what is not right: the digest, or a byte",
                ("nothing", "digest", "bytes"),
            ),
        },
    ),
    "changed": Kind(
        "another object under the same name: other bytes, other ETag",
        {"version": Parameter(int, 2, "which one; 1 is the true one", least=1, most=1e6)},
    ),
    # what comes instead of the audio
    "error-page": Kind(
        "an error page, with status 200 unless told otherwise",
        {
            "status": Parameter(int, 200, "200 to 599"),
            "form": Parameter(str, "xml", "its language", ("xml", "html", "json")),
            "content_type": Parameter(
                str, None, "its Content-Type (default: the true one)", header=True
            ),
            "retry_after": _WAITS["retry_after"],
        },
    ),
    "empty": Kind("status 200 and no bytes", _WAITS),
    "wrong-magic": Kind("the right length, but not audio: other first bytes"),
    "streamed": Kind("the header does not know the size (RIFF 0xFFFFFFFF, FLAC 0 samples)"),
    "headers": Kind(
        "headers added, replaced or (null) removed",
        {"headers": Parameter(dict, {}, "name to value")},
    ),
    "redirect": Kind(
        "a redirect",
        {
            "status": Parameter(int, 302, "301, 302, 303, 307 or 308"),
            "to": Parameter(
                str,
                "same",
                "same (origin), other (origin), loop, plain (http, from https), portal (a page "
                "that wants a login), or an address",
                header=True,
            ),
            **_WAITS,
        },
    ),
    **_CONNECTION,
}

FAULTS: Final[Mapping[Place, Mapping[str, Kind]]] = {
    Place.API: API_FAULTS,
    Place.STORAGE: STORAGE_FAULTS,
}
