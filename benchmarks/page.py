"""The live page on a search of 10,000 trials of 50 reports, measured in a real browser.

    python -m benchmarks.page

How long until the page's process has read the folder; until the overview (three figures and the
summary) is drawn, since the address was opened; how long each update takes, from the news that
something has happened to the frame that shows it, on each view. Needs chromium and chromedriver
(Debian: chromium chromium-driver), and `pip install bokeh selenium scikit-learn`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.page.browser import start, until

from .common import Figure, parser, show
from .made_up import write

UPDATES = 8
VIEWS = ("Overview", "Parameters", "Trials")
DRAWN = """
    return [...document.querySelectorAll("article:not(.empty) > .figure")].every(
        (figure) => figure.hasChildNodes())
"""  # the view's first drawing (importance takes seconds) is no update


def measure(folder: Path, trials: int, reports: int) -> dict[str, list[float]]:
    """One whole run: seconds until it is up and drawn, and ms of each update, by view."""
    print("making the folder ...", file=sys.stderr)
    growing = write(folder / "large", trials, reports, stops=False, until=0.998)
    began = time.monotonic()
    page = subprocess.Popen(
        [sys.executable, "-m", "distsearch.cli", "page", str(growing.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert page.stdout is not None and page.stderr is not None
    address = page.stdout.readline().split()[-1]
    for line in page.stderr:
        if " is read: " in line:
            break
    found = {"up": [time.monotonic() - began]}
    print(f"read in {found['up'][0]:.1f} s", file=sys.stderr)
    browser = start(folder / "chromium")
    try:
        browser.get(address)
        until(lambda: browser.execute_script("return window.seen.first"), 60)
        found["drawn"] = [browser.execute_script("return window.seen.first / 1000")]
        print(f"drawn after {found['drawn'][0]:.2f} s", file=sys.stderr)
        for view in VIEWS:
            found[view] = _updates(browser, view, growing)
            print(f"{view}: {found[view]} ms", file=sys.stderr)
    finally:
        browser.quit()
        page.terminate()
        page.communicate(timeout=20)
        growing.close()
    return found


def _updates(browser: Any, view: str, growing: Any) -> list[float]:
    script = "return window.seen.updates"
    browser.execute_script(script + " = []")
    browser.find_element("xpath", f"//*[@role='tab'][text()='{view}']").click()
    until(lambda: browser.execute_script(script), 60)
    until(lambda: browser.execute_script(DRAWN), 60)
    time.sleep(2)
    browser.execute_script(script + " = []")
    for n in range(UPDATES):
        growing.go_on(20)
        until(lambda n=n: len(browser.execute_script(script)) > n, 60)
        time.sleep(0.5)
    times: list[float] = browser.execute_script(script)
    return times


def main() -> None:
    options = parser(__doc__ or "", repeats=1)
    options.add_argument("--trials", type=int, default=10_000)
    options.add_argument("--reports", type=int, default=50)
    given = options.parse_args()
    runs = []
    for _ in range(given.repeats):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure(Path(folder), given.trials, given.reports))

    def all_of(name: str) -> list[float]:
        return [value for run in runs for value in run[name]]

    figures = [
        Figure("the page's process has read the folder", all_of("up"), "s", at_most=15.0),
        Figure("the overview is drawn", all_of("drawn"), "s", at_most=3.0),
        *(Figure(f"an update of {view}", all_of(view), "ms", at_most=200.0) for view in VIEWS),
    ]
    show("the live page", figures, given.json)


if __name__ == "__main__":
    main()
