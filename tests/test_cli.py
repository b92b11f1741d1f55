"""The command line: its help teaches, its answers are well-formed, its errors are one line and exit code 2."""

from __future__ import annotations

import functools
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_world import RESOLUTION, write_tiny_world
from typer.testing import CliRunner, Result

from soundguide.cli.main import app

ROOT = Path(__file__).parents[1]
COMMANDS = [
    "",
    "edit",
    "listen",
    "replay",
    "settings",
    "miniature",
    "miniature render",
    "miniature synthesise",
    "miniature report",
    "miniature train",
    "miniature train generator",
    "miniature train image-text",
    "miniature train audio",
    "miniature train reader",
]
FAST = ["--steps", "3", "--set", "num_views=1"]


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin, env={"COLUMNS": "200"})


def picture_of(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@functools.cache
def help_of(command: str) -> str:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    return plain(result.output)


def assert_refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    for word in words:
        assert word in plain(result.stderr)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    config = write_tiny_world(folder)
    path = folder / "models.yaml"
    path.write_text(yaml.safe_dump({**config.model_dump(mode="json"), "device": "cpu"}))
    return path


@pytest.fixture(scope="module")
def rain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sounds") / "rain.wav"
    result = run("miniature", "synthesise", "raining", "--seconds", "1.2", "-o", path)
    assert result.exit_code == 0, result.output
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_shows_an_example(command: str) -> None:
    _, found, examples = help_of(command).partition("Examples")
    assert found and f"soundguide {command}".strip() in examples


def test_every_command_is_among_those_tested() -> None:
    def names(group: object, prefix: str) -> list[str]:
        children = getattr(group, "commands", {})
        found = [prefix]
        for name, child in children.items():
            found += names(child, f"{prefix} {name}".strip())
        return found

    import typer.main

    assert sorted(names(typer.main.get_command(app), "")) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_name_options_that_exist(command: str) -> None:
    _, _, examples = help_of(command).partition("Examples")
    for line in re.findall(r"soundguide (.+)", examples):
        owner = max((name for name in COMMANDS if f"{line} ".startswith(f"{name} ".lstrip())), key=len)
        options = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", line)) - {"--help"}
        missing = [option for option in options if option not in help_of(owner).partition("Examples")[0]]
        assert not missing, line


def test_loading_the_program_loads_nothing_heavy() -> None:
    code = "import sys, soundguide.cli.main; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert not set(loaded.stdout.split()) & {"torch", "ray", "numpy", "scipy", "pyarrow", "PIL", "av"}


def test_version_is_the_package_s() -> None:
    from soundguide import __version__

    assert run("--version").output.strip() == f"soundguide {__version__}"


def test_settings_lists_every_field_with_its_default() -> None:
    from soundguide.config import EditSettings

    lines = {line.split()[0]: line for line in plain(run("settings").output).splitlines() if line.split()}
    assert {
        name: str(field.default) in lines[name] for name, field in EditSettings.model_fields.items()
    } == dict.fromkeys(EditSettings.model_fields, True)


def test_listen_prints_probabilities_best_first(models: Path, rain: Path) -> None:
    answer = json.loads(run("listen", rain, "--json", "--models", models).stdout)
    assert set(answer) == {"labels"}
    probabilities = [item["probability"] for item in answer["labels"]]
    assert {item["label"] for item in answer["labels"]} == {"raining", "wind noise", "church bells"}
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)


def test_listen_takes_any_labels(models: Path, rain: Path) -> None:
    answer = json.loads(run("listen", rain, "--labels", "hail, a frying pan,", "--json", "--models", models).stdout)
    assert {item["label"] for item in answer["labels"]} == {"hail", "a frying pan"}


def test_listen_by_window_tells_where_each_starts(models: Path, rain: Path) -> None:
    answer = json.loads(run("listen", rain, "--windows", "--top", "1", "--json", "--models", models).stdout)
    assert [window["start_seconds"] for window in answer["windows"]] == [0.0, 0.5, 1.0]  # 1.2 s, windows of 0.5 s
    assert all(len(window["labels"]) == 1 for window in answer["windows"])


def test_listen_reads_standard_input(models: Path, rain: Path) -> None:
    by_name = run("listen", rain, "--json", "--models", models)
    piped = run("listen", "-", "--json", "--models", models, stdin=rain.read_bytes())
    assert piped.stdout == by_name.stdout


def test_listen_draws_a_table_for_people(models: Path, rain: Path) -> None:
    output = plain(run("listen", rain, "--models", models).stdout)
    assert "church bells" in output and "%" in output


def test_edit_writes_the_picture_with_its_provenance(models: Path, rain: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "rainy.png"
    result = run("edit", rain, "--seed", "7", "-o", out, "--models", models, *FAST)
    assert result.exit_code == 0, result.output
    picture = picture_of(out)
    provenance = json.loads(picture.info["soundguide"])
    assert picture.size == (RESOLUTION, RESOLUTION)
    assert (provenance["seed"], provenance["audio"]) == (7, str(rain))
    assert (provenance["settings"]["num_steps"], provenance["settings"]["num_views"]) == (3, 1)
    assert set(provenance["models"]) == {"generator", "image_text", "audio"}
    assert "similarity" in result.stdout and "heard" in result.stdout


def test_edit_draws_before_and_after_side_by_side(models: Path, rain: Path, tmp_path: Path) -> None:
    run("edit", rain, "--seed", "7", "-o", tmp_path / "a.png", "--models", models, *FAST)
    strip = picture_of(tmp_path / "a-strip.png")
    assert strip.width >= 2 * 256 and strip.height >= 256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-strip.png", "a.png"]  # and no temporary file


def test_no_steps_leave_the_picture_as_it_is(models: Path, rain: Path, tmp_path: Path) -> None:
    from soundguide.cli.inputs import load_config
    from soundguide.world import World, to_bytes

    run("edit", rain, "--seed", "7", "--steps", "0", "--no-strip", "-o", tmp_path / "a.png", "--models", models)
    world = World(load_config(models))
    source = to_bytes(world.look(world.code(7, None, 1.0))[0])
    np.testing.assert_array_equal(np.asarray(picture_of(tmp_path / "a.png")), source)


def test_an_edit_s_code_is_a_source_of_the_next(models: Path, rain: Path, tmp_path: Path) -> None:
    code, first, second = tmp_path / "a.safetensors", tmp_path / "a.png", tmp_path / "b.png"
    run("edit", rain, "--seed", "7", "-o", first, "--latent-out", code, "--models", models, *FAST)
    result = run("edit", rain, "--latent", code, "--steps", "0", "-o", second, "--models", models)
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(np.asarray(picture_of(first)), np.asarray(picture_of(second)))


def test_a_text_alone_edits(models: Path, tmp_path: Path) -> None:
    result = run("edit", "--text", "rain", "--seed", "7", "-o", tmp_path / "a.png", "--models", models, *FAST)
    assert result.exit_code == 0, result.output
    assert json.loads(picture_of(tmp_path / "a.png").info["soundguide"])["settings"]["text"] == "rain"


def test_a_photo_is_inverted_and_its_likeness_told(models: Path, rain: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    checks = np.indices((64, 64)).sum(0) // 8 % 2 * 255  # nothing that a random generator could draw
    Image.fromarray(checks.astype(np.uint8)).save(photo)
    settings = ["--inversion-steps", "2", *FAST]
    result = run("edit", rain, "--image", photo, "-o", tmp_path / "a.png", "--models", models, *settings)
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
        (["RAIN", "--seed", "1", "-o", "a.png", "--set", "num_step=3"], ["num_step", "num_steps"]),
        (["RAIN", "--seed", "1", "-o", "a.png", "--set", "margin"], ["key=value"]),
        (["RAIN", "--seed", "1", "-o", "a.png", "--mix", "1.5"], ["mix", "1.5"]),
        (["RAIN", "--seed", "1", "-o", "a.png", "--steps", "3", "--set", "num_steps=4"], ["twice"]),
        (["NOTES", "--seed", "1", "-o", "a.png"], ["bytes"]),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(
    arguments: list[str], words: list[str], models: Path, rain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notes = tmp_path / "notes.wav"
    notes.write_text("this is no sound")
    names = {"RAIN": str(rain), "NOTES": str(notes)}
    assert_refused(run("edit", *(names.get(word, word) for word in arguments), "--models", models), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.wav"]


@pytest.mark.parametrize("text", ["generator: [1", "no_such_field: 1", "- a\n- b", "generator: /nowhere/at/all"])
def test_a_wrong_models_file_is_told(text: str, rain: Path, tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(text)
    assert_refused(run("listen", rain, "--models", path))


def test_an_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch, rain: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("soundguide.cli.listen.load_config", interrupt)
    assert run("listen", rain).exit_code == 130


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


def test_labels_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "_SOUNDGUIDE_COMPLETE": "complete_bash",
        "COMP_WORDS": "soundguide miniature synthesise tech",
        "COMP_CWORD": "3",
    }
    result = CliRunner().invoke(app, [], prog_name="soundguide", env=environment)
    assert result.output.split("\n")[0] == "techno music"


def test_render_draws_the_scene_that_a_seed_stands_for(tmp_path: Path) -> None:
    from soundguide.miniature.scenes import Z_DIM, factors_from_z, render
    from soundguide.world import seeded_z, to_bytes

    path = tmp_path / "scene.png"
    assert run("miniature", "render", "--seed", "7", "--resolution", "64", "-o", path).exit_code == 0
    expected = to_bytes(render(factors_from_z(seeded_z(7, Z_DIM)), 64).images[0])
    difference = np.asarray(picture_of(path)).astype(int) - expected
    assert np.abs(difference).max() <= 1  # the latent is normalised once more


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


def test_render_by_the_generator_refuses_another_world_s(models: Path, tmp_path: Path) -> None:
    result = run("miniature", "render", "--generated", "-o", tmp_path / "a.png", "--models", models)
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


def test_report_refuses_unknown_parts() -> None:
    assert_refused(run("miniature", "report", "--parts", "generator,clap"), "clap", "edits")


def test_the_strip_shows_the_pictures_themselves() -> None:
    from soundguide.cli.strip import before_after

    red, blue = (np.full((256, 256, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    page = before_after([red, blue])
    assert (page[140, 140] == (255, 0, 0)).all() and (page[140, -140] == (0, 0, 255)).all()


def test_a_long_caption_stays_within_the_strip() -> None:
    from soundguide.cli.strip import before_after

    picture = np.zeros((64, 64, 3), np.uint8)
    assert before_after([picture], text="so many words " * 50).shape == before_after([picture], text="few").shape


def test_a_bar_is_as_long_as_its_share() -> None:
    from soundguide.cli.console import bar

    lengths = [bar(share, width=8).plain.count("█") for share in (0.0, 0.5, 1.0, math.inf)]
    assert lengths == [0, 4, 8, 8]
    assert len(bar(0.3, width=8).plain) == 8


def test_png_metadata_survives_a_second_reading(models: Path, rain: Path, tmp_path: Path) -> None:
    run("edit", rain, "--seed", "1", "-o", tmp_path / "a.png", "--models", models, *FAST)
    strip = picture_of(tmp_path / "a-strip.png")
    assert strip.info["soundguide"] == picture_of(tmp_path / "a.png").info["soundguide"]


def test_replay_of_a_folder_without_a_run_says_what_to_name(tmp_path: Path) -> None:
    assert_refused(run("replay", tmp_path, "--id", "x", "-o", tmp_path / "a.png"), "run.json")
