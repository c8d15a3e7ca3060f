"""Bad input by the handful: JSON, header fields and URLs, and how a judged outcome looks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cli.calling import Answer

MB: Final = 1024 * 1024

# ------------------------------------------------------------------------------------ JSON

_URLS: Final = (
    "http://h/a",
    "http://[::1",
    "ftp://h/x",
    "https://s/?X-Amz-Date=20260301T000000Z&X-Amz-Expires=999999999999",
    "https://s/?se=9999-12-31T23:59:59Z",
    "https://s/?Expires=253402300799",
    "https://s/?Expires=1772366400",
)
_NAMES: Final = (
    *("run_id", "id", "output_url", "file_url", "status", "exception_reason", "results"),
    *("detail", "message", "error", "msg", "loc", "1", "2", "3", "007", "1" * 20, "1" * 30),
)
json_texts = st.text(max_size=20) | st.sampled_from(
    (*_NAMES, *_URLS, "ERROR", "SUCCESS", "\ud800", "\0", "\x1b[31m")
)
_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | json_texts
    | st.sampled_from((10**50, -(10**50), 1e308, float("inf"), float("nan")))
)
json_values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(json_texts, inner, max_size=5),
    max_leaves=15,
)

ODD_BODIES: Final[dict[str, bytes]] = {
    "brackets": b"[" * 100_000,
    "braces": b'{"1":' * 100_000,
    "both": b'[{"a":' * 50_000,
    "duplicate keys": b'{"1": "x", "1": {"output_url": "http://h/b"}}',
    "NaN": b'{"1": NaN, "2": -Infinity}',
    "lone surrogate": b'{"1": {"output_url": "http://h/\\ud800"}}',
    "null byte": b'{"1": {"output_url": "http://h/\\u0000"}}',
    "UTF-16": '{"1": "x"}'.encode("utf-16"),
    "UTF-32": '{"1": "x"}'.encode("utf-32"),
    "not UTF-8": b'{"1": "\xff\xfe"}',
    "cut UTF-8": b'{"1": "\xe2\x82',
    "overlong UTF-8": b'{"1": "\xc0\xaf"}',
    "many digits": b'{"1": ' + b"9" * 100_000 + b"}",
    "many decimals": b'{"1": 0.' + b"9" * 100_000 + b"}",
    "huge exponent": b'{"1": 1e999999999}',
    "many keys": b"{" + b",".join(b'"%d":null' % n for n in range(50_000)) + b"}",
    "many lists": b"[" + b"[]," * 100_000 + b"[]]",
    "one string": b'"' + b"x" * 900_000 + b'"',
    "spaces": b" " * 900_000,
    "HTML": b"<html>" * 1000,
    "nothing": b"",
}
answer_bodies = (
    json_values.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=60)
    | st.sampled_from(list(ODD_BODIES.values()))
)

# ---------------------------------------------------------------------------------- headers

HEADER_VALUES: Final = (
    *("", "0", "-1", "+5", "1e308", "1" * 400, "1" * 401, "0.5", "nan", "inf", "٣", " 5 "),
    *("99999999999999999999", "253402300800", str(2**63), "5, 5", "5, 6", "abc", "W/", '"'),
    *("Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -2359"),
    *("Mon, 01 Jan 0001 00:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 +2359"),
    *("Thu, 01 Jan 1970 00:00:00 GMT", "Sun Nov  6 08:49:37 1994", "Sun, 99 Foo 99999"),
    *("bytes 0-5/6", "bytes 5-0/6", "bytes */6", f"bytes 0-{10**30}/*", "bytes 5-9/10"),
    *("gzip", "identity", "chunked", "gzip, chunked", "audio/mpeg", "text/html; charset=\xff"),
    *('"tag"', '""', '"' + "x" * 5000 + '"', "x" * 5000),
)
_HEADER_NAMES: Final = (
    *("retry-after", "x-ratelimit-reset", "date", "content-length", "content-range", "etag"),
    *("content-encoding", "transfer-encoding", "content-type"),
)
header_fields = st.dictionaries(
    st.sampled_from(_HEADER_NAMES),
    st.sampled_from(HEADER_VALUES) | st.text(max_size=20),
    max_size=6,
)

STATUS_LINES: Final = (
    *(b"HTTP/1.1 200 OK", b"HTTP/1.1 099 X", b"HTTP/1.1 999 X", b"HTTP/1.1 204 N"),
    *(b"HTTP/1.1 304 N", b"HTTP/1.1 101 S", b"HTTP/1.1 100 C", b"HTTP/1.0 200 OK"),
    *(b"HTTP/2.0 200 OK", b"HTTP/1.1 302 F", b"HTTP/1.1 2000 F", b"HTTP/1.1 200"),
    *(b"HTTP/0.9 200 OK", b"HTTP/1.1 401 N", b"HTTP/1.1 407 N", b"HTTP/1.1 206 P", b"200 OK"),
)
_WIRE_NAMES: Final = (
    *(b"Content-Length", b"Transfer-Encoding", b"Set-Cookie", b"Location", b"Content-Encoding"),
    *(b"Date", b"Retry-After", b"WWW-Authenticate", b"Content-Type", b"ETag", b"Connection"),
    *(b"Content-Range", b"Trailer", b"Upgrade", b"Proxy-Authenticate"),
)
_WIRE_VALUES: Final = (
    *(b"0", b"5", b"5, 5", b"5, 6", b"1" * 21, b"1" * 5000, b"-1", b"chunked", b"gzip"),
    *(b"gzip, chunked", b"identity", b"=;=;;", b"Basic", b'Digest realm="', b"\xff\xfe"),
    *(b"a=b; expires=Fri, 99 Foo 99999 99:99:99 GMT; max-age=zz; domain=.; port=", b'; charset="'),
    *(b"http://[", b"//[::1", b"http://127.0.0.1:0/", b"close", b"upgrade", b"/x\x00", b"/x"),
    *(b"http://u:p@127.0.0.1/", b"text/html; charset=nonsense"),
)
_BODIES: Final = (
    *(b"5\r\nhello\r\n0\r\n\r\n", b"F" * 30 + b"\r\n", b"-5\r\n", b"zz\r\n", b"5 \r\nhello\r\n"),
    *(b"5\r\nhello\r\n0\r\nX: y\r\n\r\n", b"5;" + b"a" * 1000 + b"\r\nhello\r\n0\r\n\r\n"),
)
wire_answers = st.builds(
    lambda status, fields, body: b"\r\n".join(
        [status, *(name + b": " + value for name, value in fields), b"", body]
    ),
    st.sampled_from(STATUS_LINES) | st.binary(max_size=20),
    st.lists(
        st.tuples(
            st.sampled_from(_WIRE_NAMES) | st.binary(max_size=6),
            st.sampled_from(_WIRE_VALUES) | st.binary(max_size=20),
        ),
        max_size=5,
    ),
    st.sampled_from(_BODIES) | st.binary(max_size=40),
)
"""Whole answers as they stand on the wire, of pieces that are right and wrong."""

# ------------------------------------------------------------------------------------- URLs

_URL_PIECES: Final = (
    *"abé1.:/[]@%?#\\ -_~\u2028\u3002\uff11\r\n\0",
    *("xn--", "localhost", "127.0.0.1", "::1", "fe80::1%25eth0", "..", "\x7f", "\udcff", ":0"),
    *(":99999", "a" * 70_000, "http://", "ftp:", "%0d%0a", "user:pass@", "?X-Amz-Expires=1e9"),
)
_URL_STARTS: Final = (
    *("https://", "http://", "HTTPS://", "https://h", "http://h/", "http://h:80/", "https:/"),
    *("file:", "ftp://h", "javascript:", "data:,", "", "//h/", "/", "?", "http://[", "http://h?"),
)
odd_urls = st.builds(
    lambda start, pieces: start + "".join(pieces),
    st.sampled_from(_URL_STARTS),
    st.lists(st.sampled_from(_URL_PIECES) | st.characters(), max_size=8),
)

# -------------------------------------------------------------------------- judged outcomes


def assert_told(answer: Answer, *codes: int) -> None:
    """Assert that a call ended as documented: with a sentence where something is wrong."""
    assert "should not happen" not in answer.err, answer.err
    assert answer.code in codes, answer
    if answer.code == 2:
        assert answer.err.strip(), answer


PEAK: Final = """
import resource
from pathlib import Path

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # of this program alone; ru_maxrss is also of what it was forked from
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
"""
"""Defines what says how much memory a process has had at most, in bytes."""

_MEASURED: Final = f"""{PEAK}
import sys
from downloader.cli.main import main
try:
    main()
finally:
    sys.stdout.flush()
    print(peak(), file=sys.stderr)
"""


def measured(
    *arguments: str,
    env: Mapping[str, str],
    **options: Any,  # noqa: ANN401 - of `subprocess.run`
) -> tuple[int, str, int]:
    """Run the program; return its exit code, what it said, and its peak of memory in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *arguments],
        env=dict(env),
        capture_output=True,
        check=False,
        timeout=120,
        **options,
    )
    *said, peak = done.stderr.decode("utf-8", "replace").strip().split("\n")
    return done.returncode, done.stdout.decode() + "\n".join(said), int(peak)


def run_python(source: str, *arguments: str) -> str:
    """Run a script in a process of its own, with no proxy; return what it printed."""
    kept = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    kept["PYTHONPATH"] = str(Path(__file__).parent.parent)  # the tests' own modules
    return subprocess.run(
        [sys.executable, "-c", source, *arguments],
        env=kept,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
