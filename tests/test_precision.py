"""Steps in bfloat16: when they are, and what comes out."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_edits import do, noise, with_sound

from soundguide import precision
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.manipulator import Manipulator
from soundguide.precision import compute_dtype, has_bfloat16_tiles

CPU = torch.device("cpu")
STEPS = EditSettings(num_steps=20, exploration=0.0)


@pytest.fixture
def with_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this processor count as one with AMX: it computes bfloat16 too, only slowly."""
    monkeypatch.setattr(precision, "has_bfloat16_tiles", lambda: True)


def psnr_db(image: np.ndarray, expected: np.ndarray) -> float:
    error = np.mean((image.astype(float) - expected.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


@pytest.mark.usefixtures("with_tiles")
def test_miniature_edit_in_bfloat16_is_nearly_that_in_float32() -> None:
    results = {}
    for name in ("fp32", "bf16"):
        manipulator = Manipulator(ManipulatorConfig.model_validate({"device": "cpu", "precision": name}))
        assert manipulator.world.dtype == (torch.bfloat16 if name == "bf16" else torch.float32)
        results[name] = do(manipulator, with_sound("a", noise(0), STEPS, seed=3))
    full, half = results["fp32"], results["bf16"]
    np.testing.assert_array_equal(half.source, full.source)  # pictures that are written are drawn in float32
    assert half.ws.dtype == np.float32
    assert not np.array_equal(half.ws, full.ws)  # it was bfloat16 indeed
    assert psnr_db(half.image, full.image) > 30
    moved = np.linalg.norm(full.ws - half.ws) / full.latent_distance
    assert moved < 0.3


def test_float32_is_the_default() -> None:
    assert compute_dtype(ManipulatorConfig().precision, CPU) == torch.float32


@pytest.mark.usefixtures("with_tiles")
def test_processor_with_tiles_computes_bfloat16() -> None:
    assert compute_dtype("bf16", CPU) == torch.bfloat16


def test_processor_without_tiles_stays_in_float32_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16_tiles", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert compute_dtype("bf16", CPU) == torch.float32
    assert "no AMX" in caplog.text


def test_tiles_are_those_that_the_system_tells_of() -> None:
    flags = Path("/proc/cpuinfo")
    if not flags.exists():
        pytest.skip("only Linux lists the flags of its processor")
    assert has_bfloat16_tiles() == ("amx_tile" in flags.read_text().split())


def test_precision_decides_what_a_row_becomes() -> None:
    from soundguide.run_folder import _HOW

    fields = json.loads(ManipulatorConfig(precision="bf16").model_dump_json())
    assert fields["precision"] == "bf16"
    assert "precision" not in _HOW  # so that run.json's identity holds it, and a run does not go on in another one
