from __future__ import annotations

import html
import re
from contextlib import closing
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import pytest
from inspecting.looking import Site, inspected
from sql.answers import ANSWERS
from store.driving import OTHER_TYPE, TYPE, Driver

from downloader.inspecting.described import query_name
from downloader.store.contract import read_page
from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from harness import Program

HISTORY: Final = "/downloader/ask-history"
RUN_LINK: Final = re.compile(r'<td class="col-run_id[^>]*><a href="([^"]+)">([0-9]+)</a></td>')


def history(site: Site, **asked: object) -> list[list[object]]:
    """Return the rows that the question for a run's history answers."""
    answer = site.ask(f"{HISTORY}.json?{urlencode({'_shape': 'arrays', **asked})}")
    assert answer.status == 200, answer.text
    found: list[list[object]] = answer.json["rows"]
    return found


def fields(page: str) -> dict[str, str]:
    """Return the form's fields for what a question asks for, and what stands in them."""
    found = re.findall(r'id="qp[0-9]+" name="([^"]+)" value="([^"]*)"', page)
    return {name: html.unescape(value) for name, value in found}


def test_a_run_is_asked_for(site: Site) -> None:
    """The history of any run is asked for by its type and id, which the form then shows."""
    assert history(site, run_type=TYPE, run_id=123) == [list(row) for row in ANSWERS["history"]]
    assert len(history(site, run_type=TYPE, run_id=206)) > 5
    assert history(site, run_type=OTHER_TYPE, run_id=123) == []
    page = site.ask(f"{HISTORY}?run_type={TYPE}&run_id=206").text
    assert fields(page) == {"run_type": TYPE, "run_id": "206"}
    assert "WHERE run_type = :run_type AND run_id = :run_id" in page
    assert "run_id=206" in page.partition("canned-query-edit-sql")[0].rpartition("<a ")[2]


@pytest.mark.parametrize(
    "run_id", ["x", "1 OR 1=1", "'; DROP TABLE runs", "<script>", "%", "9" * 30]
)
def test_what_is_no_run(site: Site, run_id: str) -> None:
    """What names no run finds nothing, and stands in the form as it was typed."""
    assert history(site, run_type=TYPE, run_id=run_id) == []
    page = site.ask(f"{HISTORY}?{urlencode({'run_type': TYPE, 'run_id': run_id})}").text
    assert fields(page)["run_id"] == run_id
    assert '<script>"' not in page


def test_the_last_run_where_none_is_named(program: Program) -> None:
    """Who names no run is shown the one that something happened to last, or the page's example."""
    with closing(open_database(program.database)) as database, inspected(program) as site:
        assert fields(site.ask(HISTORY).text) == {"run_type": TYPE, "run_id": "123"}
        driver = Driver(database)
        driver.done(5)
        driver.submit(7, run_type=OTHER_TYPE)
        assert fields(site.ask(HISTORY).text) == {"run_type": OTHER_TYPE, "run_id": "7"}
        assert len(history(site)) == 1
        driver.submit(123)
        # A field that was emptied is as one that was not given; what is given stays.
        assert fields(site.ask(f"{HISTORY}?run_type=&run_id=").text)["run_id"] == "123"
        assert fields(site.ask(f"{HISTORY}?run_id=5").text) == {"run_type": TYPE, "run_id": "5"}
        assert [row[2] for row in history(site, run_id=5)][-1] == "done"
        assert fields(site.ask("/downloader/ask-saved-since").text) == {"event_id": "40"}


def test_run_ids_lead_to_their_run(site: Site) -> None:
    """In each table, view and answer a run id leads to its run, whose page leads to its history."""
    page = read_page()
    relations = page.relations("Tables") | page.relations("Views")
    of_runs = [name for name, columns in relations.items() if "run_id" in [c.name for c in columns]]
    asked = [query_name(query.name) for query in page.queries() if "run_type, run_id" in query.sql]
    assert len(of_runs) > 4
    assert len(asked) > 7
    seen = set[str]()
    for name in (*of_runs, *asked):
        text = site.ask(f"/downloader/{name}?_size=max").text
        assert len(RUN_LINK.findall(text)) == text.count('<td class="col-run_id'), name
        for path, run_id in RUN_LINK.findall(text):
            assert re.fullmatch(rf"/downloader/runs/({TYPE}|{OTHER_TYPE}),{run_id}", path)
            seen.add(path)
    assert len(seen) > 20
    for path in sorted(seen)[:5]:
        run = site.ask(path)
        assert run.status == 200
        [link] = re.findall(rf'href="({HISTORY}\?[^"]+)"', run.text)
        told = site.ask(html.unescape(link))
        run_type, _, run_id = path.rpartition("/")[2].rpartition(",")
        assert fields(told.text) == {"run_type": run_type, "run_id": run_id}
        assert told.text.count("<tr>") == run.text.partition("<h2>The row</h2>")[0].count("<tr>")


def test_a_run_id_without_its_type(site: Site) -> None:
    """Where an answer says no type, a run id leads to all runs of that id."""
    text = site.ask("/downloader?sql=select+run_id,+count(*)+from+run_events+group+by+run_id").text
    links = RUN_LINK.findall(text)
    assert ("/downloader/runs?run_id=123", "123") in links
    shown = site.ask("/downloader/runs?run_id=123").text
    assert f"/downloader/runs/{TYPE},123" in shown
    strange = "select+null+as+run_id,+1+as+run_type+union+select+'x<b>',+1.5"
    assert RUN_LINK.findall(site.ask(f"/downloader?sql={strange}").text) == []


def test_where_a_url_is_hidden(site: Site) -> None:
    """A run that holds a URL shows that it is hidden; a run without one shows nothing there."""
    cell = re.compile(r'<td class="col-url[ "][^>]*>(.*?)</td>')
    for state, shown in (
        ("ready", "hidden"),
        ("downloading", "hidden"),
        ("done", ""),
        ("failed", ""),
    ):
        cells = cell.findall(site.ask(f"/downloader/runs?state={state}").text)
        assert {re.sub("<[^>]*>|&nbsp;", "", one) for one in cells} == {shown}
    by_hand = cell.findall(site.ask("/downloader?sql=select+url+from+runs").text)
    assert {re.sub("<[^>]*>", "", one) for one in by_hand} == {"hidden"}
