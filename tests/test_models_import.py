"""`soundguide models import | export | pull`: files of other projects become models with names, and go back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from cli_runs import assert_refused, picture_of, run, unwrapped
from file_host import file_host

pytest.importorskip("soundguide.foreign.recognise", reason="needs the readers of soundguide.foreign")

from foreign_files import lively, nvidia_generator, write_nvidia  # noqa: E402 - of the readers' tests

from soundguide.models.checkpoint import load_model, save_model  # noqa: E402
from soundguide.models.fetch import CACHE_VARIABLE  # noqa: E402
from soundguide.models.home import HOME_VARIABLE, home_folder, named_models  # noqa: E402
from soundguide.models.sources import Source  # noqa: E402
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config  # noqa: E402


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def network() -> StyleGAN2:
    return lively(StyleGAN2Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=8, channels=(8, 8, 8)))


@pytest.fixture(scope="module")
def pickle(network: StyleGAN2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nvidia(tmp_path_factory.mktemp("theirs") / "faces.pkl", nvidia_generator(network))


def pictures(network: StyleGAN2) -> torch.Tensor:
    z = torch.randn(2, network.z_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network.synthesize(network.map(z))


def imported(name: str) -> StyleGAN2:
    module = load_model(home_folder(name), device="cpu").module
    assert isinstance(module, StyleGAN2)
    return module


def test_a_file_becomes_a_model_that_draws_the_same(pickle: Path, network: StyleGAN2) -> None:
    result = run("models", "import", pickle, "-o", "faces")
    assert result.exit_code == 0, result.output
    assert (pictures(imported("faces")) == pictures(network)).all()
    config = json.loads((home_folder("faces") / "config.json").read_text())
    assert config["made_by"] == "soundguide models import faces.pkl -o faces"
    source = {"file": "faces.pkl", "sha256": hashlib.sha256(pickle.read_bytes()).hexdigest()}
    assert config["extra"]["source"] == {**source, "bytes": pickle.stat().st_size}
    told = unwrapped(result.stdout)
    for words in (
        "role generator",
        "kind stylegan2",
        "resolution 16",
        config["weights_sha256"],
        str(home_folder("faces")),
    ):
        assert words in told
    assert "soundguide edit rain.wav --seed 7 --generator faces -o out.png" in told
    assert "faces.pkl" in run("models", "list").stdout and run("models", "verify", "faces").exit_code == 0


def test_the_line_that_is_told_edits(pickle: Path, models_file: Path, rain_file: Path, tmp_path: Path) -> None:
    run("models", "import", pickle, "-o", "faces")
    others = ["--models", models_file, "--steps", "1", "--set", "num_views=1"]
    result = run("edit", rain_file, "--seed", "7", "--generator", "faces", *others, "-o", tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    assert picture_of(tmp_path / "out.png").size == (16, 16)


def test_a_name_that_is_taken_is_written_over_only_when_told_so(pickle: Path, tmp_path: Path) -> None:
    run("models", "import", pickle, "-o", "faces")
    other = lively(StyleGAN2Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=8, channels=(8, 8, 8)), seed=9)
    second = write_nvidia(tmp_path / "second.pkl", nvidia_generator(other))
    assert_refused(run("models", "import", second, "-o", "faces"), "already", "--overwrite")
    assert (pictures(imported("faces")) != pictures(other)).any()
    assert run("models", "import", second, "-o", "faces", "--overwrite").exit_code == 0
    assert (pictures(imported("faces")) == pictures(other)).all()


def test_what_is_said_of_the_pictures_travels_with_the_generator(pickle: Path) -> None:
    said = ["--crop", "2,14,0,16", "--alignment", "ffhq"]
    assert run("models", "import", pickle, "-o", "cars", *said).exit_code == 0
    config = json.loads((home_folder("cars") / "config.json").read_text())
    domain = config.get("domain") or config["extra"]["domain"]
    assert domain["crop"] == [2, 14, 0, 16] and domain["alignment"] == "ffhq"
    assert config["made_by"].endswith("-o cars --crop 2,14,0,16 --alignment ffhq")


def test_what_is_no_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes.pkl").write_bytes(b"these are notes")
    assert_refused(run("models", "import", tmp_path / "notes.pkl", "-o", "notes"), "notes.pkl")
    assert named_models() == {}


def test_a_generator_goes_to_rosinality_s_layout_and_comes_back(tmp_path: Path) -> None:
    network = lively(StyleGAN2Config(resolution=8, z_dim=8, w_dim=8, mapping_layers=2))  # of as many channels as theirs
    save_model(home_folder("faces"), network, network.config, half=False, made_by="a test")
    file = tmp_path / "faces.pt"
    result = run("models", "export", "faces", "-o", file, "--layout", "rosinality")
    assert result.exit_code == 0, result.output
    assert run("models", "import", file, "-o", "again").exit_code == 0
    assert torch.allclose(pictures(imported("again")), pictures(network), atol=1e-4)
    assert_refused(run("models", "export", "faces", "-o", file), "is there already")


def test_a_known_model_is_pulled_and_imported(pickle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with file_host() as host:
        host.files["/faces.pkl"] = pickle.read_bytes()
        fields = {
            "role": "generator",
            "file": "faces.pkl",
            "page": "p",
            "publisher": "Somebody",
            "licence": "some terms",
        }
        known = {"tiny-faces": Source.model_validate({**fields, "url": f"{host.address}/faces.pkl"})}
        monkeypatch.setattr("soundguide.models.sources.known_sources", lambda: known)
        result = run("models", "pull", "tiny-faces")
        assert result.exit_code == 0, result.output
        assert "some terms" in result.stdout and "has not been tried" in unwrapped(result.stderr)
        assert "faces.pkl" in run("models", "list").stdout
        assert_refused(run("models", "pull", "tiny-faces"), "there is a model 'tiny-faces' already")
        assert len(host.asked) == 1
