from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from inspecting.browsing import Watched, browsing
from inspecting.looking import Site, inspected
from store.driving import Driver, at

from downloader.clock import utc_now
from downloader.store import blocks
from downloader.store.database import Database, database_url
from downloader.store.migrate import open_database
from downloader.store.schema import to_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Program
    from playwright.sync_api import Page

pytestmark = pytest.mark.needs("chromium")

PENDING = ".legend li:first-child"
SAYS = "([where, text]) => document.querySelector(where).innerText.includes(text)"
TOP = "one => one.getBoundingClientRect().top"


@pytest.fixture
def driver(program: Program) -> Iterator[Driver]:
    """Track one run in a database of the test's own."""
    open_database(program.database).close()
    with closing(Database(database_url(program.database))) as database:
        driver = Driver(database)
        driver.submit(1)
        yield driver


@pytest.fixture
def site(program: Program, driver: Driver) -> Iterator[Site]:
    """Serve that database."""
    del driver  # it must be there first
    with inspected(program) as served:
        yield served


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Open a page."""
    yield from browsing()


def says(page: Page, where: str, text: str) -> None:
    """Wait until a part of the page says something."""
    page.wait_for_function(SAYS, arg=[where, text])


def test_the_figures_follow(site: Site, driver: Driver, watched: Watched) -> None:
    """The first page shows what has changed without being loaded anew; what has focus keeps it."""
    page = watched.page
    page.goto(site.url)
    says(page, ".facts", "refreshed while you look")
    says(page, PENDING, "pending 1")
    link = page.locator(".legend a", has_text="pending")
    link.focus()
    page.evaluate("window.loaded = 'once'")
    driver.done(4)
    driver.submit(2, 3)
    driver.execute("UPDATE runs SET done_at = ? WHERE run_id = 4", to_text(utc_now()))
    says(page, PENDING, "pending 3")
    says(page, ".legend", "done 1")
    says(page, "figcaption", "(1 in all)")
    assert page.locator("svg.chart rect").count() == 4
    assert page.evaluate("window.loaded") == "once"
    assert link.evaluate("one => one === document.activeElement")
    assert page.locator("svg.chart").count() == 4
    assert watched.wrong == []
    assert [url for url in watched.asked if not url.startswith((site.url, "data:"))] == []


def test_nothing_moves(site: Site, driver: Driver, watched: Watched) -> None:
    """What comes in above does not move what the reader looks at, nor what is selected there."""
    page = watched.page
    page.set_viewport_size({"width": 390, "height": 600})
    page.goto(site.url)
    questions = page.locator("ul.questions")
    questions.evaluate("one => scrollTo(0, one.getBoundingClientRect().top + scrollY - 100)")
    chart = page.locator("figcaption").last
    chart.evaluate("one => getSelection().selectAllChildren(one)")
    before = questions.evaluate(TOP)
    height = page.evaluate("document.body.scrollHeight")
    refused = "The service refused the API key (401)."
    blocks.block(driver.database, "api", "key_refused", refused, now=at(0), pause_seconds=float)
    says(page, "body", refused)
    page.wait_for_function("height => document.body.scrollHeight > height", arg=height)
    page.evaluate("() => new Promise(requestAnimationFrame)")
    assert questions.evaluate(TOP) == pytest.approx(before, abs=1)
    assert "Bytes saved each minute" in page.evaluate("String(getSelection())")
    blocks.unblock(driver.database, "api")
    page.wait_for_function("height => document.body.scrollHeight === height", arg=height)
    assert questions.evaluate(TOP) == pytest.approx(before, abs=1)


def test_a_database_that_is_gone_is_told_of(site: Site, watched: Watched) -> None:
    """Where the database is moved away the figures stay, and why is said until it is back."""
    page = watched.page
    page.goto(site.url)
    says(page, PENDING, "pending 1")
    away = site.program.folder / "away.sqlite3"
    site.program.database.rename(away)
    says(page, "#wrong", "cannot be reached there any more")
    says(page, PENDING, "pending 1")
    away.rename(site.program.database)
    page.wait_for_function("() => document.querySelector('#wrong').innerText === ''")


def test_it_stops_when_nobody_answers(driver: Driver, program: Program, watched: Watched) -> None:
    """When the program has ended the page says so, keeps its figures, and asks no more."""
    assert driver.database.path == program.database
    page = watched.page
    page.clock.install()
    with inspected(program) as site:
        page.goto(site.url)
        says(page, PENDING, "pending 1")
    page.clock.run_for(10_000)
    says(page, "#wrong", "`downloader inspect` does not answer any more")
    says(page, PENDING, "pending 1")
    asked = len(watched.asked)
    page.clock.run_for(600_000)
    assert len(watched.asked) == asked


def test_who_does_not_look_is_not_served(site: Site, watched: Watched) -> None:
    """A page that is in the background asks for nothing; when it is looked at again, at once."""
    page = watched.page
    page.clock.install()
    page.goto(site.url)
    hide = """hidden => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)  # noqa: FBT003 - an argument of the script
    asked = len(watched.asked)
    page.clock.run_for(600_000)
    assert len(watched.asked) == asked
    with page.expect_request(site.url):
        page.evaluate(hide, False)  # noqa: FBT003 - as above
        page.clock.run_for(1)
