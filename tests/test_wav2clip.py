"""Wav2CLIP: its spectrogram against a slow one, rows that do not see each other, and sounds without contents."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from soundguide.errors import InvalidAudio
from soundguide.models.wav2clip import Wav2ClipConfig, Wav2ClipEncoder


@pytest.fixture(scope="module")
def encoder() -> Wav2ClipEncoder:
    config = Wav2ClipConfig(window_seconds=0.5, embed_dim=8, channels=(4, 4, 8, 8))
    return Wav2ClipEncoder(config).eval()


def noise(rows: int, samples: int = 8000) -> Tensor:
    loudness = torch.tensor([0.5, 0.02, 0.1])[:rows, None]
    return loudness * torch.randn(rows, samples, generator=torch.Generator().manual_seed(4))


def slow_log_power(waveform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frame by frame: reflected ends, Hann window, power, natural logarithm, then mean 0 and deviation 1 (of n - 1)."""
    padded = np.pad(waveform, 256, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    frames = [padded[start : start + 512] * hann for start in range(0, len(padded) - 511, 353)]
    log_power = np.log(np.abs(np.stack([np.fft.rfft(frame) for frame in frames], 1)) ** 2 + 1e-7)
    return (log_power - log_power.mean()) / (log_power.std(ddof=1) + 1e-9)


def test_spectrogram_matches_the_slow_way(encoder: Wav2ClipEncoder) -> None:
    waveforms = noise(2)
    got = encoder.log_power(waveforms)
    assert got.shape == (2, 257, 1 + 8000 // 353) and got.dtype == torch.float32
    for row, waveform in zip(got, waveforms, strict=True):
        np.testing.assert_allclose(row.numpy(), slow_log_power(waveform.double().numpy()), atol=1e-3)


def test_the_network_sees_the_spectrogram_and_ends_in_two_layers(encoder: Wav2ClipEncoder) -> None:
    waveform = noise(1)
    picture = torch.from_numpy(slow_log_power(waveform[0].double().numpy())).float()
    features = encoder.resnet.forward_features(picture[None, None]).mean((2, 3))
    weights = encoder.state_dict()
    hidden = F.relu(features @ weights["transform.0.weight"].T + weights["transform.0.bias"])
    expected = F.normalize(hidden @ weights["transform.2.weight"].T + weights["transform.2.bias"], dim=1)
    torch.testing.assert_close(encoder.encode_audio(waveform), expected, rtol=0, atol=1e-3)


def test_a_sound_in_company_is_that_sound_alone(encoder: Wav2ClipEncoder) -> None:
    alone = torch.cat([encoder.encode_audio(row[None]) for row in noise(3)])
    torch.testing.assert_close(encoder.encode_audio(noise(3)), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("samples", [257, 1000, 8000, 20_000])
def test_any_length_is_read(encoder: Wav2ClipEncoder, samples: int) -> None:
    embeddings = encoder.encode_audio(noise(2, samples))
    assert embeddings.shape == (2, 8)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("level", [0.0, 1e-20, 0.5], ids=["silence", "inaudible", "constant"])
def test_a_sound_without_contents_has_a_finite_embedding(encoder: Wav2ClipEncoder, level: float) -> None:
    waveforms = torch.full((1, 8000), level).requires_grad_()
    embedding = encoder.encode_audio(waveforms)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(1))
    (gradient,) = torch.autograd.grad(embedding[0, 0], waveforms)
    assert bool(gradient.isfinite().all())


def test_silence_is_a_picture_of_zeros(encoder: Wav2ClipEncoder) -> None:
    assert torch.equal(encoder.log_power(torch.zeros(1, 8000)), torch.zeros(1, 257, 23))


@pytest.mark.parametrize("shape", [(2, 256), (8000,), (1, 1, 8000)])
def test_sound_of_another_shape_names_the_remedy(encoder: Wav2ClipEncoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidAudio, match=r"T above 256.*one channel"):
        encoder.encode_audio(torch.zeros(shape))


def test_windows_of_a_long_sound_have_the_length_of_the_config(encoder: Wav2ClipEncoder) -> None:
    assert encoder.num_samples == 0.5 * 16_000
