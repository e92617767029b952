"""The dashboard in a real browser, over a run that goes on meanwhile."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
)
SERVE = "from linearch.dashboard.serve import serve; raise SystemExit(serve(None, 0, False))"
PATIENCE_MS = 60_000  # machines may be busy; nothing waits longer than it must

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}"),
]


@pytest.fixture
def url(store_file: Path) -> Iterator[str]:
    """The address of a server that `serve` started; an interrupt must end it well."""
    command = [sys.executable, "-c", SERVE]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found, "the server did not say where it is"
        yield found.group()
        os.kill(server.pid, signal.SIGINT)
        assert server.wait(timeout=60) == 0
    finally:
        server.kill()


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=FLAGS.split(), timeout=PATIENCE_MS
        )
        page = browser.new_page(viewport={"width": 1440, "height": 1400})
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        yield page
        browser.close()


def _click_cell(page: Page, text: str) -> None:
    """The table is drawn on a canvas; its cells are named in there for screen readers only."""
    table = page.get_by_test_id("stDataFrame").first
    expect(table.locator("td", has_text=text).first).to_be_attached()
    for x in (200, 210):  # a hand moves over a cell before it clicks it
        table.hover(position={"x": x, "y": 35 + 17})
        page.wait_for_timeout(200)
    table.click(position={"x": 210, "y": 35 + 17}, delay=50)


def test_a_visitor_finds_an_architecture_while_the_run_goes_on(
    url: str, page: Page, run: Any, rows: tuple[Any, ...], tmp_path: Path
) -> None:
    best = rows[0]
    page.goto(url)
    expect(page.get_by_text("20 of 20 scored architectures")).to_be_visible()

    search = page.get_by_role("textbox", name="Search")
    search.fill(best.name)
    search.press("Enter")
    expect(page.get_by_text("1 of 20 scored architectures")).to_be_visible()
    run.add_measured(2.9)
    expect(page.get_by_text("1 of 21 scored architectures")).to_be_visible()
    expect(search).to_have_value(best.name)

    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    download.value.save_as(tmp_path / "shown.csv")
    with (tmp_path / "shown.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["id"] for line in lines] == [best.id]
    assert float(lines[0]["val_bpb"]) == pytest.approx(best.val_bpb)

    _click_cell(page, best.name)
    expect(page.get_by_role("heading", name=best.name)).to_be_visible()
    assert f"architecture={best.id}" in page.url
    expect(page.get_by_text("class Mixer(nn.Module)").first).to_be_visible()

    page.get_by_role("tab", name="Changes").click()
    expect(page.get_by_text(f"+++ {best.name}")).to_be_visible()
    against = page.get_by_role("combobox", name="Against")
    against.click()
    page.get_by_role("option", name="retnet (baseline)").click()
    expect(page.get_by_text("--- retnet")).to_be_visible()

    child = run.add_measured(2.2, parent=run.store.architecture(best.id))
    expect(page.get_by_role("link", name=child.name)).to_be_visible()
    expect(page.get_by_text("--- retnet")).to_be_visible()

    page.go_back()
    expect(page.get_by_text("1 of 22 scored architectures")).to_be_visible()
    expect(page.get_by_role("textbox", name="Search")).to_have_value(best.name)
