"""The sound tower of AudioCLIP: learned spectrogram and attention, each against the formulas, one number at a time."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.resnet import Bottleneck, ResNet

from soundguide.errors import InvalidAudio
from soundguide.models.audioclip import AudioClipConfig, AudioClipEncoder, LearnedSpectrum


@pytest.fixture(scope="module")
def encoder() -> AudioClipEncoder:
    encoder = AudioClipEncoder(AudioClipConfig(window_seconds=0.2, embed_dim=8, depths=(1, 1, 1, 1)))
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in encoder.state_dict().items():
            if name.endswith(("running_mean", "bn3.weight", "bias")):
                value.copy_(0.3 * torch.randn(value.shape, generator=random))
        draw_wavelets(encoder.fbsp)
    return encoder.eval().requires_grad_(False)


def draw_wavelets(spectrum: LearnedSpectrum) -> None:
    random = torch.Generator().manual_seed(2)
    bins = len(spectrum.m)
    with torch.no_grad():
        spectrum.m.copy_(2.5 * torch.rand(bins, generator=random))
        spectrum.fb.copy_(0.5 + 2 * torch.rand(bins, generator=random))
        spectrum.fc.add_(0.2 * torch.randn(bins, generator=random))


def noise(rows: int = 2, samples: int = 8820) -> Tensor:
    return 0.1 * torch.randn(rows, samples, generator=torch.Generator().manual_seed(6))


def wavelet(m: float, fb: float, fc: float, num_samples: int) -> NDArray[np.complex128]:
    """The formula of the paper (Guzhov et al. 2021, Eq. 1) on [-pi, pi], divided by the root of its length."""
    t = math.pi * (2 * np.arange(num_samples) / (num_samples - 1) - 1)
    x = fb * t / m
    return np.asarray(math.sqrt(fb / num_samples) * (np.sin(x) / x).astype(complex) ** m * np.exp(-1j * fc * t))


def slow_bands_db(waveform: NDArray[np.float64], spectrum: LearnedSpectrum) -> NDArray[np.float64]:
    """Frame by frame, with the window of `scipy.signal` written out, and zeros up to 2048 samples on both sides."""
    x = (waveform * 32768 + 32768) * 2 / 65535 - 1
    num_frames = 1 + max(0, math.ceil((len(x) - 1654) / 561))
    missing = (num_frames - 1) * 561 + 1654 - len(x)
    x = np.concatenate([np.zeros(missing // 2), x, np.zeros(missing - missing // 2)])
    angle = 2 * np.pi * np.arange(1654) / 1654
    window = sum(w * np.cos(k * angle) for k, w in enumerate((0.35875, -0.48829, 0.14128, -0.01168)))
    frames = [np.pad(window * x[561 * index : 561 * index + 1654], 197) for index in range(num_frames)]
    shapes = zip(spectrum.m.tolist(), spectrum.fb.tolist(), spectrum.fc.tolist(), strict=True)
    wavelets = np.stack([wavelet(*shape, 2048) for shape in shapes])
    power = np.abs(np.stack(frames) @ wavelets.T) ** 2  # [F, 1025]
    return np.stack([10 * np.log10(power[:, 341 * band : 341 * (band + 1)].T) for band in range(3)])


@pytest.mark.parametrize("fb", [1.0, 3.0])
@pytest.mark.parametrize("m", [0.4, 1.0, 2.0, 2.7])
def test_wavelets_are_those_of_the_paper(m: float, fb: float) -> None:
    spectrum = LearnedSpectrum(3, 64)
    with torch.no_grad():
        spectrum.m.fill_(m)
        spectrum.fb.fill_(fb)
        spectrum.fc.copy_(torch.tensor([0.0, 1.5, 20.0]))
        got = spectrum.wavelets().numpy()
    for row, fc in zip(got, (0.0, 1.5, 20.0), strict=True):
        np.testing.assert_allclose(row, wavelet(m, fb, fc, 64), atol=1e-5)


def test_wavelets_of_order_zero_are_the_fourier_transform() -> None:
    with torch.no_grad():
        wavelets = LearnedSpectrum(1025, 2048).wavelets()
    torch.testing.assert_close(wavelets.abs(), torch.full_like(wavelets.real, 2048**-0.5))
    torch.testing.assert_close(wavelets.abs().square().sum(1), torch.ones(1025))
    t = torch.linspace(-math.pi, math.pi, 2048)
    torch.testing.assert_close(wavelets[5].real, torch.cos(5 * t) / 2048**0.5, rtol=0, atol=1e-6)


@pytest.mark.parametrize("samples", [8820, 1654, 700, 2215])
def test_bands_match_the_slow_way(encoder: AudioClipEncoder, samples: int) -> None:
    waveform = noise(1, samples)
    got = encoder.bands_db(waveform)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got[0].numpy(), slow_bands_db(waveform[0].double().numpy(), encoder.fbsp), atol=0.05)


def test_attention_gates_each_stage_of_a_resnext(encoder: AudioClipEncoder) -> None:
    """Stage by stage with torchvision's ResNeXt, whose names the weights have, and attention written out."""
    network = ResNet(Bottleneck, [1, 1, 1, 1], num_classes=8, groups=32, width_per_group=4).eval()
    network.load_state_dict(encoder.resnext.state_dict())
    weights = encoder.state_dict()

    def gate(number: int, x: Tensor, size: tuple[int, int]) -> Tensor:
        w = {name.removeprefix(f"att{number}."): value for name, value in weights.items()}
        x = F.adaptive_max_pool2d(x, size)
        padding = tuple(side // 2 for side in w["conv_depth.weight"].shape[2:])
        x = F.conv2d(x, w["conv_depth.weight"], w["conv_depth.bias"], padding=padding, groups=x.shape[1])
        x = torch.einsum("bihw,oi->bohw", x, w["conv_point.weight"][:, :, 0, 0]) + w["conv_point.bias"][:, None, None]
        mean, var = w["bn.running_mean"][:, None, None], w["bn.running_var"][:, None, None]
        x = (x - mean) / (var + 1e-5).sqrt() * w["bn.weight"][:, None, None] + w["bn.bias"][:, None, None]
        return 1 / (1 + torch.exp(-x))

    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1(encoder.bands_db(noise())))))
        for number, stage in enumerate((network.layer1, network.layer2, network.layer3, network.layer4), 1):
            features = stage(x)
            x = features * gate(number, x, features.shape[2:])
        pooled = network.avgpool(x) * gate(5, x, (1, 1))
        expected = F.normalize(network.fc(pooled.flatten(1)), dim=1)
        torch.testing.assert_close(encoder.encode_audio(noise()), expected, rtol=0, atol=1e-5)


def test_attention_looks_along_mels_and_frames_in_turn(encoder: AudioClipEncoder) -> None:
    kernels = [tuple(encoder.state_dict()[f"att{number}.conv_depth.weight"].shape[2:]) for number in range(1, 6)]
    assert kernels == [(3, 1), (1, 5), (3, 1), (1, 5), (3, 5)]


@pytest.mark.parametrize("samples", [1, 1654, 30_000])
def test_any_length_is_read(encoder: AudioClipEncoder, samples: int) -> None:
    embeddings = encoder.encode_audio(noise(2, samples))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("level", [0.0, 0.5, -1.0], ids=["silence", "constant", "clipped"])
def test_a_sound_without_contents_has_a_finite_embedding(encoder: AudioClipEncoder, level: float) -> None:
    waveforms = torch.full((1, 8820), level)
    assert bool(encoder.bands_db(waveforms).isfinite().all())
    torch.testing.assert_close(encoder.encode_audio(waveforms).norm(dim=1), torch.ones(1))


@pytest.mark.parametrize("shape", [(8820,), (1, 1, 8820), (2, 0)])
def test_sound_of_another_shape_names_the_remedy(encoder: AudioClipEncoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidAudio, match=r"must be \[B, T\] at 44100 Hz.*one channel"):
        encoder.encode_audio(torch.zeros(shape))
