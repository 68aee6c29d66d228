"""A real headless browser for the tests of pages: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PHONE, DESK = {"width": 375, "height": 812}, {"width": 1280, "height": 900}
# without these it asks its maker's hosts for news at every start
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def chromium() -> str:
    """The browser's path; without one the test is skipped, but not where MECELLEM_REQUIRE names it, as in CI."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    sentence = "no Chromium: `apt-get install chromium`"
    if "chromium" in os.environ.get("MECELLEM_REQUIRE", ""):
        pytest.fail(sentence)
    pytest.skip(sentence)


@contextmanager
def opened(page: Path, viewport: dict[str, int], **options: Any) -> Iterator[Any]:
    """The page in a browser that has no network; it must not have asked for anything, nor said anything on its console."""
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=QUIET, timeout=60_000)
        context = browser.new_context(viewport=viewport, offline=True, **options)  # type: ignore[arg-type]
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(page.resolve().as_uri(), timeout=60_000)
        yield tab
        browser.close()
    assert [url for url in asked if not url.startswith("data:")] == [page.resolve().as_uri()]
    assert said == []


def check_page(page: Path) -> None:
    """What holds for every page: whole pictures, no sideways scrolling on a phone, data links, paper, sorting."""
    for viewport in (PHONE, DESK):
        with opened(page, viewport, color_scheme="dark" if viewport is PHONE else "light") as tab:
            assert tab.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
            assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
            assert tab.locator("figure").count() == tab.locator("figure a.data").count() > 0
    with opened(page, DESK) as tab:
        for link in tab.locator("a.data").all():
            with tab.expect_download() as download:
                link.click()
            lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
            assert lines[0] == "panel,series,x,y,low,high,value" and len(lines) > 1, download.value.suggested_filename
        tab.emulate_media(media="print")
        assert tab.evaluate(
            "[...document.querySelectorAll('.scroll')].every(box => getComputedStyle(box).overflowX == 'visible')"
        )
        assert tab.pdf(format="A4").startswith(b"%PDF")


def column(tab: Any, table: str, number: int) -> list[str]:
    """The texts of a column, top to bottom."""
    return [text.strip() for text in tab.locator(f"{table} tbody tr > *:nth-child({number})").all_text_contents()]
