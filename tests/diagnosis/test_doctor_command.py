from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from spilling import API_KEY

if TYPE_CHECKING:
    from cli.calling import Caller
    from diagnosis.conftest import Doctor
    from harness import Program, StartSimulator


def test_what_people_read(
    call: Caller, doctor: Doctor, program: Program, start_simulator: StartSimulator
) -> None:
    """Each check is a line or a few, within 80 columns and in ASCII; the last line counts."""
    assert doctor.call is call
    program.env |= {
        "DOWNLOADER_API_URL": start_simulator(api_key="another").api_url,
        "CAMB_API_KEY": API_KEY,
        "LC_ALL": "C",
        "COLUMNS": "",
        "NO_COLOR": "1",
    }
    call.database.chmod(0o644)
    done = program("doctor")
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert done.stdout.isascii()
    assert lines[-1] == "1 problem, 1 warning"
    assert {line.split()[0] for line in lines[:-1] if not line.startswith(" ")} == {
        "ok",
        "warning",
        "problem",
    }
    for line in lines:
        assert len(line) <= 80 or "/" in line, "only a path is not broken"
    told = done.stdout.index("problem  api key: from CAMB_API_KEY; the service refused")
    assert done.stdout.index("> take a key that is valid", told) > told
    assert API_KEY not in done.stdout


def test_a_quick_look_asks_nobody(
    call: Caller, doctor: Doctor, start_simulator: StartSimulator
) -> None:
    """A health check makes no request, needs no key, and loads no client."""
    call.monkeypatch.delenv("CAMB_API_KEY")
    simulator = start_simulator()
    assert doctor("--quick", "--api-url", simulator.api_url).statuses == {}
    assert simulator.stats()["api"]["requests"] == 0
    code = (
        "import sys\n"
        "from downloader.cli.main import cli\n"
        "code = cli.main(['doctor', '--quick'], standalone_mode=False)\n"
        "heavy = ['httpx', 'anyio', 'alembic', 'fastapi', 'tqdm', 'pycurl']\n"
        "print(code, *[name for name in heavy if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "0\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--min-free", "much"], "--min-free"),
        (["--concurrency", "0"], "--concurrency"),
        (["--engine", "wget"], "--engine"),
        (["--api-url", "http://example.com"], "--api-url"),
        (["--api-url", f"https://ada:{API_KEY}@example.com"], "--api-url"),
        (["--database", f"postgresql://ada:{API_KEY}@h/runs"], "postgresql"),
        (["--once"], "--once"),
        (["extra"], "extra"),
    ],
)
def test_usage(doctor: Doctor, arguments: list[str], said: str) -> None:
    """What `run` would not take is no finding but a mistake: exit code 2, with its place."""
    answer = doctor.call("doctor", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert API_KEY not in answer.err


def test_variables_that_nothing_reads(
    call: Caller, doctor: Doctor, start_simulator: StartSimulator
) -> None:
    """A variable whose name is nearly right is told; what Kubernetes sets is passed over."""
    call.set(DOWNLOADER_API_URL=start_simulator().api_url)
    call.set(
        DOWNLOADER_SERVICE_HOST="10.0.0.1",
        DOWNLOADER_SERVICE_PORT_HTTP="80",
        DOWNLOADER_PORT="tcp://10.0.0.1:80",
        DOWNLOADER_PORT_80_TCP_ADDR="10.0.0.1",
        DOWNLOADER_SIMULATE_PORT="8400",
        DOWNLOADER_TRACEBACK="0",
        DOWNLOADER_VERBOSE="1",
    )
    assert doctor().statuses == {}
    call.set(DOWNLOADER_CONCURENCY="4", DOWNLOADER_QQQ=API_KEY)
    found = doctor()
    assert found.statuses == {"environment": "warning"}
    assert "did you mean DOWNLOADER_CONCURRENCY?" in found.finding("environment")
    assert "DOWNLOADER_QQQ" in found.finding("environment")
    assert API_KEY not in str(found.checks)


def test_the_engine(
    call: Caller,
    doctor: Doctor,
    start_simulator: StartSimulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine that `run` would take is told with its versions, or why there is none."""
    call.set(DOWNLOADER_API_URL=start_simulator().api_url)
    assert "libcurl" in doctor().finding("engine")
    assert "as --engine asks" in doctor("--engine", "httpx").finding("engine")
    for name in [one for one in sys.modules if one.startswith("downloader.transfer.curl")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pycurl", None)
    found = doctor()
    assert found.statuses == {}
    assert "it is not installed" in found.finding("engine")
    found = doctor("--engine", "curl")
    assert found.statuses == {"engine": "problem"}
    assert "pip install pycurl" in found.finding("engine")


def test_few_open_files(doctor: Doctor, program: Program, start_simulator: StartSimulator) -> None:
    """A limit on open files that is too low for --concurrency is warned of, with how many it is."""
    url = start_simulator().api_url
    script = 'ulimit -n 150 && exec "$@"'
    for concurrency, statuses in (("16", {"open_files"}), ("1", set())):
        command = program.command("doctor", "--json", "--api-url", url)
        done = subprocess.run(
            ["bash", "-c", script, "bash", *command, "--concurrency", concurrency],  # noqa: S607 - bash is what CI needs as well
            env=program.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        checks = json.loads(done.stdout)["checks"]
        assert {one["name"] for one in checks if one["status"] == "warning"} == statuses
        [said] = [one for one in checks if one["name"] == "open_files"]
        assert "150 at a time" in said["finding"]
    assert doctor("--api-url", url).statuses == {}


def test_secrets_in_every_place(
    call: Caller, doctor: Doctor, start_simulator: StartSimulator
) -> None:
    """A key or a signature that somebody has put in the wrong place is not repeated."""
    signed = "https://s.example/1.wav?X-Amz-Signature=5ec2e75ec2e7"
    call.set(DOWNLOADER_API_URL=start_simulator().api_url)
    for name in ("HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "DOWNLOADER_X"):
        for value in (API_KEY, signed):
            with call.monkeypatch.context() as patched:
                patched.setenv(name, value)
                for arguments in (["doctor"], ["doctor", "--json"], ["config"]):
                    answer = call(*arguments)
                    assert API_KEY not in answer.out + answer.err
                    assert "5ec2e7" not in answer.out + answer.err
    for option in ("--output", "--database", "--engine", "--min-free", "--api-url", "--nonsense"):
        for value in (API_KEY, signed):
            answer = call("doctor", option, value)
            assert API_KEY not in answer.out + answer.err, option
            assert "5ec2e7" not in answer.out + answer.err, option
    assert doctor("--output", API_KEY).code == 0
