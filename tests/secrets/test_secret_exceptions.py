"""What exceptions say, those behind them included: no key and no signature, whatever peers send."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from spilling import API_KEY, signed, told_by
from transfer.engines import ENGINES
from transfer.wire import (
    Collected,
    Peer,
    RawServer,
    Script,
    answering,
    fetch_into,
    head,
    ok,
    unused_port,
)

from downloader.camb.client import ApiClient
from downloader.clock import utc_now
from downloader.errors import DownloaderError, StoreError
from downloader.rules.batching import Batch
from downloader.rules.resume import NOTHING
from downloader.rules.states import RunKey
from downloader.store.database import database_url
from downloader.store.migrate import open_database
from downloader.store.schema import runs
from downloader.transfer.engine import Timing, TransferError
from downloader.transfer.guard import Guard, Interrupted
from downloader.transfer.output import Output
from downloader.transfer.transfer import Order, transfer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spilling import Secrets


def echo(form: Callable[[bytes], bytes]) -> Script:
    """Send a request's own words back, in a form that is none of HTTP's."""

    def script(peer: Peer) -> None:
        request = peer.request()
        if request is not None:
            peer.send(form(request))

    return script


ECHOES: dict[str, Callable[[bytes], bytes]] = {
    "as the status line": lambda said: said + b"\r\n\r\n",
    "as a status": lambda said: b"HTTP/1.1 " + said.replace(b"\r\n", b" ") + b"\r\n\r\n",
    "as a header": lambda said: b"HTTP/1.1 200 OK\r\n" + said + b"\r\n\r\n",
    "as the length": lambda said: (
        b"HTTP/1.1 200 OK\r\ncontent-length: " + said.replace(b"\r\n", b" ") + b"\r\n\r\n"
    ),
    "as a chunk's size": lambda said: (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + said + b"\r\n"
    ),
    "as the encoding": lambda said: (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: " + said.replace(b"\r\n", b" ") + b"\r\n\r\n"
    ),
    "as a redirect": lambda said: (
        b"HTTP/1.1 302 Found\r\nlocation: ftp://" + said.split()[1] + b"\r\n\r\n"
    ),
    "and breaks off": lambda said: b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n" + said,
    "not at all": lambda _: b"",
}


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("form", ECHOES)
def test_a_storage_that_echoes(secrets: Secrets, tmp_path: Path, form: str, kind: str) -> None:
    """A storage that sends the signed URL back, where no HTTP has it, does not get it shown."""
    with (
        RawServer(echo(ECHOES[form])) as server,
        contextlib.closing(ENGINES[kind](Timing(stall_seconds=10), connections=1)) as engine,
    ):
        url = secrets.also(signed(f"{server.origin}/1.wav"))
        output = Output(tmp_path, "text-to-sound")
        output.prepare()
        order = Order(
            RunKey("text-to-sound", 1), url, NOTHING, lambda _: True, lambda _: None, 10**9
        )
        with pytest.raises(TransferError) as raised:
            transfer(order, output, engine, Guard(60))
    assert secrets(told_by(raised.value)) == []
    held = list(vars(engine).values())
    assert secrets(f"{order!r} {engine!r} {held!r}") == []


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:{port}/1.wav",
        "http://nobody.invalid/1.wav",
        "http://" + "a" * 70 + ".example/1.wav",
        "http://\u00fc\u0000/1.wav",
        "http://[::1/1.wav",
        "http://127.0.0.1:99999/1.wav",
        "ftp://127.0.0.1/1.wav",
        "https://127.0.0.1:{port}/1.wav",
        "http:///1.wav",
        "1.wav",
    ],
)
def test_a_url_that_cannot_be_fetched(secrets: Secrets, address: str, kind: str) -> None:
    """Whatever is wrong with a URL, no error about it quotes its signature."""
    url = secrets.also(signed(address.format(port=unused_port())))
    with (
        contextlib.closing(ENGINES[kind](Timing(connect_seconds=5), connections=1)) as engine,
        pytest.raises((TransferError, ValueError)) as raised,
    ):
        fetch_into(engine, url, Collected(), Guard(60))
    assert secrets(told_by(raised.value)) == []


@pytest.mark.parametrize("kind", ENGINES)
def test_a_redirect_that_cannot_be_followed(secrets: Secrets, kind: str) -> None:
    """An error about a redirect does not quote where it would have led."""
    target = secrets.also(signed("http://[::1/1.wav"))
    redirect = head(302, location=target, content_length="0")
    with (
        RawServer(answering(redirect)) as server,
        contextlib.closing(ENGINES[kind](Timing(), connections=1)) as engine,
        pytest.raises(TransferError) as raised,
    ):
        fetch_into(
            engine, secrets.also(signed(server.origin + "/1.wav", 2)), Collected(), Guard(60)
        )
    assert secrets(told_by(raised.value)) == []


@pytest.mark.parametrize("kind", ENGINES)
def test_a_transfer_that_is_told_to_stop(secrets: Secrets, kind: str) -> None:
    """The error that ends a transfer from outside quotes no URL either."""
    guard = Guard(600)

    def cut(peer: Peer) -> None:
        request = peer.request() or b""
        guard.cancel()
        peer.send(request, b"\r\n\r\n")

    with (
        RawServer(cut) as server,
        contextlib.closing(ENGINES[kind](Timing(), connections=1)) as engine,
        pytest.raises(Interrupted) as raised,
    ):
        fetch_into(engine, secrets.also(signed(server.origin + "/1.wav")), Collected(), guard)
    assert secrets(told_by(raised.value)) == []


@pytest.mark.parametrize("form", ECHOES)
@pytest.mark.parametrize("run_ids", [(1, 2), (1,)], ids=["bulk", "single"])
def test_an_api_that_echoes(secrets: Secrets, form: str, run_ids: tuple[int, ...]) -> None:
    """An API that sends the key back, where no HTTP has it, does not get it into our judgement."""
    with (
        RawServer(echo(ECHOES[form])) as server,
        contextlib.closing(ApiClient(server.origin, API_KEY, answer_seconds=10)) as client,
    ):
        reply = client.ask(Batch("text-to-sound", run_ids))
        assert secrets(f"{reply!r} {client!r} {client._client!r}") == []
    assert len(server.requests) == 1
    assert secrets(server.requests[0]) != [], "the key was not even sent"


def test_an_api_that_answers(secrets: Secrets) -> None:
    """A judgement that holds a URL can be printed without its signature."""
    url = secrets.also(signed("https://storage.example/1.wav"))
    with (
        RawServer(answering(ok(f'{{"output_url": "{url}"}}'.encode()))) as server,
        contextlib.closing(ApiClient(server.origin, API_KEY)) as client,
    ):
        reply = client.ask(Batch("text-to-sound", (1,)))
    assert secrets(repr(reply)) == []


def test_a_database_that_refuses(secrets: Secrets, tmp_path: Path) -> None:
    """What the database says of a statement has none of its values in it."""
    url = secrets.also(signed("https://storage.example/1.wav"))
    now = utc_now()
    row = {"run_type": "tts", "run_id": 1, "submitted_at": now, "updated_at": now}
    bad: list[dict[str, object]] = [
        row | {"state": "done", "url": url},  # a CHECK
        row | {"state": url},
        row | {"state": "pending", "next_attempt_at": now, "run_id": url},  # STRICT
        row | {"state": "ready", "next_attempt_at": url, "url": url},  # our own type
        row | {"state": "ready", "next_attempt_at": now, "url": object(), "etag": url},
    ]
    with contextlib.closing(open_database(tmp_path / "runs.sqlite3")) as database:
        for values in bad:
            with pytest.raises(Exception) as raised, database.write() as connection:  # noqa: PT011 - each has a kind of its own
                connection.execute(sa.insert(runs).values(values))
            assert secrets(told_by(raised.value)) == []
        with pytest.raises(StoreError) as explained, database.write() as connection:
            connection.execute(sa.insert(runs).values(row | {"state": "done", "url": url}))
        assert secrets(told_by(explained.value)) == []


@pytest.mark.parametrize(
    "named",
    [
        f"postgresql://ada:{API_KEY}@db.example/runs",
        f"mysql+pymysql://ada:{API_KEY}@db.example:x/runs",
        f"nothing://ada:{API_KEY}@h:99999999999/x",
    ],
)
def test_a_database_elsewhere(secrets: Secrets, named: str) -> None:
    """A password in the name of a database of another kind is not shown."""
    with pytest.raises(DownloaderError) as raised:
        database_url(named)
    assert secrets(told_by(raised.value)) == []


def test_what_holds_a_url_does_not_show_it(secrets: Secrets) -> None:
    """Claims, orders and steps can be printed: where they hold a URL its signature is left out."""
    from downloader.rules.answers import Finished  # noqa: PLC0415 - for this test alone
    from downloader.rules.steps import UrlReceived  # noqa: PLC0415 - as above
    from downloader.store.transfers import ClaimedRun, ReadyRun  # noqa: PLC0415 - as above

    url = secrets.also(signed("https://storage.example/1.wav"))
    run = ReadyRun(RunKey("tts", 1), url, None, None, 0, 0, None, None, None, utc_now())
    step = UrlReceived(url, utc_now() + timedelta(hours=1), "SUCCESS")
    assert secrets(f"{ClaimedRun(run, 'lease')!r} {step!r} {Finished(url, None)!r}") == []
