"""Debian's Chromium without a screen, driven by Playwright."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from needs import needed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

_FLAGS: Final = (
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
    # CI is root in a container, where Chromium's sandbox cannot be; it sees our pages alone.
    "--no-sandbox",
    "--disable-dev-shm-usage",
)
WIDTH: Final = 1100
HEIGHT: Final = 900


class Watched:
    """A page, with all that it asked for and all that went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page: Final = page
        self.asked: Final[list[str]] = []
        self.wrong: Final[list[str]] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on(
            "console",
            lambda message: self.wrong.append(message.text) if message.type == "error" else None,
        )


def browsing() -> Iterator[Watched]:
    """Open a page in a browser of its own."""
    path = needed("chromium")  # Debian's package
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only where there is a browser

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        try:
            yield Watched(browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}))
        finally:
            browser.close()
