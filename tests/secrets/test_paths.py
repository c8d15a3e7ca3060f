"""Nothing that a server says chooses a path: every name is the run's own, in the output folder."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
import stat
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transfer.engines import ENGINES
from transfer.wire import Peer, RawServer
from whole_tree import snapshot

from downloader.camb.run_types import DEFAULT_RUN_TYPE, RUN_TYPES
from downloader.rules.resume import NOTHING
from downloader.rules.states import MAX_RUN_ID, RunKey
from downloader.simulator.options import SimulatorOptions
from downloader.simulator.server import Simulator
from downloader.transfer.engine import Timing, TransferError
from downloader.transfer.guard import Guard
from downloader.transfer.output import Output
from downloader.transfer.transfer import Order, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import MakeService, StartSimulator

    from downloader.transfer.engine import Engine


# ------------------------------------------------------------------ what a server may say

EVIL = [
    "..",
    ".",
    "",
    "...",
    "~",
    "%2e%2e",
    "%2E.",
    "..%2f..%2f",
    "%5c..%5c",
    "..\\..",
    "%00",
    "a%00.wav",
    "con",
    "etc",
    "passwd",
    ".partial",
    "tts",
    "9.wav",
    "x.sh",
    "%F0%9F%92%A9",
    "ü",
    "%252e%252e",
    ";type=a",
    "a" * 300,
]
EVIL_HEADERS = {
    "content-disposition": [
        'attachment; filename="../../evil.wav"',
        "attachment; filename=/etc/cron.d/evil",
        "attachment; filename*=UTF-8''..%2F..%2Fevil.wav",
        'inline; filename=".partial"; filename*=x',
        'attachment; filename="' + "a" * 5000 + '.wav"',
        'attachment; filename="9.sh"',
    ],
    "content-type": [
        "audio/../../evil",
        "audio/x-sh",
        "audio/wav/../../../x",
        "text/html",
        "audio/mpeg",
        "application/octet-stream",
        "audio/flac; name=../../evil.flac",
        "\x7f/..",
        "a" * 3000,
    ],
    "content-location": ["/../../evil.wav", "file:///etc/passwd"],
    "etag": ['"../../evil"', '"' + "e" * 3000 + '"', 'W/"x"', '"a/b"', '"a\x7fb"'],
    "refresh": ["0; url=file:///etc/passwd"],
    "link": ["</../../evil.wav>; rel=canonical"],
}

segments = st.one_of(st.sampled_from(EVIL), st.text("abz019._-~%/\\:;@&=+$,()", max_size=8))
paths = st.builds(lambda parts: "/" + "/".join(parts), st.lists(segments, max_size=6))
headers = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(
            st.sampled_from(values), st.text(st.characters(min_codepoint=33, max_codepoint=126))
        )
        for name, values in EVIL_HEADERS.items()
    },
)
run_ids = st.one_of(st.integers(1, 20), st.integers(1, MAX_RUN_ID), st.just(MAX_RUN_ID))


class Answers:
    """A storage that redirects from path to path, and then answers with a file and headers."""

    def __init__(self) -> None:
        self.redirects: list[str] = []
        self.final = b""

    def script(self, peer: Peer) -> None:
        """Answer one request after another."""
        while peer.request() is not None:
            if self.redirects:
                location = self.redirects.pop(0).encode("utf-8", "replace")
                peer.send(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: ")
                peer.send(location + b"\r\n\r\n")
            else:
                peer.send(self.final)


class Bench(NamedTuple):
    """A storage, an engine, and real audio for it to serve."""

    answers: Answers
    server: RawServer
    engine: Engine
    bodies: list[bytes]


@pytest.fixture(scope="module", params=ENGINES)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Give one storage and one engine to all the examples."""
    options = SimulatorOptions(min_size=1_000, max_size=2_000, audio_format="mixed")
    simulator = Simulator(options)
    bodies = {body[:4]: body for body in map(simulator.audio, range(1, 20))}
    assert set(bodies) == {b"RIFF", b"fLaC"}
    answers = Answers()
    with (
        RawServer(answers.script) as server,
        contextlib.closing(
            ENGINES[request.param](Timing(stall_seconds=20), connections=2)
        ) as engine,
    ):
        ogg = b"OggS\0\2" + bytes(20) + b"\1\x1e\1vorbis" + bytes(600)
        yield Bench(answers, server, engine, [*bodies.values(), ogg, b"<html>no</html>", b""])


_numbers = itertools.count()


def attempt(bench: Bench, root: Path, key: RunKey, url_path: str) -> TransferError | None:
    """Make one whole transfer, with its commit, into a folder in the middle of `root`."""
    output = Output(root / "a" / "b" / "out", DEFAULT_RUN_TYPE)
    output.prepare()
    order = Order(
        key, bench.server.origin + url_path, NOTHING, lambda _: True, lambda _: None, 10**9
    )
    try:
        transfer(order, output, bench.engine, Guard(60)).part.discard()
    except TransferError as error:
        return error
    return None


@settings(max_examples=400)
@given(
    run_id=run_ids,
    run_type=st.sampled_from(sorted(RUN_TYPES)),
    url_path=paths,
    redirects=st.lists(paths, max_size=3),
    said=headers,
    which=st.integers(0, 4),
)
@example(
    run_id=7, run_type="tts", url_path="/../../evil.wav", redirects=["/..%2f.."], said={}, which=0
)
def test_what_a_server_says_names_nothing(
    bench: Bench,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    run_id: int,
    run_type: str,
    url_path: str,
    redirects: list[str],
    said: dict[str, str],
    which: int,
) -> None:
    """Whatever URL, redirects, headers and bytes are, one file may come of it, by one name."""
    root = tmp_path_factory.getbasetemp() / f"paths-{next(_numbers)}"
    (root / "a" / "b" / "out").mkdir(parents=True)
    for bystander in ("evil.wav", "a/evil.wav", "a/b/evil.wav", "a/b/out/x.wav"):
        (root / bystander).write_text("precious", encoding="utf-8")
    body = bench.bodies[which]
    lines = [f"{name}: {value}" for name, value in said.items()]
    head = "\r\n".join(["HTTP/1.1 200 OK", f"content-length: {len(body)}", *lines, "", ""])
    bench.answers.redirects = list(redirects)
    bench.answers.final = head.encode("latin-1") + body
    before = snapshot(root)
    problem = attempt(bench, root, RunKey(run_type, run_id), url_path)
    after = snapshot(root)
    assert after.items() >= before.items(), "something that was there has changed"
    new = set(after) - set(before) - {"a/b/out/.partial"}
    folder = "a/b/out" if run_type == DEFAULT_RUN_TYPE else f"a/b/out/{run_type}"
    names = {f"{folder}/{run_id}.{end}" for end in ("wav", "flac", "mp3", "ogg")}
    if problem is None:
        assert new - {folder} <= names
        [saved] = new - {folder}
        assert after[saved].content == hashlib.sha256(body).hexdigest()
        assert (after[saved].names, stat.S_IMODE(after[saved].mode) & 0o111) == (1, 0)
    else:
        assert new <= {folder}, problem.problem
    shutil.rmtree(root)


EVIL_TYPES = [
    "..",
    ".",
    "",
    "{root}/elsewhere",
    "../../elsewhere",
    "a/b",
    "tts/../../elsewhere",
    ".partial",
    "a\0b",
    "\n",
    "TTS ",
    "x" * 300,
    "ü",
    "-",
]


@pytest.mark.parametrize("run_type", EVIL_TYPES)
def test_run_types_that_are_none(bench: Bench, tmp_path: Path, run_type: str) -> None:
    """A run type that no folder may be named after, as only an edited row has it, is refused."""
    (tmp_path / "a" / "b" / "out" / ".partial").mkdir(parents=True)
    body = bench.bodies[0]
    bench.answers.redirects = []
    bench.answers.final = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    before = snapshot(tmp_path)
    problem = attempt(
        bench, tmp_path, RunKey(run_type.replace("{root}", str(tmp_path)), 1), "/1.wav"
    )
    assert problem is not None
    assert problem.problem.error_code == "bad_run"
    assert snapshot(tmp_path) == before


def test_a_row_of_another_type(
    start_simulator: StartSimulator, make_service: MakeService, tmp_path: Path
) -> None:
    """A row that was edited to lead elsewhere fails alone, and writes nothing; the others go on."""
    simulator = start_simulator()
    service = make_service(simulator)
    (tmp_path / "elsewhere").mkdir()
    service.submit(1, 2, 3)
    service.run()
    service.submit(4, 5)
    with service.database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO runs (run_type, run_id, state, url, next_attempt_at, submitted_at,"
            " updated_at) SELECT '../elsewhere', 9, 'ready', ?, updated_at, updated_at, updated_at"
            " FROM runs WHERE run_id = 1",
            (simulator._state.presigned("text-to-sound", 9),),
        )
    assert service.run().tally.done == 2
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert service.rows("state, error_code", "run_id = 9") == [("failed", "bad_run")]
