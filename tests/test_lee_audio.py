"""The encoder of Lee et al. (CVPR 2022): its log-mel and its scrambled picture, each against another way to get it."""

import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from soundguide.errors import InvalidAudio
from soundguide.models.lee_audio import LeeAudioConfig, LeeAudioEncoder, scramble, slaney_filterbank

RATE = 44_100


@pytest.fixture(scope="module")
def encoder() -> LeeAudioEncoder:
    return LeeAudioEncoder(LeeAudioConfig(embed_dim=8, channels=(4, 4, 8, 8))).eval()


def sound(samples: int, seed: int = 5) -> Tensor:
    """A chord that swells, in noise: quiet and loud bands, quiet and loud frames."""
    time = torch.arange(samples) / RATE
    chord = torch.stack([torch.sin(2 * math.pi * hz * time) for hz in (110.0, 1230.0, 9000.0)]).mean(0)
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return chord * time / time[-1] + 1e-4 * noise


def hz_of_mel(mel: float) -> float:
    """Slaney's scale: 200/3 Hz a step up to 1 kHz, then 27 steps for each factor of 6.4 (Auditory Toolbox, 1998)."""
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)


def triangles() -> NDArray[np.float64]:
    """One triangle over each three edges, evenly spaced in mels, divided by half its width in Hz."""
    top = 15 + 27 * math.log(RATE / 2 / 1000) / math.log(6.4)
    edges = [hz_of_mel(top * index / 129) for index in range(130)]
    filters = np.zeros((128, 1025))
    for band in range(128):
        low, mid, high = edges[band : band + 3]
        for bin_ in range(1025):
            hz = bin_ * RATE / 2048
            height = min((hz - low) / (mid - low), (high - hz) / (high - mid))
            filters[band, bin_] = max(0.0, height) * 2 / (high - low)
    return filters


def slow_log_mel(waveform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frame by frame, after librosa's documentation: reflected ends, Hann window, power, mel, dB below the peak."""
    padded = np.pad(waveform, 1024, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    filters, columns = triangles(), []
    for start in range(0, len(padded) - 2047, 512):
        columns.append(filters @ np.abs(np.fft.rfft(hann * padded[start : start + 2048])) ** 2)
    power = np.stack(columns, 1)
    db = 10 * np.log10(np.maximum(power, 1e-10)) - 10 * np.log10(max(power.max(), 1e-10))
    filled = np.zeros((128, 864))
    filled[:, : db.shape[1]] = np.maximum(db, db.max() - 80) / 80 + 1
    return filled


def test_mel_filters_are_slaneys_triangles() -> None:
    np.testing.assert_allclose(slaney_filterbank(RATE).numpy(), triangles(), atol=2e-7)


@pytest.mark.parametrize("samples", [441_856, 30_000, 1025])
def test_log_mel_matches_the_slow_way(encoder: LeeAudioEncoder, samples: int) -> None:
    waveform = sound(samples)
    got = encoder.log_mel(waveform[None])
    assert got.shape == (1, 128, 864) and got.dtype == torch.float32
    np.testing.assert_allclose(got[0].numpy(), slow_log_mel(waveform.double().numpy()), atol=1e-4)


def test_scrambled_picture_is_opencvs() -> None:
    log_mel = torch.rand(2, 128, 864, generator=torch.Generator().manual_seed(1))
    for row, picture in zip(log_mel.numpy(), scramble(log_mel), strict=True):
        expected = cv2.resize(row, (128, 512)).reshape(1, 128, 512)
        np.testing.assert_allclose(picture.numpy(), expected, atol=1e-5)


def test_a_row_of_the_picture_holds_four_neighbouring_mels() -> None:
    log_mel = torch.arange(128.0)[None, :, None].expand(1, 128, 864)  # each mel is its own number
    quarters = scramble(log_mel)[0, 0].reshape(128, 4, 128)
    assert torch.equal(quarters, quarters[:, :, :1].expand_as(quarters))
    heights = (torch.arange(512) + 0.5) / 4 - 0.5
    torch.testing.assert_close(quarters[:, :, 0].flatten(), heights.clamp(0, 127))


def test_the_network_sees_the_scrambled_picture(encoder: LeeAudioEncoder) -> None:
    waveform = sound(441_856)
    picture = cv2.resize(slow_log_mel(waveform.double().numpy()), (128, 512)).reshape(1, 1, 128, 512)
    kernel, bias = encoder.conv.weight, encoder.conv.bias
    seen = F.conv2d(torch.from_numpy(picture).float(), kernel, bias)
    assert seen.shape == (1, 3, 126, 510)
    expected = F.normalize(encoder.feature_extractor(seen), dim=1)
    torch.testing.assert_close(encoder.encode_audio(waveform[None]), expected, rtol=0, atol=1e-3)


def test_gain_is_invisible(encoder: LeeAudioEncoder) -> None:
    waveform = sound(60_000)[None]
    torch.testing.assert_close(encoder.log_mel(0.25 * waveform), encoder.log_mel(waveform), rtol=0, atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.5, 1e-20], ids=["silence", "constant", "inaudible"])
def test_a_sound_without_contents_has_a_finite_embedding(encoder: LeeAudioEncoder, level: float) -> None:
    waveforms = torch.full((1, 441_856), level)
    assert 0 <= encoder.log_mel(waveforms).min() and encoder.log_mel(waveforms).max() == 1
    torch.testing.assert_close(encoder.encode_audio(waveforms).norm(dim=1), torch.ones(1))


def test_silence_is_the_loudest_picture_as_it_was_for_them(encoder: LeeAudioEncoder) -> None:
    assert torch.equal(encoder.log_mel(torch.zeros(1, 441_856)), torch.ones(1, 128, 864))


@pytest.mark.parametrize("shape", [(2, 441_857), (2, 1024), (441_856,), (1, 1, 441_856)])
def test_sound_of_another_shape_names_the_remedy(encoder: LeeAudioEncoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidAudio, match=r"T from 1025 to 441856.*Cut longer"):
        encoder.encode_audio(torch.zeros(shape))


def test_defaults_have_the_size_of_the_released_weights() -> None:
    state = LeeAudioEncoder(LeeAudioConfig()).state_dict()
    assert len(state) == 124 and sum(value.numel() for value in state.values()) == pytest.approx(11.4e6, rel=5e-3)
