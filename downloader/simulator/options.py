"""What a simulator is asked to do: every knob, its unit and its limits."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from downloader.simulator.catalogue import UNFINISHED_SHAPES
from downloader.simulator.errors import SimulatorError, shown
from downloader.simulator.parameters import MOST_SECONDS

if TYPE_CHECKING:
    from downloader.simulator.rules import Rule

FORMATS: Final = ("wav", "flac", "mixed")
STORES: Final = ("s3", "s3-temporary", "s3-v2", "cloudfront", "r2", "gcs", "azure", "b2")
SINGLE_KEYS: Final = ("output_url", "file_url")
SINGLE_UNFINISHED: Final = ("404", "status")

MIN_RATE: Final = 1e-3
"""Per second: what comes more seldom than each quarter of an hour never comes."""

MIN_SIZE: Final = 512
"""Bytes; below it the audio's own headers have no room."""
MAX_SIZE: Final = 4_000_000_000
"""Bytes; a RIFF header counts up to 2**32."""


@dataclass(frozen=True, kw_only=True)
class SimulatorOptions:
    """The knobs of a simulator. The defaults finish every run at once and accept every key."""

    api_key: str | None = None
    """The only key that is accepted; None accepts any."""
    finish_after: float = 0.0
    """Seconds after the start when the runs are finished."""
    finish_spread: float = 0.0
    """Seconds over which they finish, each at its own moment, from `finish_after` on."""
    unfinished: str = "omit"
    """How a bulk answer says that a run is not finished: one of `catalogue.UNFINISHED_SHAPES`."""
    single_key: str = "output_url"
    """The key of the single-run answer; the service's documents disagree: or `file_url`."""
    single_unfinished: str = "404"
    """What the single-run endpoint says of an unfinished run: `404`, or 200 with a `status`."""
    url_lifetime: float = 3600.0
    """Seconds until a presigned URL expires; 0 or less: it has when it is handed out."""
    store: str = "s3"
    """Whose presigned URLs and refusals the storage imitates: one of `STORES`."""
    clock_skew: float = 0.0
    """Seconds that the simulator's clock is ahead of this machine's."""
    audio_format: str = "wav"
    """`wav`, `flac`, or `mixed`: some runs the one, some the other."""
    min_size: int = 200_000
    """Bytes of the smallest file."""
    max_size: int = 2_000_000
    """Bytes of the largest file; to within some bytes, since audio comes in whole samples."""
    api_latency: float = 0.0
    """Seconds before the API answers."""
    storage_latency: float = 0.0
    """Seconds before the storage's first byte."""
    bandwidth: float | None = None
    """Bytes per second that the storage sends on one connection; None: as fast as it can."""
    rate_limit: float | None = None
    """Requests per second that the API takes before it answers 429; None: no limit."""
    fault_rate: float = 0.0
    """Share of requests, 0 to 1, that meet a transient fault."""
    seed: int = 0
    """What the pseudo-random decisions depend on, apart from the run."""
    rules: tuple[Rule, ...] = ()
    """What happens to which run; see `rules`."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, float):
                _check_number(name, value)
        for name in ("finish_after", "finish_spread", "api_latency", "storage_latency"):
            if getattr(self, name) < 0:
                raise SimulatorError(f"{name} must be 0 or more seconds")
        for name in ("bandwidth", "rate_limit"):
            if (value := getattr(self, name)) is not None and value < MIN_RATE:
                raise SimulatorError(f"{name} must be {MIN_RATE:g} or more per second")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise SimulatorError("api_key must be text that a header can have")
        if not 0 <= self.fault_rate <= 1:
            raise SimulatorError("fault_rate must be 0 to 1")
        if not MIN_SIZE <= self.min_size <= self.max_size <= MAX_SIZE:
            raise SimulatorError(
                f"sizes must be {MIN_SIZE} <= min_size <= max_size <= {MAX_SIZE} bytes, "
                f"not {self.min_size} and {self.max_size}"
            )
        for name, known in (
            ("unfinished", UNFINISHED_SHAPES),
            ("single_key", SINGLE_KEYS),
            ("single_unfinished", SINGLE_UNFINISHED),
            ("store", STORES),
            ("audio_format", FORMATS),
        ):
            if getattr(self, name) not in known:
                raise SimulatorError(
                    f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}"
                )


def _check_number(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise SimulatorError(f"{name} must be a number, not {value}")
    if abs(value) > MOST_SECONDS:
        raise SimulatorError(f"{name} must be at most {MOST_SECONDS:g}, not {value:g}")


def loopback(host: str) -> str:
    """Return the address to bind for `host`; raise `SimulatorError` unless it is loopback.

    The simulator answers everybody who asks with whatever they ask for: it is for this
    machine alone.
    """
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        named = host if host.isprintable() else shown(host)
        raise SimulatorError(
            f"{named} is not a loopback address: the simulator takes 127.0.0.0/8, ::1 or localhost"
        )
    return str(address)
