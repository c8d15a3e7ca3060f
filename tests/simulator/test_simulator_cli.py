from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
from children import Child
from click.testing import CliRunner
from simulator.asking import KEY

from downloader.cli.simulate import simulate
from downloader.errors import ConfigurationError
from downloader.simulator import server

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = [sys.executable, "-c", "from downloader.cli.simulate import simulate; simulate()"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_stops_on_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    """The addresses come one a line, they work, and a signal ends it with 0 and no noise."""
    rules = tmp_path / "rules.json"
    rules.write_text(
        json.dumps({"rules": [{"runs": "2", "where": "storage", "fault": {"kind": "stall"}}]})
    )
    with Child(
        [*PROGRAM, "--size", "1000", "--fail", "3", "--rules", str(rules)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(4)]
        addresses = dict(line.strip().split(": ", 1) for line in lines[:3])
        answer = httpx.post(
            f"{addresses['API']}/text-to-sound-results", json={"run_ids": [1, 2, 3]}, headers=KEY
        ).json()
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(answer["2"]["output_url"], timeout=0.2)
        audio = httpx.get(answer["1"]["output_url"]).content
        stats = httpx.get(addresses["Statistics"]).json()
        process.send_signal(number)
        rest, noise = process.communicate(timeout=10)

    assert answer["3"] == {"status": "ERROR", "exception_reason": "Simulated failure"}
    assert answer["1"]["output_url"].startswith(addresses["Storage"])
    assert len(audio) == 1000
    assert stats["api"]["bulk"] == {"200": 1}
    assert lines[3].startswith("Ready")
    assert (process.returncode, rest, noise) == (0, "", "")


@pytest.mark.parametrize(
    ("given", "storage_port"),
    [((), 0), (("--port", "0"), 0), (("--port", "8400"), 8401), (("--port", "65535"), 0)],
)
def test_the_storage_is_where_it_was(
    monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], storage_port: int
) -> None:
    """With a port for the API the storage has the next, so that URLs outlive a restart."""
    asked: list[tuple[int, int]] = []

    def serve(_options: object, _host: str, *ports: int, **_files: object) -> None:
        asked.append((ports[0], ports[1]))

    monkeypatch.setattr(server, "serve", serve)
    assert CliRunner().invoke(simulate, [*given]).exit_code == 0
    assert CliRunner().invoke(simulate, [*given, "--storage-port", "9000"]).exit_code == 0
    port = int(given[1]) if given else 0
    assert asked == [(port, storage_port), (port, 9000)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "192.0.2.1"], "not a loopback address"),
        (["--min-size", "10"], "sizes must be"),
        (["--store", "floppy"], "is not one of"),
        (["--fail", "x"], "neither a run id nor a range"),
        (["--fault-rate", "7"], "fault_rate must be 0 to 1"),
        (["--rules", "/nowhere.json"], "does not exist"),
        (["--rule", "{"], "it is not JSON"),
        (["--rule", '{"where": "api", "fault": "explode"}'], "unknown fault 'explode'"),
        (["--port", "70000"], "is not a whole number from 0 to 65535"),
    ],
)
def test_wrong_usage_is_exit_2(arguments: list[str], says: str) -> None:
    """What cannot be is refused before anything starts."""
    result = CliRunner().invoke(simulate, arguments)

    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_a_port_in_use_is_exit_2() -> None:
    """The port is named."""
    with httpx.Client():  # keeps the import out of the way of the socket below
        import socket  # noqa: PLC0415

        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            result = CliRunner().invoke(simulate, ["--port", port])

    assert isinstance(result.exception, ConfigurationError)
    assert f"cannot listen on 127.0.0.1 port {port}" in str(result.exception)


def test_a_wrong_certificate_needs_one_that_is_right() -> None:
    """Without https there is no certificate that could be wrong."""
    rule = '{"where": "api", "fault": "certificate"}'
    result = CliRunner().invoke(simulate, ["--rule", rule])

    assert isinstance(result.exception, ConfigurationError)
    assert "needs --https" in str(result.exception)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where fastapi is missing, the message names the packages to install."""
    monkeypatch.setitem(sys.modules, "downloader.simulator.server", None)

    result = CliRunner().invoke(simulate, [])

    assert isinstance(result.exception, ConfigurationError)
    assert "pip install fastapi uvicorn" in str(result.exception)


def test_options_come_from_the_environment() -> None:
    """Each option has its variable."""
    result = CliRunner().invoke(
        simulate, [], env={"DOWNLOADER_SIMULATE_HOST": "192.0.2.7"}, auto_envvar_prefix=None
    )

    assert result.exit_code == 2
    assert "192.0.2.7 is not a loopback address" in " ".join(result.output.split())


def test_the_faults_are_listed() -> None:
    """`--list-faults` prints the catalogue."""
    result = CliRunner().invoke(simulate, ["--list-faults"])

    assert result.exit_code == 0
    assert "Faults at the storage:" in result.output
    assert "wrong-content-range" in result.output


def test_the_command_does_not_load_the_server_before_it_is_needed() -> None:
    """Importing the command leaves fastapi and uvicorn alone: start-up matters."""
    program = (
        "import sys; import downloader.cli.simulate, downloader.simulator\n"
        "print([name for name in ('fastapi', 'uvicorn', 'pydantic') if name in sys.modules])"
    )

    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout

    assert printed.strip() == "[]"
