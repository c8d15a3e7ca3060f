"""Large files on bad lines: what a try brings is kept, and what will not change is not fetched."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from transfer.bench import Bench
from transfer.engines import SIGNED
from transfer.test_transfer_wire import SIZE, TAG, WAV
from transfer.wire import Peer, Script, answering, fields, head, ok

from downloader.rules.decisions import ProblemKind
from downloader.transfer.transfer import PROGRESS_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from transfer.engines import MakeEngine, Serve
    from transfer.wire import RawServer

MODIFIED = "Wed, 01 Jan 2025 00:00:00 GMT"
LONG_AFTER = "Thu, 02 Jan 2025 00:00:00 GMT"
BY_ETAG = {"etag": TAG}
BY_DATE = {"last_modified": MODIFIED, "date": LONG_AFTER}


@pytest.fixture
def make_bench(make_engine: MakeEngine, tmp_path: Path) -> Callable[[RawServer], Bench]:
    """Make the bench for run 1 on a raw server: `make_bench(server)`."""
    return lambda server: Bench(
        make_engine(), tmp_path / "audio", server.origin + "/bucket/x.wav" + SIGNED
    )


def ranged(
    content: bytes,
    validator: Mapping[str, str],
    *,
    most: int | None = None,
    cut: int | None = None,
    unasked: bool = False,
) -> Script:
    """Serve a file by ranges: at most `most` bytes of one, and only `cut` bytes of each answer.

    `unasked` answers of 206 come also where no range was asked for.
    """

    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            asked = fields(request).get("range")
            start = int(asked[6:-1]) if asked else 0
            partial = asked is not None or unasked
            stop = min(len(content), start + most) if most and partial else len(content)
            headers = {"content_length": str(stop - start), **validator}
            if partial:
                headers["content_range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            peer.send(head(206 if partial else 200, **headers))
            peer.send(content[start:stop][:cut])
            if cut is not None and cut < stop - start:
                return

    return script


@pytest.mark.parametrize("validator", [BY_ETAG, BY_DATE], ids=["ETag", "Last-Modified"])
def test_a_line_that_breaks_again_and_again(
    serve: Serve, make_bench: Callable[[RawServer], Bench], validator: dict[str, str]
) -> None:
    """Each try goes on where the last one was cut off, and says that it has brought bytes."""
    server = serve(ranged(WAV, validator, cut=300_000))
    bench = make_bench(server)
    for _ in range(SIZE // 300_000):
        assert bench.problem().progressed
    step = bench.save()
    assert bench.files == {"1.wav": WAV}
    assert bench.received == SIZE
    assert (step.etag, step.last_modified) == (
        validator.get("etag"),
        validator.get("last_modified"),
    )
    asked = [fields(request).get("if-range") for request in server.requests]
    assert asked == [None, *[validator.get("etag", MODIFIED)] * (SIZE // 300_000)]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"etag": f"W/{TAG}"},
        {"last_modified": MODIFIED},
        {"last_modified": MODIFIED, "date": "Wed, 01 Jan 2025 00:00:30 GMT"},
    ],
    ids=["nothing", "weak ETag", "no Date", "modified just now"],
)
def test_a_try_that_cannot_be_gone_on_with(
    serve: Serve, make_bench: Callable[[RawServer], Bench], headers: dict[str, str]
) -> None:
    """Bytes that nothing ties to their object bring nobody further, and count as none."""
    server = serve(ranged(WAV, headers, cut=300_000))
    bench = make_bench(server)
    for _ in range(2):
        assert not bench.problem().progressed
    assert not any("range" in fields(request) for request in server.requests)
    assert bench.parts == []


def test_the_same_first_bytes_again(serve: Serve, make_bench: Callable[[RawServer], Bench]) -> None:
    """A storage that knows no ranges, and is cut off at the same place, brings nothing more."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(head(200, content_length=str(SIZE), etag=TAG), WAV[:300_000])

    bench = make_bench(serve(script))
    assert [bench.problem().progressed for _ in range(3)] == [True, False, False]


def test_another_object_each_time(serve: Serve, make_bench: Callable[[RawServer], Bench]) -> None:
    """An object that is another one at each try is not got on with."""
    versions = itertools.count()

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(head(200, content_length=str(SIZE), etag=f'"{next(versions)}"'), WAV[:300_000])

    bench = make_bench(serve(script))
    assert [bench.problem().progressed for _ in range(3)] == [True, False, False]


def test_too_few_bytes_to_count(serve: Serve, make_bench: Callable[[RawServer], Bench]) -> None:
    """A try that brings next to nothing counts, or a file would take tries without end."""
    bench = make_bench(serve(ranged(WAV, BY_ETAG, cut=PROGRESS_BYTES - 1)))
    assert not bench.problem().progressed
    bench = make_bench(serve(ranged(WAV, BY_ETAG, cut=PROGRESS_BYTES)))
    assert bench.problem().progressed


# ------------------------------------------------------------------------- capped ranges


@pytest.mark.parametrize("validator", [BY_ETAG, BY_DATE], ids=["ETag", "Last-Modified"])
@pytest.mark.parametrize("unasked", [True, False])
def test_a_storage_that_caps_ranges(
    serve: Serve,
    make_bench: Callable[[RawServer], Bench],
    validator: dict[str, str],
    *,
    unasked: bool,
) -> None:
    """A storage that gives less of a range than asked for is followed, within one try."""
    turns = itertools.count()

    def script(peer: Peer) -> None:
        cut = None if unasked or next(turns) else 700_000
        ranged(WAV, validator, most=500_000, cut=cut, unasked=unasked)(peer)

    server = serve(script)
    bench = make_bench(server)
    if not unasked:
        bench.problem()
    bench.save()
    assert bench.files == {"1.wav": WAV}
    assert bench.received == SIZE
    assert len(server.requests) == (5 if unasked else 4)


def test_a_range_of_next_to_nothing(serve: Serve, make_bench: Callable[[RawServer], Bench]) -> None:
    """A storage that gives a kilobyte at a time is not asked a thousand times."""
    server = serve(ranged(WAV, BY_ETAG, most=1024, unasked=True))
    problem = make_bench(server).problem()
    assert (problem.kind, problem.error_code) == (ProblemKind.TRANSIENT, "truncated")
    assert len(server.requests) == 1


def test_a_whole_file_as_a_range(serve: Serve, make_bench: Callable[[RawServer], Bench]) -> None:
    """An answer of 206 that nobody asked for, and that has the whole file, is as good as 200."""
    span = f"bytes 0-{SIZE - 1}/{SIZE}"
    whole = head(206, content_length=str(SIZE), content_range=span) + WAV
    bench = make_bench(serve(answering(whole)))
    bench.save()
    assert bench.files == {"1.wav": WAV}


# --------------------------------------------------------------------- one look is enough

NOISE = bytes(range(256)) * 8000  # 2 MB of no audio


LOOKS = {
    "not_audio": (NOISE, {}),
    "truncated": (WAV[:-2], {}),
    "encoded_content": (NOISE, {"content_encoding": "br"}),
}


@pytest.mark.parametrize("code", LOOKS)
@pytest.mark.parametrize("validator", [BY_ETAG, BY_DATE], ids=["ETag", "Last-Modified"])
def test_judged_at_the_start(
    serve: Serve,
    make_bench: Callable[[RawServer], Bench],
    code: str,
    validator: dict[str, str],
) -> None:
    """What its first 64 KiB show is not fetched, and of the same object it is final."""
    content, headers = LOOKS[code]
    bench = make_bench(serve(answering(ok(content, **headers, **validator))))
    first, second = bench.problem(), bench.problem()
    assert [first.error_code, second.error_code] == [code, code]
    assert first.kind is ProblemKind.WRONG_OBJECT
    assert [first.lasting, second.lasting] == [False, True]
    assert "same object" in second.error_message
    assert bench.received <= 2 * 3 * 65536 + 2 * 128 * 1024
    assert bench.parts == []


def test_a_new_object_is_looked_at_anew(
    serve: Serve, make_bench: Callable[[RawServer], Bench]
) -> None:
    """What was no audio and has become another object since is not judged by what it was."""
    answers = [ok(NOISE, etag='"1"'), ok(NOISE, etag='"2"'), ok(WAV, etag='"3"')]
    bench = make_bench(serve(answering(*answers)))
    assert [bench.problem().lasting for _ in range(2)] == [False, False]
    bench.save()
    assert bench.files == {"1.wav": WAV}


@pytest.mark.parametrize("body", [b"<html>Back soon</html>", b""], ids=["a page", "nothing"])
def test_what_may_stand_in_its_place(
    serve: Serve, make_bench: Callable[[RawServer], Bench], body: bytes
) -> None:
    """An error page, or nothing, may be there for a while only, under whatever ETag."""
    bench = make_bench(serve(answering(ok(body, etag=TAG))))
    assert [bench.problem().lasting for _ in range(3)] == [False, False, False]


def test_a_cut_is_not_final(serve: Serve, make_bench: Callable[[RawServer], Bench]) -> None:
    """A file that ends too soon since the line was cut is no judgement of the object."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(head(200, etag=TAG), WAV[:300_000])  # the end of the connection is its end

    bench = make_bench(serve(script))
    found = [bench.problem() for _ in range(3)]
    assert {one.error_code for one in found} == {"truncated"}
    assert not any(one.lasting for one in found)


def test_a_part_that_is_complete_of_another_object(
    serve: Serve, make_bench: Callable[[RawServer], Bench]
) -> None:
    """A 416 that does not say of which object proves nothing: as long is not the same."""
    other = WAV[:44] + bytes(SIZE - 44)
    whole = ok(other, etag='"v2"')
    answers = iter([None, head(416, content_range=f"bytes */{SIZE}", content_length="0"), whole])

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            answer = next(answers)
            if answer is None:
                peer.send(head(200, content_length=str(SIZE), etag=TAG), WAV[:-2])
                return
            peer.send(answer)

    server = serve(script)
    bench = make_bench(server)
    bench.problem()
    [part] = bench.parts
    part.write_bytes(WAV)
    bench.save()
    assert bench.files == {"1.wav": other}
    assert len(server.requests) == 3
