"""Presets: what each sets, who wins, what is told of a missing model, and all doors that take one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bulk_runs import GOOD, results, write_manifest
from cli_runs import assert_refused, picture_of, run, unwrapped
from tiny_presets import write_presets

import bulk_manipulate
from bulk_manipulate import BulkConfig
from soundguide.command_config import load_config
from soundguide.config import EditSettings, ManipulatorConfig, parse_mix_layers
from soundguide.errors import InvalidCheckpoint, InvalidConfig
from soundguide.model_facts import absolute_models, read_model_facts
from soundguide.models.home import HOME_VARIABLE, home_folder, named_models
from soundguide.models.manifest import PACKAGED, resolve_model
from soundguide.preset import apply_preset, load_preset, preset_names
from soundguide.run_folder import identify
from soundguide.stages import SourceLimits

NO_EDIT, NO_MODELS = EditSettings(), ManipulatorConfig()


@pytest.fixture(scope="module")
def written(tiny_models: ManipulatorConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return write_presets(tmp_path_factory.mktemp("presets"), tiny_models)


@pytest.fixture
def small(written: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """A preset whose models have names in the home."""
    monkeypatch.setenv(HOME_VARIABLE, str(written[2]))
    return str(written[1])


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("name", "num_ws", "lambdas"),
    [  # the paper, Sec. 4.1
        ("ffhq-1024", 18, (0.008, 0.004)),
        ("lsun-church-256", 14, (0.002, 0)),
        ("lsun-car-512", 16, (0.002, 0)),
        ("lhq-256", 14, (0.002, 0)),
        ("wikiart-1024", 16, (0.002, 0)),
        ("afhqv2-512", 16, (0.002, 0)),
    ],
)
def test_presets_hold_the_lambdas_of_the_paper_and_halve_the_layers(
    name: str, num_ws: int, lambdas: tuple[float, float]
) -> None:
    preset = load_preset(name)
    assert (preset.edit.lambda_reg, preset.edit.lambda_id) == lambdas
    half = num_ws // 2
    assert parse_mix_layers(preset.edit.mix_layers) == [(1, half, "sound"), (half + 1, num_ws, "text")]
    assert bool(preset.manipulator.identity) == (lambdas[1] > 0)


def test_the_miniature_s_preset_changes_nothing() -> None:
    assert apply_preset(load_preset("miniature"), NO_EDIT, NO_MODELS) == (NO_EDIT, NO_MODELS)


def test_what_is_set_on_its_own_wins_over_the_preset_and_that_over_defaults(small: str) -> None:
    edit, models = apply_preset(
        load_preset(small), EditSettings(num_steps=60), ManipulatorConfig(device="cpu", audio="miniature")
    )
    assert (edit.num_steps, edit.lambda_reg, edit.mix) == (60, 0.25, 0.5)  # 60 is the default, but was asked for
    assert (models.generator, models.audio, models.device) == ("generator", "miniature", "cpu")


def test_a_mix_takes_the_place_of_layer_ranges_that_would_hide_it() -> None:
    ranges = EditSettings(mix_layers="1-6 sound")
    assert ranges.override({"mix": 0.2}).mix_layers == ""
    assert ranges.override({"mix": 0.2, "mix_layers": "1 text"}).mix_layers == "1 text"
    assert ranges.override({"num_steps": 3}).mix_layers == "1-6 sound"


def test_without_an_identity_encoder_there_is_no_identity_term(small: str) -> None:
    preset = load_preset(small)
    keeping = preset.model_copy(update={"edit": preset.edit.override({"lambda_id": 0.004})})
    assert apply_preset(keeping, NO_EDIT, NO_MODELS)[0].lambda_id == 0
    assert apply_preset(keeping, EditSettings(lambda_id=0.1), NO_MODELS)[0].lambda_id == 0.1  # told when it is used


@pytest.mark.parametrize("name", sorted({*preset_names()} - {*PACKAGED}))
def test_a_missing_model_is_told_with_what_to_get_and_how(name: str, empty_home: Path) -> None:
    preset = load_preset(name)
    with pytest.raises(InvalidConfig) as caught:
        apply_preset(preset, NO_EDIT, NO_MODELS)
    told = str(caught.value)
    assert str(empty_home) in told and len(told.splitlines()) == 1 + len(preset.needs)
    for line, model in zip(told.splitlines()[1:], preset.needs, strict=True):
        assert model in line and "https://" in line and "soundguide models " in line
    others = ManipulatorConfig(
        **dict.fromkeys(("generator", "image_text", "audio"), "miniature"), identity="", inverter=""
    )
    assert apply_preset(preset, NO_EDIT, others)[1] == others


def test_an_unknown_preset_is_met_with_the_nearest() -> None:
    with pytest.raises(InvalidConfig, match=r"'ffhq_1024'.*Did you mean ffhq-1024"):
        load_preset("ffhq_1024")


def test_a_preset_s_own_mistakes_are_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("description: mine\nmanipulator: {}\nedit: {num_stepz: 3}\n")
    with pytest.raises(InvalidConfig, match=r"mine\.yaml: edit\.num_stepz: .*Did you mean edit\.num_steps"):
        load_preset(str(tmp_path / "mine.yaml"))


def test_a_name_is_a_model_of_the_home_unless_a_folder_has_it(small: str, tmp_path: Path) -> None:
    assert resolve_model("generator", "generator") == home_folder("generator")
    assert set(named_models()) == {"generator", "image_text", "audio"}
    assert resolve_model("./generator", "generator") == Path("generator")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        (tmp_path / "generator").mkdir()
        assert resolve_model("generator", "generator") == Path("generator")


def test_a_name_that_nothing_has_says_what_there_is(small: str, empty_home: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"no model 'churches'.*nothing yet.*models import FILE -o churches"):
        resolve_model("churches", "generator")
    with pytest.raises(InvalidCheckpoint, match="soundguide models pull wav2clip"):
        resolve_model("wav2clip", "audio")


def test_names_become_absolute_folders_for_workers(small: str, written: tuple[Path, Path, Path]) -> None:
    models = absolute_models(load_preset(small).manipulator)
    assert models.generator == str(written[2] / "generator") and Path(models.audio).is_absolute()
    assert read_model_facts(models).resolution == 8


def test_the_command_line_edits_with_a_preset(small: str, rain_file: Path, tmp_path: Path) -> None:
    result = run("edit", rain_file, "--preset", small, "--seed", "1", "--mix", "0.3", "-o", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    picture = picture_of(tmp_path / "a.png")
    settings = json.loads(picture.info["soundguide"])["settings"]
    assert picture.size == (8, 8)
    assert (settings["num_steps"], settings["lambda_reg"], settings["mix"]) == (4, 0.25, 0.3)


def test_a_model_is_named_beside_a_preset(
    small: str, tiny_models: ManipulatorConfig, rain_file: Path, tmp_path: Path
) -> None:
    named = ["--preset", small, "--generator", tiny_models.generator]
    assert run("edit", rain_file, *named, "--seed", "1", "-o", tmp_path / "a.png").exit_code == 0
    assert picture_of(tmp_path / "a.png").size == (16, 16)
    missing = ["--generator", "churches", "--seed", "1", "-o", tmp_path / "b.png"]
    assert_refused(run("edit", rain_file, *missing), "no model 'churches'")


def test_presets_are_listed_with_what_they_lack(empty_home: Path) -> None:
    listed = run("presets").stdout
    assert all(name in listed for name in preset_names()) and "complete" in listed
    told = unwrapped(run("presets", "ffhq-1024").stdout)
    assert "lambda_id 0.004" in told and "soundguide models pull stylegan2-ffhq-1024" in told


def bulk_config(*flags: str) -> BulkConfig:
    return load_config(BulkConfig, ["--manifest", "m.csv", "--output", "/o", *flags]).placed()


def test_a_run_with_a_preset_is_the_run_with_its_settings_as_flags(small: str) -> None:
    by_preset = bulk_config("--preset", small, "--edit.num_steps", "5", "--manipulator.device", "cpu")
    models = [f"--manipulator.{role}={role}" for role in ("generator", "image_text", "audio")]
    settings = ["--edit.num_steps=5", "--edit.num_views=1", "--edit.lambda_reg=0.25", "--manipulator.device=cpu"]
    by_flags = bulk_config(*models, *settings)
    assert (by_preset.edit, by_preset.manipulator) == (by_flags.edit, by_flags.manipulator)
    facts = read_model_facts(by_flags.manipulator)
    first, second = (
        identify(config.edit, SourceLimits(), config.manipulator, facts) for config in (by_preset, by_flags)
    )
    assert first == second


def test_a_run_keeps_what_its_preset_was_and_what_it_set(
    local_ray: None, small: str, bulk_sources: Path, tmp_path: Path
) -> None:
    manifest = write_manifest(bulk_sources / "preset.csv", {"seed": GOOD["seed"]})
    pool = ["--pool.num_actors", "1", "--pool.stall_seconds", "120"]
    code = bulk_manipulate.main(["--manifest", manifest, "--output", str(tmp_path / "o"), "--preset", small, *pool])
    assert code == 0
    record = json.loads((tmp_path / "o" / "run.json").read_text())
    assert record["config"]["preset"] == small and record["config"]["edit"]["lambda_reg"] == 0.25
    assert record["identity"]["edit"]["num_steps"] == 4
    assert results(tmp_path / "o")["seed"]["status"] == "ok"
    assert picture_of(tmp_path / "o" / "images" / "seed.png").size == (8, 8)


def test_a_run_whose_preset_lacks_a_model_stops_before_the_output_is_touched(
    empty_home: Path, bulk_sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_manifest(bulk_sources / "lacks.csv", {"seed": GOOD["seed"]})
    code = bulk_manipulate.main(["--manifest", manifest, "--output", str(tmp_path / "o"), "--preset", "ffhq-1024"])
    assert code == 2 and "models pull stylegan2-ffhq-1024" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
