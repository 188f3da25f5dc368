"""The live page in a real browser, and its server as strangers meet it."""

import http.client
import io
import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

import distsearch as ag
from benchmarks import made_up
from distsearch.core import store

pytest.importorskip("bokeh")
from bokeh.embed import file_html
from bokeh.resources import INLINE
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from distsearch.page import graphs
from distsearch.page.panel import Data
from distsearch.page.panels import PANELS
from distsearch.page.searches import open_view as opened
from tests.hosts import Hosts
from tests.page.browser import start, until
from tests.searches import told

EVIL = "<img src=x onerror=\"document.title='run'\">"
STATE, TRIALS = 1, 4  # columns of the table of nodes
DARK_CARD = "#1e2125"  # what is behind the figures


@ag.args(lr=ag.Real(0.1, 1))
def train_fn(args, reporter):
    print(f"this is <b>trial</b> {args.task_id}")
    for epoch in range(3000):
        reporter(epoch=epoch + 1, accuracy=args.lr * (1 - 0.9**epoch))
        time.sleep(0.3)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A search that runs, here and on a node over SSH: two slots each, trials that last."""
    folder = tmp_path_factory.mktemp("live") / "digits"
    with Hosts() as hosts:
        far = ag.Node("127.0.0.1", port=hosts.start().port, python=sys.executable, num_cpus=2)
        scheduler = ag.scheduler.FIFOScheduler(
            train_fn,
            local=ag.Node("localhost", num_cpus=2),
            dist_ip_addrs=[far],
            ssh_config=[hosts.config],
            checkpoint=folder,
            num_trials=50,
            verbose=0,
            seed=0,
        )
        scheduler.far_address = f"{far.host}:{far.port}"
        scheduler.spare_port = hosts.start().port  # of a node that the search does not know
        scheduler.run()
        yield scheduler
        scheduler.close()


@pytest.fixture(scope="module")
def growing(tmp_path_factory):
    """A search with names that are HTML, to which a test adds."""
    space = made_up.SPACE.describe()
    names = [f"{EVIL}0", f"{EVIL}1", "$$dropout$$", "norm", "optimizer"]
    items = dict(zip(names, space["items"].values(), strict=False))
    folder = tmp_path_factory.mktemp("made_up") / "<b>names"
    about = {"function": EVIL, "space": {"type": "dict", "items": items}}
    one = made_up.write(folder, 60, 9, until=0.6, **about)
    yield one
    one.close()


@pytest.fixture(scope="module")
def address(live, growing):
    """The address of the page of both, from its own process."""
    command = [sys.executable, "-m", "distsearch.cli", "page", str(live.folder)]
    process = subprocess.Popen(
        [*command, str(growing.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    first = process.stdout.readline()
    assert "The page is at" in first, process.stderr.read()
    unread = {str(live.folder), str(growing.folder)}
    while unread and (line := process.stderr.readline()):
        unread -= {folder for folder in unread if f"{folder} is read" in line}
    yield first.split()[-1]
    process.terminate()
    process.communicate(timeout=20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    one = start(tmp_path_factory.mktemp("chromium"))
    yield one
    one.quit()


@pytest.fixture
def page(browser, address, live):
    """The page, anew, with its first figures drawn; no script of it may have failed in the end."""
    browser.get("about:blank")
    browser.get_log("browser")  # what an earlier page has left there is forgotten
    browser.get(address)
    until(lambda: ready(browser))
    yield browser
    failed = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert not failed


def ready(browser):
    return browser.execute_script(
        "return document.body.dataset.ready !== undefined && window.seen.updates.length"
    )


def open_view(browser, script):
    """Open another view by a script, and wait until all of it is drawn.

    What was drawn before does not count: the count begins anew in the moment in which it opens.
    """
    browser.execute_script(f"window.seen.updates = []; {script}")
    until(lambda: ready(browser))


def tab(browser, name):
    tabs = "[...document.querySelectorAll('[role=tab]')]"
    open_view(browser, f"{tabs}.find((one) => one.textContent === {json.dumps(name)}).click()")


def choose(browser, number):
    open_view(
        browser,
        f"const searches = document.getElementById('searches'); searches.value = {number};"
        "searches.dispatchEvent(new Event('change'))",
    )


def click(browser, css):
    """Click what may be replaced at any moment, since the search goes on, once it is there."""
    script = f"const one = document.querySelector({json.dumps(css)}); one?.click(); return !!one"
    until(lambda: browser.execute_script(script))


def said(browser):
    return browser.find_element("id", "said").text


def texts(browser, css):
    """The texts of the cells of some rows, read at one moment."""
    return browser.execute_script(
        f"return [...document.querySelectorAll({json.dumps(css)})]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )


def node_rows(browser):
    """The rows of the table of nodes, by the names of these."""
    return {name: [name, *rest] for name, *rest in texts(browser, "#nodes tr")[1:]}


def requests_in(folder):
    return [event.body for event in store.read(folder, "request")]


# What is seen


def test_the_overview_is_drawn_and_follows_the_search(page, growing):
    choose(page, 1)

    def points():
        return page.execute_script(
            "for (const doc of Bokeh.documents) { const one = doc.get_model_by_name('median');"
            " if (one) return one.get_length(); } return 0"
        )

    assert until(points) > 0
    before = page.find_element("id", "stands").text
    growing.go_on(40)
    until(lambda: page.find_element("id", "stands").text != before)

    def heights():
        return page.execute_script(
            "return [...document.querySelectorAll('.figure > *')].map((one) => one.offsetHeight)"
        )

    until(lambda: len(heights()) == 3 and min(heights()) > 80)  # (one may just be drawn anew)


def test_names_with_html_in_them_are_shown_as_text(page):
    choose(page, 1)
    until(lambda: EVIL in page.find_element("id", "summary").text)
    for name in ("Parameters", "Structure", "Trials"):
        tab(page, name)
        assert page.execute_script("return document.images.length") == 0
    heads = until(lambda: page.find_elements("css selector", "#trials th button"))
    assert {f"{EVIL}0", "$$dropout$$"} <= {one.text for one in heads}
    assert page.title == "<b>names · distsearch"


@pytest.mark.parametrize("when", ["before Bokeh draws", "when Bokeh has drawn"])
def test_a_view_that_is_left_while_its_figures_are_drawn_leaves_nothing_behind(page, when):
    tab(page, "Trials")
    page.execute_script(
        """
        const embed = Bokeh.embed.embed_item;
        window.left = 0;
        const leave = () => {
          if (document.querySelector("[aria-selected=true]").textContent !== "Parameters") return;
          document.querySelector("[role=tab]:not([aria-selected=true])").click();
          window.left += 1;
        };
        Bokeh.embed.embed_item = async (...given) => {
          const drawn = embed(...given);
          if (arguments[0] === "before Bokeh draws") leave();
          const views = await drawn;
          if (arguments[0] === "when Bokeh has drawn") leave();
          return views;
        };
        """.replace("arguments[0]", repr(when))
    )
    page.find_element("xpath", "//*[@role='tab'][text()='Parameters']").click()
    until(lambda: page.execute_script("return window.left"))
    tab(page, "Trials")
    until(lambda: page.execute_script("return Bokeh.documents.length === 0"))


def test_a_view_that_is_opened_while_the_server_is_out_of_reach_is_drawn_once_it_is_back(page):
    def connect(is_on):
        speeds = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        page.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": not is_on, **speeds})

    def trouble():
        return page.find_element("id", "trouble").text

    choose(page, 1)
    page.execute_cdp_cmd("Network.enable", {})
    connect(False)
    try:
        page.find_element("xpath", "//*[@role='tab'][text()='Structure']").click()
        until(lambda: "does not answer" in trouble())
        assert not page.find_elements("css selector", "#figure-rungs > *")
    finally:
        connect(True)
    until(lambda: page.find_elements("css selector", "#figure-rungs > *"))
    assert not trouble()
    failed = [line["message"] for line in page.get_log("browser") if line["level"] == "SEVERE"]
    assert all("net::ERR_INTERNET_DISCONNECTED" in message for message in failed)


def test_samples_of_a_gan_are_upright_and_in_their_cell(browser, tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    image[:4] = 255, 0, 0  # red above blue
    image[4:] = 0, 0, 255
    cells = {"x": [0, 1, 0, 1], "y": [0, 0, 1, 1], "fid": [1.0] * 4, "generation": [1] * 4}
    columns = {"cells": {**cells, "text": [""] * 4}, "points": {"x": [], "y": []}}
    shape = {"width": 2, "height": 2, "pictures": [[1, 0, image.tolist()]], "data": "digits"}
    figure = graphs.draw_grid(Data(shape, columns))
    (tmp_path / "grid.html").write_text(file_html(figure, INLINE), encoding="utf-8")
    browser.get((tmp_path / "grid.html").as_uri())
    until(lambda: browser.execute_script("return Bokeh.documents[0]?.is_idle"))

    def middle(colour):
        picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        rows, across = np.nonzero((np.asarray(picture) == colour).all(axis=2))
        return (rows.mean(), across.mean()) if len(rows) > 500 else None

    red, blue = until(lambda: middle((255, 0, 0))), middle((0, 0, 255))
    assert red[0] < blue[0] < figure.height / 2
    assert figure.width / 2 < red[1] < figure.width and abs(red[1] - blue[1]) < 1


def test_in_a_narrow_window_the_names_of_twelve_axes_do_not_overlap(browser, tmp_path):
    configs = [{f"a_long_name_{n}": n * x for n in range(12)} for x in range(1, 9)]
    searched = told(tmp_path / "search", configs, range(8))
    panel = PANELS["parallel"]
    figure = panel.draw(panel.prepare([opened(searched.folder)], {}))
    (tmp_path / "axes.html").write_text(file_html(figure, INLINE), encoding="utf-8")
    window = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
    try:
        browser.get((tmp_path / "axes.html").as_uri())
        until(lambda: browser.execute_script("return Bokeh.documents[0]?.is_idle"))
        apart = browser.execute_script(
            "const {x_scale} = Object.values(Bokeh.index.roots)[0].frame;"
            " return x_scale.compute(1) - x_scale.compute(0)"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    high = 16  # px of a line of text; the names lean
    assert apart * np.sin(figure.xaxis[0].major_label_orientation) > high


def test_all_of_the_page_can_be_used_by_the_keyboard_alone(page):
    def focused():
        return page.switch_to.active_element

    def press(*keys):
        ActionChains(page).send_keys(*keys).perform()

    choose(page, 1)
    page.execute_script("document.activeElement.blur()")
    for _ in range(20):
        press(Keys.TAB)
        if focused().get_attribute("role") == "tab":
            break
    press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert focused().text == "Trials"
    press(Keys.TAB)
    assert focused().get_attribute("id") == "filter"
    press("status=stopped")
    until(lambda: "in all" in page.find_element("css selector", ".bar .quiet").text)
    for _ in range(30):
        press(Keys.TAB)
        if (focused().get_attribute("aria-label") or "").startswith("Open trial"):
            break
    press(Keys.ENTER)
    heading = until(lambda: page.find_elements("css selector", "dialog[open] h2"))[0]
    assert re.fullmatch(r"Trial \d+: stopped", heading.text)
    assert "at the rung of epoch" in page.find_element("id", "dialog").text
    press(Keys.ESCAPE)
    assert not page.find_elements("css selector", "dialog[open]")


def test_a_figure_is_zoomed_and_moved_by_the_keyboard_and_shows_that_it_has_the_focus(page):
    choose(page, 1)

    def across():
        return page.execute_script(
            "for (const doc of Bokeh.documents) if (doc.get_model_by_name('best0')) {"
            " const range = [...doc._all_models.values()].find((m) => m.type === 'Figure').x_range;"
            " return Number.isFinite(range.start) ? [range.start, range.end] : null; }"
        )

    def has_focus():
        outline = "return getComputedStyle(document.querySelector('#figure-best')).outlineStyle"
        return page.execute_script(outline) == "solid"

    low, high = until(across)
    page.execute_script("document.querySelector('#searches').focus()")
    for _ in range(8):
        if has_focus():
            break
        ActionChains(page).send_keys(Keys.TAB).perform()
    assert has_focus()
    ActionChains(page).send_keys("+").perform()
    nearer = across()
    assert nearer[1] - nearer[0] == pytest.approx(0.8 * (high - low))
    ActionChains(page).send_keys(Keys.ARROW_RIGHT).perform()
    assert across()[0] > nearer[0] and across()[1] > nearer[1]
    ActionChains(page).send_keys("0").perform()
    until(lambda: across() == pytest.approx([low, high]))


def test_what_a_pointer_is_shown_of_a_figure_the_keyboard_opens_as_a_table(page, growing):
    choose(page, 1)
    for name, figure, heads in (
        ("Overview", "curves", ["trial", "epoch", "accuracy"]),
        ("Parameters", "importance", ["parameter", "share"]),
        ("Parameters", "parallel", ["trial", "accuracy"]),
        ("Structure", "rungs", ["rung", "trials", "fate"]),
    ):
        tab(page, name)
        css = f"#figure-{figure} + .values"
        until(lambda figure=figure: page.find_elements("css selector", f"#figure-{figure} > *"))
        page.execute_script(f"document.querySelector('{css} summary').focus()")
        ActionChains(page).send_keys(Keys.ENTER).perform()
        found = until(lambda css=css: texts(page, f"{css} tr"))
        assert found[0] == heads and all(found[1])
        if "trial" in heads:
            assert found[1][0] == str(ag.open(growing.folder).best.id)


def test_a_figure_is_saved_as_a_picture_by_the_keyboard(page, tmp_path):
    choose(page, 1)
    tab(page, "Parameters")
    until(lambda: page.find_elements("css selector", "#figure-slices > *"))
    allowed = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
    page.execute_script("document.querySelector('#figure-slices + .values summary').focus()")
    ActionChains(page).send_keys(Keys.TAB, Keys.ENTER).perform()
    until(lambda: list(tmp_path.glob("*.png")))
    picture = Image.open(tmp_path / "Slices.png")
    figure = page.find_element("css selector", "#figure-slices > *")
    assert picture.width >= figure.size["width"] and picture.height >= figure.size["height"]
    assert len(picture.convert("RGB").getcolors(1 << 24)) > 9  # there is something on it


def contrast(one, other):
    """How well a colour is seen on another one, as WCAG 2 reckons: from 1 to 21."""

    def light(colour):
        parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        red, green, blue = (
            x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


COLOURS = """
const found = [new Set(), new Set()];
for (const doc of Bokeh.documents) for (const model of doc._all_models.values()) {
  if (model.type === "LinearColorMapper") model.palette.forEach((one) => found[0].add(one));
  if (model.type === "GlyphRenderer") for (const name of ["line_color", "fill_color"]) {
    const colour = model.glyph[name]?.value;
    if (/^#.{6}$/.test(colour)) found[1].add(colour);
  }
}
return found.map((some) => [...some].sort())
"""


def test_on_dark_no_line_is_faint_and_on_light_the_colours_come_back(page):
    choose(page, 1)
    tab(page, "Parameters")
    light = page.execute_script(COLOURS)
    assert all(light)
    page.find_element("id", "theme").click()
    try:
        palette, lines = page.execute_script(COLOURS)
        assert min(contrast(one, DARK_CARD) for one in palette) > 1.9
        assert min(contrast(one, DARK_CARD) for one in lines) > 4
    finally:
        page.find_element("id", "theme").click()
    until(lambda: page.execute_script(COLOURS) == light)


def test_dark_and_narrow_nothing_is_wider_than_the_window(page):
    page.find_element("id", "theme").click()
    assert page.execute_script("return document.documentElement.classList.contains('dark')")
    page.set_window_size(500, 900)
    try:
        for name in ("Overview", "Parameters", "Trials"):
            tab(page, name)
            wide = page.execute_script("return document.documentElement.scrollWidth")
            assert wide <= page.execute_script("return window.innerWidth")
    finally:
        page.set_window_size(1280, 1000)
        page.find_element("id", "theme").click()


# What is asked


def test_a_trial_that_is_stopped_in_one_browser_is_seen_stopped_in_another(page, address, live):
    tab(page, "Trials")
    first = page.current_window_handle
    page.switch_to.new_window("window")
    page.get(address)
    until(lambda: ready(page))
    tab(page, "Trials")
    second = page.current_window_handle
    page.switch_to.window(first)
    running = until(lambda: [t.id for t in live.trials if t.status.value == "running"])[0]
    printed = live.folder / "trials" / str(running) / "output.txt"
    until(lambda: printed.exists() and "this is" in printed.read_text())
    click(page, f"[aria-label='Open trial {running}']")
    until(lambda: f"this is <b>trial</b> {running}" in page.find_element("id", "dialog").text)
    page.find_element("xpath", "//button[text()='Stop this trial']").click()
    until(lambda: live.trials[running].status.value == "stopped")
    until(lambda: str(running) in said(page) and "asking" not in said(page))
    asked = requests_in(live.folder)[-1]
    assert asked["kind"] == "stop_trial" and asked["is_done"] and "the page" in asked["by"]
    page.switch_to.window(second)
    row = f"document.querySelector(\"[aria-label='Open trial {running}']\").closest('tr')"
    until(lambda: "stopped" in page.execute_script(f"return {row}.textContent"))
    page.close()
    page.switch_to.window(first)


def test_a_node_that_is_added_from_the_page_runs_trials_and_is_drained_alone(page, live, tmp_path):
    tab(page, "Steer")
    before = len(requests_in(live.folder))
    file = tmp_path / "nodes.toml"
    file.write_text(
        f'[spare]\nhost = "127.0.0.1"\nport = {live.spare_port}\n'
        f'python = "{sys.executable}"\nnum_cpus = 1\n'
    )
    page.find_element("id", "node").send_keys(str(file))
    page.find_element("xpath", "//button[text()='Add this node']").click()
    spare = f"127.0.0.1:{live.spare_port}"
    until(lambda: node_rows(page).get(spare, [""] * 5)[TRIALS], 60)
    click(page, f"[aria-label='Drain {spare}']")
    until(lambda: node_rows(page)[spare][STATE] == "draining")
    assert node_rows(page)[live.far_address][STATE] == "up"  # which has the same host name
    until(lambda: len(requests_in(live.folder)) == before + 2)
    kinds = [(one["kind"], one["is_done"]) for one in requests_in(live.folder)]
    assert kinds[before:] == [("add_node", True), ("drain_node", True)]


def test_a_configuration_is_added_and_a_node_drained_from_the_page(page, live):
    tab(page, "Steer")
    until(lambda: "localhost" in page.find_element("id", "nodes").text)
    field = page.find_element("id", "config")
    field.clear()
    field.send_keys('{"lr": 0.123}')
    page.find_element("xpath", "//button[starts-with(text(), 'Add a trial')]").click()
    until(lambda: 0.123 in [trial.config["lr"] for trial in live.trials])
    field.clear()
    field.send_keys('{"lr": 99}')
    page.find_element("xpath", "//button[starts-with(text(), 'Add a trial')]").click()
    until(lambda: "99" in said(page))
    address = page.find_element("id", "node")
    address.send_keys(live.far_address)
    page.find_element("xpath", "//button[text()='Drain this node']").click()
    until(lambda: node_rows(page)[live.far_address][STATE] == "draining")
    click(page, "[aria-label='Drain localhost']")
    until(lambda: "no node could run a trial" in said(page))  # it is the only one left
    kinds = [(one["kind"], one["is_done"]) for one in requests_in(live.folder)]
    assert kinds[-4:] == [
        ("add_config", True),
        ("add_config", False),
        ("drain_node", True),
        ("drain_node", False),
    ]


# Strangers


def asked(address, path="/api/state", method="GET", token=None, **headers):
    port, own = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/#token=(.+)", address).groups()
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
    try:
        token = own if token is None else token
        connection.request(
            method,
            path,
            headers={"X-Distsearch-Token": token, "Host": f"localhost:{port}", **headers},
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def test_who_has_no_token_learns_and_changes_nothing(address, live):
    status, _, _ = asked(address)
    assert status == 200
    before = len(requests_in(live.folder))
    for token in ("", "wrong"):
        for path in ("/api/state", "/api/panel", "/api/trials", "/api/trial", "/api/ask"):
            method = "POST" if path == "/api/ask" else "GET"
            status, text, _ = asked(address, path, method, token)
            assert status == 403 and "token" in json.loads(text)["error"]
            assert str(live.folder) not in text
    assert len(requests_in(live.folder)) == before


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
def test_another_site_may_not_ask_the_page_even_with_the_token(address, headers):
    assert asked(address, **headers)[0] == 403
    assert asked(address, "/", **headers)[0] == 403


def test_through_a_tunnel_with_another_port_the_page_answers(address):
    at = {"Host": "localhost:9999", "Origin": "http://localhost:9999"}
    assert asked(address, **at)[0] == 200
    status, text, headers = asked(address, "/", **at)
    assert status == 200 and "<main>" in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_files_beside_the_pages_own_are_not_served(address):
    for path in ("/static/../view.py", "/static/%2e%2e/view.py", "/bokeh/bokeh.js", "/events.db"):
        assert asked(address, path)[0] in (403, 404)
