"""The command line in this process: as fast as a call, and with its exit code."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from downloader.cli import main as command_line

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Answer:
    """What a call printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever was printed
        """Read what was printed as JSON."""
        return json.loads(self.out)


@dataclass
class Caller:
    """Calls the command line with an environment of the test's own."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    @property
    def database(self) -> Path:
        """The database that every call uses, unless told otherwise."""
        return self.folder / "runs.sqlite3"

    def __call__(self, *arguments: str | Path, stdin: bytes | str | None = "") -> Answer:
        """Call it; a `stdin` of None is a closed one."""
        content = stdin.encode() if isinstance(stdin, str) else stdin
        replaced = None if content is None else io.TextIOWrapper(io.BytesIO(content))
        self.capsys.readouterr()
        with self.monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", replaced)
            patched.setattr(sys, "argv", ["downloader", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                command_line.main()
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err
        assert isinstance(ended.value.code, int)
        return Answer(ended.value.code, out, err)

    def set(self, **environment: str) -> None:
        """Set variables of the environment."""
        for name, value in environment.items():
            self.monkeypatch.setenv(name, value)

    def configure(self, text: str) -> Path:
        """Write a configuration file."""
        path = self.folder / "settings.toml"
        path.write_text(text, encoding="utf-8")
        return path
