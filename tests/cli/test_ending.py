"""What a call says at its end, and its exit code, where no process could be timed so well."""

from __future__ import annotations

from pathlib import Path

import pytest

from downloader.cli.ending import conclude
from downloader.observe.tally import Tally
from downloader.service import Result
from downloader.session import Mode


@pytest.mark.parametrize(
    ("mode", "left", "code", "said"),
    [
        (Mode.DRAIN, 0, 0, ""),
        (Mode.DRAIN, 1, 4, "stopped early (submitted as it ended), 1 run is left; "),
        (Mode.DRAIN, 3, 4, "stopped early (submitted as it ended), 3 runs are left; "),
        (Mode.ONCE, 3, 0, ""),
    ],
)
def test_runs_that_came_at_the_end(
    capsys: pytest.CaptureFixture[str], mode: Mode, left: int, code: int, said: str
) -> None:
    """A drain that leaves runs says so, though nobody stopped it; --once waits for none."""
    result = Result(Tally(), None, bool(left), None, Path("/audio"), left)
    assert conclude(result, mode, quiet=True) == code
    err = capsys.readouterr().err
    assert (said in err) if said else not err
