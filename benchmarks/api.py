"""The service's API as it costs next to nothing: every run is finished, its URL is a template.

Run as a process of its own; the program asks it as it asks the service::

    python -m benchmarks.api --storage https://127.0.0.1:PORT [--delay SECONDS]

`POST /<set>/text-to-sound-results` and `GET /<set>/text-to-sound-result/<run_id>` answer with URLs
`<storage>/<set>/<run_id>.wav?X-Amz-…`; a set named `one-<set>` has its first file for every run.
`GET /_requests` tells how many requests there were. The first line printed is the base URL.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final, cast

MAX_BATCH: Final = 5
_LIFETIME_SECONDS: Final = 7 * 86_400

ONE: Final = "one-"
"""The prefix of a set's name that has every run share the set's first file."""


def presigned(storage: str, audio_set: str, run_id: int) -> str:
    """Return a URL that looks like S3's and is valid for a week; the storage checks nothing."""
    now = datetime.now(UTC)
    return (
        f"{storage}/{audio_set}/{run_id}.wav?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        f"&X-Amz-Credential=BENCHMARK%2F{now:%Y%m%d}%2Fus-east-1%2Fs3%2Faws4_request"
        f"&X-Amz-Date={now:%Y%m%dT%H%M%SZ}&X-Amz-Expires={_LIFETIME_SECONDS}"
        f"&X-Amz-SignedHeaders=host&X-Amz-Signature={run_id:064x}"
    )


class Answers:
    """What is asked, answered and counted."""

    def __init__(self, storage: str) -> None:
        self._storage = storage
        self._requests = 0

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, object]:
        """Return the status and the JSON for a request."""
        if target == "/_requests":
            return 200, {"requests": self._requests}
        self._requests += 1
        _, audio_set, endpoint, *rest = (*target.partition("?")[0].split("/"), "", "")
        if method == "POST" and endpoint == "text-to-sound-results":
            run_ids = json.loads(body)["run_ids"]
            if not 2 <= len(run_ids) <= MAX_BATCH:
                return 422, {"detail": "2 to 5 run ids"}
            return 200, {str(run_id): self._finished(audio_set, run_id) for run_id in run_ids}
        if method == "GET" and endpoint == "text-to-sound-result" and rest[0].isdecimal():
            return 200, self._finished(audio_set, int(rest[0]))
        return 404, {"detail": "Not Found"}

    def _finished(self, audio_set: str, run_id: int) -> dict[str, str]:
        if audio_set.startswith(ONE):
            audio_set, run_id = audio_set.removeprefix(ONE), 1
        return {"output_url": presigned(self._storage, audio_set, run_id)}


class Connection(asyncio.Protocol):
    """One connection that is kept alive; requests come one after the other."""

    def __init__(self, answers: Answers, delay_seconds: float) -> None:
        self._answers = answers
        self._delay_seconds = delay_seconds
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer once a request is whole."""
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        fields = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        length = int(fields.get("content-length", 0))
        if len(rest) < length:
            return
        self._received = rest[length:]
        status, content = self._answers.answer(method, target, rest[:length])
        body = json.dumps(content).encode()
        answer = (
            f"HTTP/1.1 {status} {'OK' if status == 200 else 'Refused'}\r\n"
            f"date: {format_datetime(datetime.now(UTC), usegmt=True)}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body
        if self._delay_seconds and target != "/_requests":
            asyncio.get_running_loop().call_later(self._delay_seconds, self._send, answer)
        else:
            self._send(answer)

    def _send(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


async def serve(storage: str, delay_seconds: float) -> None:
    """Serve on a free port of this machine until the process is ended."""
    answers = Answers(storage)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(answers, delay_seconds), "127.0.0.1", 0
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        sys.stdout.write(f"http://127.0.0.1:{port}\n")
        sys.stdout.flush()
        await server.serve_forever()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    asyncio.run(serve(options.storage, options.delay))


if __name__ == "__main__":
    main()
