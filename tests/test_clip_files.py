"""CLIP out of files with open_clip's names: activation and colours of the weights, strict names, and no download."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import open_clip
import open_clip.factory
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor

from soundguide.errors import InvalidCheckpoint, InvalidConfig
from soundguide.foreign.clip_files import clip_config, import_open_clip, read_clip
from soundguide.foreign.imported import Imported
from soundguide.models.checkpoint import load_model, save_model
from soundguide.models.image_text import CLIP_MEAN, OpenClipConfig, OpenClipEncoder

SIZES = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module", autouse=True)
def architectures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make tiny architectures known to open_clip, as its users add their own."""
    folder = tmp_path_factory.mktemp("architectures")
    (folder / "Tiny-8.json").write_text(json.dumps(SIZES))
    (folder / "Tiny-8-quickgelu.json").write_text(json.dumps(SIZES | {"quick_gelu": True}))
    before = list(open_clip.factory._MODEL_CONFIG_PATHS)
    open_clip.add_model_config(folder)
    yield
    open_clip.factory._MODEL_CONFIG_PATHS[:] = before
    open_clip.factory._rescan_model_configs()


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return CLIP(**SIZES).state_dict()


def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def encoder_of(imported: Imported) -> OpenClipEncoder:
    assert imported.role == "image_text" and isinstance(imported.module, OpenClipEncoder)
    return imported.module


@pytest.mark.parametrize(
    ("architecture", "told", "quick"),
    [
        ("Tiny-8", None, False),
        ("Tiny-8", True, True),
        ("Tiny-8", False, False),
        ("Tiny-8-quickgelu", None, True),
        ("Tiny-8-quickgelu", True, True),
    ],
)
def test_towers_are_open_clips_with_the_activation_that_was_named(
    tensors: dict[str, Tensor], architecture: str, told: bool | None, quick: bool
) -> None:
    imported = read_clip(tensors, "a file", architecture=architecture, quick_gelu=told)
    assert isinstance(imported.config, OpenClipConfig) and imported.config.quick_gelu is quick
    theirs = CLIP(**SIZES, quick_gelu=quick).eval()
    theirs.load_state_dict(tensors)
    mean, std = (
        torch.tensor(CLIP_MEAN)[:, None, None],
        torch.tensor((0.26862954, 0.26130258, 0.27577711))[:, None, None],
    )
    with torch.no_grad():
        expected = F.normalize(theirs.encode_image(((images() + 1) / 2 - mean) / std), dim=1)
        tokens = open_clip.SimpleTokenizer(context_length=16)(["rain"])
        texts = F.normalize(theirs.encode_text(tokens), dim=1)
    torch.testing.assert_close(encoder_of(imported).encode_image(images()), expected)
    torch.testing.assert_close(encoder_of(imported).encode_text(["rain"]), texts)


def test_the_activation_changes_what_is_seen_and_is_kept(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    plain, quick = (read_clip(tensors, "a file", architecture=f"Tiny-8{end}") for end in ("", "-quickgelu"))
    seen = encoder_of(quick).encode_image(images())
    assert (seen - encoder_of(plain).encode_image(images())).abs().max() > 1e-4
    save_model(tmp_path / "clip", quick.module, quick.config, half=False, made_by="a test", extra=quick.extra)
    loaded = load_model(tmp_path / "clip", device="cpu")
    assert json.loads((tmp_path / "clip" / "config.json").read_text())["quick_gelu"] is True
    assert isinstance(loaded.module, OpenClipEncoder) and torch.equal(loaded.module.encode_image(images()), seen)


@pytest.mark.parametrize(
    ("weights", "quick", "mean"),
    [
        ("ViT-B-32:openai", True, CLIP_MEAN),
        ("RN50:openai", True, CLIP_MEAN),
        ("ViT-B-32-quickgelu:metaclip_400m", True, CLIP_MEAN),
        ("ViT-B-32:laion2b_s34b_b79k", False, CLIP_MEAN),
        ("ViT-L-14:laion2b_s32b_b82k", False, (0.5, 0.5, 0.5)),  # Inception's colours, unlike its neighbours
    ],
)
def test_published_weights_bring_activation_and_colours(weights: str, quick: bool, mean: tuple[float, ...]) -> None:
    config = clip_config(weights, "a file")
    assert (config.architecture, config.quick_gelu, config.mean) == (weights.partition(":")[0], quick, mean)


def test_an_activation_that_nobody_named_is_told(tensors: dict[str, Tensor], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_clip(tensors, "a file", architecture="Tiny-8", quick_gelu=False)
        read_clip(tensors, "a file", architecture="Tiny-8-quickgelu")
        assert not caplog.messages
        read_clip(tensors, "a file", architecture="Tiny-8")
    assert "a file: read with GELU" in caplog.text and "'Tiny-8:openai'" in caplog.text


@pytest.mark.parametrize(
    ("architecture", "told", "says"),
    [
        ("", None, r"does not name its architecture.*'ViT-B-32:openai'"),
        ("Tiny-9", None, r"no architecture 'Tiny-9'"),
        ("ViT-B-32:openal", None, r"no weights 'openal' of 'ViT-B-32', only: openai, "),
        ("Tiny-8-quickgelu", False, r"quick_gelu is False, but.*Leave out"),
    ],
)
def test_names_that_do_not_tell_the_network_are_refused(
    tensors: dict[str, Tensor], architecture: str, told: bool | None, says: str
) -> None:
    with pytest.raises(InvalidConfig, match=says):
        read_clip(tensors, "a file", architecture=architecture, quick_gelu=told)


def test_sizes_that_openai_keeps_among_the_weights_are_left_out(tensors: dict[str, Tensor]) -> None:
    sizes = {
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(16),
        "vocab_size": torch.tensor(49408),
    }
    module = read_clip(tensors | sizes, "a file", architecture="Tiny-8", quick_gelu=True).module
    assert all(torch.equal(module.state_dict()[f"clip.{name}"], value) for name, value in tensors.items())


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("position_ids", torch.arange(77), r"position_ids: expected nothing, got \[77\]"),
        ("visual.proj", torch.ones(32, 13), r"visual\.proj: expected \[32, 12\], got \[32, 13\]"),
        ("visual.proj", None, r"'visual\.proj' expected a tensor, got NoneType"),
        ("visual.proj", torch.full((32, 12), torch.nan), r"visual\.proj.*NaN"),
    ],
)
def test_what_does_not_fit_is_named_as_in_the_file(
    tensors: dict[str, Tensor], name: str, value: Tensor | None, says: str
) -> None:
    with pytest.raises(InvalidCheckpoint, match=says):
        read_clip(tensors | {name: value}, "a file", architecture="Tiny-8", quick_gelu=False)


def test_a_safetensors_file_is_read(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "open_clip_model.safetensors"
    save_file({name: value.half() for name, value in tensors.items()}, path)
    imported = import_open_clip(str(path), "Tiny-8", quick_gelu=True)
    wanted = read_clip(tensors, "a file", architecture="Tiny-8", quick_gelu=True)
    likeness = (encoder_of(imported).encode_image(images()) * encoder_of(wanted).encode_image(images())).sum(1)
    assert likeness.min() > 0.999 and {value.dtype for value in imported.module.parameters()} == {torch.float32}


@pytest.mark.parametrize("layout", ["alone", "of a training", "of a parallel training"])
def test_a_torch_file_is_read(tensors: dict[str, Tensor], tmp_path: Path, layout: str) -> None:
    pytest.importorskip("soundguide.foreign.torch_file", reason="needs the reader of torch files")
    trained: dict[str, object] = {"epoch": 3, "name": "a run", "state_dict": tensors}
    parallel = trained | {"state_dict": {f"module.{name}": value for name, value in tensors.items()}}
    path = tmp_path / "epoch_3.pt"
    torch.save({"alone": tensors, "of a training": trained, "of a parallel training": parallel}[layout], path)
    imported = import_open_clip(str(path), "Tiny-8", quick_gelu=True)
    wanted = read_clip(tensors, "a file", architecture="Tiny-8", quick_gelu=True)
    assert torch.equal(encoder_of(imported).encode_image(images()), encoder_of(wanted).encode_image(images()))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    path.write_bytes(b"no such thing")
    with pytest.raises(InvalidCheckpoint, match="no safetensors file"):
        import_open_clip(str(path), "Tiny-8", quick_gelu=True)


def test_weights_that_are_not_here_are_named_and_not_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    address = "https://huggingface.co/timm/vit_base_patch32_clip_224.openai/resolve/main/open_clip_model.safetensors"
    with pytest.raises(InvalidConfig, match=f"not on this machine.*Fetch {address}"):
        import_open_clip("ViT-B-32:openai", quick_gelu=None)
    with pytest.raises(InvalidConfig, match="no such file, and no weights"):
        import_open_clip("nothing.safetensors", "ViT-B-32", quick_gelu=None)
    assert not list(tmp_path.iterdir())


def test_weights_that_were_fetched_before_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    repository = tmp_path / "models--timm--vit_base_patch32_clip_224.openai"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0a1b")
    (repository / "snapshots" / "0a1b").mkdir(parents=True)
    path = repository / "snapshots" / "0a1b" / "open_clip_model.safetensors"
    save_file({"logit_scale": torch.ones(())}, path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InvalidCheckpoint, match=f"{path}: does not fit"):  # a whole one has 600 megabytes
        import_open_clip("ViT-B-32:openai", quick_gelu=None)
