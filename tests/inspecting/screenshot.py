"""Makes docs/inspect.png: the first page, over a day of work that never was.

Run it in a checkout, from the folder `tests`: `python -m inspecting.screenshot`.
"""

from __future__ import annotations

import math
import random
import sqlite3
import tempfile
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Final

from harness import Program
from inspecting.browsing import WIDTH, browsing
from inspecting.looking import inspected

from downloader.clock import utc_now
from downloader.store.intake import submit
from downloader.store.migrate import open_database
from downloader.store.schema import to_text

PICTURE: Final = Path(__file__).resolve().parents[2] / "docs" / "inspect.png"
HEIGHT: Final = 800
_RUNS: Final = 12_000
_UNFINISHED: Final = 1_400
_FAILED: Final = 90


def a_day(path: Path) -> None:
    """Make a database of a day in which most runs were saved."""
    chance = random.Random(7)  # noqa: S311 - no secret
    now = utc_now()
    with closing(open_database(path)) as database:
        submit(database, "text-to-sound", range(100_001, 100_001 + _RUNS), now - timedelta(days=1))
    with closing(sqlite3.connect(path)) as raw:
        for run_id in range(100_001, 100_001 + _RUNS - _UNFINISHED):
            part = (run_id - 100_001) / (_RUNS - _UNFINISHED)
            wave = part + math.sin(part * 19) / 40 + chance.gauss(0, 0.002)
            at = to_text(now - timedelta(days=1) * (1 - (wave if 0 < wave < 1 else part)))
            if chance.random() < _FAILED / _RUNS:
                raw.execute(
                    "UPDATE runs SET state = 'failed', error_code = 'provider_failed',"
                    " error_message = 'The service says: ERROR', next_attempt_at = NULL,"
                    " updated_at = ? WHERE run_type = 'text-to-sound' AND run_id = ?",
                    (at, run_id),
                )
            else:
                raw.execute(
                    "UPDATE runs SET state = 'done', location = ?, bytes = ?, sha256 = ?,"
                    " audio_format = 'flac', next_attempt_at = NULL, done_at = ?, updated_at = ?"
                    " WHERE run_type = 'text-to-sound' AND run_id = ?",
                    (
                        *(f"/audio/{run_id}.flac", int(chance.lognormvariate(14.2, 0.5))),
                        *(f"{run_id:064x}", at, at, run_id),
                    ),
                )
        raw.execute(
            "UPDATE runs SET state = 'ready', url = 'https://storage.example/', polls = 1"
            " WHERE run_id > ?",
            (100_001 + _RUNS - 40,),
        )
        raw.commit()


def take(folder: Path, picture: Path) -> None:
    """Make the database in a folder, and the picture of its first page."""
    (folder / "home").mkdir()
    program = Program(folder)
    a_day(program.database)
    with inspected(program) as site:
        for watched in browsing():
            watched.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
            watched.page.goto(site.url)
            watched.page.screenshot(path=picture)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        take(Path(made), PICTURE)
