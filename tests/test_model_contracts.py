"""What every adapter promises the edit, whatever network is inside: one set of tests for all of them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from soundguide.audio.frontend import LogMelConfig
from soundguide.models.arcface import ArcFaceConfig, ArcFaceEncoder
from soundguide.models.arcface_graph import (
    AddNode,
    ArcFaceGraph,
    ArcFaceGraphConfig,
    ConvNode,
    FlattenNode,
    LinearNode,
    PReluNode,
    ScaleNode,
)
from soundguide.models.audio_encoder import SwinAudioConfig, SwinAudioEncoder
from soundguide.models.image_text import OpenClipConfig, OpenClipEncoder
from soundguide.models.protocols import AudioEncoder, Generator, IdentityEncoder, ImageTextEncoder
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
SENTENCES = ["a thunderstorm", "birds sing in the morning", "rain"]


@dataclass(frozen=True)
class Adapter:
    """A module, one of its differentiable methods, and three rows for it."""

    module: nn.Module
    call: Callable[[Tensor], Tensor]
    rows: Tensor


def normal(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(3))


def clip(vision: dict[str, object], *, quick_gelu: bool = False) -> OpenClipEncoder:
    architecture = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": TEXT}
    return OpenClipEncoder(OpenClipConfig(model_config_json=architecture, quick_gelu=quick_gelu))


def generator() -> StyleGAN2:
    return StyleGAN2(StyleGAN2Config(resolution=16, z_dim=6, w_dim=5, mapping_layers=2, channels=(6, 5, 4)))


def audio_encoder() -> SwinAudioEncoder:
    return SwinAudioEncoder(
        SwinAudioConfig(
            log_mel=LogMelConfig(sample_rate=8000, n_fft=512, hop_samples=200, num_mels=30, min_hz=100, max_hz=4000),
            window_seconds=1.0,
            embed_dim=12,
            embed_channels=8,
            depths=(1, 2),
            num_heads=(1, 2),
            window_size=4,
        )
    )


def face_encoder(variant: str = "iresnet") -> ArcFaceEncoder:
    sizes = {"layers": (1, 1, 1, 1), "widths": (4, 4, 8, 8), "input_size": 32, "embed_dim": 12}
    return ArcFaceEncoder(ArcFaceConfig.model_validate({"variant": variant, **sizes}))


def face_graph() -> ArcFaceGraph:
    sizes = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "groups": 1, "bias": True}
    nodes = (
        ConvNode(value=0, in_channels=3, out_channels=4, **sizes),
        PReluNode(value=1, channels=4),
        ScaleNode(value=2, channels=4),
        AddNode(value=1, other=3),
        FlattenNode(value=4),
        LinearNode(value=5, in_features=4 * 8 * 8, out_features=12, bias=False),
    )
    return ArcFaceGraph(ArcFaceGraphConfig(input_size=16, embed_dim=12, nodes=nodes))


@functools.cache
def build(name: str) -> Adapter:
    network: StyleGAN2 | OpenClipEncoder | SwinAudioEncoder | ArcFaceEncoder | ArcFaceGraph
    match name:
        case "stylegan2 map":
            network = generator()
            return Adapter(network.eval(), network.map, normal(3, 6))
        case "stylegan2 synthesize":
            network = generator()
            return Adapter(network.eval(), network.synthesize, normal(3, network.num_ws, 5))
        case "open_clip vit":
            network = clip(VIT)
            return Adapter(network.eval(), network.encode_image, normal(3, 3, 32, 32, scale=0.5))
        case "open_clip vit, larger images":
            network = clip(VIT, quick_gelu=True)
            return Adapter(network.eval(), network.encode_image, normal(3, 3, 80, 80, scale=0.5))
        case "open_clip resnet":
            network = clip(RESNET)
            return Adapter(network.eval(), network.encode_image, normal(3, 3, 48, 48, scale=0.5))
        case "swin_audio":
            network = audio_encoder()
            return Adapter(network.eval(), network.encode_audio, normal(3, 8000, scale=0.1))
        case "arcface iresnet" | "arcface ir_se50":
            network = face_encoder(name.split()[1])
            return Adapter(network.eval(), network.encode_identity, normal(3, 3, 32, 32, scale=0.5))
        case "arcface graph, larger faces":
            network = face_graph()
            return Adapter(network.eval(), network.encode_identity, normal(3, 3, 40, 40, scale=0.5))
    raise AssertionError(name)


ENCODERS = ["open_clip vit", "open_clip vit, larger images", "open_clip resnet", "swin_audio"]
ENCODERS += ["arcface iresnet", "arcface ir_se50", "arcface graph, larger faces"]


@pytest.fixture(scope="module", params=["stylegan2 map", "stylegan2 synthesize", *ENCODERS])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return build(request.param)


def test_output_is_finite_float32(adapter: Adapter) -> None:
    answer = adapter.call(adapter.rows)
    assert answer.dtype == torch.float32 and len(answer) == 3 and bool(answer.isfinite().all())


@pytest.mark.parametrize("name", ENCODERS)
def test_embeddings_have_unit_norm(name: str) -> None:
    adapter = build(name)
    torch.testing.assert_close(adapter.call(adapter.rows).norm(dim=1), torch.ones(3))


def test_different_rows_get_different_answers(adapter: Adapter) -> None:
    answer = adapter.call(adapter.rows)
    assert (answer[0] - answer[1]).abs().max() > 1e-4 and (answer[1] - answer[2]).abs().max() > 1e-4


def test_batch_of_three_equals_three_singles(adapter: Adapter) -> None:
    singles = torch.cat([adapter.call(row[None]) for row in adapter.rows])
    torch.testing.assert_close(adapter.call(adapter.rows), singles, rtol=1e-4, atol=1e-5)


def test_permuting_the_rows_permutes_the_answer(adapter: Adapter) -> None:
    order = [2, 0, 1]
    torch.testing.assert_close(
        adapter.call(adapter.rows[order]), adapter.call(adapter.rows)[order], rtol=1e-4, atol=1e-5
    )


def test_evaluation_mode_is_deterministic(adapter: Adapter) -> None:
    assert torch.equal(adapter.call(adapter.rows), adapter.call(adapter.rows))


def test_gradient_of_a_row_reaches_that_row_alone(adapter: Adapter) -> None:
    rows = adapter.rows.clone().requires_grad_()
    answer = adapter.call(rows)
    # not the plain sum: over a unit vector that may be flat
    (gradient,) = torch.autograd.grad((answer[1] * normal(*answer.shape[1:])).sum(), rows)
    assert (gradient[[0, 2]] == 0).all()
    assert bool(gradient.isfinite().all()) and (gradient[1] != 0).float().mean() > 0.9


def test_the_constructor_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    audio_encoder(), clip(VIT), generator(), face_encoder(), face_graph()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "make",
    [generator, audio_encoder, lambda: clip(VIT), face_encoder, face_graph],
    ids=["stylegan2", "swin", "open_clip", "arcface", "arcface_graph"],
)
def test_one_seed_makes_one_network(make: Callable[[], nn.Module]) -> None:
    first, second = make().state_dict(), make().state_dict()
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_text_embeddings_have_unit_norm_and_do_not_depend_on_company() -> None:
    encoder = clip(VIT).eval()
    together = encoder.encode_text(SENTENCES)
    assert together.shape == (3, encoder.embed_dim) and together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    singles = torch.cat([encoder.encode_text([text]) for text in SENTENCES])
    torch.testing.assert_close(together, singles, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder.encode_text(SENTENCES[::-1]), together.flip(0), rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-4


def test_adapters_meet_their_protocols() -> None:
    painter: Generator = generator()
    seer: ImageTextEncoder = clip(VIT)
    listener: AudioEncoder = audio_encoder()
    identifier: IdentityEncoder = face_encoder()
    assert painter.synthesize(painter.map(normal(2, painter.z_dim))).shape == (2, 3, 16, 16)
    assert seer.encode_image(normal(2, 3, seer.resolution, seer.resolution)).shape == (2, seer.embed_dim)
    size = identifier.resolution
    assert identifier.encode_identity(normal(2, 3, size, size)).shape == (2, identifier.embed_dim)
    waveforms = normal(2, listener.num_samples)
    assert listener.sample_rate == 8000 and listener.encode_audio(waveforms).shape == (2, listener.embed_dim)
