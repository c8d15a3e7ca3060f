"""Makes docs/run.svg, a film of a session, and docs/status.svg, a look at a large job.

Run it in a checkout, from the folder `tests`: `python -m pictures.taking`. What is seen is the
program's own output, at its own pace, against a simulator.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness import Program
from inspecting.screenshot import a_day
from pages import ROOT
from pictures import drawing
from pictures.film import film

from downloader.simulator.options import SimulatorOptions
from downloader.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

FILM: Final = ROOT / "docs/run.svg"
STILL: Final = ROOT / "docs/status.svg"
FOLDER: Final = Path("/tmp/sounds")  # noqa: S108 - seen in the film: it belongs to nobody
_FIRST_RUN_ID: Final = 100_001
_ROWS: Final = 20


def take_film(folder: Path, picture: Path, *, runs: int, bandwidth: int) -> None:
    """Film how runs are saved in a folder: some late, some slowly, one fails."""
    ids = range(_FIRST_RUN_ID, _FIRST_RUN_ID + runs)
    (folder / "ids.txt").write_text("".join(f"{run_id}\n" for run_id in ids))
    options = SimulatorOptions(
        audio_format="flac", min_size=300_000, max_size=3_000_000, bandwidth=bandwidth
    )
    with Simulator(options) as simulator:
        simulator.set_rules(_rules(ids, bandwidth))
        program = Program(folder, {"DOWNLOADER_API_URL": simulator.api_url})
        session = (
            ("downloader submit --file ids.txt", 0.8),
            ("downloader run --drain", 1.5),
            ("downloader status", 3.0),
            ("downloader list --limit 5", 5.0),
        )
        frames, seconds = film(program, session, rows=_ROWS)
    title = "downloader submit, run, status and list on a terminal"
    picture.write_text(drawing.film(frames, seconds, title), encoding="utf-8")


def _rules(ids: range, bandwidth: int) -> list[dict[str, Any]]:
    rejected = {"kind": "word", "word": "ERROR", "reason": "The prompt was rejected."}
    expired = {"kind": "url-lifetime", "seconds": -1}
    failing, slow = ids[len(ids) // 2], list(ids[2 :: len(ids) // 3])
    return [
        {"runs": [failing, *ids[3::4]], "where": "api", "fault": "pending", "during": [0, 3]},
        {"runs": [failing], "where": "api", "fault": rejected},
        {"runs": list(ids[1::6]), "where": "api", "fault": expired, "times": 1},
        {"runs": slow, "where": "storage", "fault": {"kind": "drip", "rate": bandwidth / 4}},
    ]


def take_still(folder: Path, picture: Path) -> None:
    """Take what `downloader status` says in the midst of a large job."""
    a_day(folder / "sounds.sqlite3")
    frames, _ = film(Program(folder), [("downloader status", 0.0)], rows=_ROWS)
    *told, _prompt = [line for line in frames[-1].picture if line]
    title = "downloader status on a terminal"
    picture.write_text(drawing.still(tuple(told), title), encoding="utf-8")


@contextlib.contextmanager
def _seen_folder() -> Iterator[Path]:
    try:
        FOLDER.mkdir()
    except FileExistsError:
        sys.exit(f"{FOLDER} is there, and the pictures show a folder of that name: move it away.")
    try:
        yield FOLDER
    finally:
        shutil.rmtree(FOLDER)


if __name__ == "__main__":
    with _seen_folder() as seen:
        take_film(seen, FILM, runs=60, bandwidth=1_500_000)
    with _seen_folder() as seen:
        take_still(seen, STILL)
