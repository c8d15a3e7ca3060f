"""A worker that was frozen past its lease does no harm when it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from torture.lost_lease import OPTIONS, frozen_with_the_database, lost_lease, options_of
from torture.rig import Rig
from torture.truth import assert_nothing

from downloader.failpoints import At

if TYPE_CHECKING:
    from pathlib import Path


PLACES = (
    At.POLL_ANSWERED,
    At.TRANSFER_NOTED,
    At.TRANSFER_WRITING,
    At.TRANSFER_WRITTEN,
    At.TRANSFER_SYNCED,
    At.TRANSFER_PUBLISHED,
    At.TRANSFER_DELIVERED,
)


@pytest.mark.parametrize("at", PLACES)
def test_frozen_past_its_lease(tmp_path: Path, at: At) -> None:
    """What another has saved meanwhile stays as it is, and the thawed process goes on."""
    with Rig(tmp_path / "rig", **options_of(at)) as rig:
        assert_nothing(lost_lease(rig, at))


def test_frozen_with_the_database(tmp_path: Path) -> None:
    """While one process is frozen in a commit the others wait, and then all go on."""
    with Rig(tmp_path / "rig", **OPTIONS) as rig:
        assert_nothing(frozen_with_the_database(rig, for_long=False))
