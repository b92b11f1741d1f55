"""`soundguide miniature`: sounds and scenes on request, and models that are saved as they were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_runs import assert_refused, picture_of, run
from tiny_world import write_tiny_world


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_synthesise_writes_a_sound_that_decodes(suffix: str, tmp_path: Path) -> None:
    from soundguide.audio.decode import decode_audio

    path = tmp_path / f"bells{suffix}"
    result = run("miniature", "synthesise", "Church_Bells", "--seconds", "0.7", "--seed", "3", "-o", path)
    assert result.exit_code == 0, result.output
    waveform = decode_audio(path.read_bytes(), sample_rate=16_000)
    assert len(waveform) == round(0.7 * 16_000)
    assert np.abs(waveform).max() > 0.01


def test_a_misspelt_label_is_answered_with_the_one_meant(tmp_path: Path) -> None:
    assert_refused(run("miniature", "synthesise", "rainig", "-o", tmp_path / "a.wav"), "'raining'")


def test_render_draws_the_scene_that_a_seed_stands_for(tmp_path: Path) -> None:
    from soundguide.miniature.latents import Z_DIM
    from soundguide.miniature.scenes import factors_from_z, render
    from soundguide.world import seeded_z, to_bytes

    path = tmp_path / "scene.png"
    assert run("miniature", "render", "--seed", "7", "--resolution", "64", "-o", path).exit_code == 0
    expected = to_bytes(render(factors_from_z(seeded_z(7, Z_DIM)), 64).images[0])
    difference = np.asarray(picture_of(path)).astype(int) - expected
    assert np.abs(difference).max() <= 1  # the latent is normalised once more


def test_render_draws_the_faces_of_seeds_with_an_expression_if_asked(tmp_path: Path) -> None:
    from soundguide.miniature.faces.faces import CONTINUOUS, LATENTS, render
    from soundguide.miniature.faces.labels import LABELS
    from soundguide.miniature.latents import Z_DIM
    from soundguide.world import seeded_z, to_bytes

    path = tmp_path / "face.png"
    world = ("miniature", "render", "--world", "faces", "--seed", "7", "--resolution", "64", "-o", path)
    assert run(*world).exit_code == 0
    factors = LATENTS.factors(seeded_z(7, Z_DIM))
    calm = np.asarray(picture_of(path)).astype(int)
    assert np.abs(calm - to_bytes(render(factors, 64).images[0])).max() <= 1
    assert run(*world, "--label", "screaming").exit_code == 0
    assert float(factors[0, len(CONTINUOUS) + LABELS.index("screaming")]) < 0.5
    assert np.abs(np.asarray(picture_of(path)).astype(int) - calm).mean() > 2
    assert_refused(run(*world, "--label", "raining"), "'raining'", "giggling")


def test_synthesise_knows_the_voices_too(tmp_path: Path) -> None:
    path = tmp_path / "yawn.wav"
    assert run("miniature", "synthesise", "yawning", "--seconds", "0.5", "-o", path).exit_code == 0
    assert path.stat().st_size > 16_000


def test_render_puts_many_scenes_on_one_sheet(tmp_path: Path) -> None:
    run("miniature", "render", "-n", "5", "--resolution", "32", "-o", tmp_path / "sheet.png")
    width, height = picture_of(tmp_path / "sheet.png").size
    assert 3 * 32 <= width < 4 * 32 and 2 * 32 <= height < 3 * 32


@pytest.mark.parametrize("intensity", [0.0, 0.4, 1.0])
def test_labelled_scenes_have_what_was_asked_for_and_no_more(intensity: float) -> None:
    from soundguide.cli.scene_drawing import scene_latents
    from soundguide.miniature.labels import LABELS
    from soundguide.miniature.scenes import CONTINUOUS, factors_from_z

    factors = factors_from_z(scene_latents(6, 0, ("raining", "bird song"), intensity=intensity))
    events = factors[:, len(CONTINUOUS) :].numpy()
    expected = np.zeros((6, len(LABELS)))
    expected[:, [LABELS.index("raining"), LABELS.index("bird song")]] = intensity
    np.testing.assert_allclose(events, expected, atol=1e-3)


def test_render_by_the_generator_refuses_another_world_s(models_file: Path, tmp_path: Path) -> None:
    result = run("miniature", "render", "--generated", "-o", tmp_path / "a.png", "--models", models_file)
    assert_refused(result, "miniature")


def test_a_saved_reader_reads_as_before(tmp_path: Path) -> None:
    import torch

    from soundguide.miniature.models import save_role
    from soundguide.miniature.reader import SceneReader
    from soundguide.miniature.report.judge import load_reader

    reader = SceneReader().half().float()  # what float16 can hold
    digest = save_role(tmp_path / "reader", reader, made_by="test")
    images = torch.linspace(-1, 1, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64)
    with torch.no_grad():
        for before, after in zip(reader(images), load_reader(tmp_path / "reader")(images), strict=True):
            torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert json.loads((tmp_path / "reader" / "config.json").read_text())["weights_sha256"] == digest


def test_a_saved_sound_encoder_says_what_it_can_hear(tmp_path: Path) -> None:
    from soundguide.miniature.labels import LABELS
    from soundguide.miniature.models import save_role
    from soundguide.models.checkpoint import load_model

    config = write_tiny_world(tmp_path)
    save_role(tmp_path / "again", load_model(Path(config.audio), device="cpu").module, made_by="test")
    assert load_model(tmp_path / "again", device="cpu").labels == LABELS


def test_a_sheet_of_a_report_without_edits_is_refused(tmp_path: Path) -> None:
    result = run("miniature", "report", "--parts", "sound", "--sheet", tmp_path / "sheet.png")
    assert_refused(result, "edits or faces")


def test_a_report_on_faces_that_the_package_lacks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from soundguide.models import manifest

    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "models" / "manifest.py"))
    assert_refused(run("miniature", "report", "--parts", "faces"), "faces/generator", "no model here")


def test_report_refuses_unknown_parts() -> None:
    assert_refused(run("miniature", "report", "--parts", "generator,clap"), "clap", "edits")
