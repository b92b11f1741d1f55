"""Sound encoders out of files in the layout of their projects: every tensor arrives, and nothing else is taken."""

from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn
from torchvision.models import resnet18, resnext50_32x4d

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.imported import Imported
from soundguide.foreign.sound_files import read_audioclip, read_lee, read_wav2clip
from soundguide.models.audioclip import AudioClipEncoder
from soundguide.models.image_text import OpenClipEncoder
from soundguide.models.lee_audio import LeeAudioEncoder, scramble
from soundguide.models.wav2clip import Wav2ClipEncoder

Tensors = dict[str, Tensor]


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    random = torch.Generator().manual_seed(8)
    return {name: torch.randn(shape, generator=random) * 0.02 for name, shape in shapes.items()}


def named(prefix: str, network: nn.Module, *, without: str = "none") -> Tensors:
    """Return a network's tensors as a file names them, with moments of its batch norms that were not just made."""
    random = torch.Generator().manual_seed(9)
    state = {name: value.clone() for name, value in network.state_dict().items() if not name.startswith(without)}
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.copy_(0.1 * torch.randn(value.shape, generator=random))
        elif name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=random))
        elif name.endswith("num_batches_tracked"):
            value.fill_(77)
    return {prefix + name: value for name, value in state.items()}


@pytest.fixture(scope="module")
def lee() -> Tensors:
    return drawn({"conv.weight": (3, 1, 3, 3), "conv.bias": (3,)}) | named(
        "feature_extractor.", resnet18(num_classes=512)
    )


@pytest.fixture(scope="module")
def wav2clip() -> Tensors:
    network = resnet18(num_classes=1)
    network.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    layers = {f"sequential.{index}": ((512, 512), (512,)) for index in (0, 3)}
    both = {
        f"{side}.{name}": shapes for side in ("audio_transform", "image_transform") for name, shapes in layers.items()
    }
    shapes = {
        f"{name}.{part}": shape
        for name, pair in both.items()
        for part, shape in zip(("weight", "bias"), pair, strict=True)
    }
    window = {"audio_encoder.spectrogram.window": torch.hann_window(512)}
    scales = {"loss_fn_a.logit_scale": torch.tensor(3.0), "loss_fn_i.logit_scale": torch.tensor(3.0)}
    return window | named("audio_encoder.", network, without="fc") | drawn(shapes) | scales


@pytest.fixture(scope="module")
def audioclip() -> Tensors:
    sizes = ((64, 256, 3, 1), (256, 512, 1, 5), (512, 1024, 3, 1), (1024, 2048, 1, 5), (2048, 2048, 3, 5))
    tensors = named("audio.", resnext50_32x4d(num_classes=1024))
    for number, (inside, outside, mels, frames) in enumerate(sizes, 1):
        attention = nn.ModuleDict(
            {
                "conv_depth": nn.Conv2d(inside, inside, (mels, frames), groups=inside),
                "conv_point": nn.Conv2d(inside, outside, 1),
                "bn": nn.BatchNorm2d(outside),
            }
        )
        tensors |= named(f"audio.att{number}.", attention)
    tensors |= {f"audio.fbsp.{name}": torch.rand(1025) + 0.5 for name in ("m", "fb", "fc")}
    tensors |= {"audio.fbsp.bias": torch.empty(0), "audio.window": torch.hann_window(1654)}
    scales = {"logit_scale_ai": torch.tensor(4.6), "logit_scale_at": torch.tensor(4.6)}
    vision = {"layers": [3, 4, 6, 3], "width": 64, "image_size": 224}
    text = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
    return tensors | scales | named("", CLIP(1024, vision, text))


@pytest.fixture(scope="module")
def pair(audioclip: Tensors) -> tuple[Imported, Imported]:
    return read_audioclip(audioclip, "AudioCLIP.pt")


def noise(samples: int) -> Tensor:
    return 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(1))


def same(network: nn.Module, tensors: Tensors, prefix: str) -> nn.Module:
    """Give a network of another library the file's tensors, by their own names."""
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    network.load_state_dict({name: own[name] for name in network.state_dict()})
    return network.eval()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_lee_hears_what_its_file_describes(lee: Tensors, prefix: str) -> None:
    assert len(lee) == 124 and round(sum(value.numel() for value in lee.values()) / 1e6, 1) == 11.4
    imported = read_lee({prefix + name: value for name, value in lee.items()}, "resnet18_57.pth")
    encoder = imported.module
    assert isinstance(encoder, LeeAudioEncoder) and imported.role == "audio"
    assert not encoder.training and not any(value.requires_grad for value in encoder.parameters())
    picture = F.conv2d(scramble(encoder.log_mel(noise(50_000))), lee["conv.weight"], lee["conv.bias"])
    with torch.no_grad():
        expected = F.normalize(same(resnet18(num_classes=512), lee, "feature_extractor.")(picture), dim=1)
    torch.testing.assert_close(encoder.encode_audio(noise(50_000)), expected, rtol=0, atol=1e-5)


def test_wav2clip_hears_what_its_file_describes(wav2clip: Tensors) -> None:
    imported = read_wav2clip(wav2clip, "Wav2CLIP.pt")
    encoder = imported.module
    assert isinstance(encoder, Wav2ClipEncoder) and imported.role == "audio"
    network = resnet18()
    network.conv1, network.fc = nn.Conv2d(1, 64, 7, 2, 3, bias=False), nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        features = same(network, wav2clip, "audio_encoder.")(encoder.log_power(noise(9000))[:, None])
        first, last = ("audio_transform.sequential.0", "audio_transform.sequential.3")
        hidden = F.relu(F.linear(features, wav2clip[f"{first}.weight"], wav2clip[f"{first}.bias"]))
        expected = F.normalize(F.linear(hidden, wav2clip[f"{last}.weight"], wav2clip[f"{last}.bias"]), dim=1)
    torch.testing.assert_close(encoder.encode_audio(noise(9000)), expected, rtol=0, atol=1e-5)


def test_both_models_of_audioclip_have_every_tensor_of_their_file(
    audioclip: Tensors, pair: tuple[Imported, Imported]
) -> None:
    sound, image_text = pair
    assert (sound.role, image_text.role) == ("audio", "image_text")
    heard = {f"audio.{name.removeprefix('resnext.')}": value for name, value in sound.module.state_dict().items()}
    seen = {name.removeprefix("clip."): value for name, value in image_text.module.state_dict().items()}
    assert audioclip.keys() - heard.keys() - seen.keys() == {"audio.fbsp.bias", "logit_scale_ai", "logit_scale_at"}
    assert all(torch.equal(audioclip[name], value) for name, value in (heard | seen).items())


def test_audioclip_file_has_the_size_of_the_released_one(audioclip: Tensors) -> None:
    stored = sum(value.numel() * value.element_size() for value in audioclip.values())
    assert 0 < 537_302_068 - stored < 400 * len(audioclip)  # the rest are the headers of a zip with these many members


def test_the_towers_of_audioclip_share_one_space(pair: tuple[Imported, Imported]) -> None:
    sound, image_text = (imported.module for imported in pair)
    assert isinstance(sound, AudioClipEncoder) and isinstance(image_text, OpenClipEncoder)
    assert image_text.config.architecture == "RN50" and image_text.config.quick_gelu
    assert sound.embed_dim == image_text.embed_dim == 1024
    embedding = sound.encode_audio(noise(10_000))
    assert embedding.shape == (1, 1024) and bool(embedding.isfinite().all())


@pytest.mark.parametrize(
    ("which", "read", "name"),
    [("lee", read_lee, "feature_extractor.fc.bias"), ("wav2clip", read_wav2clip, "audio_encoder.layer2.0.bn1.weight")],
)
@pytest.mark.parametrize("damage", ["missing", "left over", "misshapen"])
def test_a_file_that_does_not_fit_names_its_own_key(
    which: str, read: Callable[[Tensors, str], Imported], name: str, damage: str, request: pytest.FixtureRequest
) -> None:
    tensors = dict(request.getfixturevalue(which))
    shape = list(tensors[name].shape)
    said = {"missing": rf"{name}: expected \{shape}, got nothing"}
    if damage == "missing":
        del tensors[name]
    elif damage == "left over":
        tensors["audio_encoder.more"] = torch.ones(2)
        said[damage] = r"audio_encoder\.more: expected nothing, got \[2\]"
    else:
        tensors[name] = torch.ones(3, 1)
        said[damage] = rf"{name}: expected \{shape}, got \[3, 1\]"
    with pytest.raises(InvalidCheckpoint, match=f"a file: does not fit.*{said[damage]}"):
        read(tensors, "a file")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("audio.att3.conv_point.weight", r"audio\.att3\.conv_point\.weight: expected .*got \[2\]"),
        ("visual.attnpool.q_proj.bias", r"visual\.attnpool\.q_proj\.bias: expected \[2048\], got \[2\]"),
        ("audio.fbsp.bias", r"audio\.fbsp\.bias: expected \[0\], got \[2\]"),
    ],
)
def test_an_audioclip_that_does_not_fit_names_its_own_key(audioclip: Tensors, name: str, said: str) -> None:
    with pytest.raises(InvalidCheckpoint, match=said):
        read_audioclip(audioclip | {name: torch.ones(2)}, "a file")


def test_half_of_the_names_with_a_prefix_is_no_prefix(lee: Tensors) -> None:
    mixed = {f"module.{name}" if name.startswith("conv") else name: value for name, value in lee.items()}
    with pytest.raises(InvalidCheckpoint, match=r"conv\.bias: expected \[3\], got nothing"):
        read_lee(mixed, "a file")
