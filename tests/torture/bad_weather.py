"""An hour of bad weather in minutes: every trouble that is everybody's, by turns.

What stands between a client and the service, and answers badly or not at all, is no run's fault:
in the end every run is saved, whole and right. The weather is shared among lanes, each of which has
a service, a database and a daemon with default settings of its own, to which runs are submitted in
all weathers, in groups and one by one. The long form, and one trouble alone::

    .venv/bin/python tests/torture/bad_weather.py --runs 3000 --outage 75
    .venv/bin/python tests/torture/bad_weather.py --runs 200 --outage 120 --only storage-503
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from torture import truth
from torture.long_form import LongForm, say
from torture.truth import Expected, unfinished

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torture.rig import Rig, Running

OPTIONS: Final[dict[str, Any]] = {"min_size": 20_000, "max_size": 1_400_000, "https": True}
"""From 1 MiB on parts are resumed."""
CALM_SHARE: Final = 0.25
"""Of the length of an outage: how long the weather is fair before the next."""
ALONE: Final = 6
"""So many runs of each turn are submitted one by one."""
AFTERWARDS_SECONDS: Final = 900.0
"""How long it may take until all is saved in fair weather: the longest pause there is."""

LATER: Final = -1.0
"""In place of seconds: as long as an outage lasts."""


def _page(where: str, status: int) -> dict[str, Any]:
    kind = {"storage": {"kind": "error-page", "form": "html"}, "api": {"kind": "not-json"}}[where]
    return {"fault": kind | {"status": status}}


def _status(status: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - of a rule
    return {"fault": {"kind": "status", "status": status}} | more


def _fault(kind: str, **parameters: object) -> dict[str, Any]:
    return {"fault": {"kind": kind} | parameters}


CONNECTIONS: Final[Mapping[str, dict[str, Any]]] = {
    "refuse": _fault("refuse"),
    "drop": _fault("drop"),
    "hang": _fault("hang"),
    "abort": _fault("abort"),
    "certificate-expired": _fault("certificate"),
    "certificate-not-yet": _fault("certificate", what="not-yet"),
    "certificate-other-name": _fault("certificate", what="other-name"),
    "certificate-other-authority": _fault("certificate", what="other-authority"),
}
STORAGE: Final[Mapping[str, Sequence[dict[str, Any]]]] = {
    name: one if isinstance(one, tuple) else (one,)
    for name, one in {
        **CONNECTIONS,
        **{
            f"{status}": _status(status)
            for status in (400, 401, 403, 404, 429, 500, 501, 503, 520)
        },
        "503-retry-after": _fault("status", status=503, retry_after=20),
        "page-200": _page("storage", 200),
        "page-403": _page("storage", 403),
        "page-404": _page("storage", 404),
        "page-502": _page("storage", 502),
        "portal": _fault("redirect", to="portal"),
        "loop": _fault("redirect", to="loop"),
        "plain": _fault("redirect", to="plain"),
        "nowhere": _fault("redirect", to="https://127.0.0.1:9/"),
        "expired": _fault("expired"),
        "empty": _fault("empty"),
        "not-audio": _fault("wrong-magic"),
        "reset": _fault("reset", at="headers"),
        "reset-in-body": _fault("reset"),
        "stall": _fault("stall", at="headers"),
        "stall-in-body": _fault("stall"),
        "cut": _fault("truncate", after=300_000),
        "cut-without-etag": (
            _fault("truncate", after=300_000) | {"skip": 1, "times": 1},
            _fault("no-etag"),
        ),
        "capped": (_fault("truncate", after=300_000) | {"times": 1},
                   _fault("partial", bytes=300_000, unasked=False)),
        "unasked-part": _fault("partial"),
        "unasked-capped": _fault("partial", bytes=300_000),
        "late": _fault("late", seconds=LATER),
        "digest-wrong": _fault("digest", wrong="digest"),
        "byte-wrong": _fault("digest", header="x-amz-checksum-sha256", wrong="bytes"),
        "digest-right": _fault("digest", header="repr-digest"),
        "encoding": _fault("headers", headers={"content-encoding": "aws-chunked"}),
        "encoding-gzip": _fault("headers", headers={"content-encoding": "gzip"}),
        "stored-gzipped": _fault("gzip"),
        "surplus": _fault("surplus"),
        "surplus-408": _fault("surplus", what="timeout"),
        "surplus-bytes": _fault("surplus", what="bytes"),
    }.items()
}  # fmt: skip
API: Final[Mapping[str, Sequence[dict[str, Any]]]] = {
    name: (one,)
    for name, one in {
        **CONNECTIONS,
        **{
            f"{status}": _status(status)
            for status in (400, 401, 402, 403, 404, 409, 422, 429, 500, 501, 503, 505, 520)
        },
        **{
            f"{status}-bulk": _status(status, endpoint="bulk")
            for status in (400, 404, 422, 500, 520)
        },
        **{f"{status}-lone": _status(status, endpoint="single") for status in (400, 403, 422, 520)},
        "503-retry-after": _fault("status", status=503, retry_after=20),
        "page-200": _page("api", 200),
        "page-400": _page("api", 400),
        "page-403": _page("api", 403),
        "page-404": _page("api", 404),
        "page-502": _page("api", 502),
        "portal": _fault("redirect", to="https://127.0.0.1:9/portal"),
        "empty": _fault("empty"),
        "other-shape": _fault("other-shape"),
        "gzip": _fault("gzip"),
        "truncate": _fault("truncate"),
        "reset": _fault("reset"),
        "stall": _fault("stall"),
        "unknown": _fault("unknown"),
        "url-later": _fault("url-later", seconds=LATER),
        "url-expired": _fault("url-lifetime"),
        "surplus": _fault("surplus"),
        "surplus-408": _fault("surplus", what="timeout"),
        "surplus-bytes": _fault("surplus", what="bytes"),
    }.items()
}  # fmt: skip
SHORT: Final[Mapping[str, Sequence[str]]] = {
    "storage": (
        *("503", "page-403", "refuse", "certificate-expired", "404", "cut-without-etag"),
        *("byte-wrong", "surplus"),
    ),
    "api": (*("page-400", "422", "404", "520", "400-lone", "refuse", "url-later", "surplus"),),
}
"""What the tests go through: of each kind one, but for what blocks for half a minute at least."""

WEATHER: Final[Mapping[str, Sequence[dict[str, Any]]]] = {
    f"{place}-{name}": [rule | {"where": place} for rule in rules]
    for place, weather in (("storage", STORAGE), ("api", API))
    for name, rules in weather.items()
}


@dataclass
class Turn:
    """One trouble of a lane: how long it lasted, and what was asked and came of runs meanwhile."""

    name: str
    began_at: float
    seconds: float = 0.0
    seen: Counter[str] = field(default_factory=Counter)


@dataclass
class Lane:
    """What one daemon goes through: troubles by turns, and runs that are submitted meanwhile."""

    names: Sequence[str]
    runs: int
    outage: float
    calm: float
    """For so many seconds at most the weather is fair after a trouble, until all is saved."""
    settings: Sequence[str] = ()
    turns: list[Turn] = field(default_factory=list)

    def rules(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the rules that make one trouble."""
        for rule in WEATHER[name]:
            fault = dict(rule["fault"])
            if fault.get("seconds") == LATER:
                fault["seconds"] = self.outage
            yield rule | {"fault": fault, "during": [0, self.outage]}

    def ids(self, number: int) -> range:
        """Return the runs of one turn."""
        return range(*(self.runs * at // len(self.names) + 1 for at in (number, number + 1)))

    def placed(self, wrong: str) -> str:
        """Tell of something wrong also in which weather its run was submitted."""
        if (found := re.match(r"run (\d+) ", wrong)) is None:
            return wrong
        weather = (
            name for number, name in enumerate(self.names) if int(found[1]) in self.ids(number)
        )
        return f"{next(weather)}: {wrong}"

    def submissions(self, number: int) -> list[tuple[float, range]]:
        """Return when in a turn which runs are submitted: some alone, the others in two groups."""
        ids = self.ids(number)
        alone, middle = ids[:ALONE], (min(ids.start + ALONE, ids.stop) + ids.stop) // 2
        shares = [(0.75 * at / ALONE, range(one, one + 1)) for at, one in enumerate(alone)]
        shares += [(0.2, range(alone.stop, middle)), (0.55, range(middle, ids.stop))]
        shares.sort(key=lambda share: share[0])
        return [(share * self.outage, ids) for share, ids in shares if ids]

    def weather(self, at: float) -> str:
        """Return what the weather was like at a time, epoch seconds."""
        [*_, turn] = [turn for turn in self.turns if turn.began_at <= at + 1]
        return f"{'' if at - turn.began_at < self.outage else 'after '}{turn.name}"


def bad_weather(rig: Rig, lane: Lane) -> list[str]:
    """Have a daemon go through a lane; return everything that is wrong in the end."""
    daemon = rig.start("run", *lane.settings)
    rig.until(lambda: daemon.err.stat().st_size > 0, "a daemon", daemon)
    for number, name in enumerate(lane.names):
        _take_turn(rig, lane, number, name)
    _saved(rig, AFTERWARDS_SECONDS)
    wrong = _ended(rig, daemon) + _blamed(rig, lane)
    wrong += truth.wrong_at_the_end(
        rig.database, rig.program.output, rig.simulator, Expected(range(1, lane.runs + 1))
    )
    stats = rig.simulator.stats()
    if leaked := stats["storage_requests_with_api_key"]:
        wrong.append(f"{leaked} requests to the storage had the API key")
    if by_http := stats["storage"]["by_http"]:
        wrong.append(f"{by_http} requests were made by http, where https had led there")
    return [lane.placed(one) for one in (*wrong, *rig.wrongly_said())]


def _take_turn(rig: Rig, lane: Lane, number: int, name: str) -> None:
    """Make a trouble, submit runs while it lasts, and wait for what comes of them."""
    turn, before, begun = Turn(name, time.time()), _asked(rig), time.monotonic()
    lane.turns.append(turn)
    rig.simulator.set_rules(list(lane.rules(name)))
    for at, ids in lane.submissions(number):
        rig.idle(max(begun + at - time.monotonic(), 0))
        rig.submit(ids)
    _saved(rig, begun + lane.outage + lane.calm - time.monotonic())
    turn.seconds, turn.seen = time.monotonic() - begun, _asked(rig)
    turn.seen.subtract(before)


def _saved(rig: Rig, seconds: float) -> None:
    """Wait until no run is unfinished, for so long at most."""
    ends_at = time.monotonic() + seconds
    while unfinished(rig.database) and time.monotonic() < ends_at:
        rig.idle(0.1)


def _ended(rig: Rig, daemon: Running) -> list[str]:
    daemon.process.terminate()
    left = unfinished(rig.database)
    wrong = [f"{left} runs were left {AFTERWARDS_SECONDS:.0f} s later"] if left else []
    return wrong + ([f"the daemon ended with {daemon.wait()}"] if daemon.wait() else [])


def _asked(rig: Rig) -> Counter[str]:
    stats = rig.simulator.stats()
    counted = Counter({place: stats[place]["requests"] for place in ("api", "storage")})
    counted.update(dict(rig.query("SELECT state, count(*) FROM runs GROUP BY state")))
    [(attempts, refreshes)] = rig.query("SELECT sum(attempts), sum(refreshes) FROM runs")
    return counted + Counter(attempts=attempts or 0, refreshes=refreshes or 0)


def _blamed(rig: Rig, lane: Lane) -> list[str]:
    """Return in which weather runs have failed, and as what."""
    blamed = Counter(
        (lane.weather(at), code)
        for at, code in rig.query(
            "SELECT CAST(strftime('%s', e.at) AS REAL), r.error_code"
            " FROM run_events AS e JOIN runs AS r USING (run_type, run_id)"
            " WHERE e.to_state = 'failed'"
        )
    )
    return [f"{number} failed in {weather}: {code}" for (weather, code), number in blamed.items()]


def main() -> int:
    """Run the long form."""
    long_form = LongForm(__doc__, only=WEATHER, runs=3000, outage=75, calm=90, lanes=8)
    names = long_form.only or list(WEATHER)
    lanes = min(long_form.asked["lanes"], len(names))
    with ThreadPoolExecutor(lanes) as threads:
        for _ in threads.map(
            lambda number: _go(long_form, number, names[number::lanes]), range(lanes)
        ):
            pass
    return long_form.conclude()


def _go(long_form: LongForm, number: int, names: Sequence[str]) -> None:
    """Go through one lane of several: each has its share of both places' weather, and of runs."""
    asked = long_form.asked
    runs = asked["runs"] * len(names) // len(long_form.only or WEATHER)
    lane = Lane(names, runs, float(asked["outage"]), float(asked["calm"]))
    with long_form.rig(f"lane {number + 1}", **OPTIONS) as rig:
        wrong = bad_weather(rig, lane)
        long_form.found([f"lane {number + 1}: {one}" for one in wrong])
    for turn in lane.turns:
        seen = ", ".join(f"{key} {value}" for key, value in turn.seen.items() if value)
        say(f"  {turn.name}: {turn.seconds:.0f} s, {seen}")
    for one in _blamed(rig, lane):
        say(f"  {one}")


if __name__ == "__main__":
    sys.exit(main())
