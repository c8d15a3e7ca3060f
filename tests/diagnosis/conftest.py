"""What the tests of `doctor` share: calls in this process, without the caller's own proxies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cli.conftest import call, driver, migrated_once
from spilling import API_KEY

from downloader.diagnosis import databases

if TYPE_CHECKING:
    from pathlib import Path

    from cli.calling import Caller

__all__ = ["call", "driver", "migrated_once"]


@dataclass(frozen=True)
class Examined:
    """What `doctor --json` has found, and how it ended."""

    code: int
    checks: dict[str, dict[str, Any]]

    @property
    def statuses(self) -> dict[str, str]:
        """Return the names of what is not ok, with how bad it is."""
        return {name: one["status"] for name, one in self.checks.items() if one["status"] != "ok"}

    def finding(self, name: str) -> str:
        """Return what was found by a check, with the advice."""
        return f"{self.checks[name]['finding']} > {self.checks[name]['advice'] or ''}"


@dataclass(frozen=True)
class Doctor:
    """Calls `doctor --json`."""

    call: Caller

    def __call__(self, *arguments: str | Path) -> Examined:
        """Examine, and see that the answer keeps to its form."""
        answer = self.call("doctor", "--json", *arguments)
        found = answer.json
        assert answer.err == ""
        assert set(found) == {"ok", "checks"}
        checks = {one["name"]: one for one in found["checks"]}
        assert len(checks) == len(found["checks"]), "a check has told twice"
        for one in found["checks"]:
            assert set(one) == {"name", "status", "finding", "advice"}
            assert one["status"] in {"ok", "warning", "problem"}
            assert (one["advice"] is None) == (one["status"] == "ok")
            assert not one["finding"].endswith(".")
        assert found["ok"] == all(one["status"] != "problem" for one in found["checks"])
        assert answer.code == (0 if found["ok"] else 1)
        return Examined(answer.code, checks)


@pytest.fixture(autouse=True)
def _own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the proxies and the authorities of whoever runs the tests out of them."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def doctor(call: Caller, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Examine the installation that the calls use, with a key.

    The tests' runs have been due since last March, and that is not to be remarked on.
    """
    call.set(CAMB_API_KEY=API_KEY)
    monkeypatch.setattr(databases, "FORGOTTEN", timedelta(days=36_500))
    return Doctor(call)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Make an authority, and have SSL_CERT_FILE name it."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return made
