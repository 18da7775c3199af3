"""The review page in a real browser; skipped where Chromium or selenium is missing."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgemod.reviewing import export, labelling
from edgemod.reviewing.answers import Answers
from edgemod.reviewing.desk import Care, Desk, Serving
from edgemod.reviewing.queue import Queue, open_queue
from edgemod.reviewing.serve import Server
from queues import MALICIOUS, write_queue

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="Chromium or its driver is not installed"
)
FREE = Care(caps={}, gaps={})
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield made
    made.quit()


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return open_queue(write_queue(tmp_path / "out"))


class Page:
    """What a reviewer sees and types."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        driver.get_log("browser")
        driver.get(address)
        self.until(lambda: self.shown("record") or self.shown("empty"))

    def text(self, name: str) -> str:
        return str(self.driver.find_element("id", name).get_attribute("textContent"))

    def shown(self, name: str) -> bool:
        return bool(self.driver.find_element("id", name).is_displayed())

    def until(self, holds: Callable[[], Any]) -> None:
        end = time.monotonic() + 15
        while not holds():
            assert time.monotonic() < end, "the page does not come to it"
            time.sleep(0.02)

    def key(self, key: str) -> None:
        self.driver.find_element("tag name", "body").send_keys(key)

    def reveal(self) -> None:
        self.key("r")
        self.until(lambda: self.text("text"))
        if self.shown("reveal"):
            self.key("r")
            self.until(lambda: not self.shown("reveal"))

    def answer(self, keys: str, said: str) -> None:
        before = self.text("count")
        for key in keys:
            self.key(key)
        self.until(lambda: said in self.text("status") and self.text("count") != before)


def walk(page: Page) -> list[str]:
    """Reveal and clear all that is there; the texts."""
    seen = []
    while page.shown("record"):
        page.reveal()
        seen.append(page.text("text"))
        page.answer("c", "cleared")
    return seen


def harmless(page: Page, seen: list[str]) -> None:
    """Every malicious text was read as it is, and did nothing."""
    for text in MALICIOUS:
        assert "".join(c if c.isprintable() else f"U+{ord(c):04X}" for c in text) in seen
    assert page.driver.title == "edgemod review"
    # Nothing was refused by the policy or failed, but the one answer that is to be refused.
    assert [one for one in page.driver.get_log("browser") if "409" not in one["message"]] == []


def test_a_queue_is_reviewed_with_the_keyboard(driver: Any, queue: Queue, tmp_path: Path) -> None:
    with Answers.open(tmp_path / "a") as answers:
        server = Server()
        desk = Desk(queue, answers, FREE, Serving(double=0))
        address = server.attend(desk, ["anna"])["anna"]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            page = Page(driver, address)
            assert page.text("text") == ""  # hidden: not in the page at all
            assert "hidden" in page.text("length")
            page.key("c")
            page.until(lambda: "Reveal" in page.text("status"))
            page.reveal()
            assert page.text("text").startswith("You say that garden 0")
            # A screen reader goes on where the focus is, and single keys can be turned off.
            assert page.driver.switch_to.active_element.get_attribute("id") == "text"
            toggle = "document.getElementById('keys').click()"
            page.driver.execute_script(toggle)
            page.key("f")
            assert not page.shown("categories")
            page.driver.execute_script(toggle)
            page.answer("f1", "flagged: hate")
            assert next(one.says for one in answers.standing()) == "hate"
            page.answer("u", "taken back")
            assert answers.standing() == []
            page.key("n")
            page.driver.switch_to.active_element.send_keys("cruel\ue00c")  # and Escape
            page.answer("e", "escalated")
            assert [one.note for one in answers.standing() if one.note] == ["cruel"]
            harmless(page, walk(page))
            assert "Nothing is waiting" in page.text("empty")
            assert {one.key for one in answers.standing()} == {*queue.keys()}
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def test_the_exported_page_saves_what_can_be_imported(
    driver: Any, queue: Queue, tmp_path: Path
) -> None:
    export.export(queue, set(), tmp_path / "page.html", "html", care=FREE, reviewer="anna")
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    page = Page(driver, (tmp_path / "page.html").as_uri())
    page.reveal()
    page.answer("f1", "flagged: hate")
    page.answer("u", "taken back")
    page.reveal()
    page.answer("f2", "flagged: harassment")
    page = Page(driver, (tmp_path / "page.html").as_uri())  # what was answered is kept
    assert not page.text("count").startswith("0 of")
    harmless(page, walk(page))
    page.driver.find_element("id", "save").click()
    file = tmp_path / "answers-anna.jsonl"
    page.until(file.exists)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert sum(line["answer"] == "undo" for line in lines) >= 1
    with Answers.open(tmp_path / "a") as answers:
        done = labelling.import_answers([file], queue, answers, tmp_path / "labels.parquet")
        assert (done.problems, done.waiting, done.conflicts) == ((), 0, ())
        said = {one.record_id: one.says for one in answers.standing()}
    assert said["r0"] == "harassment"
    assert said["r13"] == "clear"


@pytest.mark.parametrize("dark", [False, True])
def test_words_can_be_read_and_nothing_is_cut_off_on_a_phone(
    driver: Any, queue: Queue, tmp_path: Path, dark: bool
) -> None:
    export.export(queue, set(), tmp_path / "page.html", "html", care=FREE, reviewer=f"r-{dark}")
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    size = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page = Page(driver, (tmp_path / "page.html").as_uri())
        page.reveal()
        page.key("f")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 360
        low = driver.execute_script(CONTRAST)
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert low == []


CONTRAST = """
const light = (c) => {
  const [r, g, b] = c.match(/[\\d.]+/g).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (!c.endsWith(", 0)")) return c;
  }
};
// WCAG 2.2, 1.4.3: 4.5 to 1.
return [...document.querySelectorAll("body *")]
  .filter((e) => e.checkVisibility())
  .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
  .filter((e) => !e.disabled)
  .map((e) => {
    const [a, b] = [getComputedStyle(e).color, behind(e)].map(light).sort((x, y) => y - x);
    return [e.tagName + "#" + e.id, (a + 0.05) / (b + 0.05)];
  })
  .filter(([, ratio]) => ratio < 4.5);
"""
