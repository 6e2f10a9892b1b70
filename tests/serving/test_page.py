"""The page in a real browser: what a person does, with a keyboard and a screen reader too."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.serving import CLASSES, Service, decoders, service, until
from helpers.video_files import encode, ramp
from stresnet.inference.recognizer import Recognizer

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
if CHROMIUM is None:
    pytest.skip("no chromium or google-chrome is installed", allow_module_level=True)

FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
PHONE, DESKTOP = {"width": 375, "height": 720}, {"width": 1100, "height": 900}
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def running(recognizer: Recognizer) -> Iterator[Service]:
    with service({"m": recognizer}) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any, running: Service) -> Iterator[Open]:
    """A function that opens the page; what it requests elsewhere or complains of fails the test."""
    contexts, wrong = [], []

    def opened(url: str = running.url, **options: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": DESKTOP, "accept_downloads": True, **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda one: one.url.startswith((url, "blob:")) or wrong.append(one.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: "Content Security Policy" in line.text and wrong.append(line.text))
        page.goto(url)
        page.wait_for_function("() => document.querySelector('#model option, #access:not([hidden])')")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def serious_findings(page: Any) -> list[str]:
    """Return what axe-core finds serious."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_video_is_uploaded_and_its_result_shown(
    open_page: Open, recognizer: Recognizer, video: Path, tmp_path: Path, scheme: str
) -> None:
    page = open_page(color_scheme=scheme)
    assert serious_findings(page) == []
    page.set_input_files("#file", video)
    page.wait_for_selector("#result:not([hidden])")
    found, timeline = recognizer.predict(video), recognizer.timeline(video)
    assert page.inner_text("#label") == f"{found.label}, {round(100 * found.probability)} %"
    assert page.evaluate("document.activeElement.id") == "result"
    assert [heading.inner_text() for heading in page.query_selector_all("#streams h4")] == [
        *("Both streams", "Appearance", "Motion")
    ]
    shown = [one.inner_text() for one in page.query_selector_all("#streams section:first-child li span:first-child")]
    assert shown == [label for label, _ in found.top]
    assert page.query_selector_all("#result img") == []  # the names of classes stay text
    assert len(page.query_selector_all("#timeline button")) == len(timeline.segments())
    assert serious_findings(page) == []
    with page.expect_download() as saved:
        page.click("#save-json")
    saved.value.save_as(tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text())["timeline"] == timeline.to_dict()
    with page.expect_download() as saved:
        page.click("#save-vtt")
    saved.value.save_as(tmp_path / "timeline.vtt")
    assert (tmp_path / "timeline.vtt").read_text().startswith("WEBVTT")


def test_the_time_line_goes_to_a_segment_by_keyboard(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    segments = [
        {"start": 0, "end": 0.6, "label": CLASSES[1], "score": 0.5},
        {"start": 0.6, "end": 1.6, "label": "wave", "score": 0.9},
    ]

    def answer(route: Any) -> None:
        told = route.fetch().text()
        state = json.loads(told.rpartition("data: ")[2])
        state["result"]["timeline"]["segments"] = segments
        route.fulfill(status=200, content_type="text/event-stream", body=f"data: {json.dumps(state)}\n\n")

    page.route("**/events", answer)
    webm = encode(tmp_path / "a.webm", ramp(40), codec="libvpx")
    page.set_input_files("#file", webm)
    page.wait_for_selector("#result:not([hidden])")
    page.wait_for_function("() => document.querySelector('#video').readyState >= 1")
    second = page.locator("#timeline button").nth(1)
    assert second.get_attribute("aria-label") == "wave, 0:00.6 to 0:01.6, 90 %"
    second.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#running').textContent == '0:00.6 wave'")
    assert page.evaluate("document.querySelector('#video').currentTime") == pytest.approx(0.6)


def test_an_error_is_told_where_a_screen_reader_hears_it(open_page: Open, tmp_path: Path, video: Path) -> None:
    page = open_page(viewport=PHONE)
    (tmp_path / "<b>note.mp4").write_bytes(b"no video" * 100)
    page.set_input_files("#file", tmp_path / "<b>note.mp4")
    page.wait_for_selector("#problem:not([hidden])")
    assert page.inner_text("[role=alert]").startswith("<b>note.mp4: not a video")
    assert page.evaluate("document.activeElement.id") == "file"
    assert serious_findings(page) == []
    page.set_input_files("#file", video)
    page.wait_for_selector("#result:not([hidden])")
    assert page.is_hidden("#problem")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_work_shows_its_progress_and_is_cancelled(open_page: Open, long_video: Path, running: Service) -> None:
    page = open_page()
    page.set_input_files("#file", long_video)
    (decoder,) = until(decoders)
    os.kill(decoder, signal.SIGSTOP)
    page.wait_for_function(
        "() => /^(Decoding|Computing flow)/.test(document.querySelector('[role=status]').textContent)"
    )
    page.keyboard.press("Enter")  # the button to cancel has the focus
    page.wait_for_selector("#work", state="hidden")
    assert page.is_hidden("#problem")
    assert page.is_hidden("#result")
    assert decoders() == []


def test_the_camera_is_recorded_and_recognised(open_page: Open) -> None:
    page = open_page()
    for milliseconds in (1500, 5000, 15_000):  # a busy machine records few frames a second
        page.click("#camera")
        page.wait_for_selector("#recorder:not([hidden])")
        page.click("#record")
        page.wait_for_timeout(milliseconds)
        page.click("#record")
        page.wait_for_selector("#result:not([hidden]), #problem:not([hidden])")
        if page.is_visible("#result"):
            break
        assert "at least 11 needed" in page.inner_text("#problem")
    assert page.inner_text("#about").startswith("camera.webm: ")
    assert page.is_hidden("#recorder")


def test_the_camera_is_watched_live(open_page: Open, running: Service) -> None:
    page = open_page(viewport=PHONE)
    page.click("#camera")
    page.click("#watch")
    page.wait_for_function("() => /^(wave|<img|jump).*%$/.test(document.querySelector('#seen').textContent)")
    assert page.get_attribute("#watch", "aria-pressed") == "true"
    assert serious_findings(page) == []
    page.click("#close-camera")
    page.wait_for_function("() => document.querySelector('#watch').textContent == 'Watch live'")
    until(lambda: running.measure("stresnet_streams") == 0)


def test_a_token_is_asked_for_once(open_page: Open, recognizer: Recognizer, video: Path) -> None:
    with service({"m": recognizer}, token="a-secret-of-the-service") as guarded:
        page = open_page(guarded.url)
        for token in ("wrong", "a-secret-of-the-service"):
            page.wait_for_selector("#access:not([hidden])")
            page.fill("#token", token)
            page.keyboard.press("Enter")
        page.wait_for_selector("#model option", state="attached")
        page.set_input_files("#file", video)
        page.wait_for_selector("#result:not([hidden])")
        assert page.is_hidden("#access")
