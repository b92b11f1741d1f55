"""The studio in a real browser, where the service has several presets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from service import start_all
from studio_pages import DESKTOP, downloaded, edit, launched, opened, running

from serve.engine import Engine
from serve.settings import ServeSettings
from soundguide.config import ManipulatorConfig


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from launched()


def test_a_preset_is_chosen_and_edits_with_its_settings(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "quick.yaml").write_text("description: the same, in a hurry\nmanipulator: {}\nedit: {num_steps: 20}\n")
    miniature = Engine(ManipulatorConfig())
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
