"""The page of metrics, the dashboard and the alerts, held against what the program tells."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from harness import Program, wait_until
from metrics.scraping import Scrape, promtool, scrape
from pages import ROOT, block, command, text_of

from downloader.simulator.options import SimulatorOptions
from downloader.simulator.server import Simulator

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

PAGE: Final = text_of("docs/metrics.md")
FOLDER: Final = ROOT / "docs/metrics"
DASHBOARD: Final[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
NAMES: Final = re.compile(r"\b(?:downloader|process)_[a-z_]+")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Give the program a folder, with runs that are finished at a simulator."""
    found = Program(tmp_path_factory.mktemp("documented"))
    with Simulator(SimulatorOptions(min_size=2_000, max_size=30_000)) as simulator:
        found.env["DOWNLOADER_API_URL"] = simulator.api_url
        found.submit(range(1, 11))
        yield found


@pytest.fixture(scope="module")
def scraped(program: Program) -> Scrape:
    """Scrape a daemon that was started as the page says."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    daemon, url = command("docs/metrics.md", "daemon"), "http://127.0.0.1:9464/metrics"
    assert f"`{url}`" in PAGE
    arguments = daemon.replace("9464", port).split()[1:]
    with program.start(*arguments) as process:
        _wait_for(process, "metrics.served")
        found = scrape(url.replace("9464", port))

        def saved() -> bool:
            nonlocal found
            found = scrape(url.replace("9464", port))
            return found("database_up") == 1 and found.of("runs", "state") == {"done": 10}

        wait_until(saved, process)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 0
    return found


def _wait_for(process: subprocess.Popen[str], event: str) -> None:
    assert process.stderr is not None
    while event not in (line := process.stderr.readline()):
        assert line, "the program has ended"


def test_the_table_is_what_is_told(scraped: Scrape) -> None:
    """The page has every metric of the program, with its type, labels and help, and no other."""
    table = PAGE[PAGE.index("<!-- metrics -->") :].partition("\n\n")[0]
    shown = {}
    for row in table.splitlines()[3:]:
        name, kind, labels, meaning = (cell.strip() for cell in row.strip("|").split("|"))
        shown[name.strip("`")] = (kind, set(re.findall(r"`(\w+)`", labels)), meaning)
    told = {
        name: (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
            family.documentation,
        )
        for name, family in scraped.families.items()
        if name.startswith("downloader_")
    }
    assert shown == told


def test_the_values_of_labels_are_told(scraped: Scrape) -> None:
    """The page has every value of every label, but for the error codes, which it refers to."""
    values = {
        value
        for _, has, _ in scraped.samples()
        for label, value in has.items()
        if label not in ("le", "version", "error_code")
    }
    assert len(values) > 20
    assert {value for value in values if f"`{value}`" not in PAGE} == set()


def test_the_metrics_of_the_process(scraped: Scrape) -> None:
    """On Linux the page names just those standard metrics of a process that there are."""
    told = {name for name in scraped.names if name.startswith("process_")}
    shown = set(re.findall(r"`(process_\w+[a-z])`", PAGE))
    assert len(shown) == 6
    assert told == (shown if sys.platform == "linux" else set())


def test_the_cron_recipe(program: Program) -> None:
    """The page's command for cron leaves a textfile."""
    path = program.folder / "downloader.prom"
    arguments = command("docs/metrics.md", "cron").split()[1:]
    assert arguments[-1].startswith("/var/lib/prometheus/node-exporter/")
    done = program(*arguments[:-1], str(path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert Scrape.of_file(path)("database_up") == 1


@pytest.mark.needs("promtool")
def test_the_scrape_configuration(tmp_path: Path) -> None:
    """The page's configuration is one that Prometheus takes, with the alerts beside it."""
    (tmp_path / "prometheus.yml").write_text(block("docs/metrics.md", "file: prometheus.yml"))
    (tmp_path / "alerts.yml").write_bytes((FOLDER / "alerts.yml").read_bytes())
    done = promtool("check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stderr


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard."""
    found: list[dict[str, Any]] = DASHBOARD["panels"]
    return found


def expressions() -> list[str]:
    """Return every query of the dashboard, those of its variables included."""
    variables = [one["definition"] for one in DASHBOARD["templating"]["list"][1:]]
    return [target["expr"] for panel in panels() for target in panel["targets"]] + variables


def test_the_dashboard_asks_for_what_is_told(scraped: Scrape) -> None:
    """Every metric that a query of the dashboard names is there, and every one is shown but few."""
    told = scraped.names
    named = {name for expr in expressions() for name in NAMES.findall(expr)}
    assert len(named) > 15
    if sys.platform != "linux":
        named = {name for name in named if not name.startswith("process_")}
    assert named - told == set()
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}
    assert {name for name in scraped.families if name.startswith("downloader_")} - shown == set()


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    """It has the schema of Grafana 10, no data source of ours, and panels that do not overlap."""
    assert DASHBOARD["schemaVersion"] >= 38
    assert DASHBOARD["id"] is None
    source, *others = DASHBOARD["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    wanted = {"type": "prometheus", "uid": "${datasource}"}
    asking = [*others, *panels(), *(one for panel in panels() for one in panel["targets"])]
    assert [one for one in asking if one["datasource"] != wanted] == []
    assert len({panel["id"] for panel in panels()}) == len(panels()) > 10
    places: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        covered = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not covered & places, panel["title"]
        places |= covered
        references = [one["refId"] for one in panel["targets"]]
        assert len(set(references)) == len(references) > 0


@pytest.mark.needs("promtool")
def test_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    """Prometheus takes each of them."""
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    path = tmp_path / "queries.yml"
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries)
    ]
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", path)  # JSON is YAML, too
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(queries)} rules found" in done.stdout


@pytest.mark.needs("promtool")
def test_the_alerts(scraped: Scrape) -> None:
    """Prometheus takes the alerts; they name metrics that there are, and the page names them."""
    done = promtool("check", "rules", FOLDER / "alerts.yml")
    assert done.returncode == 0, done.stderr
    text = (FOLDER / "alerts.yml").read_text(encoding="utf-8")
    assert set(NAMES.findall(text)) - scraped.names == set()
    alerts = re.findall(r"- alert: (\w+)", text)
    assert alerts == re.findall(r"^\| `(Downloader\w+)` \|", PAGE, re.MULTILINE)


@pytest.mark.needs("promtool")
def test_when_the_alerts_fire() -> None:
    """Each alert fires in the cases where it should and not in those where it should not."""
    done = promtool("test", "rules", "alerts_test.yml", cwd=FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = (FOLDER / "alerts_test.yml").read_text(encoding="utf-8")
    for alert in re.findall(r"- alert: (\w+)", (FOLDER / "alerts.yml").read_text("utf-8")):
        assert re.search(rf"alertname: {alert}, exp_alerts: \[\]", cases)
        assert re.search(rf"alertname: {alert}\n +exp_alerts:\n", cases)
