"""The pictures of docs/seeing.md, made anew in chromium.

python -m tests.page.pictures docs --trials 10000
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.made_up import write
from distsearch.core.lock import Lock
from tests.page.browser import start, until


def take(
    browser, folders, view, path, *, dark=False, width=1280, heights=(900, 2400), which=0
) -> None:
    """One picture: a view of the page of some folders, as high as what it shows."""
    names = [f"runs/{folder.name}" for folder in folders]
    page = subprocess.Popen(
        [sys.executable, "-m", "distsearch.cli", "page", *names],
        cwd=folders[0].parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = page.stdout.readline().split()[-1]
        left = len(folders)
        while left:
            left -= " is read: " in page.stderr.readline()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.set_window_size(width, heights[0])
        browser.get("about:blank")
        browser.get(address)
        until(lambda: browser.execute_script("return window.seen.first"), 60)
        if which:
            browser.find_element("css selector", f"#searches option[value='{which}']").click()
        browser.execute_script("window.seen.updates = []")
        browser.find_element("xpath", f"//*[@role='tab'][text()='{view}']").click()
        until(lambda: browser.execute_script("return window.seen.updates.length"), 60)
        high = browser.execute_script(
            "return Math.ceil(document.getElementById('view').getBoundingClientRect().bottom)"
        )
        browser.set_window_size(width, min(max(heights[0] // 3, high + 150), heights[1]))
        browser.execute_async_script("setTimeout(arguments[0], 1200)")
        browser.save_screenshot(str(path))
    finally:
        page.terminate()
        page.communicate(timeout=20)
    image = Image.open(path).convert("RGB")
    image.quantize(128).save(path, optimize=True)
    print(path, image.size, f"{path.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("out", type=Path)
    options.add_argument("--trials", type=int, default=10_000)
    options.add_argument("--only", default="running,dark,narrow,compared,structure,large")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "runs"
        write(root / "digits", 200, 27, seed=9, until=0.6).close()
        for seed, name in enumerate(("seed-0", "seed-1", "seed-2")):
            write(root / name, 150, 27, seed=seed + 1).close()
        browser = start(Path(place) / "chromium")
        runs = Lock(root / "digits")  # as if its driver were there
        jobs = {
            "running": ([root / "digits"], "Overview", {}),
            "dark": ([root / "digits"], "Parameters", {"dark": True}),
            "narrow": ([root / "digits"], "Overview", {"width": 500}),
            "structure": ([root / "seed-0"], "Structure", {}),
            "compared": ([root / n for n in ("seed-0", "seed-1", "seed-2")], "Side by side", {}),
            "large": ([root / "large"], "Overview", {}),
        }
        try:
            for name in given.only.split(","):
                if name == "large":
                    write(root / "large", given.trials, 50, stops=False, until=0.9).close()
                folders, view, more = jobs[name]
                take(browser, folders, view, given.out / f"page-{name}.png", **more)
        finally:
            browser.quit()
            runs.release()


if __name__ == "__main__":
    main()
