"""A real chromium for tests, without a window and without traffic of its own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def start(folder: Path, width: int = 1280, height: int = 1000) -> Any:
    """A browser whose profile is in a new folder; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for one in (*OPTIONS, f"--user-data-dir={folder}", f"--window-size={width},{height}"):
        options.add_argument(one)
    service = webdriver.ChromeService(DRIVER)
    return webdriver.Chrome(options=options, service=service)


def until(what: Callable[[], Any], within_s: float = 30.0) -> Any:
    """What a function gives once that is true."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s:g} s")
