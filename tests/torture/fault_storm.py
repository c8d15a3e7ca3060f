"""A fifth of all answers is wrong, in every way the simulator knows; and some runs are truly bad.

The long form; fewer than 250 runs cannot meet every fault::

    .venv/bin/python tests/torture/fault_storm.py --runs 2000
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from torture.long_form import LongForm
from torture.rig import QUICK
from torture.truth import RUN_TYPE, Expected, Snapshot, Variant

from downloader.rules.states import FINISHED
from downloader.simulator.audio import audio_name
from downloader.simulator.catalogue import FAULTS
from downloader.simulator.options import SimulatorOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torture.rig import Rig

OPTIONS: Final[dict[str, Any]] = {
    "min_size": 2_000,
    "max_size": 1_600_000,
    "audio_format": "mixed",
}
RESUMABLE_BYTES: Final = 1024 * 1024
PROCESSES: Final = 3
SETTINGS: Final = (*QUICK, "--stall", "3s", "--attempts", "4", "--refreshes", "4")


def _fault(kind: str, **parameters: object) -> dict[str, Any]:
    return {"kind": kind, **parameters}


AT_THE_API: Final = (
    *(_fault("pending", shape=shape) for shape in
      ("omit", "null", "url-null", "url-empty", "url-missing", "status")),
    _fault("plain-string"),
    _fault("value", value={"status": "REHEARSING"}),
    _fault("value", value=[[{}]]),
    _fault("url", url="ftp://127.0.0.1/3.wav"),
    _fault("url-lifetime", seconds=-1),
    _fault("extra-id"),
    *(_fault("status", status=status) for status in (400, 403, 404, 408, 409, 422, 425, 500, 502)),
    _fault("status", status=429, retry_after=1),
    _fault("status", status=503, retry_after=1, form="date"),
    _fault("empty"),
    _fault("results-list"),
    _fault("not-json"),
    _fault("other-shape"),
    _fault("truncate"),
    _fault("reset"),
    _fault("stall", seconds=1.0),
    _fault("slow", seconds=0.3),
    _fault("redirect"),
    _fault("url-later", seconds=1.0),
    _fault("unknown"),
    _fault("gzip"),
    _fault("surplus"),
)  # fmt: skip
AT_THE_STORAGE: Final = (
    _fault("status", status=500),
    _fault("status", status=503, retry_after=1),
    _fault("status", status=429, retry_after=1, form="date"),
    _fault("status", status=404),
    _fault("status", status=403, code="SignatureDoesNotMatch"),
    _fault("expired"),
    _fault("reset", at="headers"),
    _fault("reset"),
    _fault("stall", at="headers"),
    _fault("stall"),
    _fault("slow", seconds=0.2),
    _fault("drip", rate=400_000.0),
    _fault("truncate"),
    _fault("truncate", framing="chunked"),
    _fault("truncate", framing="close"),
    _fault("framing", form="chunked"),
    _fault("framing", form="close"),
    _fault("wrong-length"),  # too large; one that is too small nobody can tell from FLAC
    _fault("gzip"),
    _fault("weak-etag"),
    _fault("no-etag"),
    _fault("changed"),
    _fault("error-page", form="xml"),
    _fault("error-page", form="html", content_type="audio/wav"),
    _fault("error-page", form="json"),
    _fault("empty"),
    _fault("wrong-magic"),
    _fault("streamed"),
    _fault("headers", headers={"content-type": "application/octet-stream"}),
    _fault("redirect"),
    _fault("redirect", to="other", status=307),
    _fault("redirect", to="loop"),
    _fault("redirect", to="file:///etc/passwd"),
    _fault("late", seconds=0.5),
    _fault("partial"),
    _fault("digest"),
    _fault("digest", header="x-amz-checksum-sha256", wrong="digest"),
    _fault("surplus"),
)
IN_A_RESUME: Final = (
    _fault("ignore-range"),
    _fault("wrong-content-range"),
    _fault("wrong-content-range", what="total"),
    _fault("changed"),
    _fault("no-etag"),
    _fault("weak-etag"),
    _fault("truncate"),
    _fault("status", status=500),
)
"""What comes when a large file, cut in its middle before, is to be continued."""

COST_NOTHING: Final = frozenset(
    {"slow", "drip", "weak-etag", "no-etag", "changed", "streamed", "headers", "expired"}
    | {"ignore-range", "wrong-content-range"}
)
"""What spends no attempt: it is harmless, or put right by the same transfer, or by a new URL."""

BAD: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "provider_failed": ("api", _fault("word", word="ERROR", reason="No such sound")),
    "bad_run": ("api", _fault("status", status=422)),
    "forbidden": ("api", _fault("status", status=403)),
    "network": ("storage", _fault("truncate")),
    "missing": ("storage", _fault("status", status=404)),
    "error_page": ("storage", _fault("error-page")),
    "not_audio": ("storage", _fault("wrong-magic")),
    "url_refused": ("storage", _fault("status", status=403, code="SignatureDoesNotMatch")),
    "url_expired": ("storage", _fault("expired")),
}
"""What never gets better, by what its run has to end with."""

MAY_HEAL: Final = frozenset({"network", "missing", "error_page", "url_refused"})
"""What a run fails with after half an hour only, where no other is served meanwhile."""

NEVER_BETTER: Final = (
    ("api", _fault("status", status=500)),
    ("api", _fault("value", value=[[{}]])),
    ("storage", _fault("truncate")),
    ("storage", _fault("stall")),
    ("storage", _fault("status", status=404)),
    ("storage", _fault("status", status=503)),
    ("storage", _fault("expired")),
)
"""What is tried again for as long as `PATIENT` allows."""

PATIENT: Final = (
    *QUICK, "--stall", "1s", "--concurrency", "2", "--attempts", "1000", "--refreshes", "1000",
    "--grace", "0",
)  # fmt: skip


@dataclass
class Storm:
    """Which run meets what, and what has to come of it."""

    ids: range
    rules: list[dict[str, Any]] = field(default_factory=list)
    faults: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    """Those at the storage, of each run that can be saved."""
    failed: dict[int, str] = field(default_factory=dict)

    @classmethod
    def over(cls, runs: int) -> Storm:
        """Spread every fault over so many runs, some more that are truly bad among them."""
        storm = cls(range(1, runs + len(BAD) + 1))
        bad = storm.ids[:: len(storm.ids) // len(BAD)]
        for run_id, (code, (where, fault)) in zip(bad, BAD.items(), strict=False):
            storm._meets(run_id, where, fault)
            storm.failed[run_id] = code
        good = [run_id for run_id in storm.ids if run_id not in storm.failed]
        for run_id, fault in zip(good[::6], cycle(AT_THE_API), strict=False):
            storm._meets(run_id, "api", fault, times=1)
        options = SimulatorOptions(**OPTIONS)
        large, small = cycle(IN_A_RESUME), cycle(AT_THE_STORAGE)
        for run_id in good[1::4]:
            if audio_name(options, RUN_TYPE, run_id).size >= RESUMABLE_BYTES:
                faults = [_fault("truncate"), next(large)]
            else:
                faults = [next(small)]
            storm.faults[run_id] = faults
            for fault in faults:
                storm._meets(run_id, "storage", fault, times=1)
        return storm

    def _meets(self, run_id: int, where: str, fault: dict[str, Any], **more: object) -> None:
        self.rules.append({"runs": [run_id], "where": where, "fault": fault} | more)

    def variants(self, run_id: int) -> list[Variant]:
        """Return which files may rightly be saved for a run: its faults may change the object."""
        kinds = [fault["kind"] for fault in self.faults.get(run_id, ())]
        if kinds == ["streamed"]:
            return [Variant(streamed=True)]
        return [Variant(2), Variant(1)] if "changed" in kinds else [Variant()]

    def requests_a_claim(self, run_id: int) -> int:
        """Return how often one claim may ask: redirects and contradictions ask again.

        So does an engine by itself, where a kept connection is of no more use: another run's fault.
        """
        again = {"redirect", "wrong-content-range", "no-etag", "weak-etag", "reset", "partial"}
        return 2 + sum(fault["kind"] in again for fault in self.faults.get(run_id, ()))


def fault_storm(rig: Rig, runs: int) -> list[str]:
    """Let three processes drain a storm of faults; return everything that is wrong."""
    storm = Storm.over(runs)
    rig.simulator.set_rules(storm.rules)
    rig.submit(storm.ids)
    processes = [rig.start("run", "--drain", *SETTINGS) for _ in range(PROCESSES)]
    patient = {run_id for run_id, code in storm.failed.items() if code in MAY_HEAL}
    rig.until(lambda: _left(rig) <= patient, "all but what may heal", every=0.2)
    if left := _left(rig):
        rig.succeed("cancel", *map(str, left))
    # Not those that have failed meanwhile.
    cancelled = {key for (key,) in rig.query("SELECT run_id FROM runs WHERE state = 'cancelled'")}
    codes = sorted(one.wait() for one in processes)
    wrong = [] if codes[0] >= 0 and codes[-1] == 1 else [f"the exit codes are {codes}"]
    failed = {key: code for key, code in storm.failed.items() if key not in cancelled}
    expected = Expected(storm.ids, failed=failed, cancelled=cancelled, variants=storm.variants)
    wrong += rig.wrong(expected, per_claim=storm.requests_a_claim)
    wrong += _wrong_share(rig) + _wrong_resumes(rig, storm)
    return wrong + _wrong_attempts(Snapshot.of(rig.database), storm)


def _left(rig: Rig) -> set[int]:
    """Return the runs that are unfinished."""
    query = "SELECT run_id FROM runs WHERE state IN ('pending', 'ready', 'downloading')"
    return {run_id for (run_id,) in rig.query(query)}


def _wrong_share(rig: Rig) -> list[str]:
    """Return what is wrong with the storm itself: a fifth of the answers, and of every kind.

    What befalls whole connections is in `bad_weather.py`.
    """
    stats = rig.simulator.stats()
    met = {name for name, number in stats["faults"].items() if number}
    wrong = [
        f"no answer was wrong by {place}:{kind}"
        for place, kinds in FAULTS.items()
        for kind, entry in kinds.items()
        if f"{place}:{kind}" not in met and not entry.connection
    ]
    answers = stats["api"]["requests"] + stats["storage"]["requests"]
    if sum(stats["faults"].values()) < answers / 5:
        wrong.append(f"of {answers} answers less than a fifth was wrong: {stats['faults']}")
    return wrong


def _wrong_resumes(rig: Rig, storm: Storm) -> list[str]:
    """Return which large files were not continued after their transfer was cut."""
    by_run = rig.simulator.stats()["storage"]["by_run"]
    return [
        f"run {run_id} was never asked for by Range"
        for run_id, faults in storm.faults.items()
        if len(faults) > 1 and not by_run[str(run_id)]["ranged"]
    ]


def _wrong_attempts(end: Snapshot, storm: Storm) -> list[str]:
    """Return which runs have spent more attempts than they met faults at the storage.

    A machine that is busy for longer than `--stall` is a fault that nobody has planned.
    """
    wrong = []
    for run_id, row in end.rows.items():
        if run_id in storm.failed:
            continue
        planned = storm.faults.get(run_id, [])
        stalls = sum(one.reason == "stalled" for one in end.histories[run_id])
        busy = stalls - sum(fault["kind"] == "stall" for fault in planned)
        costly = sum(fault["kind"] not in COST_NOTHING for fault in planned)
        if row["attempts"] > 1 + costly + max(busy, 0):
            told = [one.reason for one in end.histories[run_id]]
            wrong.append(f"run {run_id} spent {row['attempts']} attempts on {planned}: {told}")
    return wrong


def bad_ones_hold_up_nobody(rig: Rig, good: int) -> list[str]:
    """Submit runs behind some that never get better; return everything that is wrong."""
    rules = [
        {"runs": [run_id], "where": where, "fault": fault}
        for run_id, (where, fault) in enumerate(NEVER_BETTER, 1)
    ]
    rig.simulator.set_rules(rules)
    bad = range(1, len(rules) + 1)
    rig.submit(bad)
    daemon = rig.start("run", *PATIENT)
    tried = "SELECT count(*) FROM runs WHERE attempts + refreshes > 0 OR error_code IS NOT NULL"
    rig.until(lambda: rig.query(tried) == [(len(bad),)], "a try at every bad run", daemon)
    ids = range(101, 101 + good)
    rig.submit(ids)
    rig.until(lambda: rig.done() == good, "every good run", daemon)
    states = dict(rig.query("SELECT run_id, state FROM runs"))
    wrong = [f"run {run_id} is {states[run_id]}" for run_id in bad if states[run_id] in FINISHED]
    daemon.process.terminate()
    if daemon.wait() != 0:
        wrong.append(f"the daemon ended with {daemon.wait()}: {daemon.said()}")
    rig.succeed("cancel", *map(str, bad))
    rig.succeed("run", "--drain")
    return wrong + rig.wrong(Expected([*bad, *ids], cancelled=bad))


def main() -> int:
    """Run the long form."""
    long_form = LongForm(__doc__, runs=2000)
    runs = long_form.asked["runs"]
    with long_form.rig("storm", **OPTIONS) as rig:
        long_form.found(fault_storm(rig, runs))
    with long_form.rig("bad ones first", min_size=2_000, max_size=30_000) as rig:
        long_form.found(bad_ones_hold_up_nobody(rig, runs // 5))
    return long_form.conclude()


if __name__ == "__main__":
    sys.exit(main())
