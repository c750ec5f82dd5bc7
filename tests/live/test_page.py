"""The page in a real browser, on a watch that is replayed: what somebody sees who straps one on.

With EDGESEQ_SCREENSHOTS naming a folder, the pictures of the README are written there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from edgeseq.data import load
from edgeseq.devices.engines import as_folder
from edgeseq.devices.session import Session
from edgeseq.events import streams

pytestmark = pytest.mark.live
webdriver: Any = pytest.importorskip("selenium.webdriver", reason="make test-live installs selenium and Chromium")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

SPEED = 4
WAIT = 60.0
SHADES = ("light", "dark")


END_OF_BAND = """
    const band = document.querySelector("canvas.band"), said = document.querySelector(".answer strong").textContent;
    const legend = [...document.querySelectorAll("figcaption span")].find((found) => found.textContent === said);
    const [red, green, blue] = band.getContext("2d").getImageData(band.width - 8, band.height / 2 - 8, 1, 1).data;
    return [`rgb(${red}, ${green}, ${blue})`, legend && getComputedStyle(legend.querySelector("i")).borderTopColor];
"""
COLOURS_OF_BAND = """
    const band = document.querySelector("canvas.band"), found = new Set();
    const row = band.getContext("2d").getImageData(0, 4, band.width, 1).data;
    for (let i = 0; i < row.length; i += 4) if (row[i + 3] === 255) found.add(String(row.slice(i, i + 3)));
    return found.size;
"""
LISTEN = """
window.said = [];
window.shares = new Set();
window.labels = [document.querySelector(".answer strong").textContent];
new MutationObserver((changes) => {
  for (const { target } of changes) {
    const element = target.nodeType === Node.TEXT_NODE ? target.parentElement : target;
    if (element.closest?.("[aria-live], [role=status], [role=alert]")) window.said.push(element.textContent);
    if (element.matches(".answer span")) window.shares.add(element.textContent);
    if (element.matches(".answer strong")) window.labels.push(element.textContent);
  }
}).observe(document.body, { subtree: true, childList: true, characterData: true });
"""


class Page(NamedTuple):
    """A browser on the page of a running ``edgeseq stream``."""

    driver: Any
    url: str

    def text(self, selector: str) -> str:
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((found) => found.innerText)"
        return self.driver.execute_script(script, selector)

    def picture(self, number: int) -> str:
        script = "return document.querySelectorAll('canvas')[arguments[0]].toDataURL()"
        return self.driver.execute_script(script, number)

    def frames(self) -> int:
        (fact,) = [text for text in self.texts("article:first-of-type .facts dd") if "bridged" in text]
        return int(fact.partition(",  ")[0].split(", ")[0].replace(",", ""))

    def until(self, done: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + WAIT
        while not (found := done()):
            assert time.monotonic() < deadline, f"{what}; the page says {self.text('body')}"
            time.sleep(0.1)
        return found

    def show(self, shade: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": shade}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no Chromium here: make test-live installs it")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--window-size=1280,1000"),
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    yield made
    made.quit()


class Begin:
    """Begins ``edgeseq stream`` with a page, and looks at it."""

    def __init__(self, browser: Any, place: Path) -> None:
        self.running: list[subprocess.Popen[str]] = []
        self._browser, self._place = browser, place

    def __call__(self, *arguments: str, port: str = "0", look: bool = True) -> Page:
        command = [sys.executable, "-m", "edgeseq", "stream", *arguments, "--page", "--port", port]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=self._place)
        self.running.append(process)
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("look at "))
        url = line.split()[-1]
        self._browser.get_log("browser")
        if look:
            self._browser.get(url)
        return Page(self._browser, url)


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


@pytest.fixture
def begin(browser: Any, tmp_path: Path) -> Iterator[Begin]:
    made = Begin(browser, tmp_path)
    yield made
    for process in made.running:
        if process.poll() is None:
            end(process)


@pytest.fixture
def page(begin: Begin) -> Page:
    made = begin("har_watch", "har_watch_fp32", "--source", "replay:spar_watch", "--speed", str(SPEED))
    made.until(lambda: made.texts("article"), "no stream appears")
    return made


def expected_changes() -> list[str]:
    """The answers to the recording that is replayed, as the model gives them one after another."""
    folder = as_folder("har_watch")
    subject = folder.manifest.split["test"][0]
    recording = streams(load("spar_watch").only([subject])).recordings[0]
    session = Session(folder)
    answers = [session.decide(row) for row in session.run(recording.x)]
    return [answer.label for answer in answers if answer.changed]


def test_the_answer_follows_the_recording_and_nothing_is_on_the_console(page):
    seen: list[str] = []

    def has_followed() -> bool:
        changes = [text.split("\n")[0] for text in page.texts("article .changes li")]
        newest = list(reversed(changes))
        for start in range(len(seen) + 1):  # the list shows the last eight
            if seen[start:] == newest[: len(seen) - start]:
                seen[start:] = newest
                break
        return len({*seen} - {"unknown"}) >= 3

    page.until(has_followed, "the answer does not change")
    wanted = expected_changes()
    assert seen == wanted[: len(seen)]
    assert page.text(".answer strong") in wanted
    errors = [entry for entry in page.driver.get_log("browser") if entry["level"] != "INFO"]
    assert errors == []


def test_the_charts_move_and_the_times_are_there(page):
    before = [page.picture(number) for number in range(3)]
    page.until(lambda: all(page.picture(n) != before[n] for n in range(3)), "the charts do not move")
    times = page.texts(".step td, .total td")
    assert len(times) == 4
    assert all(text.endswith(("µs", "ms")) for text in times)
    assert "50 Hz" in page.text(".facts")


def test_a_band_shows_the_answers_in_the_colours_of_their_labels(page):
    def agrees() -> bool:
        drawn, wanted = page.driver.execute_script(END_OF_BAND)
        return bool(drawn == wanted)

    page.until(agrees, "the band's end has not the colour of the answer")
    page.until(lambda: page.driver.execute_script(COLOURS_OF_BAND) >= 2, "the band has one colour only")
    borders = page.driver.execute_script(
        "return [...document.querySelectorAll('figure:nth-of-type(3) figcaption i')].map((mark) => "
        "getComputedStyle(mark).borderTopColor + getComputedStyle(mark).borderTopStyle)"
    )
    assert len(set(borders)) == len(borders) == 7


def test_who_listens_is_told_each_new_answer_and_no_percentages(page):
    page.driver.execute_script(LISTEN)
    page.until(lambda: len(page.driver.execute_script("return window.labels")) >= 3, "the answer does not change")
    labels, said, shares = page.driver.execute_script("return [window.labels, window.said, window.shares.size]")
    assert said == labels[1:]
    assert shares > 10


def test_a_lost_connection_is_said_and_so_is_that_it_came_back(begin):
    page = begin("har_watch", "--source", "replay:spar_watch")
    page.until(lambda: page.texts("article"), "no stream appears")
    end(begin.running[0])
    page.until(lambda: "the connection was lost at" in page.text("#trouble"), "nothing is said")
    port = page.url.rstrip("/").rpartition(":")[2]
    begin("har_watch", "--source", "replay:spar_watch", port=port, look=False)
    page.until(lambda: page.driver.find_element(By.ID, "trouble").get_attribute("hidden"), "it does not come back")
    before = page.frames()
    page.until(lambda: page.frames() > before, "no frames come")


def test_a_page_without_its_token_says_what_to_open(begin):
    page = begin("har_watch", "--source", "replay:spar_watch", "--token", "a-token-of-ours")
    page.until(lambda: page.texts("article"), "no stream appears")
    page.driver.get(page.url.partition("?")[0])
    page.until(lambda: "This page needs a token: open the address" in page.text("#trouble"), "nothing is said")
    assert page.texts("article") == []


def test_a_model_is_switched_by_the_keyboard_and_the_stream_goes_on(page):
    before = page.frames()
    select = page.driver.find_element(By.TAG_NAME, "select")
    assert [option.text for option in select.find_elements(By.TAG_NAME, "option")] == ["har_watch", "har_watch_fp32"]
    for _ in range(5):  # from the top of the page
        if page.driver.switch_to.active_element == select:
            break
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
    assert page.driver.switch_to.active_element == select
    select.send_keys("har_watch_f", Keys.ENTER)
    page.driver.execute_script("document.activeElement.blur()")
    page.until(lambda: select.get_attribute("value") == "har_watch_fp32" and page.frames() > before + 50, "no switch")
    (gaps,) = [text for text in page.texts(".facts dd") if text.startswith("0")][:1]
    assert gaps == "0"
    assert page.driver.find_element(By.ID, "trouble").get_attribute("hidden")


def test_a_recording_is_made_with_a_button(page, tmp_path):
    button = page.driver.find_element(By.ID, "record")
    button.send_keys(Keys.ENTER)
    page.until(lambda: button.get_attribute("aria-pressed") == "true", "no recording begins")
    name = page.until(lambda: page.text("#status").partition("recording ")[2], "no recording is named")
    time.sleep(0.5)
    button.send_keys(Keys.ENTER)
    page.until(lambda: button.get_attribute("aria-pressed") == "false", "the recording does not end")
    lines = (tmp_path / name.split(" ")[0]).read_text().splitlines()
    assert len(lines) > 20
    assert json.loads(lines[0])["format"] == "lines"


def test_four_watches_are_answered_at_once_and_none_falls_behind(begin):
    subjects = ("1", "2", "3", "4")
    sources = [part for subject in subjects for part in ("--source", f"replay:spar_watch/{subject}")]
    page = begin("har_watch", *sources)
    page.until(lambda: len(page.texts("article")) == 4, "not all streams appear")
    time.sleep(8)
    counts = [int(t.split(",  ")[0].split(", ")[0].replace(",", "")) for t in page.texts(".facts dd") if "bridged" in t]
    assert len(counts) == 4
    assert max(counts) - min(counts) < 50  # a second
    assert min(counts) > 50 * 8


@pytest.mark.parametrize("shade", SHADES)
def test_it_can_be_read_on_a_phone_in_light_and_dark(page, shade, tmp_path):
    page.show(shade)
    ground = page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    brightness = np.mean([int(part) for part in ground.strip("rgb()").split(",")])
    assert (brightness > 128) == (shade == "light")
    page.until(lambda: page.driver.execute_script(COLOURS_OF_BAND) >= 2, "the answer does not change")
    save(page, f"live-{shade}")
    try:
        metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        wide = page.driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= 390  # nothing to be scrolled sideways
        time.sleep(0.5)
        save(page, f"live-phone-{shade}")
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def save(page: Page, name: str) -> None:
    place = os.environ.get("EDGESEQ_SCREENSHOTS")
    if place:
        page.driver.save_screenshot(str(Path(place) / f"{name}.png"))
