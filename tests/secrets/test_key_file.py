"""The file with the key: who may read it, and what is none."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from spilling import API_KEY

from downloader.cli import key
from downloader.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Program, StartSimulator
    from spilling import Secrets


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the keys of whoever runs the tests out of them, and what was warned of before."""
    for name in ("CAMB_API_KEY", "CAMB_API_KEY_FILE", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    key._warn_of_readers.cache_clear()
    yield
    key._warn_of_readers.cache_clear()


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have CAMB_API_KEY_FILE name a file with the key, readable by its owner alone."""
    path = tmp_path / "a key"
    path.touch(0o600)
    path.write_text(f"{API_KEY}\n", encoding="utf-8")
    monkeypatch.setenv("CAMB_API_KEY_FILE", str(path))
    return path


def refused() -> str:
    """Try to load a key that cannot be; return what is said."""
    with pytest.raises(ConfigurationError) as raised:
        key.load_api_key()
    return str(raised.value)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700, 0o640, 0o604, 0o444, 0o644, 0o622])
def test_who_may_read_it(key_file: Path, capsys: pytest.CaptureFixture[str], mode: int) -> None:
    """Where others may read the key one line says so, and how to end that, and the key is used."""
    key_file.chmod(mode)
    for _ in range(3):
        assert key.load_api_key() == API_KEY
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"downloader: the API key in {key_file} can be read by other users of this machine: "
        f"chmod 600 '{key_file}'\n"
        if mode & 0o044
        else ""
    )


def test_a_link_to_it(
    key_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What counts is the file, not the link that leads to it."""
    (tmp_path / "link").symlink_to(key_file)
    monkeypatch.setenv("CAMB_API_KEY_FILE", str(tmp_path / "link"))
    assert key.load_api_key() == API_KEY
    assert capsys.readouterr().err == ""
    key_file.chmod(0o644)
    assert key.load_api_key() == API_KEY
    assert str(tmp_path / "link") in capsys.readouterr().err


@pytest.mark.parametrize("named", [False, True], ids=["by systemd", "by name"])
def test_a_credential(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    named: bool,
) -> None:
    """Of a credential nothing is said: systemd lets in whom it will, by access lists."""
    path = tmp_path / "camb-api-key"
    path.write_text(API_KEY, encoding="utf-8")
    path.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    if named:
        monkeypatch.setenv("CAMB_API_KEY_FILE", str(path))
    assert key.load_api_key() == API_KEY
    assert capsys.readouterr().err == ""


def test_a_large_file(key_file: Path) -> None:
    """A file that is no key's is not read to its end, and is named."""
    with key_file.open("wb") as file:
        file.truncate(10**12)  # sparse: read whole, it would be all memory
    assert refused() == (
        f"CAMB_API_KEY_FILE names {key_file}, which has more than 4096 bytes: "
        "it is not the file of a key."
    )
    key_file.write_text("k" * 4096, encoding="utf-8")
    assert key.load_api_key() == "k" * 4096


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "link to a device", "socket"])
def test_no_regular_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """What is no regular file is refused, and neither waited for nor read."""
    path = tmp_path / "key"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path = type(path)("/dev/zero")
        case "link to a device":
            path.symlink_to("/dev/zero")
        case "socket":
            monkeypatch.chdir(tmp_path)  # the path of a socket must be short
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind("key")
    monkeypatch.setenv("CAMB_API_KEY_FILE", str(path))
    said = refused()
    assert str(path) in said
    assert "which is not a regular file" in said or "which cannot be read" in said
    assert capsys.readouterr().err == ""


def test_a_pipe_with_a_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secrets: Secrets
) -> None:
    """A pipe is refused though there is a key in it: who reads it first would take it away."""
    path = tmp_path / "key"
    os.mkfifo(path)
    monkeypatch.setenv("CAMB_API_KEY_FILE", str(path))
    ends: list[int] = []
    writer = threading.Thread(target=lambda: ends.append(os.open(path, os.O_RDWR)))
    writer.start()
    writer.join()
    os.write(ends[0], API_KEY.encode())
    said = refused()
    assert "which is not a regular file" in said
    assert secrets(said) == []
    assert os.read(ends[0], 100) == API_KEY.encode()
    os.close(ends[0])


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" + API_KEY.encode(),
        b"PK\x03\x04" + API_KEY.encode(),
        API_KEY.encode("utf-16-le"),
        b"a b " + API_KEY.encode(),
        API_KEY.encode() + b"\nanother-key",
    ],
)
def test_a_key_that_is_none(key_file: Path, secrets: Secrets, content: bytes) -> None:
    """A key that cannot be one is refused without a piece of it, also in what lies behind."""
    key_file.write_bytes(content)
    with pytest.raises(ConfigurationError) as raised:
        key.load_api_key()
    error: BaseException | None = raised.value
    while error is not None:
        assert secrets(f"{error} {error!r}") == []
        error = error.__cause__ or error.__context__


WRITTEN = {
    "a new line": f"{API_KEY}\n",
    "Windows": f"{API_KEY}\r\n\r\n",
    "blanks": f" \t{API_KEY}\xa0\n",
    "a mark of byte order": f"\ufeff{API_KEY}",
    "quotes": f'"{API_KEY}"\n',
    "other quotes": f"'{API_KEY}'",
    "a variable": f"CAMB_API_KEY={API_KEY}\n",
    "a shell's": f"# mine\nexport CAMB_API_KEY='{API_KEY}'\n",
    "PowerShell's": f'$env:CAMB_API_KEY = "{API_KEY}"\r\n',
    "a file of settings": f"OTHER=1\nCAMB_API_KEY={API_KEY}\nDOWNLOADER_OUTPUT=x\n",
    "a header": f"x-api-key: {API_KEY}\n",
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN.keys())
def test_how_a_key_is_written_down(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """However a key is written down, by Windows' programs too, it is the key that is taken."""
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        key_file.write_bytes(text.encode(encoding))
        assert key.load_api_key() == API_KEY
    monkeypatch.setenv("CAMB_API_KEY", text)
    assert key.load_api_key() == API_KEY


@pytest.mark.parametrize("text", ["", " \n", '""', "CAMB_API_KEY=", "# none\n", "\ufeff"])
def test_a_file_without_a_key(key_file: Path, text: str) -> None:
    """A file in which there is no key is told as empty."""
    key_file.write_text(text, encoding="utf-8")
    assert refused() == f"CAMB_API_KEY_FILE names {key_file}, which is empty."


def test_of_a_user_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `~name` of nobody is a path that is not there."""
    monkeypatch.setenv("CAMB_API_KEY_FILE", "~no-such-user-here/key")
    assert "~no-such-user-here/key, which cannot be read: No such file" in refused()


def test_cron_is_told_once(
    program: Program, start_simulator: StartSimulator, key_file: Path
) -> None:
    """`--once` under cron, silent otherwise, says it in one line, and does its work."""
    program.env |= {
        "DOWNLOADER_API_URL": start_simulator(api_key=API_KEY).api_url,
        "CAMB_API_KEY": "",
        "CAMB_API_KEY_FILE": str(key_file),
    }
    assert program("submit", "1", "2").returncode == 0
    done = program("run", "--once")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    key_file.chmod(0o644)
    assert program("submit", "3", "4").returncode == 0
    done = program("run", "--once")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("\n") == 1
    assert f"chmod 600 '{key_file}'" in done.stderr
    assert program.query("SELECT count(*) FROM runs WHERE state = 'done'") == [(4,)]
