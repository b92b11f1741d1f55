"""The studio in a real browser, over HTTP, with the miniature's own models: what a visitor does and sees."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image
from service import Service, start, start_all

from serve.engine import Engine
from serve.settings import ServeSettings
from soundguide.audio.decode import encode_wav
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.miniature.sounds import SAMPLE_RATE_HZ, synthesise

playwright = pytest.importorskip("playwright.sync_api", reason="needs a browser driver: pip install playwright")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
# what a browser does with a file that is dropped or pasted
GIVE = """([data, name, type, how]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name, { type }));
  const options = { bubbles: true, cancelable: true };
  document.body.dispatchEvent(how === "drop" ? new DragEvent("drop", { dataTransfer: carried, ...options })
    : new ClipboardEvent("paste", { clipboardData: carried, ...options }));
}"""


@pytest.fixture(scope="module")
def miniature() -> Engine:
    return Engine(ManipulatorConfig())


def serving(engine: Engine, **settings: Any) -> AbstractContextManager[str]:
    """Serve an engine on loopback, in a thread of this process; give the address."""
    return running(start(engine, **{"edit": EditSettings(), **settings}))


@contextmanager
def running(service: Service) -> Iterator[str]:
    """Run a service on loopback, in a thread of this process; give the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(service.api, host="127.0.0.1", port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join(20)


@pytest.fixture(scope="module")
def address(miniature: Engine) -> Iterator[str]:
    with serving(miniature) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    fakes = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--no-sandbox"]
    with playwright.sync_playwright() as driver:
        try:
            chromium = driver.chromium.launch(executable_path=CHROMIUM or None, args=fakes)
        except playwright.Error as error:
            if os.environ.get("SOUNDGUIDE_REQUIRE_BROWSER"):
                raise
            pytest.skip(
                f"needs Chromium: apt install chromium, or .venv/bin/playwright install chromium ({error!s:.80})"
            )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    yield from opened(browser, address, viewport=DESKTOP, permissions=["microphone"])


@pytest.fixture
def phone(browser: Any, address: str) -> Iterator[Any]:
    yield from opened(browser, address, viewport=PHONE, has_touch=True, is_mobile=True)


def opened(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """Open the studio, ready for its first edit; nothing may have failed in the page when the test is over."""
    context = browser.new_context(**options)
    page, failures = context.new_page(), []
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#heard li")
    yield page
    context.close()
    assert not failures


def until(page: Any, script: str, seconds: float = 60) -> None:
    """Wait until a script is true; the page's own policy forbids the driver's way of waiting."""
    end = time.monotonic() + seconds
    while not page.evaluate(script):
        assert time.monotonic() < end, script
        time.sleep(0.05)


def take(page: Any, **values: object) -> None:
    """Set sliders by id."""
    for id, value in values.items():
        page.evaluate(
            "([id, value]) => { const slider = document.getElementById(id); slider.value = value;"
            " slider.dispatchEvent(new Event('input', { bubbles: true })); }",
            [id, str(value)],
        )


def edit(page: Any) -> None:
    page.click("#edit")
    page.wait_for_selector("#compare", state="visible")


def downloaded(page: Any, folder: Path) -> dict[str, Any]:
    """Download the edit; return what its picture says that it was made from."""
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(folder / "edit.png")
    image = Image.open(folder / "edit.png")
    assert image.size == (64, 64)
    made_from: dict[str, Any] = json.loads(image.text["soundguide"])  # type: ignore[attr-defined]
    return made_from


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def photograph() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(90, 160, (120, 160, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def rain() -> bytes:
    return encode_wav(synthesise("raining", seconds=2.0, intensity=0.9, rng=np.random.default_rng(0)), SAMPLE_RATE_HZ)


def test_the_first_click_makes_an_edit_that_can_be_watched_slid_over_and_kept(page: Any, tmp_path: Path) -> None:
    assert page.is_enabled("#edit") and page.inner_text("#heard li >> nth=0").lower().startswith("church bells")
    page.click("#edit")
    until(page, "!document.getElementById('edited-picture').hidden")  # a preview, while it runs
    assert page.is_visible("#progress") and page.is_visible("#cancel")
    page.wait_for_selector("#compare", state="visible")
    before, after = (page.get_attribute(id, "src") for id in ("#source-picture", "#edited-picture"))
    assert before != after
    page.focus("#compare")
    resting = int(page.get_attribute("#compare", "aria-valuenow"))
    page.keyboard.press("ArrowRight")
    assert int(page.get_attribute("#compare", "aria-valuenow")) > resting
    page.keyboard.press("Home")
    assert page.get_attribute("#compare", "aria-valuenow") == "0"
    box = page.locator("#compare").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 100, steps=4)
    page.mouse.up()
    assert 60 <= int(page.get_attribute("#compare", "aria-valuenow")) <= 80
    assert downloaded(page, tmp_path)["seed"] == 28
    assert page.locator("#history li").count() == 1
    page.reload()
    page.wait_for_selector("#history li")


def test_an_edit_goes_on_through_a_reload(page: Any) -> None:
    take(page, steps=200)
    page.click("#edit")
    until(page, "document.getElementById('progress').value > 5")
    page.reload()
    page.wait_for_selector("#cancel", state="visible")
    page.wait_for_selector("#compare", state="visible")
    assert page.input_value("#steps") == "200" and page.locator("#history li").count() == 1


def test_sound_and_words_mix_and_the_history_brings_settings_back(page: Any, tmp_path: Path) -> None:
    assert page.is_disabled("#mix") and page.is_disabled("#identity")
    page.click("[data-sample='sea-waves']")
    until(page, "document.querySelector('#heard li')?.textContent.toLowerCase().includes('sea waves')")
    page.fill("#text", "snow on the hills")
    assert page.is_enabled("#mix")
    take(page, mix=0.7, steps=20)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#compare", state="visible")
    made_from = downloaded(page, tmp_path)["settings"]
    assert (made_from["mix"], made_from["num_steps"], made_from["text"]) == (0.7, 20, "snow on the hills")
    page.fill("#text", "")
    take(page, steps=50)
    page.click("#history button >> nth=0")
    until(page, "document.getElementById('steps').value === '20'")
    assert page.input_value("#text") == "snow on the hills" and page.input_value("#mix") == "0.7"


def test_photos_and_sounds_are_uploaded_dropped_and_pasted(page: Any) -> None:
    take(page, steps=10)
    page.set_input_files("#upload-image", {"name": "hills.jpg", "mimeType": "image/jpeg", "buffer": photograph()})
    page.set_input_files("#upload-sound", {"name": "rain.wav", "mimeType": "audio/wav", "buffer": rain()})
    until(page, "document.querySelector('#heard li')?.textContent.toLowerCase().includes('rain')")
    page.click("#edit")
    until(page, "document.getElementById('phase').textContent.toLowerCase().includes('photo')")  # it is found first
    page.wait_for_selector("#compare", state="visible")
    assert page.inner_text("#before") == "Before, as painted"
    shown = page.get_attribute("#source-picture", "src")
    page.evaluate(GIVE, [encoded(photograph()), "image.jpg", "image/jpeg", "paste"])
    until(page, f"document.getElementById('source-picture').getAttribute('src') !== {json.dumps(shown)}")
    page.click("[data-sample='church-bells']")
    page.evaluate(GIVE, [encoded(rain()), "dropped.wav", "audio/wav", "drop"])
    until(page, "document.getElementById('sound-name').textContent.includes('dropped')")
    page.evaluate(GIVE, [encoded(b"x"), "notes.pdf", "application/pdf", "drop"])
    assert page.is_visible("#error")


def test_a_recording_is_listened_to(page: Any) -> None:
    page.click("#record")
    time.sleep(1.5)
    page.click("#record")
    until(page, "document.getElementById('sound-name').textContent.includes('recording')")
    until(page, "document.querySelectorAll('#heard li').length >= 3")
    assert page.is_enabled("#edit") and not page.is_visible("#error")


def test_a_sound_plays_with_a_playhead(page: Any) -> None:
    page.click("#play")
    until(page, "!document.getElementById('playhead').hidden")
    page.click("#play")


def test_what_cannot_be_heard_is_told_with_what_to_do_and_the_last_sound_stays(page: Any) -> None:
    page.set_input_files("#upload-sound", {"name": "bad.wav", "mimeType": "audio/wav", "buffer": b"no sound" * 99})
    page.wait_for_selector("#error", state="visible")
    assert "sound" in page.inner_text("#error").lower() and page.is_enabled("#edit")
    page.click("[data-sample='raining']")
    page.wait_for_selector("#error", state="hidden")


def test_a_picture_beyond_the_limits_is_refused_when_it_is_chosen(page: Any) -> None:
    tall = io.BytesIO()
    Image.new("1", (8000, 6000)).save(tall, "PNG")
    page.set_input_files("#upload-image", {"name": "tall.png", "mimeType": "image/png", "buffer": tall.getvalue()})
    page.wait_for_selector("#error", state="visible")
    assert "8000 x 6000" in page.inner_text("#error") and "scene 28" in page.inner_text("#status").lower()


def test_a_full_service_is_asked_again_when_it_says(page: Any) -> None:
    asked: list[int] = []

    def answer(route: Any) -> None:
        asked.append(1)
        if len(asked) > 1:
            route.continue_()
            return
        error = {"kind": "TooManyEdits", "message": "32 edits run and wait. Try again in 1 s", "request_id": "a"}
        route.fulfill(status=429, headers={"Retry-After": "1"}, json={"error": error})

    page.route("**/v1/edits", answer)
    take(page, steps=10)
    page.click("#edit")
    page.wait_for_selector("#error", state="visible")
    page.wait_for_selector("#compare", state="visible")
    assert len(asked) == 2 and not page.is_visible("#error")


def test_a_service_that_is_gone_is_told(page: Any) -> None:
    page.route("**/v1/edits", lambda route: route.abort())
    page.click("#edit")
    page.wait_for_selector("#error", state="visible")
    assert page.is_visible("#edit")


def test_an_edit_can_be_cancelled(page: Any) -> None:
    take(page, steps=200)
    page.click("#edit")
    page.click("#cancel")
    until(page, "document.getElementById('status').textContent.includes('Cancelled')")
    assert page.is_enabled("#edit") and page.locator("#history li").count() == 0


def test_it_can_be_used_with_the_keyboard_alone(page: Any) -> None:
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.sample || ''"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        if reached[-1] == "edit":
            assert outline != "none"
            break
    assert {"dice", "record", "play", "text", "edit"} <= set(reached)
    take(page, steps=10)
    page.keyboard.press("Enter")
    page.wait_for_selector("#compare", state="visible")


@pytest.mark.parametrize("width", [320, 390, 820, 1440])
def test_nothing_runs_over_the_side(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_works_with_a_thumb_on_a_phone(phone: Any) -> None:
    take(phone, steps=10)
    phone.tap("[data-sample='fire-crackling']")
    until(phone, "document.querySelector('#heard li')?.textContent.toLowerCase().includes('fire')")
    phone.tap("#edit")
    phone.wait_for_selector("#compare", state="visible")
    box = phone.locator("#compare").bounding_box()
    phone.touchscreen.tap(box["x"] + box["width"] * 0.6, box["y"] + box["height"] / 2)
    assert 50 <= int(phone.get_attribute("#compare", "aria-valuenow")) <= 70


def test_the_page_asks_no_other_server_for_anything(browser: Any, address: str) -> None:
    context = browser.new_context(viewport=DESKTOP)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("#heard li")
    context.close()
    assert asked and all(url.startswith((address, "data:", "blob:")) for url in asked)


def test_a_service_with_a_token_asks_for_it_as_a_password(browser: Any, miniature: Engine) -> None:
    with serving(miniature, token="s3cret x") as closed:
        context = browser.new_context(http_credentials={"username": "me", "password": "s3cret x"})
        page = context.new_page()
        assert page.goto(closed).status == 200
        page.wait_for_selector("#heard li")  # scripts, samples and calls carry it too
        context.close()
        context = browser.new_context(http_credentials={"username": "me", "password": "wrong"})
        assert context.new_page().goto(closed).status == 401
        context.close()


def test_one_world_needs_no_choice_of_presets(page: Any) -> None:
    assert page.is_hidden("#preset")


def test_a_preset_is_chosen_and_edits_with_its_settings(browser: Any, miniature: Engine, tmp_path: Path) -> None:
    (tmp_path / "quick.yaml").write_text("description: the same, in a hurry\nmanipulator: {}\nedit: {num_steps: 20}\n")
    settings = ServeSettings(presets=("miniature", str(tmp_path / "quick.yaml")))
    with running(start_all({"miniature": miniature, "quick": miniature}, settings)) as address:
        for page in opened(browser, address, viewport=DESKTOP):
            assert page.input_value("#preset") == "miniature" and page.input_value("#steps") == "60"
            page.fill("#text", "snow")
            page.select_option("#preset", "quick")
            page.wait_for_url("**/?preset=quick")
            page.wait_for_selector("#heard li")
            assert page.input_value("#preset") == "quick" and page.input_value("#steps") == "20"
            edit(page)
            assert downloaded(page, tmp_path)["settings"]["num_steps"] == 20
            assert page.locator("#history li").count() == 1
            page.goto(f"{address}?preset=miniature")
            page.wait_for_selector("#heard li")
            assert page.locator("#history li").count() == 0  # each preset has its own
            page.goto(f"{address}?preset=none")
            page.wait_for_selector("#error", state="visible")
            assert "Send miniature or quick" in page.inner_text("#error")
