"""`soundguide edit`: pictures with their provenance, strips of before and after, and input that it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_runs import assert_refused, picture_of, plain, run
from PIL import Image
from tiny_world import RESOLUTION

FAST = ["--steps", "3", "--set", "num_views=1"]


def test_edit_writes_the_picture_with_its_provenance(models_file: Path, rain_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "rainy.png"
    result = run("edit", rain_file, "--seed", "7", "-o", out, "--models", models_file, *FAST)
    assert result.exit_code == 0, result.output
    picture = picture_of(out)
    provenance = json.loads(picture.info["soundguide"])
    assert picture.size == (RESOLUTION, RESOLUTION)
    assert (provenance["seed"], provenance["audio"]) == (7, str(rain_file))
    assert (provenance["settings"]["num_steps"], provenance["settings"]["num_views"]) == (3, 1)
    assert set(provenance["models"]) == {"generator", "image_text", "audio"}
    assert "similarity" in result.stdout and "heard" in result.stdout


def test_edit_draws_before_and_after_side_by_side(models_file: Path, rain_file: Path, tmp_path: Path) -> None:
    run("edit", rain_file, "--seed", "7", "-o", tmp_path / "a.png", "--models", models_file, *FAST)
    strip = picture_of(tmp_path / "a-strip.png")
    assert strip.width >= 2 * 256 and strip.height >= 256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-strip.png", "a.png"]  # and no temporary file


def test_no_steps_leave_the_picture_as_it_is(models_file: Path, rain_file: Path, tmp_path: Path) -> None:
    from soundguide.cli.inputs import load_config
    from soundguide.world import World, to_bytes

    settings = ["--steps", "0", "--no-strip"]
    run("edit", rain_file, "--seed", "7", "-o", tmp_path / "a.png", "--models", models_file, *settings)
    world = World(load_config(models_file))
    source = to_bytes(world.look(world.code(7, None, 1.0))[0])
    np.testing.assert_array_equal(np.asarray(picture_of(tmp_path / "a.png")), source)


def test_an_edit_s_code_is_a_source_of_the_next(models_file: Path, rain_file: Path, tmp_path: Path) -> None:
    code, first, second = tmp_path / "a.safetensors", tmp_path / "a.png", tmp_path / "b.png"
    run("edit", rain_file, "--seed", "7", "-o", first, "--latent-out", code, "--models", models_file, *FAST)
    result = run("edit", rain_file, "--latent", code, "--steps", "0", "-o", second, "--models", models_file)
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(np.asarray(picture_of(first)), np.asarray(picture_of(second)))


def test_a_text_alone_edits(models_file: Path, tmp_path: Path) -> None:
    result = run("edit", "--text", "rain", "--seed", "7", "-o", tmp_path / "a.png", "--models", models_file, *FAST)
    assert result.exit_code == 0, result.output
    assert json.loads(picture_of(tmp_path / "a.png").info["soundguide"])["settings"]["text"] == "rain"


def test_a_photo_is_inverted_and_its_likeness_told(models_file: Path, rain_file: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    checks = np.indices((64, 64)).sum(0) // 8 % 2 * 255  # nothing that a random generator could draw
    Image.fromarray(checks.astype(np.uint8)).save(photo)
    settings = ["--inversion-steps", "2", *FAST]
    result = run("edit", rain_file, "--image", photo, "-o", tmp_path / "a.png", "--models", models_file, *settings)
    assert result.exit_code == 0, result.output
    assert "likeness" in result.stdout
    assert "outside of what this generator can draw" in plain(result.stderr)
    # photo, reconstruction and edit
    assert picture_of(tmp_path / "a-strip.png").width > 3 * 256


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.wav", "--seed", "1", "-o", "a.png"], ["missing.wav"]),
        (["--seed", "1", "-o", "a.png"], ["nothing to edit with", "--text"]),
        (["RAIN", "-o", "a.png"], ["got none", "--seed N"]),
        (["RAIN", "--seed", "1", "--image", "b.png", "-o", "a.png"], ["--seed and --image"]),
        (["RAIN", "--seed", "1", "-o", "a.jpg"], ["a.jpg", ".png"]),
        (["RAIN", "--seed", "1", "-o", "notes.wav/a.png"], ["a file stands where a folder is needed"]),
        (["RAIN", "--seed", "1", "-o", "a.png", "--set", "num_step=3"], ["num_step", "num_steps"]),
        (["RAIN", "--seed", "1", "-o", "a.png", "--set", "margin"], ["key=value"]),
        (["RAIN", "--seed", "1", "-o", "a.png", "--mix", "1.5"], ["mix", "1.5"]),
        (["RAIN", "--seed", "1", "-o", "a.png", "--steps", "3", "--set", "num_steps=4"], ["twice"]),
        (["RAIN", "--seed", "1", "-o", "a.png", "--mix-layers", "1-99 text"], ["names layer 99", "layers 1-6"]),
        (["NOTES", "--seed", "1", "-o", "a.png"], ["notes.wav: the bytes"]),
        (["--text", "x", "--image", "NOTES", "-o", "a.png"], ["notes.wav: the 16 bytes are no picture"]),
        (["--text", "x", "--latent", "NOTES", "-o", "a.png"], ["notes.wav: the latent file"]),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(
    arguments: list[str],
    words: list[str],
    models_file: Path,
    rain_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("soundguide.manipulator.Manipulator", load)
    monkeypatch.chdir(tmp_path)
    notes = tmp_path / "notes.wav"
    notes.write_text("this is no sound")
    names = {"RAIN": str(rain_file), "NOTES": str(notes)}
    assert_refused(run("edit", *(names.get(word, word) for word in arguments), "--models", models_file), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.wav"]


def test_the_strip_shows_the_pictures_themselves() -> None:
    from soundguide.cli.strip import before_after

    red, blue = (np.full((256, 256, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    page = before_after([red, blue])
    assert (page[140, 140] == (255, 0, 0)).all() and (page[140, -140] == (0, 0, 255)).all()


def test_a_long_caption_stays_within_the_strip() -> None:
    from soundguide.cli.strip import before_after

    picture = np.zeros((64, 64, 3), np.uint8)
    assert before_after([picture], text="so many words " * 50).shape == before_after([picture], text="few").shape


def test_png_metadata_survives_a_second_reading(models_file: Path, rain_file: Path, tmp_path: Path) -> None:
    run("edit", rain_file, "--seed", "1", "-o", tmp_path / "a.png", "--models", models_file, *FAST)
    strip = picture_of(tmp_path / "a-strip.png")
    assert strip.info["soundguide"] == picture_of(tmp_path / "a.png").info["soundguide"]
