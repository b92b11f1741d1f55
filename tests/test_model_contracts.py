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
from soundguide.models.audioclip import AudioClipConfig, AudioClipEncoder
from soundguide.models.image_text import OpenClipConfig, OpenClipEncoder
from soundguide.models.inversion_encoder import InversionEncoder, InversionEncoderConfig
from soundguide.models.kinds import AudioModel, FaceModel, GeneratorModel
from soundguide.models.lee_audio import LeeAudioConfig, LeeAudioEncoder
from soundguide.models.protocols import AudioEncoder, Generator, IdentityEncoder, ImageTextEncoder, Inverter
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config
from soundguide.models.stylegan3 import StyleGAN3, StyleGAN3Config
from soundguide.models.wav2clip import Wav2ClipConfig, Wav2ClipEncoder

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
SENTENCES = ["a thunderstorm", "birds sing in the morning", "rain"]


@dataclass(frozen=True)
class Adapter:
    """A module, one of its differentiable methods, three rows for it, and the share of a row that it must heed."""

    module: nn.Module
    call: Callable[[Tensor], Tensor]
    rows: Tensor
    heeds: float = 0.9


def normal(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(3))


def clip(vision: dict[str, object], *, quick_gelu: bool = False) -> OpenClipEncoder:
    architecture = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": TEXT}
    return OpenClipEncoder(OpenClipConfig(model_config_json=architecture, quick_gelu=quick_gelu))


def generator() -> StyleGAN2:
    return StyleGAN2(StyleGAN2Config(resolution=16, z_dim=6, w_dim=5, mapping_layers=2, channels=(6, 5, 4)))


def alias_free() -> StyleGAN3:
    network = StyleGAN3(StyleGAN3Config(resolution=16, z_dim=6, w_dim=5, channel_max=6))
    # as in a trained network, where the picture lies depends on the code
    nn.init.normal_(network.synthesis.input.affine.weight, generator=torch.Generator().manual_seed(4))
    return network


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


def inverter(variant: str) -> InversionEncoder:
    return InversionEncoder(
        InversionEncoderConfig(
            variant=variant, num_ws=8, w_dim=6, input_size=32, widths=(8, 8, 10, 12), units=(1, 2, 1, 1)
        )
    )


def lee_encoder() -> LeeAudioEncoder:
    return LeeAudioEncoder(LeeAudioConfig(embed_dim=12, channels=(4, 4, 8, 8)))


def wav2clip_encoder() -> Wav2ClipEncoder:
    return Wav2ClipEncoder(Wav2ClipConfig(window_seconds=0.5, embed_dim=12, channels=(4, 4, 8, 8)))


def audioclip_encoder() -> AudioClipEncoder:
    config = AudioClipConfig(window_seconds=0.2, embed_dim=12, depths=(1, 1, 1, 1), channels=(16, 16, 16, 16))
    return AudioClipEncoder(config)


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


def of_seeds(make: Callable[[], GeneratorModel]) -> Adapter:
    network = make().eval()
    return Adapter(network, network.map, normal(3, 6))


def of_codes(make: Callable[[], GeneratorModel]) -> Adapter:
    network = make().eval()
    return Adapter(network, network.synthesize, normal(3, network.num_ws, 5))


def of_images(make: Callable[[], OpenClipEncoder], side: int) -> Adapter:
    network = make().eval()
    return Adapter(network, network.encode_image, normal(3, 3, side, side, scale=0.5))


def of_photos(variant: str) -> Adapter:
    network = inverter(variant).eval()
    return Adapter(network, network.invert, normal(3, 3, 40, 40, scale=0.5))


def of_faces(make: Callable[[], FaceModel], side: int) -> Adapter:
    network = make().eval()
    return Adapter(network, network.encode_identity, normal(3, 3, side, side, scale=0.5))


def of_sounds(make: Callable[[], AudioModel], *, heeds: float = 0.9) -> Adapter:
    network = make().eval()
    return Adapter(network, network.encode_audio, normal(3, network.num_samples, scale=0.1), heeds)


GENERATORS: dict[str, Callable[[], Adapter]] = {
    "stylegan2 map": lambda: of_seeds(generator),
    "stylegan2 synthesize": lambda: of_codes(generator),
    "stylegan3 map": lambda: of_seeds(alias_free),
    "stylegan3 synthesize": lambda: of_codes(alias_free),
}
INVERTERS: dict[str, Callable[[], Adapter]] = {
    "inversion e4e": lambda: of_photos("e4e"),
    "inversion psp": lambda: of_photos("psp"),
}
ENCODERS: dict[str, Callable[[], Adapter]] = {
    "open_clip vit": lambda: of_images(lambda: clip(VIT), 32),
    "open_clip vit, larger images": lambda: of_images(lambda: clip(VIT, quick_gelu=True), 80),
    "open_clip resnet": lambda: of_images(lambda: clip(RESNET), 48),
    "swin_audio": lambda: of_sounds(audio_encoder),
    # squeezing frames without smoothing leaves a quarter of the sound unheard
    "lee_resnet18": lambda: of_sounds(lee_encoder, heeds=0.7),
    "wav2clip": lambda: of_sounds(wav2clip_encoder),
    "audioclip": lambda: of_sounds(audioclip_encoder),
    "arcface iresnet": lambda: of_faces(face_encoder, 32),
    "arcface ir_se50": lambda: of_faces(lambda: face_encoder("ir_se50"), 32),
    "arcface graph, larger faces": lambda: of_faces(face_graph, 40),
}


MODULES: dict[str, Callable[[], nn.Module]] = {
    "stylegan2": generator,
    "stylegan3": alias_free,
    "open_clip": lambda: clip(VIT),
    "swin": audio_encoder,
    "lee": lee_encoder,
    "wav2clip": wav2clip_encoder,
    "audioclip": audioclip_encoder,
    "arcface": face_encoder,
    "arcface_graph": face_graph,
    "inversion": lambda: inverter("psp"),
}


@functools.cache
def build(name: str) -> Adapter:
    return (GENERATORS | ENCODERS | INVERTERS)[name]()


@pytest.fixture(scope="module", params=[*GENERATORS, *ENCODERS, *INVERTERS])
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
    assert bool(gradient.isfinite().all()) and (gradient[1] != 0).float().mean() > adapter.heeds


def test_the_constructor_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    for make in MODULES.values():
        make()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
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
    steady_painter: Generator = alias_free()
    seer: ImageTextEncoder = clip(VIT)
    listener: AudioEncoder = audio_encoder()
    identifier: IdentityEncoder = face_encoder()
    assert painter.synthesize(painter.map(normal(2, painter.z_dim))).shape == (2, 3, 16, 16)
    assert seer.encode_image(normal(2, 3, seer.resolution, seer.resolution)).shape == (2, seer.embed_dim)
    finder: Inverter = inverter("e4e")
    assert finder.invert(normal(2, 3, 16, 16)).shape == (2, finder.num_ws, finder.w_dim)
    size = identifier.resolution
    assert identifier.encode_identity(normal(2, 3, size, size)).shape == (2, identifier.embed_dim)
    images = steady_painter.synthesize(steady_painter.map(normal(2, steady_painter.z_dim)))
    assert images.shape == (2, 3, 16, 16)
    waveforms = normal(2, listener.num_samples)
    assert listener.sample_rate == 8000 and listener.encode_audio(waveforms).shape == (2, listener.embed_dim)


@pytest.mark.parametrize(
    "make", [lee_encoder, wav2clip_encoder, audioclip_encoder], ids=["lee", "wav2clip", "audioclip"]
)
def test_encoders_of_others_meet_the_same_protocol(make: Callable[[], AudioEncoder]) -> None:
    listener = make()
    waveforms = normal(2, listener.num_samples, scale=0.1)
    assert listener.encode_audio(waveforms).shape == (2, listener.embed_dim) and listener.sample_rate in {
        44_100,
        16_000,
    }
