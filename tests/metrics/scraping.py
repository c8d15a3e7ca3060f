"""Reading metrics as Prometheus does, and asking promtool about them."""

from __future__ import annotations

import http.client
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from needs import needed
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    import subprocess as subprocesses
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client import Metric


@dataclass(frozen=True)
class Scrape:
    """One text of metrics."""

    text: str

    @property
    def families(self) -> dict[str, Metric]:
        """The metrics by name: of a counter the one with _total."""
        found = list(text_string_to_metric_families(self.text))
        return {one.name + "_total" * (one.type == "counter"): one for one in found}

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Yield every sample: its name, its labels, its value."""
        for family in self.families.values():
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value

    @property
    def names(self) -> set[str]:
        """The names of all samples."""
        return {name for name, _, _ in self.samples()}

    def __call__(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of a name that have these labels; there must be one."""
        found = [
            value
            for sample, has, value in self.samples()
            if sample == f"downloader_{name}" and labels.items() <= has.items()
        ]
        assert found, f"there is no {name} {labels}"
        return sum(found)

    def of(self, name: str, label: str) -> dict[str, float]:
        """Return the samples of a name that are not 0, by a label."""
        return {
            has[label]: value
            for sample, has, value in self.samples()
            if sample == f"downloader_{name}" and value
        }

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """Read a textfile."""
        return cls(path.read_text(encoding="utf-8"))


def scrape(url: str) -> Scrape:
    """Ask an address for its metrics."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        connection.request("GET", parts.path)
        response = connection.getresponse()
        assert response.status == 200
        assert str(response.getheader("content-type")).startswith("text/plain; version=")
        return Scrape(response.read().decode())
    finally:
        connection.close()


def address(process: subprocesses.Popen[str]) -> str:
    """Return where a process says that its metrics are."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.match(r"Metrics: (http://\S+)$", line):
            return found[1]
    raise AssertionError("it has not said where its metrics are")


def promtool(*arguments: str | Path, **options: Any) -> subprocesses.CompletedProcess[str]:  # noqa: ANN401 - those of `run`
    """Run Prometheus' own tool, which comes with Debian's package prometheus."""
    return subprocess.run(
        [needed("promtool"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def assert_lint_free(found: Scrape) -> None:
    """Assert that promtool has nothing to say against a text of metrics."""
    done = promtool("check", "metrics", input=found.text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
