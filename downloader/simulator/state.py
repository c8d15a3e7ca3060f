"""What both services share: options, rules, counters, the clock, and where they are."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from downloader.simulator import signing
from downloader.simulator.audio import AudioName, audio_name, extension_of
from downloader.simulator.errors import SimulatorError
from downloader.simulator.rules import Rule, RuleBook, chance
from downloader.simulator.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from downloader.simulator.catalogue import Place
    from downloader.simulator.faults import Fault
    from downloader.simulator.options import SimulatorOptions

RUN_TYPES = ("text-to-sound", "tts")
"""Each has a bulk endpoint `/<type>-results` and a single one `/<type>-result/{run_id}`."""

BUCKET = "/simulated-audio/"
"""Where the storage keeps its objects: `/simulated-audio/<run type>/<run id>.<extension>`."""

MOVED = "/moved"
"""Before the bucket: where redirects lead. No rule applies there, so that they end."""

PORTAL = "/portal"
"""At the API's origin: the page of a network that wants a login."""


class SimulatorState:
    """One simulator's memory. Options and rules may be replaced while it runs."""

    def __init__(self, options: SimulatorOptions, *, has_authority: bool = False) -> None:
        self.stats = Stats()
        self.api_origin = ""
        self.storage_origin = ""
        self.plain_origin = ""
        """Where the storage is by http, while the others are https."""
        self._has_authority = has_authority
        self._started = time.monotonic()
        self._given: dict[tuple[str, int], float] = {}
        self.set_options(options)

    def set_options(self, options: SimulatorOptions) -> None:
        """Go on with these options; the rules' counts and their seconds start again."""
        self.options = options
        self.set_rules(options.rules)

    def set_rules(self, rules: Sequence[Rule]) -> None:
        """Go on with these rules, counted from zero; raise `SimulatorError` for what cannot be."""
        options = self.options
        book = RuleBook(rules, seed=options.seed, fault_rate=options.fault_rate)
        if "certificate" in book.kinds and not self._has_authority:
            raise SimulatorError("fault 'certificate' needs --https: there is no certificate")
        self.book, self._ruled, self.ruled_at = book, time.monotonic(), self.now

    @property
    def now(self) -> float:
        """The simulator's clock, epoch seconds."""
        return time.time() + self.options.clock_skew

    @property
    def date(self) -> str:
        """The simulator's clock as an HTTP date."""
        return formatdate(self.now, usegmt=True)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def connection_fault(self, place: Place | None) -> Fault | None:
        """Return what befalls every connection to a place now."""
        return self.book.connection_fault(place, time.monotonic() - self._ruled)

    def fault(
        self, place: Place, run_type: str, run_id: int, endpoint: str | None = None
    ) -> Fault | None:
        """Return what the rules have for this request of this run."""
        elapsed = time.monotonic() - self._ruled
        fault = self.book.fault(place, run_type, run_id, elapsed=elapsed, endpoint=endpoint)
        if fault is not None:
            self.stats.fault(place, fault.kind)
        return fault

    def random_fault(self, place: Place, run_type: str, run_id: int) -> Fault | None:
        """Return what the fault rate has for this request."""
        fault = self.book.random_fault(place, run_type, run_id)
        if fault is not None:
            self.stats.fault(place, fault.kind)
        return fault

    def is_finished(self, run_type: str, run_id: int) -> bool:
        """Whether the provider has finished this run by now."""
        options = self.options
        share = chance(options.seed, "finish", run_type, run_id) if options.finish_spread else 0.0
        return self.elapsed >= options.finish_after + share * options.finish_spread

    def since_given(self, run_type: str, run_id: int) -> float:
        """Seconds since a URL of this run was first given, under rules that ask for it."""
        now = time.monotonic()
        return now - self._given.get((run_type, run_id), now)

    def audio(
        self, run_type: str, run_id: int, *, version: int = 1, streamed: bool = False
    ) -> AudioName:
        """Which file this run has."""
        return audio_name(self.options, run_type, run_id, version=version, streamed=streamed)

    def presigned(
        self,
        run_type: str,
        run_id: int,
        *,
        lifetime: float | None = None,
        later: float = 0.0,
        origin: str | None = None,
        prefix: str = "",
    ) -> str:
        """Sign a URL for this run's file, that is good `later` seconds from now."""
        if "late" in self.book.kinds:
            self._given.setdefault((run_type, run_id), time.monotonic())
        extension = extension_of(self.options, run_type, run_id)
        return signing.presigned(
            origin or self.storage_origin,
            f"{prefix}{BUCKET}{run_type}/{run_id}.{extension}",
            store=self.options.store,
            now=self.now + later,
            lifetime=self.options.url_lifetime if lifetime is None else lifetime,
        )
