"""`soundguide models import | export | pull`: files of other projects become models with names, and go back."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
import torch
from cli_runs import assert_refused, picture_of, run, unwrapped
from file_host import file_host
from foreign_files import lively, nvidia_generator, write_nvidia
from PIL import Image
from test_inversion_files import checkpoint
from tiny_faces import tiny_encoder, write_detector

from soundguide.foreign.onnx_export import write_arcface_onnx
from soundguide.models.checkpoint import load_model, save_model
from soundguide.models.description import ModelDescription, describe_model
from soundguide.models.fetch import CACHE_VARIABLE
from soundguide.models.home import HOME_VARIABLE, home_folder, named_models
from soundguide.models.manifest import DETECTOR_FILE
from soundguide.models.sources import Source
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config


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
    network.requires_grad_(False)  # as loaded ones are: a CPU draws with constant weights in another order
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


def test_a_file_of_two_models_becomes_two_and_they_edit_together(
    models_file: Path, rain_file: Path, tmp_path: Path
) -> None:
    torch.save(checkpoint("e4e"), tmp_path / "e4e.pt")
    result = run("models", "import", tmp_path / "e4e.pt", "-o", "e4e")
    assert result.exit_code == 0, result.output
    told = unwrapped(result.stdout)
    assert "e4e.pt holds 2 models: e4e, e4e-generator" in told
    assert "--image photo.png --inverter e4e --generator e4e-generator" in told
    assert [description(name).role for name in ("e4e", "e4e-generator")] == ["inverter", "generator"]
    assert "num_ws 6" in told and run("models", "verify", "--all").exit_code == 0
    Image.new("RGB", (20, 20), "teal").save(tmp_path / "photo.png")
    named = ["--inverter", "e4e", "--generator", "e4e-generator", "--models", models_file]
    fast = ["--steps", "1", "--inversion-steps", "0", "--set", "num_views=1", "-o", tmp_path / "out.png"]
    edited = run("edit", rain_file, "--image", tmp_path / "photo.png", *named, *fast)
    assert edited.exit_code == 0, edited.output
    assert_refused(
        run("models", "import", tmp_path / "e4e.pt", "-o", "other", "--detector", "x.onnx"), "no face encoder"
    )


def test_of_two_models_neither_is_kept_where_one_has_a_name_that_is_taken(pickle: Path, tmp_path: Path) -> None:
    run("models", "import", pickle, "-o", "e4e-generator")
    torch.save(checkpoint("e4e"), tmp_path / "e4e.pt")
    assert_refused(run("models", "import", tmp_path / "e4e.pt", "-o", "e4e"), "'e4e-generator' already")
    assert set(named_models()) == {"e4e-generator"}


def test_a_face_encoder_comes_with_its_detector(tmp_path: Path) -> None:
    write_arcface_onnx(tiny_encoder(), tmp_path / "arcface.onnx")
    detector = write_detector(tmp_path / "det.onnx", None)
    result = run("models", "import", tmp_path / "arcface.onnx", "-o", "faces", "--detector", detector)
    assert result.exit_code == 0, result.output
    assert "--identity faces --set lambda_id=0.004" in unwrapped(result.stdout)
    assert run("models", "verify", "faces").exit_code == 0
    kept = home_folder("faces") / DETECTOR_FILE
    assert kept.read_bytes() == detector.read_bytes()
    kept.write_bytes(b"another")
    assert_refused(run("models", "verify", "faces"), "detector.onnx: damaged or exchanged")


def test_what_is_no_detector_is_refused_and_nothing_kept(tmp_path: Path) -> None:
    write_arcface_onnx(tiny_encoder(), tmp_path / "arcface.onnx")
    words = ["-o", "faces", "--detector", tmp_path / "arcface.onnx"]
    assert_refused(run("models", "import", tmp_path / "arcface.onnx", *words), "detector of insightface")
    assert named_models() == {}


def test_an_encoder_and_its_detector_are_pulled_out_of_one_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    write_arcface_onnx(tiny_encoder(), tmp_path / "arcface.onnx")
    write_detector(tmp_path / "det.onnx", None)
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        for name in ("arcface.onnx", "det.onnx"):
            archive.write(tmp_path / name, f"pack/{name}")
    with file_host() as host:
        host.files["/pack.zip"] = (tmp_path / "pack.zip").read_bytes()
        fields = {"role": "identity", "file": "pack.zip", "url": f"{host.address}/pack.zip", "member": "arcface.onnx"}
        about = {
            "page": "a page",
            "publisher": "Somebody",
            "licence": "some terms",
            "options": {"detector": "det.onnx"},
        }
        known = {"faces": Source.model_validate(fields | about)}
        monkeypatch.setattr("soundguide.models.sources.known_sources", lambda: known)
        assert run("models", "pull", "faces").exit_code == 0
    assert (home_folder("faces") / DETECTOR_FILE).is_file()
    made_by = json.loads((home_folder("faces") / "config.json").read_text())["made_by"]
    assert made_by == "soundguide models import arcface.onnx -o faces --detector det.onnx"


def description(name: str) -> ModelDescription:
    return describe_model(home_folder(name))
