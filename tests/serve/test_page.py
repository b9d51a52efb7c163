"""The page of `ppcls serve`, and its documentation, in the system's Chromium."""

import json
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import small_network
from photos import write_photo
from PIL import Image
from quick_export import export

from ppcls.calibrate.calibrate import calibrate
from ppcls.calibrate.fit import Wish
from ppcls.export import Form
from ppcls.inference.predictor import Predictor
from ppcls.utils import environment

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; apt-get install chromium")

ROOT = Path(__file__).parents[2]
HOST = "service.test"  # another name of this machine, for which browsers want https
KEY = "a-key-of-tests-0123456789"
SECONDS = 60  # until something should be there; a slow machine has them
WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 390, "height": 844}


def slow(value):
    """A parameter whose test is long: each page costs most of a second of one core."""
    return pytest.param(value, marks=pytest.mark.slow)


# --------------------------------------------------------------------------- services


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve photos, and files that are none."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(12):
        write_photo(folder / f"{seed}.png", seed)
    (folder / "notes.txt").write_text("no photo\n")
    (folder / "1 pixel.png").write_bytes(b"")
    Image.new("RGB", (1, 1), "red").save(folder / "1 pixel.png")
    Image.new("RGB", (80, 60), "green").save(folder / "old.tiff")  # no browser but Safari shows it
    return folder


@pytest.fixture(scope="module")
def exported(photos, tmp_path_factory):
    """A small network that tells ants from bees."""
    folder = tmp_path_factory.mktemp("exported") / "small"
    some = [str(photos / f"{seed}.png") for seed in range(3)]
    return export(small_network.trained(), folder, some, Form(("onnx",)))


@pytest.fixture(scope="module")
def labels(exported, photos):
    """What `Predictor` names a photo."""
    predictor = Predictor(exported, engine="onnxruntime")
    return lambda name: predictor.predict(str(photos / name))[0].labels[0]


@contextmanager
def serving(home, *arguments):
    """A service of its own process; its origin, as it says it."""
    engine = ("--engine", "onnxruntime", "--threads", "1", "--max-batch", "4", "--max-delay", "0")
    command = [*environment.program("ppcls"), "serve", *arguments, *engine]
    own = {**os.environ, "PPCLS_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, "--port", "0", "--access-log", "none"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=own,
    )  # fmt: skip
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"ready: (http://\S+:\d+)", line):
                break
        else:
            pytest.fail(f"it ended with {process.wait()}: {''.join(said)}")
        yield found[1]
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)


@pytest.fixture(scope="module")
def origin(exported, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("home"), str(exported)) as found:
        yield found


@pytest.fixture(scope="module")
def locked(exported, tmp_path_factory):
    """Two models behind a key, the second of other names."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "keys").write_text(f"{KEY} tests\n")
    shutil.copytree(exported, folder / "other")
    manifest = folder / "other" / "inference.yml"
    manifest.write_text(manifest.read_text().replace("ant", "antelope").replace("bee", "beetle"))
    keys = ("--keys", str(folder / "keys"))
    with serving(folder / "home", str(exported), f"it's={folder / 'other'}", *keys) as found:
        yield found


@pytest.fixture(scope="module")
def calibrated(photos, tmp_path_factory):
    """A service that is sure of some photos, and what `Predictor` says of each."""
    place = tmp_path_factory.mktemp("calibrated")
    paths = [str(photos / f"{seed}.png") for seed in range(12)]
    form = Form(("onnx",), features=True)
    folder = export(small_network.trained(), place / "small", paths[:3], form)
    with Predictor(folder, engine="onnxruntime") as predictor:
        labels = np.array([answer.classes[0] for answer in predictor.predict(paths)])
    labels[::4] = 1 - labels[::4]
    rows = [f"{path},{('ant', 'bee')[label]}\n" for path, label in zip(paths, labels, strict=True)]
    (place / "photos.csv").write_text("path,label\n" + "".join(rows))
    (place / "costs.csv").write_text("true,ant,bee\nant,0,2\nbee,3,0\n")
    wish, engine = Wish(0.75, false_alarms=0.25), "onnxruntime"
    calibrate(folder, place / "photos.csv", wish, engine=engine, costs=place / "costs.csv")
    unlike = str(place / "white.png")
    Image.new("RGB", (64, 64), "white").save(unlike)
    with Predictor(folder, engine="onnxruntime") as predictor:
        found = {path: predictor.predict(path)[0] for path in (*paths, unlike)}
    with serving(place / "home", str(folder)) as origin:
        yield origin, found


# --------------------------------------------------------------------------- the browser


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                f"--host-resolver-rules=MAP {HOST} 127.0.0.1",
            ],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Open a page: `page = visit(address, **options of its context)`.

    In the end, it must have asked no other origin for anything, and have met no error of its own.
    """
    contexts = []
    asked = []
    wrong = []

    def on_console(message):
        # A refused photo is an answer like others; that it is logged is the browser's way.
        if message.type == "error" and "Failed to load resource" not in message.text:
            wrong.append(message.text)

    def visit(address, path="/", **options):
        context = browser.new_context(**{"viewport": WIDE, "locale": "en-US", **options})
        context.set_default_timeout(1000 * SECONDS)
        contexts.append(context)
        context.on("request", lambda request: asked.append((address, request.url)))
        context.on("console", on_console)
        context.on("weberror", lambda error: wrong.append(str(error.error)))
        page = context.new_page()
        # From here on: a chooser that is first asked for just before a key is pressed may come too
        # late on a busy machine, where keys overtake commands, and the browser opens its own.
        page.on("filechooser", lambda chooser: None)
        page.goto(address + path)
        return page

    expect.set_options(timeout=1000 * SECONDS)
    yield visit
    for context in contexts:
        context.close()
    inside = ("blob:", "data:")
    assert asked
    assert [url for own, url in asked if not url.startswith((own + "/", *inside))] == []
    assert wrong == []


def drop(page, *paths):
    """Drag files, or folders, from outside of the browser onto the page."""
    client = page.context.new_cdp_session(page)
    box = page.locator("#drop").bounding_box()
    place = {"x": box["x"] + 30, "y": box["y"] + 30}
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        client.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})


def choose(page, *paths):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose photos").click()
    chooser.value.set_files([str(path) for path in paths])


def cards(page):
    return page.get_by_role("list", name="Answers").locator("> li")


def answers(page, count):
    """What the cards say, once there are `count` and none waits."""
    expect(cards(page)).to_have_count(count)
    expect(page.locator(".card.waits")).to_have_count(0)
    return page.locator(".card .answer").all_inner_texts()


# --------------------------------------------------------------------------- photos come in


def test_a_dropped_photo_gets_the_class_that_predictor_gives_it(visit, origin, photos, labels):
    page = visit(origin)
    drop(page, photos / "0.png")
    assert answers(page, 1) == [labels("0.png")]
    card = cards(page)
    expect(card.locator(".name")).to_have_text("0.png")
    expect(card.locator(".bars li")).to_have_count(2)
    expect(card.locator(".times")).to_contain_text(re.compile(r"\d+ ms, of which .* \d+"))
    assert card.locator("img").evaluate("image => image.naturalWidth") == 40
    width = card.locator(".bar i").first.evaluate("bar => bar.style.width")
    shown = card.locator(".score").first.inner_text()
    assert abs(float(width[:-1]) - float(shown[:-1])) < 0.06


def test_photos_that_come_together_keep_their_order(visit, origin, photos, labels):
    page = visit(origin)
    first = [f"{seed}.png" for seed in range(4)]
    drop(page, *(photos / name for name in first))
    assert answers(page, 4) == [labels(name) for name in first]
    choose(page, photos / "5.png")
    assert answers(page, 5) == [labels(name) for name in ("5.png", *first)]
    expect(page.locator("#count")).to_have_text("5 photos")
    expect(page.locator("#spoken")).to_contain_text("4 photos are done")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#answers")).to_be_hidden()
    expect(page.get_by_role("button", name="Choose photos")).to_be_focused()


@pytest.mark.slow
def test_a_dropped_folder_gives_its_photos(visit, origin, photos, tmp_path):
    (tmp_path / "ants" / "more").mkdir(parents=True)
    for name in ("ants/1.png", "ants/more/2.png", "ants/.hidden.png"):
        shutil.copy(photos / Path(name).name.replace(".hidden", "3"), tmp_path / name)
    page = visit(origin)
    drop(page, tmp_path / "ants")
    answers(page, 2)
    assert sorted(page.locator(".card .name").all_inner_texts()) == ["1.png", "2.png"]


def test_a_photo_is_pasted(visit, origin, photos, labels):
    page = visit(origin, permissions=["clipboard-read", "clipboard-write"])
    content = list((photos / "1.png").read_bytes())
    page.evaluate(
        """async (bytes) => {
            const photo = new Blob([new Uint8Array(bytes)], { type: "image/png" });
            await navigator.clipboard.write([new ClipboardItem({ "image/png": photo })]);
        }""",
        content,
    )
    page.keyboard.press("Control+V")
    assert answers(page, 1) == [labels("1.png")]
    expect(page.locator(".card .name")).to_have_text("pasted photo")


def test_the_camera_takes_a_photo(visit, origin):
    page = visit(origin, permissions=["camera"])
    page.get_by_role("button", name="Use the camera").click()
    dialog = page.get_by_role("dialog", name="Use the camera")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Take the photo").click()  # waits until it may be pressed
    expect(dialog).to_be_hidden()
    (answer,) = answers(page, 1)
    assert answer in ("ant", "bee")
    assert page.evaluate("document.querySelector('video').srcObject") is None
    page.get_by_role("button", name="Use the camera").click()
    expect(dialog.get_by_role("button", name="Take the photo")).to_be_enabled()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Use the camera")).to_be_focused()


@pytest.mark.slow
def test_a_camera_that_cannot_be_used_is_said(visit, origin):
    page = visit(origin)
    page.evaluate(
        """() => { navigator.mediaDevices.getUserMedia = () =>
            Promise.reject(new DOMException("no", "NotFoundError")); }"""
    )
    page.get_by_role("button", name="Use the camera").click()
    expect(page.get_by_role("alert").filter(has_text="There is no camera here.")).to_be_visible()


@pytest.mark.slow
def test_without_https_the_browser_offers_what_it_may(visit, origin, photos):
    page = visit(origin.replace("127.0.0.1", HOST))
    assert page.evaluate("[isSecureContext, 'mediaDevices' in navigator]") == [False, False]
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Use the camera").click()
    chooser.value.set_files(photos / "0.png")
    answers(page, 1)
    page.get_by_text("Call it from a program").click()
    copy = page.get_by_role("button", name="Copy the call from curl")
    copy.click()
    expect(copy).to_have_text("Copied")


# --------------------------------------------------------------------------- what goes wrong


def test_a_file_that_is_no_photo_gets_a_card_that_says_so(visit, origin, photos, labels):
    page = visit(origin)
    drop(page, photos / "notes.txt", photos / "0.png")
    said, named = answers(page, 2)
    assert "notes.txt" in said or "image" in said
    assert named == labels("0.png")
    wrong = page.locator(".card.wrong")
    expect(wrong).to_have_count(1)
    expect(wrong.locator(".photo")).to_have_text("TXT")
    expect(wrong.get_by_role("button")).to_have_count(0)  # trying again would not help
    expect(page.locator("#spoken")).to_contain_text(f"notes.txt: {said}")


@pytest.mark.slow
def test_photos_that_browsers_cannot_show_are_named(visit, origin, photos):
    page = visit(origin)
    drop(page, photos / "old.tiff", photos / "1 pixel.png")
    for answer in answers(page, 2):
        assert answer in ("ant", "bee")
    expect(page.locator(".card .photo").first).to_have_text("TIFF")


@pytest.mark.slow
def test_a_file_above_the_limit_is_not_sent(visit, origin, tmp_path):
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(40 << 20)
    page = visit(origin)
    choose(page, tmp_path / "large.jpg")
    said = answers(page, 1)
    assert said == ["The file has 40.0 MB; this service takes 32 MB at most."]


@pytest.mark.slow
def test_a_service_that_is_gone_and_comes_back(visit, origin, photos, labels):
    page = visit(origin)
    page.wait_for_selector("#about:not(:empty)")
    page.context.set_offline(True)
    drop(page, photos / "0.png", photos / "1.png")
    assert set(answers(page, 2)) == {"The service cannot be reached; is it still running?"}
    expect(page.get_by_role("button", name="Try again")).to_have_count(2)
    expect(page.get_by_role("status")).to_contain_text("cannot be reached")
    page.context.set_offline(False)
    expect(page.get_by_role("status")).to_contain_text("2 classes: ant, bee")
    page.get_by_role("button", name="Try 2 again").click()
    expect(page.locator(".card.wrong")).to_have_count(0)
    assert answers(page, 2) == [labels("0.png"), labels("1.png")]


@pytest.mark.slow
def test_a_busy_service_is_asked_again(visit, origin, photos, labels):
    page = visit(origin)
    left = [2]

    def answer(route):
        if not left[0]:
            return route.continue_()
        left[0] -= 1
        return route.fulfill(status=503, headers={"Retry-After": "1"}, body="{}")

    page.route("**/predict?*", answer)
    drop(page, photos / "0.png")
    assert answers(page, 1) == [labels("0.png")]
    assert left == [0]


@pytest.mark.slow
def test_an_answer_of_something_between_is_no_answer(visit, origin, photos):
    page = visit(origin)
    page.route("**/predict?*", lambda route: route.fulfill(status=502, body="<h1>Bad gateway"))
    drop(page, photos / "0.png")
    (said,) = answers(page, 1)
    assert said.startswith("The service answered with status 502")


# --------------------------------------------------------------------------- who uses it


def test_by_keyboard_alone_from_the_start_to_an_answer(visit, origin, photos, labels):
    page = visit(origin)

    def tab_to(name):
        for _ in range(20):
            page.keyboard.press("Tab")
            focused = page.locator(":focus")
            assert focused.evaluate("one => getComputedStyle(one).outlineStyle") != "none"
            if focused.inner_text() == name:
                return
        pytest.fail(f"Tab does not reach {name}")

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the link past the header
    tab_to("Choose photos")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(photos / "0.png")
    assert answers(page, 1) == [labels("0.png")]
    tab_to("Clear")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("End")
    expect(page.locator("#sure-value")).to_have_text("100%")
    tab_to("Call it from a program")
    page.keyboard.press("Enter")
    expect(page.locator("#curl")).to_contain_text(f"curl -F image=@photo.jpg '{origin}/predict'")


def test_a_screen_reader_finds_names_and_hears_answers(visit, origin, photos, labels):
    page = visit(origin)
    spoken = page.locator("[aria-live=polite]")
    expect(spoken).to_be_attached()
    drop(page, photos / "0.png")
    (name,) = answers(page, 1)
    expect(spoken).to_have_text(f"0.png: {name}")
    expect(page.get_by_role("heading", level=1)).to_have_text("small")
    expect(page.get_by_role("region", name="Drop photos here")).to_be_visible()
    expect(page.get_by_role("heading", name=name, level=3)).to_be_visible()
    expect(page.get_by_role("slider", name="“Not sure” below", exact=True)).to_be_visible()
    page.get_by_text("Call it from a program").click()
    # Nothing that can be reached is without a name.
    named = re.compile(r"\S")
    for role in ("button", "link", "slider", "list", "region", "heading"):
        every = page.get_by_role(role)
        assert every.count() == page.get_by_role(role, name=named).count() or role == "list", role
    assert page.evaluate("[...document.images].every((one) => one.hasAttribute('alt'))")
    assert page.evaluate("document.documentElement.lang") == "en"


def test_not_sure_is_shown_below_the_value_of_the_slider(visit, origin, photos):
    page = visit(origin)
    drop(page, photos / "0.png")
    answers(page, 1)
    badge = cards(page).locator(".badge")
    slider = page.get_by_role("slider")
    slider.fill("0")
    expect(badge).to_have_count(0)
    slider.fill("100")
    expect(badge).to_have_text("Not sure")
    page.reload()
    expect(page.get_by_role("slider", include_hidden=True)).to_have_value("100")
    drop(page, photos / "0.png")
    (name,) = answers(page, 1)
    expect(page.locator("#spoken")).to_have_text(f"0.png: not sure, perhaps {name}")


def test_a_calibrated_model_says_itself_how_sure_it_is(visit, calibrated):
    origin, answers_of = calibrated
    page = visit(origin)
    expect(page.get_by_role("slider")).to_have_count(0)
    badges = {"sure": [], "unsure": ["Not sure"], "unknown": ["Unlike all classes"]}
    seen = set()
    for path, answer in answers_of.items():
        if answer.state in seen:
            continue
        seen.add(answer.state)
        page.get_by_role("button", name="Clear").click() if len(seen) > 1 else None
        drop(page, Path(path))
        (headline,) = answers(page, 1)
        assert cards(page).locator(".badge").all_inner_texts() == badges[answer.state]
        several = answer.state == "unsure" and len(answer.set) > 1
        assert headline == (" or ".join(answer.set) if several else answer.labels[0])
        decision = cards(page).locator(".decision")
        expect(decision).to_have_text(f"Decision: {answer.decision}")
    assert seen == set(badges)


def test_chinese_is_kept_over_a_reload(visit, origin, photos):
    page = visit(origin)
    page.get_by_role("button", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.reload()
    expect(page.get_by_role("heading", name="把照片拖到这里")).to_be_visible()
    drop(page, photos / "0.png", photos / "notes.txt")
    expect(page.locator("#count")).to_have_text("2 张照片")
    expect(page.locator(".times")).to_contain_text("毫秒")
    expect(page.locator(".card.wrong .answer")).to_have_attribute("lang", "en")
    page.get_by_role("button", name="English").click()
    expect(page.locator(".times")).to_contain_text("of which the network took")


@pytest.mark.slow
def test_a_browser_in_chinese_gets_chinese(visit, origin):
    page = visit(origin, locale="zh-CN")
    expect(page.get_by_role("heading", name="把照片拖到这里")).to_be_visible()


def test_both_languages_say_the_same_things():
    text = (ROOT / "ppcls" / "serve" / "page" / "page.js").read_text(encoding="utf-8")
    english, chinese = re.search(r"en: \{(.*?)\n  \},\n  zh: \{(.*?)\n  \},", text, re.S).groups()

    def said(part):
        found = re.findall(r'"?([\w-]+)"?: "([^"]*)"', part)
        return {name: sorted(re.findall(r"\{\w+\}", text)) for name, text in found}

    assert said(english) == said(chinese)
    assert set(re.findall(r'(?:say|tell)\("([\w-]+)"', text)) <= set(said(english))
    page = (ROOT / "ppcls" / "serve" / "page" / "index.html").read_text(encoding="utf-8")
    assert set(re.findall(r'data-text="([\w-]+)"', page)) <= set(said(english))


# WCAG 2's ratio of the colours of each text and what it stands on, least first.
CONTRASTS = """() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => {
        const [r, g, b] = numbers(colour).map((value) => value / 255)
            .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (one) => {
        for (; one; one = one.parentElement) {
            const colour = getComputedStyle(one).backgroundColor;
            if ((numbers(colour)[3] ?? 1) > 0) return colour;
        }
    };
    const found = [];
    for (const one of document.querySelectorAll("body *")) {
        const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || !one.checkVisibility() || one.matches(".photo *, noscript, .skip")) continue;
        const both = [light(getComputedStyle(one).color), light(ground(one))];
        const lights = both.sort((a, b) => a - b);
        found.push([(lights[1] + 0.05) / (lights[0] + 0.05), one.textContent.trim().slice(0, 40)]);
    }
    return found.sort((a, b) => a[0] - b[0]);
}"""


@pytest.mark.parametrize("scheme", [slow("light"), "dark"])
def test_every_text_stands_out(visit, origin, photos, scheme):
    page = visit(origin, color_scheme=scheme)
    drop(page, photos / "0.png", photos / "notes.txt")
    answers(page, 2)
    page.get_by_role("slider").fill("100")
    page.get_by_text("Call it from a program").click()
    page.evaluate("for (const one of document.querySelectorAll('.note')) one.hidden = false")
    page.evaluate("document.querySelector('#note').textContent = 'a note'")
    page.evaluate("document.querySelector('#key-wrong').textContent = 'wrong'")
    page.evaluate("document.querySelector('#camera-dialog').showModal()")
    found = page.evaluate(CONTRASTS)
    texts = {text for _, text in found}
    assert {"Not sure", "Clear", "a note", "wrong", "Take the photo", "Choose photos"} <= texts
    assert len(found) > 25
    assert found[0][0] >= 4.5, found[:3]
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (scheme == "dark") == (int(re.findall(r"\d+", dark)[0]) < 60)


@pytest.mark.parametrize("size", [NARROW, slow(WIDE), slow({"width": 320, "height": 568})])
def test_nothing_scrolls_sideways_or_is_cut(visit, origin, photos, tmp_path, size):
    page = visit(origin, viewport=size)
    name = "a_very_long_name_" * 12 + ".png"
    shutil.copy(photos / "0.png", tmp_path / name)
    long = {"labels": ["x" * 300, "a class of several words " * 12], "scores": [0.7, 0.3]}
    answer = {
        "version": "1",
        "predictions": [long],
        "milliseconds": {"total": 1234.5, "engine": 1000},
    }
    page.route("**/predict?*", lambda route: route.fulfill(body=json.dumps(answer)))
    write_photo(tmp_path / "tall.png", 1, (400, 20, 3))
    drop(page, tmp_path / name, tmp_path / name, tmp_path / "tall.png")
    answers(page, 3)
    heights = "() => [...document.querySelectorAll('.photo')].map((one) => one.offsetHeight)"
    assert len(set(page.evaluate(heights))) == 1
    page.get_by_text("Call it from a program").click()
    page.evaluate("for (const one of document.querySelectorAll('.note')) one.hidden = false")
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    outside = """(width) => [...document.querySelectorAll("body *")].filter((one) => {
        const box = one.getBoundingClientRect();
        return one.checkVisibility() && !one.closest("pre, .unseen, .skip")
            && (box.right > width + 0.5 || box.left < -0.5);
    }).map((one) => one.outerHTML.slice(0, 80))"""
    assert page.evaluate(outside, size["width"]) == []


@pytest.mark.slow
def test_the_key_is_asked_for_and_the_model_chosen(visit, locked, photos, labels):
    page = visit(locked)
    key = page.get_by_label("This service asks for a key")
    expect(key).to_be_focused()
    drop(page, photos / "0.png")
    expect(page.locator(".card.waits")).to_have_count(1)
    key.fill("a-key-that-is-not-known")
    key.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="This key is not known.")).to_be_visible()
    key.fill(KEY)
    page.get_by_role("button", name="Use it").click()
    expect(key).to_be_hidden()
    assert answers(page, 1) == [labels("0.png")]  # the photo has waited for the key
    page.get_by_label("Model").select_option("it's")
    expect(page.get_by_role("heading", level=1)).to_have_text("it's")
    drop(page, photos / "0.png")
    other = {"ant": "antelope", "bee": "beetle"}[labels("0.png")]
    assert answers(page, 2) == [other, labels("0.png")]
    expect(page.locator(".times").first).to_contain_text("it's · ")
    address = "/predict?model=it%27s'"
    expect(page.locator("#curl")).to_contain_text("-H 'Authorization: Bearer KEY' -F image=@")
    expect(page.locator("#curl")).to_contain_text(address)
    page.reload()  # the key holds as long as the tab
    expect(page.get_by_role("heading", level=1)).to_have_text("it's")
    expect(key).to_be_hidden()
    assert KEY not in page.content()


# --------------------------------------------------------------------------- heat maps


@pytest.fixture(scope="module")
def explained(photos, tmp_path_factory):
    """A service whose model gives maps."""
    folder = tmp_path_factory.mktemp("explained")
    some = [str(photos / f"{seed}.png") for seed in range(3)]
    form = Form(("onnx",), explain=True)
    made = export(small_network.trained(), folder / "small", some, form)
    with serving(folder / "home", str(made)) as found:
        yield found


PIXEL = """([x, y]) => {
    const canvas = document.querySelector(".card canvas");
    const place = [Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1];
    return [...canvas.getContext("2d").getImageData(...place).data];
}"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [NARROW, WIDE])
def test_a_button_shows_where_the_model_looked(visit, explained, photos, tmp_path, size):
    sent = []
    values = [[0, 0, 0, 0], [0, 0, 0, 5], [0, 0, 0, 0], [-3, 0, 0, 0]]
    other = [[5 if (y, x) == (0, 0) else 0 for x in range(4)] for y in range(4)]
    seen = [0.25, 0, 0.75, 1]  # the middle of a tall photo
    answer = {
        "version": "1",
        "predictions": [{"labels": ["ant", "bee"], "scores": [0.7, 0.3], "maps": [values, other],
                         "seen": seen}],
        "milliseconds": {"total": 9, "engine": 2},
    }  # fmt: skip
    page = visit(explained, viewport=size)

    def reply(route):
        sent.append(route.request.url)
        route.fulfill(body=json.dumps(answer))

    page.route("**/predict?*", reply)
    Image.new("RGB", (100, 200), (150, 150, 150)).save(tmp_path / "tall.png")
    drop(page, tmp_path / "tall.png")
    answers(page, 1)
    assert "explain=true" in sent[0]
    button = page.get_by_role("button", name="Where it looked")
    expect(button).to_have_attribute("aria-pressed", "false")
    assert page.locator("canvas").count() == 0
    button.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#spoken")).to_contain_text("where the model saw ant")
    expect(page.locator(".legend")).to_contain_text("Dark: not looked at")
    # Of the second row of four and the last column: three quarters of 150 and a quarter of yellow.
    red, green, blue, _ = page.evaluate(PIXEL, [0.9, 0.25 + 0.5 * 1.5 / 4])
    assert red > green > blue + 60
    assert page.evaluate(PIXEL, [0.1, 0.7])[:3] == [150, 150, 150]  # what speaks against it
    assert page.evaluate(PIXEL, [0.5, 0.1])[:3] == [45, 45, 45]  # cut off
    box = page.locator(".card canvas").bounding_box()
    assert box == page.locator(".card img").bounding_box()
    choice = page.get_by_label("Class")
    choice.select_option("bee")
    red, green, blue, _ = page.evaluate(PIXEL, [0.1, 0.25 + 0.5 * 0.4 / 4])
    assert red > green > blue + 60
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("button", name="查看依据")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("类别")).to_have_value("1")
    page.get_by_role("button", name="查看依据").click()
    assert page.locator("canvas").count() == 0


@pytest.mark.slow
def test_maps_come_from_the_service_and_only_with_them_is_there_a_button(
    visit, explained, origin, photos
):
    page = visit(explained)
    drop(page, photos / "0.png", photos / "old.tiff")
    answers(page, 2)
    page.get_by_role("button", name="Where it looked").click()  # the one whose photo is shown
    expect(page.locator(".card canvas")).to_have_count(1)
    page = visit(origin)
    drop(page, photos / "0.png")
    answers(page, 1)
    expect(page.get_by_role("button", name="Where it looked")).to_have_count(0)


# --------------------------------------------------------------------------- documentation


@pytest.mark.parametrize("host", ["127.0.0.1", slow(HOST)])
def test_the_api_is_documented_without_a_network(visit, origin, host):
    page = visit(origin.replace("127.0.0.1", host), "/docs")
    expect(page.locator(".swagger-ui .info .title")).to_contain_text("ppcls serve")
    expect(page.locator(".opblock-summary-path").first).to_be_visible()
    page.locator(".opblock-summary", has_text="/predict").click()
    expect(page.locator(".opblock-body").first).to_contain_text("multipart/form-data")


@pytest.mark.slow
def test_a_problem_is_explained_where_its_type_points(visit, origin):
    page = visit(origin, "/docs/problems#large", viewport=NARROW)
    expect(page.locator("#large")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    page.get_by_role("link", name="All of the API").click()
    expect(page.locator(".swagger-ui .info")).to_be_visible()


@pytest.mark.slow
def test_more_photos_than_a_page_takes(visit, origin, photos, tmp_path):
    for number in range(230):
        shutil.copy(photos / f"{number % 12}.png", tmp_path / f"{number:03}.png")
    page = visit(origin)
    drop(page, *sorted(tmp_path.iterdir()))
    answers(page, 200)
    expect(page.locator("#note")).to_contain_text("The first 200 of 230 files")
    expect(page.locator("#count")).to_have_text("200 photos")
    expect(page.locator("#spoken")).to_have_text("200 photos are done")


@pytest.mark.slow
def test_a_service_that_is_ended_in_the_middle(visit, exported, photos, tmp_path):
    with serving(tmp_path / "home", str(exported)) as origin:
        page = visit(origin)
        drop(page, photos / "0.png")
        answers(page, 1)
    drop(page, *(photos / f"{seed}.png" for seed in range(1, 9)))
    said = answers(page, 9)
    assert set(said[:8]) == {"The service cannot be reached; is it still running?"}
    expect(page.get_by_role("button", name="Try 8 again")).to_be_visible()
