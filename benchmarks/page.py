"""How long the report's page of the whole catalogue takes to open in a browser.

`python -m benchmarks.page` writes `page-times.md` and `page-times.csv` into `results/`. The page of
the results of record is opened several times in one headless Chromium, each time in a new profile,
until the chart of all blocks is drawn; the least time counts. Needs ifspace[report,browser] and
Chromium: `make test-page` installs both.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from tabulate import tabulate

from benchmarks.measure import write_results
from ifspace.bench.record import provenance
from ifspace.report import page as report_page
from ifspace.report.read import PARTS, read

REPEATS: Final = 9
LIMIT_S: Final = 2.0
SIZE: Final = {"width": 1280, "height": 900}
# The page says by this attribute that its tables are there; the chart is drawn later.
READY: Final = ("html[data-ready]", "#plane svg")


def seconds_to_open(browser: Any, path: Path) -> float:
    """Return the seconds until a page is open and its chart of all blocks is drawn."""
    context = browser.new_context(viewport=SIZE)
    start = time.perf_counter()
    opened = context.new_page()
    opened.goto(path.as_uri())
    for selector in READY:
        opened.wait_for_selector(selector)
    seconds = time.perf_counter() - start
    context.close()
    return seconds


def measure(results: Path, repeats: int) -> dict[str, Any]:
    """Return the least and the median seconds in which the page of a folder opens.

    Raises: AssertionError for a page that takes longer than `LIMIT_S`.
    """
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    # Chromium's own sandbox needs rights that root in a container has not.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder) / "page.html"
        report_page.write(read(results), PARTS, path)
        browser = driver.chromium.launch(executable_path=chromium, args=options)
        times = [seconds_to_open(browser, path) for _ in range(repeats)]
        version = browser.version
        browser.close()
        size = path.stat().st_size
    assert min(times) < LIMIT_S, f"{min(times)} s"
    return {
        "browser": f"Chromium {version}",
        "page MB": round(size / 1e6, 2),
        "least s": round(min(times), 2),
        "median s": round(median(times), 2),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="what is reported")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    rows = [measure(options.results, options.repeats)]
    command = "python -m benchmarks.page"
    page = [
        "# How long the page of the whole catalogue takes to open",
        f"Written by {provenance(command)}.",
        "The page of `ifspace report` for the results of record, opened "
        f"{options.repeats} times in one headless browser, each time in a new profile, until "
        "the chart of all blocks is drawn. The least was below "
        f"{LIMIT_S:g} s; the run fails otherwise.",
        tabulate([row.values() for row in rows], list(rows[0]), tablefmt="github"),
    ]
    write_results(options.out, "page-times", page, rows, command, line_end="\n")


if __name__ == "__main__":
    main()
