"""What the pages of `downloader inspect` ask beside the queries of docs/sql.md."""

from __future__ import annotations

from typing import Final

from downloader.rules.states import State

STATES: Final = f"SELECT run_type, runs, bytes, {', '.join(State)} FROM progress ORDER BY run_type"  # noqa: S608 - constants

SAVED_BY_MINUTE: Final = """
SELECT substr(done_at, 1, 16) || ':00' AS minute, count(*) AS runs, sum(bytes) AS bytes
FROM runs
WHERE state = 'done' AND done_at >= datetime('now', '-1 hour')
GROUP BY minute
"""

HISTORY: Final = """
SELECT at, from_state, to_state, reason, detail FROM run_events
WHERE run_type = :run_type AND run_id = :run_id ORDER BY event_id
"""

LAST_RUN: Final = "SELECT run_type, run_id FROM run_events ORDER BY event_id DESC LIMIT 1"
"""The run that something has happened to last."""

IS_SAVED: Final = f"state = '{State.DONE}'"
"""Written out: only so is the index of the saved runs used."""

ALL_SAVED: Final = f"SELECT count(*) AS files, total(bytes) AS bytes FROM runs WHERE {IS_SAVED}"  # noqa: S608 - a constant

SAVED_FILE: Final = """
SELECT location, audio_format FROM runs
WHERE run_type = :run_type AND run_id = :run_id AND state = 'done'
"""
