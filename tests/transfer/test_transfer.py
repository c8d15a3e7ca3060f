"""A transfer, whole: what the storage does on one side, what is on the disk on the other."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from harness import wait_until
from transfer.bench import Bench, presigned

from downloader.rules.decisions import ProblemKind
from downloader.rules.states import RunKey
from downloader.simulator.catalogue import STORAGE_FAULTS
from downloader.transfer import transfer as transfer_module
from downloader.transfer.engine import Timing
from downloader.transfer.guard import Guard, Interrupted
from downloader.transfer.unusable import DiskError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness import StartSimulator
    from transfer.engines import MakeEngine

    from downloader.simulator.server import Simulator

LARGE = 3_000_000
"""Bytes of a file that is worth resuming."""
CUT = 1_500_000
IMPATIENT = Timing(stall_seconds=1.0, floor_bytes_per_second=100_000, floor_after_seconds=0.2)

EXPIRED, REFUSED = ProblemKind.EXPIRED, ProblemKind.REFUSED
WRONG, TRANSIENT = ProblemKind.WRONG_OBJECT, ProblemKind.TRANSIENT


class Case(NamedTuple):
    """A fault, and what is to come of it; `kept` if a part stays to be resumed."""

    fault: dict[str, Any]
    kind: ProblemKind
    codes: tuple[str, ...]
    kept: bool = False


def case(
    kind: str, leads_to: ProblemKind, codes: str, *, kept: bool = False, **details: object
) -> Case:
    """Make a case; `codes` are those that may come, separated by blanks."""
    return Case({"kind": kind, **details}, leads_to, tuple(codes.split()), kept)


CASES = {
    "expired": case("expired", EXPIRED, "url_expired"),
    "400": case("status", REFUSED, "url_refused", status=400),
    "401": case("status", REFUSED, "url_refused", status=401),
    "403": case("status", REFUSED, "url_refused", status=403),
    "404": case("status", WRONG, "missing", status=404),
    "410": case("status", WRONG, "missing", status=410),
    "408": case("status", TRANSIENT, "storage_busy", status=408),
    "409": case("status", TRANSIENT, "storage_refused", status=409),
    "429": case("status", TRANSIENT, "storage_busy", status=429),
    "500": case("status", TRANSIENT, "storage_error", status=500),
    "502": case("status", TRANSIENT, "storage_error", status=502),
    "503": case("status", TRANSIENT, "storage_busy", status=503),
    "416 unasked": case("status", TRANSIENT, "unexpected_partial", status=416),
    "reset before the headers": case("reset", TRANSIENT, "network", at="headers"),
    "reset in the body": case("reset", TRANSIENT, "network", kept=True, after=CUT),
    "stall before the headers": case("stall", TRANSIENT, "stalled", at="headers"),
    "stall in the body": case("stall", TRANSIENT, "stalled", kept=True, after=CUT),
    "slow": case("slow", TRANSIENT, "stalled", seconds=5),
    "drip": case("drip", TRANSIENT, "too_slow", kept=True, rate=1000),
    "cut, length": case("truncate", TRANSIENT, "network truncated", kept=True, after=CUT),
    "cut, chunked": case("truncate", TRANSIENT, "network", kept=True, framing="chunked"),
    "cut, neither": case("truncate", WRONG, "truncated", framing="close"),
    "cut before the body": case("truncate", TRANSIENT, "network truncated", after=0),
    "length too large": case("wrong-length", TRANSIENT, "network truncated", kept=True, by=1000),
    "length too small": case("wrong-length", WRONG, "truncated", by=-1000),
    "XML": case("error-page", WRONG, "error_page", form="xml"),
    "HTML": case("error-page", WRONG, "error_page", form="html"),
    "JSON": case("error-page", WRONG, "error_page", form="json"),
    "XML as WAV": case("error-page", WRONG, "error_page", content_type="audio/wav"),
    "nothing": case("empty", WRONG, "empty"),
    "no audio": case("wrong-magic", WRONG, "not_audio"),
    "loop": case("redirect", WRONG, "too_many_redirects", to="loop"),
    "to a file": case("redirect", WRONG, "unusable_redirect", to="file:///etc/passwd"),
    "to ftp": case("redirect", WRONG, "unusable_redirect", to="ftp://127.0.0.1/1.wav"),
}

HARMLESS: dict[str, dict[str, Any]] = {
    "slow": {"kind": "slow", "seconds": 0.05},
    "a stall that ends": {"kind": "stall", "seconds": 0.05},
    "chunked": {"kind": "framing", "form": "chunked"},
    "no length": {"kind": "framing", "form": "close"},
    "weak ETag": {"kind": "weak-etag"},
    "no ETag": {"kind": "no-etag"},
    "no ranges": {"kind": "ignore-range"},
    "wrong ranges": {"kind": "wrong-content-range"},
    "same origin": {"kind": "redirect", "to": "same"},
    "another origin": {"kind": "redirect", "to": "other", "status": 307},
    "no type": {"kind": "headers", "headers": {"content-type": None}},
    "wrong type": {"kind": "headers", "headers": {"content-type": "text/html"}},
    "identity": {"kind": "headers", "headers": {"content-encoding": "identity"}},
}


@pytest.fixture
def make_bench(make_engine: MakeEngine, tmp_path: Path) -> Callable[..., Bench]:
    """Make the bench for run 1 of a simulator: `make_bench(simulator, timing)`."""

    def make(simulator: Simulator, timing: Timing | None = None) -> Bench:
        return Bench(make_engine(timing), tmp_path / "audio", presigned(simulator))

    return make


def large(start_simulator: StartSimulator, **options: Any) -> Simulator:  # noqa: ANN401 - SimulatorOptions' fields
    """Start a simulator whose files are worth resuming."""
    return start_simulator(min_size=LARGE, max_size=LARGE, **options)


def meets(simulator: Simulator, *faults: dict[str, Any]) -> None:
    """Have one request after another meet these faults, and those that follow none."""
    simulator.set_rules(
        [{"runs": [1], "where": "storage", "fault": fault, "times": 1} for fault in faults]
    )


def always_meets(simulator: Simulator, fault: dict[str, Any]) -> None:
    """Have every request meet this fault."""
    simulator.set_rules([{"runs": [1], "where": "storage", "fault": fault}])


def requests(simulator: Simulator) -> tuple[int, int]:
    """Return how many requests of run 1 were without and with Range."""
    counted = simulator.stats()["storage"]["by_run"].get("1", {"full": 0, "ranged": 0})
    return counted["full"], counted["ranged"]


# -------------------------------------------------------------------- every single fault


def test_every_fault_is_here() -> None:
    """The tables below name every fault of the storage that the simulator knows."""
    named = {case.fault["kind"] for case in CASES.values()}
    named |= {fault["kind"] for fault in HARMLESS.values()}
    elsewhere = {
        *("changed", "streamed", "gzip"),  # further down, and in test_packed_files
        # Of these: test_simulator_weather, test_large_files, test_told_digests, the conformance.
        *("abort", "certificate", "digest", "drop", "hang", "late", "partial", "refuse", "surplus"),
    }
    assert named | elsewhere == set(STORAGE_FAULTS)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_fault(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench], case: Case
) -> None:
    """Each fault has its problem, leaves only what can be resumed, and the next attempt saves."""
    simulator = large(start_simulator)
    bench = make_bench(simulator, IMPATIENT)
    always_meets(simulator, case.fault)
    problem = bench.problem()
    assert problem.kind is case.kind
    assert problem.error_code in case.codes
    assert "X-Amz" not in problem.error_message
    assert problem.error_message.endswith(".")
    assert bench.files == {}
    assert len(bench.parts) == case.kept
    meets(simulator)
    step = bench.save()
    assert bench.files == {"1.wav": simulator.audio(1)}
    assert (step.bytes, step.sha256) == (LARGE, hashlib.sha256(simulator.audio(1)).hexdigest())
    assert bench.parts == []
    assert requests(simulator)[1] == int(case.kept)
    assert simulator.stats()["storage_requests_with_api_key"] == 0


@pytest.mark.parametrize("fault", HARMLESS.values(), ids=HARMLESS.keys())
@pytest.mark.parametrize("size", [2000, LARGE])
def test_harmless_fault(
    start_simulator: StartSimulator,
    make_bench: Callable[..., Bench],
    fault: dict[str, Any],
    size: int,
) -> None:
    """What is odd but not wrong is saved at the first attempt."""
    simulator = start_simulator(min_size=size, max_size=size)
    bench = make_bench(simulator)
    always_meets(simulator, fault)
    step = bench.save()
    content = simulator.audio(1)
    assert bench.files == {"1.wav": content}
    assert step.location == str(bench.folder / "1.wav")
    assert (step.bytes, step.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (step.audio_format, step.adopted) == ("wav", False)
    assert bench.received == len(content)
    assert bench.parts == []


@pytest.mark.parametrize("status", [429, 503, 500, 404])
@pytest.mark.parametrize("form", ["seconds", "date", "reset"])
def test_wait_that_is_asked_for(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench], status: int, form: str
) -> None:
    """A storage that says how long to wait is listened to, within limits."""
    simulator = start_simulator()
    bench = make_bench(simulator)
    for asked, least, most in ((60, 50, 65), (1_000_000, 300, 300)):
        meets(simulator, {"kind": "status", "status": status, "retry_after": asked, "form": form})
        wait = bench.problem().retry_after_seconds
        assert wait is not None
        assert least <= wait <= most


# ------------------------------------------------------------------------------- resume


def test_resume(start_simulator: StartSimulator, make_bench: Callable[..., Bench]) -> None:
    """A cut file is gone on with where it broke off: no byte is fetched twice."""
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    meets(
        simulator,
        {"kind": "truncate", "after": 1_000_000},
        {"kind": "reset", "after": 700_000},
        {"kind": "truncate", "after": 10, "framing": "chunked"},
    )
    held = []
    for _ in range(3):
        bench.problem()
        [part] = bench.parts
        held.append(part.stat().st_size)
        assert simulator.audio(1).startswith(part.read_bytes())
    assert held[0] == 1_000_000
    assert 1_000_000 <= held[1] <= 1_700_000  # a reset may overtake bytes
    assert held[2] == held[1] + 10
    step = bench.save()
    assert bench.files == {"1.wav": simulator.audio(1)}
    assert step.sha256 == hashlib.sha256(simulator.audio(1)).hexdigest()
    assert requests(simulator) == (1, 3)
    assert bench.received == LARGE


def test_resume_by_another_engine(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench], make_engine: MakeEngine
) -> None:
    """What one process left is gone on with by the next one, with a URL of its own."""
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    meets(simulator, {"kind": "truncate", "after": CUT})
    bench.problem()
    simulator.set_options(replace(simulator.options, url_lifetime=7200))
    later = replace(bench, engine=make_engine(), url=presigned(simulator))
    assert later.url != bench.url
    later.save()
    assert later.files == {"1.wav": simulator.audio(1)}
    assert requests(simulator) == (1, 1)


@pytest.mark.parametrize(
    ("fault", "again"),
    [
        # The whole file came in answer to the range …
        ({"kind": "ignore-range"}, 0),
        ({"kind": "no-etag"}, 0),
        ({"kind": "weak-etag"}, 0),
        # … or had to be asked for once more.
        ({"kind": "wrong-content-range", "what": "start"}, 1),
        ({"kind": "wrong-content-range", "what": "total"}, 1),
        ({"kind": "headers", "headers": {"content-range": None}}, 1),
        ({"kind": "headers", "headers": {"content-range": "bytes 0-9/10"}}, 1),
        ({"kind": "headers", "headers": {"etag": '"another"'}}, 1),
        ({"kind": "headers", "headers": {"etag": None}}, 1),
    ],
    ids=str,
)
def test_resume_that_does_not_fit(
    start_simulator: StartSimulator,
    make_bench: Callable[..., Bench],
    fault: dict[str, Any],
    again: int,
) -> None:
    """Bytes that are not shown to belong to the part are fetched from zero, in the same attempt."""
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    meets(simulator, {"kind": "truncate", "after": CUT})
    bench.problem()
    always_meets(simulator, fault)
    bench.save()
    assert bench.files == {"1.wav": simulator.audio(1)}
    assert requests(simulator) == (1 + again, 1)


@pytest.mark.parametrize("changed_size", [False, True])
def test_object_that_changed(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench], *, changed_size: bool
) -> None:
    """A part of the old object and bytes of the new one are never joined."""
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    meets(simulator, {"kind": "truncate", "after": CUT}, {"kind": "changed", "version": 2})
    bench.problem()
    old = bench.etag
    if changed_size:
        bigger = replace(simulator.options, min_size=LARGE + 4000, max_size=LARGE + 4000)
        simulator.set_options(bigger)
        meets(simulator, {"kind": "changed", "version": 2})
    step = bench.save()
    assert bench.files == {"1.wav": simulator.audio(1, version=2)}
    assert simulator.audio(1, version=2) != simulator.audio(1)
    assert step.etag not in (None, old)


def test_object_that_changes_with_every_attempt(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench]
) -> None:
    """Parts of an object are left behind as soon as the storage has another one."""
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    meets(simulator, {"kind": "truncate", "after": CUT})
    bench.problem()
    old = bench.etag
    simulator.set_options(replace(simulator.options, min_size=LARGE + 80, max_size=LARGE + 80))
    meets(simulator, {"kind": "truncate", "after": 1000})
    bench.problem()
    assert bench.etag != old
    [part] = bench.parts
    assert simulator.audio(1).startswith(part.read_bytes())
    bench.save()
    assert bench.files == {"1.wav": simulator.audio(1)}


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_object_that_cannot_be_recognised(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench], etag: str | None
) -> None:
    """Without a strong validator nothing is kept, and the next attempt begins from zero."""
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    headers = {"etag": etag, "last-modified": None}
    always_meets(simulator, {"kind": "headers", "headers": headers})
    guard = Guard(60)
    bench.on_progress = guard.cancel
    with pytest.raises(Interrupted):
        bench.deliver(guard)
    assert (bench.etag, bench.parts) == (None, [])
    bench.on_progress = lambda: None
    bench.save()
    assert bench.files == {"1.wav": simulator.audio(1)}
    assert requests(simulator)[1] == 0


@pytest.mark.parametrize("kind", ["no-etag", "weak-etag"])
def test_object_that_is_recognised_by_its_date(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench], kind: str
) -> None:
    """Without a strong ETag a strong Last-Modified does: the part is gone on with."""
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    always_meets(simulator, {"kind": kind})
    guard = Guard(60)
    bench.on_progress = guard.cancel
    with pytest.raises(Interrupted):
        bench.deliver(guard)
    assert (bench.etag, bench.journal.last_modified) == (None, "Wed, 01 Jan 2025 00:00:00 GMT")
    bench.on_progress = lambda: None
    assert bench.save().last_modified == bench.journal.last_modified
    assert bench.files == {"1.wav": simulator.audio(1)}
    assert requests(simulator) == (1, 1)
    assert bench.received == LARGE


def test_small_file_is_not_noted(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench]
) -> None:
    """A file below 64 KiB is not worth a write to the database: it begins from zero."""
    simulator = start_simulator(min_size=65_000, max_size=65_000)
    bench = make_bench(simulator)
    meets(simulator, {"kind": "truncate", "after": 60_000})
    bench.problem()
    assert not bench.noted.is_set()
    assert bench.parts == []
    bench.save()
    assert requests(simulator) == (2, 0)


def test_only_what_lasts_is_noted(
    start_simulator: StartSimulator,
    make_bench: Callable[..., Bench],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A transfer that is soon over costs no write for a resume; one that lasts does, at once."""
    simulator = large(start_simulator)
    quick, lasting = make_bench(simulator), make_bench(simulator)
    monkeypatch.setattr(transfer_module, "NOTE_SECONDS", 600)
    quick.save()
    assert not quick.noted.is_set()
    (quick.folder / "1.wav").unlink()
    monkeypatch.setattr(transfer_module, "NOTE_SECONDS", 0)
    lasting.save()
    assert lasting.noted.is_set()


def test_a_note_that_cannot_be_written(
    start_simulator: StartSimulator,
    make_bench: Callable[..., Bench],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the database cannot be written to just now the bytes come all the same."""
    monkeypatch.setattr(transfer_module, "NOTE_SECONDS", 0)
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    bench.busy_database = True
    assert bench.save().bytes == LARGE
    assert bench.files == {"1.wav": simulator.audio(1)}
    assert bench.parts == []


def complete_part(bench: Bench, simulator: Simulator) -> None:
    """Leave a part that has all bytes, as a process killed before its verification does."""
    meets(simulator, {"kind": "truncate", "after": CUT})
    bench.problem()
    [part] = bench.parts
    part.write_bytes(simulator.audio(1))
    simulator.reset_stats()


def test_part_that_is_complete(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench]
) -> None:
    """Where all bytes are there (416) they are verified and published, and none is fetched."""
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    complete_part(bench, simulator)
    bench.received = 0
    step = bench.save()
    assert bench.files == {"1.wav": simulator.audio(1)}
    assert step.etag == bench.etag
    assert bench.received == 0
    assert simulator.stats()["storage"]["by_status"] == {"416": 1}


def test_part_that_is_complete_but_wrong(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench]
) -> None:
    """A part that has all bytes and is no audio is not published: it goes."""
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    complete_part(bench, simulator)
    bench.parts[0].write_bytes(b"not audio at all" + simulator.audio(1)[16:])
    assert bench.problem().error_code == "not_audio"
    assert (bench.files, bench.parts) == ({}, [])


def test_part_that_is_too_long(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench]
) -> None:
    """A part longer than its object is thrown away before anything is asked."""
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    complete_part(bench, simulator)
    bench.parts[0].write_bytes(simulator.audio(1) + b"more")
    bench.save()
    assert bench.files == {"1.wav": simulator.audio(1)}
    assert requests(simulator) == (1, 0)


# -------------------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    "store", ["s3", "s3-temporary", "s3-v2", "cloudfront", "r2", "gcs", "azure", "b2"]
)
def test_expired_url(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench], store: str
) -> None:
    """Each store's answer to an expired URL is understood; CloudFront's says no more than no."""
    simulator = start_simulator(store=store, url_lifetime=-60)
    bench = make_bench(simulator)
    problem = bench.problem()
    if store == "cloudfront":
        assert (problem.kind, problem.error_code) == (REFUSED, "url_refused")
    else:
        assert (problem.kind, problem.error_code) == (EXPIRED, "url_expired")
    assert (bench.files, bench.parts) == ({}, [])


@pytest.mark.parametrize(
    "store", ["s3", "s3-temporary", "s3-v2", "cloudfront", "r2", "gcs", "azure", "b2"]
)
def test_every_store_takes_its_url(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench], store: str
) -> None:
    """Each store's URL goes out as it was signed, and with a wrong signature it is refused."""
    simulator = start_simulator(store=store)
    bench = make_bench(simulator)
    tampered = replace(bench, url=bench.url[:-4] + "0000")
    problem = tampered.problem()
    assert (problem.kind, problem.error_code) == (REFUSED, "url_refused")
    assert bench.url[-30:-4] not in problem.error_message
    bench.save()
    assert bench.files == {"1.wav": simulator.audio(1)}


def test_expiry_keeps_the_part(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench]
) -> None:
    """A part outlives its URL: a new one goes on with it."""
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    meets(simulator, {"kind": "truncate", "after": CUT}, {"kind": "expired"})
    bench.problem()
    assert bench.problem().kind is EXPIRED
    meets(simulator, {"kind": "status", "status": 403})
    assert bench.problem().kind is REFUSED
    [part] = bench.parts
    assert part.stat().st_size == CUT
    bench.url = presigned(simulator)
    bench.save()
    assert bench.files == {"1.wav": simulator.audio(1)}
    assert requests(simulator) == (1, 3)


# ---------------------------------------------------------------------------- publishing


def test_order_of_things(
    start_simulator: StartSimulator,
    make_bench: Callable[..., Bench],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All bytes are written, then forced to the disk, then named, then the name is forced too."""
    simulator = start_simulator()
    bench = make_bench(simulator)
    order: list[str] = []
    write, link, fsync = os.write, os.link, os.fsync

    def noted_write(descriptor: int, data: memoryview) -> int:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            order.append("write")
        return write(descriptor, data)

    def noted_link(*names: str, **options: int) -> None:
        order.append("link")
        link(*names, **options)  # type: ignore[arg-type]

    def noted_fsync(descriptor: int) -> None:
        order.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    bench.prepare()
    monkeypatch.setattr(os, "write", noted_write)
    monkeypatch.setattr(os, "link", noted_link)
    monkeypatch.setattr(os, "fsync", noted_fsync)
    bench.deliver()
    assert [what for what in order if what != "write"] == ["sync file", "link", "sync folder"]
    assert order.index("sync file") > max(at for at, what in enumerate(order) if what == "write")


def test_adoption(start_simulator: StartSimulator, make_bench: Callable[..., Bench]) -> None:
    """A file whose commit was lost is verified and adopted: the storage is not asked again."""
    simulator = start_simulator()
    bench = make_bench(simulator)
    first = bench.deliver().step
    assert len(bench.parts) == 1
    second = bench.save()
    assert second.adopted
    assert (second.location, second.bytes, second.sha256, second.audio_format) == (
        first.location,
        first.bytes,
        first.sha256,
        first.audio_format,
    )
    assert requests(simulator) == (1, 0)
    assert (bench.files, bench.parts) == ({"1.wav": simulator.audio(1)}, [])


def test_adoption_of_what_was_moved_away(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench]
) -> None:
    """A published file that somebody moved is theirs, and another one is fetched."""
    simulator = start_simulator()
    bench = make_bench(simulator)
    bench.deliver()
    (bench.folder / "1.wav").rename(bench.folder / "mine.wav")
    step = bench.save()
    assert not step.adopted
    assert bench.files == {"1.wav": simulator.audio(1), "mine.wav": simulator.audio(1)}
    assert (bench.folder / "mine.wav").stat().st_nlink == 1
    assert requests(simulator) == (2, 0)


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_name_taken(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench], kind: str
) -> None:
    """What has the final name and is not this run's stays, and the message says what to do."""
    simulator = start_simulator()
    bench = make_bench(simulator)
    bench.folder.mkdir()
    final = bench.folder / "1.wav"
    match kind:
        case "file":
            final.write_bytes(b"somebody else's")
        case "folder":
            final.mkdir()
        case "link":
            final.symlink_to(bench.folder / "nowhere")
    problem = bench.problem()
    assert (problem.kind, problem.error_code) == (ProblemKind.HOPELESS, "name_taken")
    assert str(final) in problem.error_message
    assert "move it away" in problem.error_message
    assert bench.parts == []
    if kind == "file":
        assert final.read_bytes() == b"somebody else's"
        final.unlink()
        bench.save()
        assert bench.files == {"1.wav": simulator.audio(1)}


def test_two_at_once(start_simulator: StartSimulator, make_bench: Callable[..., Bench]) -> None:
    """Two transfers of one run at the same time end in one right file."""
    simulator = large(start_simulator, bandwidth=8_000_000)
    bench = make_bench(simulator)
    benches = [replace(bench) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        outcomes = [pool.submit(one.save) for one in benches]
        steps = [outcome.result(60) for outcome in outcomes]
    assert len({(step.location, step.bytes, step.sha256) for step in steps}) == 1
    assert bench.files == {"1.wav": simulator.audio(1)}
    assert bench.parts == []


def test_other_run_type(
    start_simulator: StartSimulator, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A run of another type is saved into that type's folder."""
    simulator = start_simulator()
    bench = Bench(make_engine(), tmp_path, presigned(simulator, 5, "tts"), RunKey("tts", 5))
    step = bench.save()
    assert step.location == str(tmp_path / "tts" / "5.wav")
    assert (tmp_path / "tts" / "5.wav").read_bytes() == simulator.audio(5, "tts")


# ----------------------------------------------------------------------- interruptions


def test_interrupted_transfer_is_resumed(
    start_simulator: StartSimulator, make_bench: Callable[..., Bench]
) -> None:
    """A transfer that was told to stop leaves its bytes to be gone on with."""
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    meets(simulator, {"kind": "stall", "after": CUT})
    guard = Guard(600)
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(bench.deliver, guard)
        wait_until(lambda: bench.received > 0)
        guard.cancel()
        with pytest.raises(Interrupted):
            outcome.result(10)
    assert bench.noted.is_set()
    assert len(bench.parts) == 1
    bench.save()
    assert bench.files == {"1.wav": simulator.audio(1)}


@pytest.mark.parametrize("how", ["told", "lease ended"])
def test_nothing_is_published_too_late(
    start_simulator: StartSimulator,
    make_bench: Callable[..., Bench],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """A transfer that may not go on after its last byte publishes nothing."""
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    guard = Guard(600)
    fsync = os.fsync

    def late(descriptor: int) -> None:
        fsync(descriptor)
        if how == "told":
            guard.cancel()
        else:
            guard.extend(-1)

    bench.prepare()
    monkeypatch.setattr(os, "fsync", late)
    with pytest.raises(Interrupted):
        bench.deliver(guard)
    monkeypatch.undo()
    assert bench.files == {}
    assert len(bench.parts) == 1
    bench.save()
    assert bench.files == {"1.wav": simulator.audio(1)}
    assert simulator.stats()["storage"]["by_status"] == {"200": 1, "416": 1}


def test_lease_lost_when_the_object_is_noted(
    start_simulator: StartSimulator,
    make_bench: Callable[..., Bench],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A transfer that learns of its lost lease from the database stops there."""
    monkeypatch.setattr(transfer_module, "NOTE_SECONDS", 0)
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    bench.keep_lease = False
    with pytest.raises(Interrupted):
        bench.deliver()
    assert bench.files == {}


# -------------------------------------------------------------------------------- disk


def test_disk_that_fills_up(
    start_simulator: StartSimulator,
    make_bench: Callable[..., Bench],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full disk is nobody's problem but the disk's, and what fitted is gone on with."""
    simulator = large(start_simulator)
    bench = make_bench(simulator)
    write, room = os.write, [CUT]

    def filling(descriptor: int, data: memoryview) -> int:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return write(descriptor, data)
        taken = data[: room[0]]
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= len(taken)
        return write(descriptor, taken)

    bench.prepare()
    monkeypatch.setattr(os, "write", filling)
    with pytest.raises(DiskError) as raised:
        bench.deliver()
    assert raised.value.reason == "disk_full"
    monkeypatch.undo()
    [part] = bench.parts
    assert part.stat().st_size == CUT
    bench.save()
    assert bench.files == {"1.wav": simulator.audio(1)}
    assert requests(simulator) == (1, 1)


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_disk_that_fails_at_the_end(
    start_simulator: StartSimulator,
    make_bench: Callable[..., Bench],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    """A disk that fails while the file is synced or named is told as the disk's failure."""
    simulator = large(start_simulator)
    bench = make_bench(simulator)

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(DiskError, match="Input/output error") as raised:
        bench.deliver()
    assert raised.value.reason == "output_unusable"
    monkeypatch.undo()
    assert bench.files == {}
    bench.save()
    assert bench.files == {"1.wav": simulator.audio(1)}
