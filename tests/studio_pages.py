"""The studio's page in a real browser: a service to open, the page opened, and what a visitor does there."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
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
from ports import free_port
from service import Service, start

from serve.engine import Engine
from soundguide.audio.decode import encode_wav
from soundguide.config import EditSettings
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


def serving(engine: Engine, **settings: Any) -> AbstractContextManager[str]:
    """Serve an engine on loopback, in a thread of this process; give the address."""
    return running(start(engine, **{"edit": EditSettings(), **settings}))


@contextmanager
def running(service: Service) -> Iterator[str]:
    """Run a service on loopback, in a thread of this process; give the address."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(service.api, host="127.0.0.1", port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join(20)


def launched() -> Iterator[Any]:
    """Start Chromium; skip where there is none, unless the environment says that there must be."""
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
