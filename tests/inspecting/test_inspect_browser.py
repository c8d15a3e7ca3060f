from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from inspecting.browsing import Watched, browsing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from inspecting.looking import Site
    from playwright.sync_api import Page

pytestmark = pytest.mark.needs("chromium")

PLAYED = """async audio => {
    await audio.play();
    await new Promise((resolve, reject) => {
        audio.ontimeupdate = () => { if (audio.currentTime > 0.2) resolve(); };
        audio.onended = resolve;
        audio.onerror = () => reject(new Error(audio.error.message));
    });
    return [audio.currentTime, audio.duration, audio.error];
}"""
SOUGHT = """async audio => {
    audio.pause();
    const wanted = audio.duration - 0.5;
    await new Promise(resolve => { audio.onseeked = resolve; audio.currentTime = wanted; });
    await audio.play();
    if (!audio.ended) await new Promise(resolve => { audio.onended = resolve; });
    return [wanted, audio.currentTime, audio.duration];
}"""


@pytest.fixture
def watched(site: Site) -> Iterator[Watched]:
    """Open a page; at the end, nothing may have been asked for elsewhere or gone wrong."""
    for found in browsing():
        yield found
        assert found.asked != []
        assert [url for url in found.asked if not url.startswith((site.url, "data:"))] == []
        assert found.wrong == []


@pytest.fixture
def page(watched: Watched) -> Page:
    """Return the page itself."""
    return watched.page


def test_the_charts_are_drawn(site: Site, page: Page, tmp_path: Path) -> None:
    """The first page shows bars by state and four charts, each of a size that can be seen."""
    page.goto(site.url)
    assert page.locator("h1").inner_text() == "downloader"
    assert page.locator("svg.chart").count() == 4
    for chart in page.locator("svg.chart").all():
        box = chart.bounding_box()
        assert box is not None
        assert box["width"] > 250
        assert box["height"] > 80
        [bar] = chart.locator("rect").all()[-1:]
        drawn = bar.bounding_box()
        assert drawn is not None
        assert drawn["height"] > 40
        assert drawn["width"] > 2
        assert box["x"] <= drawn["x"] < box["x"] + box["width"]
        assert bar.evaluate("bar => getComputedStyle(bar).fill") == "rgb(63, 127, 191)"
    parts = page.locator(".bar").first.locator("span").all()
    boxes = [part.bounding_box() for part in parts]
    assert len(boxes) == 6
    assert all(box is not None and box["width"] >= 3 and box["height"] > 10 for box in boxes)
    page.screenshot(path=tmp_path / "overview.png", full_page=True)
    assert (tmp_path / "overview.png").stat().st_size > 10_000
    page.locator(".legend a", has_text="done").first.click()
    page.wait_for_url("**/downloader/runs?*state=done&*")
    assert page.locator("table.rows-and-columns tbody tr").count() > 5


def test_a_narrow_window(site: Site, page: Page) -> None:
    """On a telephone's width the first page does not have to be moved sideways."""
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(site.url)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390


def test_a_file_plays_and_seeks(site: Site, page: Page) -> None:
    """A saved WAV plays on the page of its run, and plays to its end from where it is sought to."""
    page.goto(f"{site.url}downloader/runs/text-to-sound,1")
    player = page.locator("audio").first
    assert player.bounding_box() is not None
    at, duration, error = player.evaluate(PLAYED)
    assert error is None
    assert duration > 1
    assert at > 0.2
    wanted, ended, duration = player.evaluate(SOUGHT)
    assert 0 < wanted < duration
    assert ended == pytest.approx(duration, abs=0.1)


def test_a_file_plays_in_the_table(site: Site, page: Page) -> None:
    """The menu leads to the saved files, each with a player beside its row that plays."""
    page.goto(site.url)
    page.locator(".nav-menu summary").click()
    page.locator(".nav-menu a", has_text="Saved files").click()
    assert page.locator("h2").inner_text().startswith("Saved files: 17 files, ")
    row = page.locator("tbody tr", has=page.locator("td.col-run_id", has_text="2")).first
    at, duration, error = row.locator("audio").evaluate(PLAYED)
    assert (error, at > 0, duration > 1) == (None, True, True)


def test_a_question_is_answered(site: Site, page: Page) -> None:
    """Who clicks a question sees its rows, and can change the SQL and run that."""
    page.goto(site.url)
    page.get_by_text("Why do runs fail?").click()
    assert page.locator("h1").inner_text() == "Why do runs fail?"
    first = page.locator("tbody tr").first
    assert first.locator("td").first.inner_text() == "provider_failed"
    assert first.locator("td").nth(1).inner_text() == "2"
    page.get_by_text("Edit SQL").click()
    page.locator(".CodeMirror").wait_for()
    _type_sql(page, "select run_id, url from runs where state = 'ready' order by run_id")
    assert page.locator("tbody tr").count() > 2
    for cell in page.locator("td.col-url").all():
        assert cell.inner_text().strip() == "hidden"


@pytest.mark.parametrize(
    "sql",
    [
        "delete from runs",
        "update runs set state = 'cancelled'",
        "insert into blocks values (1, 2, 3, 4, 5, 6)",
        "attach database '/tmp/x.sqlite3' as x",
        "with r as (select 1) delete from runs",
        "select * from runs natural full join runs as b",
    ],
)
def test_the_sql_box_refuses(site: Site, watched: Watched, sql: str) -> None:
    """What would change something or show a URL is refused in the SQL box, and says so."""
    page = watched.page
    page.goto(f"{site.url}downloader")
    page.locator(".CodeMirror").wait_for()
    _type_sql(page, sql)
    said = page.locator("section.content, body").first.inner_text()
    assert "must be a SELECT" in said or "not authorized" in said
    assert page.locator("tbody tr").count() == 0
    # That the answer was no 200 is what Chromium calls an error.
    assert all("status of 400" in one for one in watched.wrong)
    watched.wrong.clear()


def _type_sql(page: Page, sql: str) -> None:
    page.evaluate("sql => document.querySelector('.CodeMirror').CodeMirror.setValue(sql)", sql)
    with page.expect_navigation():
        page.locator("input[value='Run SQL']").click()


def test_a_file_of_another_place_does_not_play(site: Site, watched: Watched) -> None:
    """A run of which no file is in the output folder is not played."""
    watched.page.goto(f"{site.url}downloader/runs/text-to-sound,100")
    player = watched.page.locator("audio").first
    told = player.evaluate("audio => audio.play().then(() => 'plays', error => error.name)")
    assert told == "NotSupportedError"
    watched.wrong.clear()  # the 404
