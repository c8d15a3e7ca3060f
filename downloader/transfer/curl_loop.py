"""One thread with many transfers by libcurl: it waits for what comes next of any of them."""

from __future__ import annotations

import heapq
import itertools
import math
import selectors
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from downloader.bell import Bell
from downloader.network import waits
from downloader.transfer import guard
from downloader.transfer.curl_answer import Answer
from downloader.transfer.curl_errors import NOT_TRUSTED
from downloader.transfer.curl_library import pycurl
from downloader.transfer.problems import untrusted
from downloader.transfer.redirects import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from downloader.transfer.addresses import Address
    from downloader.transfer.curl_session import Session
    from downloader.transfer.engine import Fetch, Timing
    from downloader.transfer.rate_limit import RateLimit

TICK_SECONDS: Final = 0.1
"""How often each transfer is looked at, whether or not anything comes."""

_NEEDED: Final = {
    pycurl.POLL_IN: selectors.EVENT_READ,
    pycurl.POLL_OUT: selectors.EVENT_WRITE,
    pycurl.POLL_INOUT: selectors.EVENT_READ | selectors.EVENT_WRITE,
}
_HAPPENED: Final = {
    selectors.EVENT_READ: pycurl.CSELECT_IN,
    selectors.EVENT_WRITE: pycurl.CSELECT_OUT,
    selectors.EVENT_READ | selectors.EVENT_WRITE: pycurl.CSELECT_IN | pycurl.CSELECT_OUT,
}


class Sessions(Protocol):
    """Where sessions come from and go to, and what all their requests have in common."""

    timing: Timing
    limit: RateLimit | None

    def lend(self) -> Session:
        """Return a session to make requests with; raise `DiskError` where there can be none."""

    def give_back(self, session: Session) -> None:
        """Take a session back."""

    def proxy_of(self, address: Address) -> str | None:
        """Return the proxy for an address; raise `TransferError` where it cannot be used."""


class Loop:
    """A daemon thread that makes fetches; `retire` it in the end.

    Raises:
        OSError: there is no descriptor left.

    """

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self._selector = selectors.DefaultSelector()
        try:
            self._bell = Bell()
        except OSError:
            self._selector.close()
            raise
        self._selector.register(self._bell.descriptor, selectors.EVENT_READ)
        self._new: deque[Fetch] = deque()
        self._requests: set[_Request] = set()
        self._timers: list[tuple[float, int, _Request, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # of what follows
        self._retired = self._over = False
        self._waiting = False
        self._turned_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="transfers", daemon=True)
        self._thread.start()

    @property
    def active(self) -> int:
        """How many fetches it has."""
        return len(self._requests) + len(self._new)

    @property
    def is_hung(self) -> bool:
        """Whether something that was called, a write to a disk say, does not come back."""
        return not self._waiting and time.monotonic() - self._turned_at > guard.HUNG_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether its thread has ended, or is about to."""
        return self._over

    def start(self, fetch: Fetch) -> bool:
        """Make a fetch; False where this loop makes no more."""
        with self._lock:
            if self._retired:
                return False
            self._new.append(fetch)
        self._wake()
        return True

    def retire(self) -> list[Fetch]:
        """Make no more fetches, and end when all are; return those that are not begun."""
        with self._lock:
            self._retired = True
            left = list(self._new)
            self._new.clear()
        self._wake()
        return left

    def join(self, seconds: float) -> None:
        """Wait for its thread, which may be the caller."""
        if self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def _wake(self) -> None:
        with self._lock:
            if self._waiting and not self._over:
                self._waiting, self._turned_at = False, time.monotonic()  # rung once
                self._bell.ring()

    # ------------------------------------------------------------- in its thread

    def call_at(self, at: float, request: _Request, call: Callable[[], None]) -> None:
        """Call this for a request, unless that has ended by then."""
        heapq.heappush(self._timers, (at, next(self._numbers), request, call))

    def watch(self, request: _Request, descriptor: int, wanted: int) -> None:
        """Tell a request of events of a descriptor."""
        needed = _NEEDED[wanted]
        if descriptor in self._selector.get_map():
            self._selector.modify(descriptor, needed, request)
        else:
            self._selector.register(descriptor, needed, request)

    def forget(self, descriptor: int) -> None:
        """Tell of no more events of a descriptor."""
        if descriptor in self._selector.get_map():
            self._selector.unregister(descriptor)

    def leave(self, request: _Request) -> None:
        """Have nothing more to do with a request."""
        self._requests.discard(request)

    def _run(self) -> None:
        next_tick = 0.0
        while not self._is_to_end():
            next_tick = self._turn(next_tick)
        self._selector.close()
        self._bell.close()

    def _turn(self, next_tick: float) -> float:
        """Wait for what comes next, and deal with it; return when to look at all transfers."""
        for key, happened in self._wait(next_tick):
            if key.data is None:
                self._bell.hush()
            elif not key.data.is_over:
                self._carry_out(key.data, partial(key.data.act, key.fd, _HAPPENED[happened]))
        while self._timers and self._timers[0][0] <= time.monotonic():
            _, _, request, call = heapq.heappop(self._timers)
            if not request.is_over:
                self._carry_out(request, call)
        while (fetch := self._next_new()) is not None:
            request = _Request(fetch, self)
            self._requests.add(request)
            self._carry_out(request, request.begin)
        if (now := time.monotonic()) >= next_tick:
            next_tick = now + TICK_SECONDS
            for request in list(self._requests):
                self._carry_out(request, request.look)
        return next_tick

    def _next_new(self) -> Fetch | None:
        with self._lock:
            return self._new.popleft() if self._new else None

    def _is_to_end(self) -> bool:
        with self._lock:
            self._over = self._retired and not (self._requests or self._new)
        return self._over

    def _wait(self, next_tick: float) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events; return those that there are."""
        until = min(
            next_tick if self._requests else math.inf,
            self._timers[0][0] if self._timers else math.inf,
        )
        seconds = max(0.0, until - time.monotonic())
        with self._lock:
            self._waiting = seconds > 0 and not (self._new or self._retired)
            if not self._waiting:
                seconds = 0.0
        found = self._selector.select(None if seconds == math.inf else seconds)
        with self._lock:
            self._waiting, self._turned_at = False, time.monotonic()
        return found

    def _carry_out(self, request: _Request, call: Callable[[], None]) -> None:
        """Go on with a request; what it raises ends that one alone."""
        began_at = time.monotonic()
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - handed to whom it matters
            request.end(error)
        took = time.monotonic() - began_at
        if took > TICK_SECONDS:  # what others' storages said meanwhile could not be heard
            for other in self._requests - {request}:
                other.excuse(took)


class _Request:
    """One fetch on its way, through all redirects; what its methods raise is to end it."""

    def __init__(self, fetch: Fetch, loop: Loop) -> None:
        self._fetch = fetch
        self._loop = loop
        self._sessions = loop.sessions
        self._route: Route | None = None
        self._headers: Mapping[str, str] | None = None
        self._session: Session | None = None
        self._answer: Answer | None = None  # while libcurl makes the request
        self._pauses = False
        self._code: int | None = None  # of the last request, once libcurl has ended it
        self._timer_at: float | None = None
        self.is_over = False

    def begin(self) -> None:
        """Get a session, and ask as soon as it may be used."""
        self._fetch.guard.begin()
        self._fetch.guard.check()
        self._route = Route(self._fetch.url)
        self._session = self._sessions.lend()
        self._ask_when_quiet(self._session)

    def look(self) -> None:
        """See whether it may go on, and hand on what has come: now and then."""
        answer = self._answer
        if answer is None:
            self._fetch.guard.check()
            return
        answer.check()
        if answer.may_resume:
            self._resume()
        else:
            answer.hand_on()
            self._go_on(running=True)

    def excuse(self, seconds: float) -> None:
        """Leave out a time in which nothing could be heard."""
        if self._answer is not None:
            self._answer.excuse(seconds)

    def act(self, descriptor: int, event: int) -> None:
        """Have libcurl deal with an event."""
        if self._answer is not None and self._session is not None:
            self._answer.heard()
            self._go_on(running=self._session.act(descriptor, event))

    # what a session asks for: see `Events`

    def watch(self, descriptor: int, wanted: int) -> None:
        self._loop.watch(self, descriptor, wanted)

    def forget(self, descriptor: int) -> None:
        self._loop.forget(descriptor)

    def set_timer(self, at: float | None) -> None:
        self._timer_at = at
        if at is not None:
            self._loop.call_at(at, self, partial(self._time_out, at))

    def _time_out(self, at: float) -> None:
        if self._timer_at == at and self._session is not None:
            self._timer_at = None
            self._go_on(running=self._session.act())

    # ------------------------------------------------------------------ its steps

    def _ask_when_quiet(self, session: Session) -> None:
        if session.quiet_at <= time.monotonic():
            self._ask()
        else:
            self._loop.call_at(session.quiet_at, self, self._ask)

    def _ask(self) -> None:
        session, route = self._session, self._route
        assert session is not None  # noqa: S101 - lent before
        assert route is not None  # noqa: S101 - likewise
        self._fetch.guard.check()
        proxy = self._sessions.proxy_of(route.address)
        if self._headers is None:
            self._headers = self._fetch.ask()
        answer = Answer(route.address, self._fetch, self._sessions.timing, self._sessions.limit)
        running = session.ask(route.address, self._headers, proxy, answer, self)
        self._answer, self._code = answer, None
        self._go_on(running=running)

    def _go_on(self, *, running: bool) -> None:
        """See what there is to do after libcurl has done something."""
        answer, session = self._answer, self._session
        if answer is None or session is None:
            return
        aborted = answer.has_enough or answer.failure is not None
        if self._code is None and (aborted or not running):
            self._code = session.end()
            if not aborted:
                answer.hand_on()
        if answer.paused_until is not None:
            if not self._pauses:
                self._pauses = True
                self._loop.call_at(answer.paused_until, self, self._resume)
        elif self._code is not None:
            self._answer = None
            self._judge(answer, session, self._code)

    def _resume(self) -> None:
        """End a pause, if there is one still."""
        answer, session = self._answer, self._session
        if answer is None or session is None or not answer.may_resume:
            return
        self._pauses = False
        answer.resume()
        self._go_on(running=self._code is None and session.resume())

    def _judge(self, answer: Answer, session: Session, code: int) -> None:
        """Take what came of a request."""
        route = self._route
        assert route is not None  # noqa: S101 - set by the first step
        failure, answer.failure = answer.failure, None  # its traceback holds the answer
        if failure is not None:
            raise failure
        self._fetch.guard.check()  # what was told to stop is not asked how it ended
        if answer.location is not None:
            route.lead(answer.location)
            self._ask_when_quiet(session)
            return
        if code == pycurl.E_OK and not answer.begun:
            code = pycurl.E_GOT_NOTHING
        if code == pycurl.E_OK or answer.has_enough:
            self.end(None)
        elif code in NOT_TRUSTED:
            self._release()
            threading.Thread(target=self._say_why_untrusted, args=(route,), daemon=True).start()
        else:
            raise session.failure_of(code, route.address, connected=answer.connected)

    def _say_why_untrusted(self, route: Route) -> None:
        """End it with why a certificate is not trusted, which takes connections: in a thread."""
        error: BaseException
        try:
            with waits(self._sessions.timing.connect_seconds, self._fetch.guard.check):
                error = untrusted(route.address, self._sessions.proxy_of(route.address))
        except BaseException as raised:  # noqa: BLE001 - handed to whom it matters
            error = raised
        self._fetch.ended(route.seen(error))

    def end(self, error: BaseException | None) -> None:
        """End it, however far it is."""
        self._release()
        if error is not None and self._route is not None:
            error = self._route.seen(error)
        self._fetch.ended(error)

    def _release(self) -> None:
        """Give everything back before anybody hears of the end, and may ask for it again."""
        self.is_over = True
        session, answer = self._session, self._answer
        self._session = self._answer = None
        if session is not None:
            if answer is not None and self._code is None:
                session.end()
            self._sessions.give_back(session)
        self._loop.leave(self)
