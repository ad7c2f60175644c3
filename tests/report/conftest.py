"""A results folder, its page, and a browser to open it in, for all tests that only look at them.

`make test-page` installs what the browser needs; without it those tests are skipped.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_samples import PLACES, results_folder

from ifspace.report import page
from ifspace.report.read import (
    PARTS,
    Results,
    read,
)

ROOT = Path(__file__).resolve().parents[2]
WIDE = {"width": 1280, "height": 900}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return results_folder(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def results(folder: Path) -> Results:
    return read(folder)


@pytest.fixture(scope="session")
def small(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a few blocks."""
    path = tmp_path_factory.mktemp("page") / "small.html"
    page.write(results, PARTS, path)
    return path


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of settings of equal widths: feature maps, sequences, and an inner width."""
    return results_folder(tmp_path_factory.mktemp("places"), PLACES)


@pytest.fixture(scope="session")
def placed(places: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of settings of the same widths."""
    path = tmp_path_factory.mktemp("page") / "placed.html"
    page.write(read(places), PARTS, path)
    return path


@pytest.fixture(scope="session")
def recorded() -> Results:
    """The results of record."""
    return read(ROOT / "results")


@pytest.fixture(scope="session")
def record(recorded: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the results of record: 1,103 blocks of up to six layers, and all measurements."""
    path = tmp_path_factory.mktemp("page") / "record.html"
    page.write(recorded, PARTS, path)
    return path


@pytest.fixture(scope="session")
def whole(recorded: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the results of record, before anything was measured."""
    path = tmp_path_factory.mktemp("page") / "whole.html"
    page.write(replace(recorded, blocks=(), kernels=()), PARTS, path)
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: `make test-page` installs it"
    )
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium: `make test-page` installs Debian's")
    with playwright.sync_playwright() as driver:
        # Chromium's own sandbox needs rights that root in a container has not.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium_browser = driver.chromium.launch(executable_path=chromium, args=sandbox)
        yield chromium_browser
        chromium_browser.close()


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that opens a file; in the end the page must have had nothing to say."""
    contexts, messages = [], []

    def show(path: Path, size: dict[str, int] = WIDE, place: str = "", **more: Any) -> Any:
        context = browser.new_context(viewport=size, **more)
        contexts.append(context)
        opened = context.new_page()
        opened.set_default_timeout(10_000)
        opened.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
        opened.on("pageerror", lambda error: messages.append(f"error: {error}"))
        opened.on(
            "request",
            lambda request: (
                messages.append(request.url)
                if not request.url.startswith(("file:", "data:"))
                else None
            ),
        )
        opened.goto(path.as_uri() + place)
        opened.wait_for_selector("html[data-ready]")
        return opened

    yield show
    for context in contexts:
        context.close()
    assert messages == []
