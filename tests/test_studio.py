"""The studio in a real browser, over HTTP, with the miniature's own models: what a visitor does and sees."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from studio_pages import (
    DESKTOP,
    GIVE,
    PHONE,
    downloaded,
    encoded,
    launched,
    opened,
    photograph,
    rain,
    serving,
    take,
    until,
)

from serve.engine import Engine
from soundguide.config import ManipulatorConfig


@pytest.fixture(scope="module")
def miniature() -> Engine:
    return Engine(ManipulatorConfig())


@pytest.fixture(scope="module")
def address(miniature: Engine) -> Iterator[str]:
    with serving(miniature) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from launched()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    yield from opened(browser, address, viewport=DESKTOP, permissions=["microphone"])


@pytest.fixture
def phone(browser: Any, address: str) -> Iterator[Any]:
    yield from opened(browser, address, viewport=PHONE, has_touch=True, is_mobile=True)


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
