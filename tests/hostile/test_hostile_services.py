from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hostile.test_hostile_storage import WAV
from transfer.wire import Peer, RawServer, answering, head, ok

from downloader.session import Mode

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import MakeService, Program, StartSimulator
    from transfer.wire import Script

    Serve = Callable[[Script], RawServer]

DEEP: list[Any] = []
for _ in range(90):
    DEEP = [DEEP]

VALUES: list[object] = [
    *(5, -1, 0.5, 10**40, True, [], {}, "", "x" * 100_000, "\x1b[31m", DEEP, [["1", "2"]]),
    *({"output_url": 5}, {"output_url": []}, {"output_url": {"output_url": "http://h/"}}),
    *({"output_url": url} for url in ("file:///etc/passwd", "ftp://h/x", "//h/x", "http://[::1")),
    *({"output_url": url} for url in ("http://h/\r\nX: y", "http://u:p@h/", "http://h:99999/")),
    *({"output_url": "http://127.0.0.1:9/" + "a" * 20_000}, {"output_url": "http://h\\@x/"}),
    *({"status": 5}, {"status": ["ERROR"]}, {"status": "\u202e"}, {"run_id": 99, "id": 98}),
]


def test_answers_beside_good_ones(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """Whatever the API says of some runs of a batch, the others are saved, and those are not."""
    odd = {1 + number * 2: value for number, value in enumerate(VALUES)}
    simulator = start_simulator(
        rules=[
            {"runs": [run_id], "where": "api", "fault": {"kind": "value", "value": value}}
            for run_id, value in odd.items()
        ]
    )
    service = make_service(simulator)
    good = [run_id + 1 for run_id in odd]
    service.submit(*odd, *good)
    service.run(Mode.ONCE)
    service.assert_saved(simulator, *good)
    states = service.states()
    assert {states[run_id] for run_id in odd} <= {"pending", "failed"}


REDIRECTS = [
    *("file:///etc/passwd", "ftp://127.0.0.1/x", "http://u:p@127.0.0.1/x", "http://[", "loop"),
    *("http://127.0.0.1:99999/", "javascript:alert(1)", "data:audio/wav;base64,AAAA", "//"),
]


def test_redirects_beside_good_files(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """Wherever the storage redirects for some runs, the files of the others are saved."""
    odd = {1 + number * 2: to for number, to in enumerate(REDIRECTS)}
    simulator = start_simulator(
        rules=[
            {"runs": [run_id], "where": "storage", "fault": {"kind": "redirect", "to": to}}
            for run_id, to in odd.items()
        ]
    )
    service = make_service(simulator)
    good = [run_id + 1 for run_id in odd]
    service.submit(*odd, *good)
    service.run(Mode.ONCE)
    service.assert_saved(simulator, *good)
    codes = dict(service.rows("run_id, error_code", "run_id % 2 = 1"))
    assert set(codes.values()) == {"unusable_redirect", "too_many_redirects"}


@pytest.mark.parametrize(
    ("date", "query"),
    [
        ("Fri, 31 Dec 9999 23:59:59 GMT", "se=9000-01-01T00:00:00Z"),
        ("Mon, 01 Jan 0001 00:00:00 GMT", "se=9999-12-31T23:59:59Z"),
        ("Thu, 01 Jan 1970 00:00:00 GMT", "Expires=253402300799"),
        ("Fri, 99 Foo 99999 99:99:99 XYZ", "X-Amz-Date=99991231T235959Z&X-Amz-Expires=9e9"),
    ],
)
def test_clocks_beyond_the_calendar(program: Program, serve: Serve, date: str, query: str) -> None:
    """A server of another age, and a URL that lives as long, end in a file that is saved."""
    storage = serve(answering(ok(WAV)))
    entry = {"output_url": f"{storage.origin}/x?{query}"}

    def api(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            if b"-results " in request:
                length = int(request.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                asked = json.loads(peer.body(length))["run_ids"]
                body = json.dumps({str(run_id): entry for run_id in asked}).encode()
            else:
                body = json.dumps(entry).encode()
            peer.send(head(200, date=date, content_length=str(len(body))), body)

    program.env["DOWNLOADER_API_URL"] = serve(api).origin
    assert program("submit", "1", "2", "3").returncode == 0
    done = program("run", "--drain", "--max-duration", "60s")
    assert (done.returncode, done.stderr) == (0, "")
    assert program.query("SELECT DISTINCT state FROM runs") == [("done",)]
    assert (program.output / "1.wav").read_bytes() == WAV
