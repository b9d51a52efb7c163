"""The page of `ppcls fix-labels` in the system's Chromium."""

import csv
import shutil
import threading
import time
from pathlib import Path

import pytest

from ppcls.check.fix_labels import Decisions, Server

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; apt-get install chromium")

SECONDS = 60  # until something should be there; a slow machine has them
HEAD = "path,label,suggested,confidence,why,decision,new_label\n"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def served(workdir):
    """A server of five images, the last of which is broken."""
    names = [*(f"ant/{i}" for i in range(4)), "bee/0"]
    rows = [f"photos/train/{name}.png,{name[:3]},bee,0.9,wrong label,,\n" for name in names]
    rows[4] = rows[4].replace(",bee,bee,", ",bee,ant,")
    Path("photos/train/bee/0.png").write_bytes(b"no image")
    Path("fixes.csv").write_text(HEAD + "".join(rows))
    with Server(Decisions(Path("fixes.csv")), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server, thread
        server.shutdown()
        thread.join()


@pytest.fixture
def page(browser, served):
    """The page, which must have asked nobody else for anything, and have met no error."""
    server, _ = served
    asked, wrong = [], []
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(1000 * SECONDS)
    expect.set_options(timeout=1000 * SECONDS)
    context.on("request", lambda request: asked.append(request.url))
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on("console", lambda m: wrong.append(m.text) if "Content Security" in m.text else None)
    page = context.new_page()
    page.goto(server.address)
    expect(page.locator("#place")).to_have_text("1 of 5")
    yield page
    context.close()
    own = server.address.partition("?")[0]
    assert [url for url in asked if not url.startswith((own, "data:"))] == []
    assert wrong == []


def written(expected):
    """Wait until the list on the disk has these decisions and new labels."""
    end = time.monotonic() + SECONDS
    found = None
    while found != expected and time.monotonic() < end:
        with open("fixes.csv", encoding="utf-8-sig", newline="") as file:
            found = [(row["decision"], row["new_label"]) for row in csv.DictReader(file)]
        time.sleep(0.01)
    assert found == expected


def test_keys_decide_and_go_on(page):
    expect(page.locator("#label")).to_have_text("ant")
    expect(page.locator("#suggested")).to_have_text("bee")
    expect(page.locator("#confidence")).to_contain_text("90 %")
    for key, place in (("c", "2 of 5"), ("k", "3 of 5"), ("d", "4 of 5")):
        page.keyboard.press(key)
        expect(page.locator("#place")).to_have_text(place)
    expect(page.locator("#count")).to_have_text("3 of 5 decided")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#decided")).to_have_text("Dropped: it will not be learnt from")
    page.keyboard.press("u")  # undone, and another class typed
    page.keyboard.press("o")
    page.keyboard.type("duck")  # whose letters are no keys here
    page.keyboard.press("Enter")
    expect(page.locator("#place")).to_have_text("4 of 5")
    written([("change", "bee"), ("keep", ""), ("change", "duck"), ("", ""), ("", "")])
    page.reload()
    expect(page.locator("#place")).to_have_text("4 of 5")  # the first that is not decided


def test_buttons_do_the_same(page):
    image = page.locator("#image")
    page.wait_for_function("() => document.getElementById('image').naturalWidth > 0")
    assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [40, 48]
    page.get_by_role("button", name="Keep ant").click()
    page.get_by_role("button", name="Change to bee").click()
    page.get_by_role("button", name="Drop the photo").click()
    expect(page.locator("#place")).to_have_text("4 of 5")
    page.get_by_role("button", name="2: ant, changed").click()
    expect(page.locator("#decided")).to_have_text("Changed to bee")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#count")).to_have_text("2 of 5 decided")
    page.get_by_role("button", name="5: bee").click()
    expect(page.get_by_text("This image cannot be shown.")).to_be_visible()
    written([("keep", ""), ("", ""), ("drop", ""), ("", ""), ("", "")])


def test_done_ends_the_server(page, served):
    page.keyboard.press("d")
    page.get_by_role("button", name="Done").click()
    expect(page.locator("#count")).to_contain_text("this page may be closed")
    served[1].join(SECONDS)
    assert not served[1].is_alive()
    written([("drop", ""), *[("", "")] * 4])


def test_what_cannot_be_saved_is_said_and_taken_back(page):
    Path("fixes.csv").write_text(HEAD + "a.png,ant,bee,0.9,,,\n")
    page.keyboard.press("d")
    expect(page.get_by_role("alert")).to_contain_text("changed by another program")
    expect(page.locator("#count")).to_have_text("0 of 5 decided")


def test_without_its_token_the_page_shows_nothing(page, served):
    page.goto(served[0].address.partition("?")[0])
    expect(page.get_by_role("alert")).to_contain_text("whole address")
    expect(page.locator("#main")).to_be_hidden()


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(page, width):
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("Keep ant", "Change to bee", "Drop the photo"):
        expect(page.get_by_role("button", name=name)).to_be_in_viewport()
