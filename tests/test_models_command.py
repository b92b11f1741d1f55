"""`soundguide models list | info | verify`: what is there, what it is, whether it works."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from cli_runs import assert_refused, picture_of, plain, run, unwrapped
from tiny_world import write_tiny_world

from soundguide.models.checkpoint import ModelConfig, load_model, save_model
from soundguide.models.home import HOME_VARIABLE
from soundguide.models.manifest import ROLE_OF_KIND, WEIGHTS_FILE


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    write_tiny_world(home, resolution=8)
    return home


@pytest.fixture
def home(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of three models, to be changed as one likes."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return Path(shutil.copytree(world, tmp_path / "home"))


def test_models_are_listed_by_name_with_role_and_kind(home: Path) -> None:
    lines = plain(run("models", "list").stdout).splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["audio", "audio", "swin_audio"],
        ["generator", "generator", "stylegan2"],
        ["image_text", "image_text", "open_clip"],
    ]
    assert str(home / "audio") in run("models", "list", "--paths").stdout


def test_an_empty_home_says_how_to_fill_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "none"))
    assert "soundguide models import FILE -o NAME" in unwrapped(run("models", "list").stdout)


def test_a_damaged_model_is_listed_as_such(home: Path) -> None:
    (home / "audio" / WEIGHTS_FILE).write_bytes(b"no weights")
    assert "damaged" in run("models", "list").stdout
    assert_refused(run("models", "info", "audio"), "cannot be read as safetensors")


def test_info_tells_everything_that_the_config_says(home: Path) -> None:
    told = json.loads(run("models", "info", "audio", "--json").stdout)
    assert (told["role"], told["kind"], told["config"]["log_mel"]["sample_rate"]) == ("audio", "swin_audio", 8000)
    module = load_model(home / "audio", device="cpu").module
    assert told["num_values"] == sum(value.numel() for value in module.state_dict().values())
    shown = unwrapped(run("models", "info", home / "audio").stdout)
    for word in ("window_seconds 0.5", '["raining", "wind noise", "church bells"]', told["sha256"]):
        assert word in shown


def test_verify_tells_each_model_and_fails_where_one_does(home: Path) -> None:
    good = run("models", "verify", "--all")
    assert good.exit_code == 0 and [line.split()[1] for line in plain(good.stdout).splitlines()] == [
        "audio",
        "generator",
        "image_text",
    ]
    with (home / "audio" / WEIGHTS_FILE).open("ab") as file:
        file.write(b"x")
    bad = run("models", "verify", "--all")
    assert bad.exit_code == 2 and "audio: " in bad.stderr and "damaged or exchanged" in bad.stderr
    assert len(plain(bad.stdout).splitlines()) == 2
    assert run("models", "verify", home / "generator").exit_code == 0


def test_verify_finds_weights_that_load_and_do_not_work(home: Path) -> None:
    loaded = load_model(home / "generator", device="cpu")
    with torch.no_grad():
        loaded.module.get_parameter("synthesis.b4.torgb.weight").fill_(3e38)  # finite, but no picture of it is
    save_model(home / "generator", loaded.module, loaded.config, half=False, made_by="a test")
    result = run("models", "verify", "generator")
    assert result.exit_code == 2 and "its picture has numbers that are not finite" in unwrapped(result.stderr)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["verify"], "nothing to verify"),
        (["verify", "audio", "--all"], "a model and --all"),
        (["verify", "churches"], "there is no model 'churches'"),
        (["info", "s3://bucket/model"], "neither a name nor a local folder"),
        (["import", "FILE", "-o", "a/b"], "cannot be a model's name"),
        (["import", "FILE", "-o", "miniature"], "cannot be a model's name"),
        (["import", "FILE", "-o", "audio"], "there is a model 'audio' already"),
        (["import", "FILE", "-o", "new", "--crop", "9,3,0,5"], "top < bottom"),
        (["import", "FILE", "-o", "new", "--alignment", "straight"], "alignment"),
        (["import", "none.pkl", "-o", "new"], "cannot be read"),
        (["export", "audio", "-o", "FILE"], "is there already"),
        (["export", "audio", "-o", "new.pt", "--layout", "other"], "rosinality alone"),
        (["export", "audio", "-o", "new.pt"], "of StyleGAN2 alone"),
    ],
)
def test_wrong_words_are_one_message(words: list[str], told: str, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "file.pkl"
    file.write_bytes(b"no checkpoint")
    assert_refused(run("models", *(str(file) if word == "FILE" else word for word in words)), told)
    assert {path.name for path in home.iterdir()} == {"audio", "generator", "image_text"}


def test_named_models_edit(home: Path, rain_file: Path, tmp_path: Path) -> None:
    models = ["--generator", "generator", "--image-text", "image_text", "--audio-encoder", "audio"]
    settings = ["--steps", "1", "--set", "num_views=1", "--seed", "1"]
    result = run("edit", rain_file, *models, *settings, "-o", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    assert picture_of(tmp_path / "a.png").size == (8, 8)


def test_every_kind_that_loads_has_a_role() -> None:
    kinds = {kind.model_fields["kind"].default for kind in ModelConfig.__args__}
    assert kinds <= ROLE_OF_KIND.keys()
