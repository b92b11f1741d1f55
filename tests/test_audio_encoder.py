"""The Swin sound encoder: the picture that it reads, the sounds that it tells apart, and what is refused."""

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from soundguide.audio.frontend import LogMelConfig
from soundguide.errors import InvalidAudio
from soundguide.models.audio_encoder import SwinAudioConfig, SwinAudioEncoder

LOG_MEL = LogMelConfig(sample_rate=8000, n_fft=512, hop_samples=200, num_mels=30, min_hz=100, max_hz=4000)


def config(**changes: object) -> SwinAudioConfig:
    fields: dict[str, object] = {
        "log_mel": LOG_MEL,
        "window_seconds": 1.0,
        "embed_dim": 12,
        "embed_channels": 8,
        "depths": (1, 2),
        "num_heads": (1, 2),
        "window_size": 4,
        "drop_path": 0.0,
    }
    return SwinAudioConfig.model_validate(fields | changes)


def noise(rows: int = 2, samples: int = 8000) -> Tensor:
    return 0.1 * torch.randn(rows, samples, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("seconds", "mels", "patch", "expected"),
    [
        (1.0, 30, 4, (32, 40)),  # 41 frames: the last, half behind the end, is left out
        (1.0, 32, 4, (32, 40)),
        (1.05, 30, 4, (32, 44)),  # 43 frames: one of silence is added
        (0.01, 30, 2, (30, 2)),
    ],
)
def test_the_picture_is_whole_patches(seconds: float, mels: int, patch: int, expected: tuple[int, int]) -> None:
    front = LOG_MEL.model_copy(update={"num_mels": mels})
    assert config(log_mel=front, window_seconds=seconds, patch_size=patch).img_size == expected


def test_the_transformer_sees_the_log_mel_and_silence_around_it() -> None:
    encoder = SwinAudioEncoder(config(window_seconds=1.05)).eval()
    log_mel = encoder.log_mel(noise(samples=8400))
    assert log_mel.shape == (2, 30, 43)
    picture = torch.full((2, 1, 32, 44), (LOG_MEL.floor_db - LOG_MEL.mean_db) / LOG_MEL.std_db)
    picture[:, 0, :30, :43] = log_mel
    expected = F.normalize(encoder.swin(picture), dim=1)
    torch.testing.assert_close(encoder.encode_log_mel(log_mel), expected)
    torch.testing.assert_close(encoder.encode_audio(noise(samples=8400)), expected)


def test_silence_is_what_the_front_end_makes_of_zeros() -> None:
    encoder = SwinAudioEncoder(config())
    log_mel = encoder.log_mel(torch.zeros(1, 8000))
    torch.testing.assert_close(log_mel, torch.full_like(log_mel, encoder.config.silence))


def test_louder_sound_is_another_sound() -> None:
    encoder = SwinAudioEncoder(config()).eval()
    quiet, loud = encoder.encode_audio(torch.cat([noise(1), 4 * noise(1)]))
    assert (quiet - loud).abs().max() > 1e-3


def test_masked_log_mel_changes_the_embedding() -> None:
    encoder = SwinAudioEncoder(config()).eval()
    log_mel = encoder.log_mel(noise())
    masked = log_mel.clone()
    masked[:, 10:14] = 0.0
    assert (encoder.encode_log_mel(masked) - encoder.encode_log_mel(log_mel)).abs().max() > 1e-4


def test_every_parameter_learns() -> None:
    encoder = SwinAudioEncoder(config())
    direction = torch.randn(12, generator=torch.Generator().manual_seed(1))
    (encoder.encode_audio(noise(4)) @ direction).sum().backward()
    silent = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


def test_a_batch_can_be_learned_by_heart() -> None:
    encoder = SwinAudioEncoder(config()).train()
    random = torch.Generator().manual_seed(1)
    targets = F.normalize(torch.randn(4, 12, generator=random), dim=1)
    pitches = torch.tensor([300.0, 700.0, 1500.0, 3000.0])[:, None]
    sounds = 0.3 * torch.sin(2 * math.pi * pitches * torch.arange(8000) / 8000)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = 1 - (encoder.encode_audio(sounds) * targets).sum(1).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert (encoder.eval().encode_audio(sounds) * targets).sum(1).min() > 0.9


def test_defaults_are_of_the_size_of_swin_tiny_without_padding() -> None:
    settings = SwinAudioConfig()
    assert settings.img_size == (128, 512) and settings.log_mel.num_frames(settings.num_samples) == 513
    parameters = sum(p.numel() for p in SwinAudioEncoder(settings).parameters())
    # Swin-T with 1000 classes has 28.3 M (Liu et al. 2021, Table 1); 512 outputs save 488 * 769 of them
    assert parameters == pytest.approx(28.3e6 - 488 * 769, rel=0.01)


@pytest.mark.parametrize("shape", [(2, 7999), (8000,), (1, 2, 8000)])
def test_sound_of_another_length_names_the_remedy(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidAudio, match=r"\[B, 8000\] at 8000 Hz.*windows of that length"):
        SwinAudioEncoder(config()).encode_audio(torch.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": (1,)}, "differ in length"),
        ({"num_heads": (1, 3)}, "must divide"),
        ({"window_seconds": 1e-6}, "less than one sample"),
        ({"window_secs": 1.0}, "Extra inputs"),
    ],
)
def test_config_that_fits_no_network_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)
