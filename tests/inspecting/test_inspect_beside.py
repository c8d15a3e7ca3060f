from __future__ import annotations

import html
import re
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from inspecting.looking import Site, inspected
from store.driving import Driver, at

from downloader.store import blocks
from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from harness import Program, StartSimulator


def test_the_log_can_be_emptied(program: Program) -> None:
    """After whatever was looked at, the write-ahead log can be cut to nothing at once."""
    with closing(open_database(program.database)) as database:
        driver = Driver(database)
        driver.submit(*range(1, 3000))
        with inspected(program) as site:
            for path in (
                *("/", "/downloader", "/downloader/runs?_size=10", "/downloader/ask-stuck"),
                *("/downloader/runs.csv?_stream=1", "/downloader?sql=select+*+from+runs"),
                *("/downloader/runs?_facet=state", "/downloader/transfers_by_run"),
            ):
                assert site.ask(path).status == 200
            assert site.select("SELECT nothing_such FROM runs").status == 400
            assert len(site.rows("SELECT * FROM runs LIMIT 5")) == 5
            driver.submit(5000)
            assert database.log_bytes() > 0
            assert database.empty_log()
            assert database.log_bytes() == 0
            assert site.rows("SELECT count(*) FROM runs WHERE run_id = 5000") == [[1]]


def test_a_question_without_end_is_cut_off(program: Program) -> None:
    """A question that would take for ever ends after some seconds, and lets the database go."""
    with closing(open_database(program.database)) as database:
        Driver(database).submit(1)
        with inspected(program) as site:
            endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            answer = site.select(f"{endless} SELECT count(*) FROM n, runs")  # noqa: S608 - our own
            assert answer.status == 400
            assert answer.json["title"] == "It took too long"
            assert "it may take 5 seconds here. Ask for less" in answer.json["error"]
            sql = f"{endless} SELECT '<b>', count(*) FROM n"  # noqa: S608 - our own
            page = site.ask(f"/downloader?{urlencode({'sql': sql})}")
            assert (page.status, "sql_time_limit_ms" in page.text) == (400, False)
            assert "it may take 5 seconds here. Ask for less" in page.text
            assert sql in html.unescape(page.text), "it can be changed there"
            assert "<b>" not in page.text
            Driver(database).submit(2)
            assert database.empty_log()


def test_beside_a_run(program: Program, start_simulator: StartSimulator) -> None:
    """While a run saves, pages show how far it is, and nothing of either is disturbed."""
    simulator = start_simulator(finish_spread=2.0)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 41))
    with inspected(program) as site, program.start("run", "--drain", "--min-poll", "0.2s") as run:
        while run.poll() is None:
            for path in ("/", "/downloader/runs", "/downloader/ask-leases"):
                assert site.ask(path).status == 200
        _, err = run.communicate()
        assert (run.returncode, err) == (0, "")
        assert _done(site) == 40
    program.assert_saved(simulator, range(1, 41))


def test_a_database_that_has_moved_away(program: Program) -> None:
    """Where the database is no more where it was, every page says so, until it is back."""
    with closing(open_database(program.database)) as database:
        Driver(database).done(1)
    away = program.folder / "away.sqlite3"
    paths = (
        *(
            "/",
            "/downloader",
            "/downloader/runs",
            "/downloader/ask-stuck",
            "/downloader/ask-history",
        ),
        *("/downloader.json?sql=select+1", "/downloader/runs.csv", "/-/audio/text-to-sound/1"),
    )
    with inspected(program) as site:
        assert {site.ask(path).status for path in paths[:-1]} == {200}
        program.database.rename(away)
        for path in paths:
            answer = site.ask(path)
            assert answer.status == 503, path
            assert f"The database was at {program.database}, and cannot be reached" in answer.text
            assert "No such file or directory" in answer.text
        shutil.copyfile(away, program.database)
        for path in paths:
            answer = site.ask(path)
            assert (answer.status, "is another file than when" in answer.text) == (503, True), path
        away.rename(program.database)
        assert {site.ask(path).status for path in paths[:-1]} == {200}


def _done(site: Site) -> int:
    [(number,)] = site.rows("SELECT done FROM progress")
    return int(number)


def test_an_empty_database(program: Program) -> None:
    """Where nothing is tracked, all pages say so."""
    open_database(program.database).close()
    with inspected(program) as site:
        assert "No run is tracked yet." in site.ask("/").text
        assert site.ask("/downloader/runs").status == 200


def test_the_overview(site: Site) -> None:
    """The first page has a bar by state for each type, what is blocked, and what was saved."""
    page = site.ask("/").text
    [types] = [site.table("progress")]
    for found in types:
        for state in ("pending", "ready", "downloading", "done", "failed", "cancelled"):
            link = (
                rf"run_type={found['run_type']}&amp;state={state}&[^\"]*\">{state}</a> ([0-9,]+)<"
            )
            assert re.findall(link, page) == [str(found[state])]
    assert "The service refused the API key (401)." in page
    # Six were saved just now, the cases long ago.
    assert re.search(r"Runs saved each minute, last hour <small>\(6 in all\)", page)
    assert re.search(r"Runs saved each hour, last day <small>\(6 in all\)", page)


def test_rows_that_nobody_could_have_written(program: Program) -> None:
    """Texts that look like HTML are shown as the texts they are, on every page that has them."""
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    with closing(open_database(program.database)) as database:
        driver = Driver(database)
        driver.failed(1, message=evil)
        driver.done(2)
        driver.submit(3)
        blocks.block(database, "api", "key_refused", evil, now=at(0), pause_seconds=float)
    with closing(sqlite3.connect(program.database)) as raw:  # which minds no foreign key
        raw.execute("UPDATE runs SET remote_status = ?", (evil,))
        raw.execute("UPDATE runs SET location = ? WHERE run_id = 2", (evil,))
        raw.execute("UPDATE run_events SET detail = ?", (evil,))
        raw.execute("UPDATE runs SET run_type = ? WHERE run_id = 3", (f'"{evil}',))
        raw.commit()
    with inspected(program) as site:
        for path in (
            *("/", "/downloader/runs", "/downloader/failures", "/downloader/ask-failure-codes"),
            *("/downloader/runs/text-to-sound,1", "/downloader/runs/text-to-sound,2"),
            *("/downloader/run_events", "/downloader/ask-largest", "/downloader/progress"),
        ):
            answer = site.ask(path)
            assert answer.status == 200
            assert "&lt;img src=x" in answer.text
            assert "<script>alert" not in answer.text
            assert "<img src=x" not in answer.text
