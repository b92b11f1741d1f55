"""Model folders: what is saved comes back, and nothing that is missing, damaged or misfitting is taken."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file
from torch import nn

from soundguide import __version__
from soundguide.audio.frontend import LogMelConfig
from soundguide.errors import InvalidCheckpoint
from soundguide.models.arcface import ArcFaceConfig, ArcFaceEncoder
from soundguide.models.arcface_graph import ArcFaceGraph, ArcFaceGraphConfig, FlattenNode, LinearNode
from soundguide.models.audio_encoder import SwinAudioConfig, SwinAudioEncoder
from soundguide.models.checkpoint import LoadedModel, Model, ModelConfig, load_model, load_weights, save_model
from soundguide.models.image_text import OpenClipConfig, OpenClipEncoder
from soundguide.models.manifest import config_fields, read_config, resolve_model
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config

STYLEGAN2 = StyleGAN2Config(resolution=8, z_dim=4, w_dim=3, mapping_layers=1, channels=(3, 2))
SWIN = SwinAudioConfig(
    log_mel=LogMelConfig(sample_rate=8000, n_fft=512, hop_samples=400, num_mels=16, min_hz=100, max_hz=4000),
    window_seconds=0.8,
    embed_dim=6,
    embed_channels=4,
    depths=(1,),
    num_heads=(1,),
    window_size=4,
)
OPEN_CLIP = OpenClipConfig(
    model_config_json={
        "embed_dim": 6,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 8, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 4, "heads": 1, "layers": 1},
    }
)
ARCFACE = ArcFaceConfig(layers=(1, 1, 1, 1), widths=(2, 2, 2, 2), input_size=16, embed_dim=4)
ARCFACE_GRAPH = ArcFaceGraphConfig(
    input_size=4,
    embed_dim=5,
    nodes=(FlattenNode(value=0), LinearNode(value=1, in_features=48, out_features=5, bias=True)),
)


def build(config: ModelConfig) -> Model:
    match config:
        case StyleGAN2Config():
            return StyleGAN2(config, seed=7)
        case OpenClipConfig():
            return OpenClipEncoder(config, seed=7)
        case SwinAudioConfig():
            return SwinAudioEncoder(config, seed=7)
        case ArcFaceConfig():
            return ArcFaceEncoder(config, seed=7)
        case ArcFaceGraphConfig():
            return ArcFaceGraph(config, seed=7)


def save(folder: Path, *, half: bool = False, seed: int = 7, extra: dict[str, Any] | None = None) -> StyleGAN2:
    module = StyleGAN2(STYLEGAN2, seed=seed)
    save_model(folder, module, STYLEGAN2, half=half, made_by="python -m train --seed 7", extra=extra)
    return module


def load(folder: Path) -> LoadedModel:
    return load_model(folder, device="cpu")


def edit_json(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite_weights(folder: Path, change: Any) -> None:
    """Change the stored tensors and the hash with them, so that only the architecture disagrees."""
    path = folder / "weights.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    edit_json(folder, weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("config", [STYLEGAN2, OPEN_CLIP, SWIN, ARCFACE, ARCFACE_GRAPH], ids=lambda config: config.kind)
def test_what_is_saved_comes_back_bit_for_bit(config: ModelConfig, tmp_path: Path) -> None:
    module = build(config)
    sha256 = save_model(tmp_path / "model", module, config, half=False, made_by="a test")
    loaded = load(tmp_path / "model")
    assert type(loaded.module) is type(module) and loaded.config == config and loaded.sha256 == sha256
    before, after = module.state_dict(), loaded.module.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_loaded_model_is_frozen_and_evaluates(tmp_path: Path) -> None:
    save(tmp_path / "model")
    module = load(tmp_path / "model").module
    assert not any(part.training for part in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_half_is_stored_as_float16_and_comes_back_as_float32(tmp_path: Path) -> None:
    module = save(tmp_path / "half", half=True)
    stored = load_file(tmp_path / "half" / "weights.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    loaded = load(tmp_path / "half").module.state_dict()
    for name, value in module.state_dict().items():
        assert (back := loaded[name]).dtype == torch.float32
        torch.testing.assert_close(back, value, rtol=2**-11, atol=2**-24)


def test_config_json_tells_where_the_weights_come_from(tmp_path: Path) -> None:
    save(tmp_path / "model", extra={"labels": ["rain", "wind"], "steps": 36_000})
    written = read_config(tmp_path / "model")
    weights = (tmp_path / "model" / "weights.safetensors").read_bytes()
    assert written["kind"] == "stylegan2" and written["resolution"] == 8
    assert written["package_version"] == __version__ and written["made_by"] == "python -m train --seed 7"
    assert written["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert written["labels"] == ["rain", "wind"] and written["extra"] == {"steps": 36_000}
    assert load(tmp_path / "model").labels == ("rain", "wind")


def test_saving_again_replaces_the_model_and_leaves_nothing_else(tmp_path: Path) -> None:
    save(tmp_path / "model", seed=1)
    second = save(tmp_path / "model", seed=2)
    loaded = load(tmp_path / "model").module
    assert isinstance(loaded, StyleGAN2)
    assert torch.equal(loaded.mapping.get_submodule("fc0").weight, second.mapping.get_submodule("fc0").weight)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "weights.safetensors"]


@pytest.mark.parametrize(("value", "half"), [(float("nan"), False), (1e6, True)])
def test_weights_that_cannot_be_stored_leave_the_old_model_alone(tmp_path: Path, value: float, half: bool) -> None:
    save(tmp_path / "model")
    before = (tmp_path / "model" / "weights.safetensors").read_bytes()
    broken = StyleGAN2(STYLEGAN2)
    broken.mapping.w_avg.fill_(value)
    with pytest.raises(InvalidCheckpoint, match=r"mapping\.w_avg: not finite.*half=False"):
        save_model(tmp_path / "model", broken, STYLEGAN2, half=half, made_by="a test")
    assert (tmp_path / "model" / "weights.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_channels_last_and_shared_weights_are_stored(tmp_path: Path) -> None:
    config = STYLEGAN2.model_copy(update={"channels": (2, 2)})
    narrow = StyleGAN2(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    b4, b8 = (narrow.synthesis.get_submodule(name) for name in ("b4", "b8"))
    b4.get_submodule("conv1").bias = b8.get_submodule("conv1").bias
    save_model(tmp_path / "model", narrow, config, half=False, made_by="a test")
    after = load(tmp_path / "model").module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in narrow.state_dict().items())


def test_kinds_of_others_load_their_weights_here(tmp_path: Path) -> None:
    class ReaderConfig(BaseModel):
        kind: str = "scene_reader"
        width: int = 3

    module = nn.Linear(2, 3)
    sha256 = save_model(tmp_path / "reader", module, ReaderConfig(), half=False, made_by="a test")
    assert ReaderConfig.model_validate(config_fields(read_config(tmp_path / "reader"))) == ReaderConfig()
    assert load_weights(other := nn.Linear(2, 3), tmp_path / "reader") == sha256
    assert torch.equal(other.weight, module.weight)
    with pytest.raises(InvalidCheckpoint, match=r"kind 'scene_reader' is none of stylegan2"):
        load(tmp_path / "reader")


def test_missing_folder_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"no model here.*Name a folder"):
        load(tmp_path / "nothing")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    save(tmp_path / "model")
    (tmp_path / "model" / "weights.safetensors").unlink()
    with pytest.raises(InvalidCheckpoint, match=r"weights\.safetensors: cannot be read"):
        load(tmp_path / "model")


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"kind": "stylegan2"}', b"\xff"])
def test_damaged_config_is_refused(tmp_path: Path, data: bytes) -> None:
    save(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_bytes(data)
    with pytest.raises(InvalidCheckpoint, match=r"config\.json: (damaged|lacks)"):
        load(tmp_path / "model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 9}, "power of two"),
        ({"widht": 3}, "widht"),
        ({"labels": [1]}, "labels must be a list of texts"),
    ],
)
def test_config_with_a_wrong_field_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    save(tmp_path / "model")
    edit_json(tmp_path / "model", **changes)
    with pytest.raises(InvalidCheckpoint, match=message):
        load(tmp_path / "model")


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_damaged_weights_are_found_by_their_hash(tmp_path: Path, damage: str) -> None:
    save(tmp_path / "model")
    path = tmp_path / "model" / "weights.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if damage == "flip" else data[:-10])
    with pytest.raises(InvalidCheckpoint, match=r"expected SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}"):
        load(tmp_path / "model")


def test_file_of_another_format_is_refused_even_with_its_hash(tmp_path: Path) -> None:
    save(tmp_path / "model")
    torch.save({"w": torch.ones(1)}, tmp_path / "model" / "weights.safetensors")
    data = (tmp_path / "model" / "weights.safetensors").read_bytes()
    edit_json(tmp_path / "model", weights_sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(InvalidCheckpoint, match="not a safetensors file"):
        load(tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("mapping.w_avg"), r"mapping\.w_avg: expected \[3\], got nothing"),
        (lambda tensors: tensors.update(more=torch.ones(2)), r"more: expected nothing, got \[2\]"),
        (
            lambda tensors: tensors.update({"mapping.w_avg": torch.ones(4)}),
            r"mapping\.w_avg: expected \[3\], got \[4\]",
        ),
    ],
    ids=["missing", "left over", "misshapen"],
)
def test_weights_that_do_not_fit_name_tensor_expected_and_got(tmp_path: Path, change: Any, message: str) -> None:
    save(tmp_path / "model")
    rewrite_weights(tmp_path / "model", change)
    with pytest.raises(InvalidCheckpoint, match=message):
        load(tmp_path / "model")


def test_config_can_be_read_without_torch(tmp_path: Path) -> None:
    save(tmp_path / "model")
    program = (
        "import sys; from pathlib import Path; from soundguide.models.manifest import read_config;"
        f"assert read_config(Path({str(tmp_path / 'model')!r}))['resolution'] == 8; assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_miniature_is_in_the_package_and_other_names_are_paths() -> None:
    folder = resolve_model("miniature", "audio")
    assert folder.parts[-4:] == ("soundguide", "miniature", "weights", "audio") and folder.is_absolute()
    assert resolve_model("models/ours", "audio") == Path("models/ours")
