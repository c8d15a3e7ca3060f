from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hostile.hostile_values import MB, assert_told, json_values, measured
from hypothesis import given
from hypothesis import strategies as st

from downloader.cli import simulate as simulate_command
from downloader.simulator import server
from downloader.simulator.catalogue import FAULTS, Place
from downloader.simulator.errors import SimulatorError
from downloader.simulator.rules import parse_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.calling import Caller
    from harness import Program, StartSimulator

    from downloader.simulator.options import SimulatorOptions

RULE_NAMES = (
    *("runs", "where", "fault", "run_type", "times", "skip", "probability", "during", "endpoint"),
    "rules",
)
RULE_VALUES: tuple[object, ...] = (
    *("*", "1-5,9", "7", "5-3", "-", ",", "1-", "\u0663", "9" * 5000, "api", "storage", "word"),
    *("truncate", "redirect", "", 0, 1, -1, 0.5, 1.5, float("nan"), float("inf"), 10**30, True),
    *(None, [1, 2], [1.5], [], {"modulo": 7}, {"modulo": 0}, {"modulo": 7, "remainder": 9}),
    *({"modulo": float("nan")}, {"kind": "drip", "rate": float("nan")}, {"kind": "nothing"}),
    *({"kind": ["x"]}, {"kind": "late", "seconds": float("inf")}, {"kind": "status", "status": 1}),
    *([0, 1], [1, 0], [0, None], [float("nan"), 1], [0, float("inf")], "bulk", "refuse", "hang"),
)


@given(
    value=st.lists(
        st.dictionaries(
            st.sampled_from(RULE_NAMES) | st.text(max_size=5),
            st.sampled_from(RULE_VALUES) | json_values,
            max_size=6,
        )
        | json_values,
        max_size=3,
    )
    | json_values,
)
def test_any_json_is_judged(value: object) -> None:
    """Whatever a rule file holds, it is rules, or an error short enough to be read."""
    for content in (value, {"rules": value}):
        try:
            parse_rules(content)
        except SimulatorError as error:
            told = str(error)
            told.encode()
            assert 0 < len(told) < 1500


DEEP: list[Any] = []
for _ in range(500):
    DEEP = [DEEP]

PARAMETERS: tuple[object, ...] = (
    *(
        0,
        -1,
        10**30,
        -(10**30),
        2**63,
        2**31,
        1e308,
        -1e308,
        float("inf"),
        float("nan"),
        1e10,
        -1e10,
    ),
    *("x", "\u2603", "\u2028x", "a" * 10_000, "http://[", "\ud800", {}, {"X-A": "\u2603"}),
    *({"bad name": "x"}, {"a:b": "x"}, {"content-length": None}, {"": ""}, {"X": "y" * 99_999}),
    *([], DEEP, None, True, 599, 204, 304, 308, {"a": "\ud800"}, [float("nan")], 10**4000),
)


class Heard(logging.Handler):
    """Keeps what the simulator's server complains of."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.records.append(self.format(record))


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """Listen to what the simulator's server complains of."""
    heard = Heard()
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
    for logger in loggers:
        logger.addHandler(heard)
    yield heard.records
    for logger in loggers:
        logger.removeHandler(heard)


PLACES = [
    pytest.param(place, kind, id=f"{place.value}-{kind}")
    for place, kinds in FAULTS.items()
    for kind in kinds
    if kind not in ("stall", "slow", "drip", "certificate")  # waited for; needs --https
]


@pytest.mark.parametrize(("place", "kind"), PLACES)
def test_parameters_of_faults(
    start_simulator: StartSimulator,
    complaints: list[str],
    place: Place,
    kind: str,
) -> None:
    """A parameter is refused when the rule is read, or acted out without an error of the server."""
    simulator = start_simulator(max_size=3000)
    tried = 0
    with httpx.Client(timeout=5, headers={"x-api-key": "any"}) as client:
        for name in FAULTS[place][kind].parameters:
            for value in PARAMETERS:
                fault = {"kind": kind, name: value}
                try:
                    simulator.set_rules([{"where": place.value, "fault": fault}])
                except SimulatorError:
                    continue
                tried += 1
                ask(client, simulator)
                assert complaints == [], fault
    assert tried or not FAULTS[place][kind].parameters


def ask(client: httpx.Client, simulator: server.Simulator) -> None:
    """Ask for a batch, for a run alone and for its file; how they are answered is no matter."""
    address = simulator._state.presigned("tts", 1)
    for request in (
        client.build_request("POST", f"{simulator.api_url}/tts-results", json={"run_ids": [1, 2]}),
        client.build_request("GET", f"{simulator.api_url}/tts-result/1"),
        client.build_request("GET", address, headers={"range": "bytes=5-"}),
    ):
        try:
            client.send(request)
        except httpx.TransportError:
            continue


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[SimulatorOptions]:
    """Keep `simulate` from serving; the simulator is made, started and ended."""
    found: list[SimulatorOptions] = []

    def serve(options: SimulatorOptions, *ports: Any, **others: Any) -> None:  # noqa: ANN401 - passed on
        host, port, storage_port = ports
        with server.Simulator(
            options, host=host, port=port, storage_port=storage_port, **others
        ) as simulator:
            found.append(options)
            # The certificate of --https is tried elsewhere.
            with httpx.Client(timeout=5, headers={"x-api-key": "any"}, verify=False) as client:  # noqa: S501
                asked = client.get(f"{simulator.control_url}/stats")
                assert asked.status_code == 200

    monkeypatch.setattr(server, "serve", serve)
    return found


OPTIONS = sorted(
    option.opts[0]
    for option in simulate_command.simulate.params
    if option.name not in ("list_faults", "port", "storage_port")
)
VALUES = [
    *(
        "",
        "nan",
        "inf",
        "1e309",
        "1e308",
        "-1e308",
        "1e-320",
        "-1",
        "\u0663",
        "9" * 400,
        "9" * 5000,
    ),
    *(
        "\udcff",
        "a\nb",
        "0",
        "localhost",
        "::1",
        "127.1",
        "\u2603",
        "/",
        "/dev/null",
        "x",
        "1",
        "1e9",
    ),
    *("1-", "5-3", "1-" + "9" * 40, "*", ",", "70000"),
]


@pytest.mark.parametrize("option", OPTIONS)
def test_options(call: Caller, served: list[SimulatorOptions], option: str) -> None:
    """Whatever an option is set to, the simulator serves with it or says what is wrong."""
    for value in VALUES:
        served.clear()
        answer = call("simulate", option, value)
        assert_told(answer, 0, 2)
        assert (answer.code == 0) == bool(served)


@pytest.mark.parametrize("port", ["", "-1", "65536", "1e3", "\u0663", "9" * 5000])
def test_ports(call: Caller, served: list[SimulatorOptions], port: str) -> None:
    """A port is a number that there is."""
    for option in ("--port", "--storage-port"):
        answer = call("simulate", option, port)
        assert_told(answer, 0, 2)
        assert (answer.code == 0) == bool(served) == (port == "\u0663")
        served.clear()


def test_a_port_in_use(call: Caller, start_simulator: StartSimulator) -> None:
    """A port that somebody has is told, and the other one given back."""
    port = start_simulator().api_url.partition("//")[2].partition("/")[0].rpartition(":")[2]
    answer = call("simulate", "--port", port)
    assert_told(answer, 2)
    assert "cannot listen" in answer.err


RULE_FILES: dict[str, bytes] = {
    "nothing": b"",
    "not UTF-8": b"\xff\xfe",
    "zeros": bytes(100),
    "brackets": b"[" * 100_000,
    "nested rules": b'{"rules":' + b"[" * 100_000,
    "a number": b"5",
    "NaN": b"NaN",
    "a number of 6,000 digits": b'[{"runs": ' + b"9" * 6000 + b"}]",
    "nested runs": b'[{"runs":' + b"[" * 900 + b"]" * 900 + b',"where":"api","fault":"word"}]',
    "a nested value": (
        b'[{"runs":"*","where":"api","fault":{"kind":"value","value":'
        + b"[" * 900
        + b"]" * 900
        + b"}}]"
    ),
    "a lone surrogate": b'[{"runs":"\\ud800","where":"api","fault":"word"}]',
    "a long kind": b'[{"runs":"*","where":"api","fault":"' + b"x" * 100_000 + b'"}]',
    "a key of its own": b'{"rules": [], "more": 1}',
}


@pytest.mark.parametrize("name", RULE_FILES)
def test_files_that_are_no_rules(call: Caller, served: list[SimulatorOptions], name: str) -> None:
    """A file of anything but rules is refused in a few words that name it."""
    path = call.folder / "rules.json"
    path.write_bytes(RULE_FILES[name])
    answer = call("simulate", "--rules", path)
    assert_told(answer, 2)
    assert "rules.json" in answer.err
    assert len(answer.err) < 2000
    assert served == []


def test_memory_of_a_huge_rule_file(program: Program) -> None:
    """A file of gigabytes, named by mistake, is not read whole."""
    path = program.folder / "huge"
    with path.open("wb") as file:
        file.truncate(16 * 1024 * MB)
    code, said, peak = measured("simulate", "--rules", str(path), env=program.environment())
    assert code == 2
    assert "huge" in said
    assert peak < 150 * MB


@given(value=json_values)
def test_rules_come_back_as_json(value: object) -> None:
    """A value that a rule is allowed can be sent: it is JSON to everybody."""
    rule = {"runs": "*", "where": "api", "fault": {"kind": "value", "value": value}}
    try:
        [parsed] = parse_rules([rule])
    except SimulatorError:
        return
    assert json.dumps(parsed.fault.value("value"), allow_nan=False, ensure_ascii=False).encode()


def test_a_rule_file_that_is_a_folder(call: Caller) -> None:
    """A folder and a dangling link are no rule files."""
    (call.folder / "dangling").symlink_to("nowhere")
    for named in (os.curdir, "dangling"):
        assert_told(call("simulate", "--rules", named), 2)
