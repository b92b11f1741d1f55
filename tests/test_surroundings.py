"""What is done to log-mels in training is what rooms, other sounds and microphones do to waveforms."""

import torch

from soundguide.audio.frontend import LogMel, LogMelConfig
from soundguide.audio.surroundings import echo, microphone, other_surroundings, over_another, speed_and_pitch

CONFIG = LogMelConfig(num_mels=64, mean_db=-56, std_db=15)


def random() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def clicks(num: int) -> torch.Tensor:
    """Return log-mels of a click in the middle of quiet noise."""
    waveforms = 1e-4 * torch.randn(num, 32_000, generator=torch.Generator().manual_seed(0))
    waveforms[:, 16_000:16_016] = 0.9
    return LogMel(CONFIG)(waveforms)


def power(log_mel: torch.Tensor) -> torch.Tensor:
    return 10 ** ((log_mel * CONFIG.std_db + CONFIG.mean_db) / 10)


def test_an_echo_comes_after_the_sound_and_fades() -> None:
    before = clicks(40)
    after = echo(before, CONFIG, random())
    middle = before.shape[2] // 2
    torch.testing.assert_close(after[:, :, : middle - 3], before[:, :, : middle - 3], rtol=0, atol=0.5)
    was = power(before).sum(1)  # [B, F]
    tail = (power(after).sum(1) - was)[:, middle + 3 : middle + 25]
    echoing = tail[:, 0] > 10 * was[:, middle + 3]
    assert 12 < int(echoing.sum()) < 40
    assert (tail[echoing].diff(dim=1) < 0.01 * tail[echoing, :1]).all()


def test_another_sound_is_twelve_to_twenty_six_decibels_below() -> None:
    loud = torch.zeros(60, 64, 30)
    loud[:, :32] = 4.0
    loud[1::2] = loud[1::2].flip(1)  # half of them live in the upper bands, half in the lower ones
    mixed = over_another(loud, CONFIG, random())
    quiet = torch.where(loud == 0, power(mixed) - power(loud), 0).sum((1, 2))
    below = 10 * torch.log10(power(loud).sum((1, 2)) / quiet)[quiet > 1e-4 * quiet.max()]
    assert len(below) > 10
    assert below.min() > 11.5 and below.max() < 27


def test_speed_moves_a_click_and_pitch_moves_a_tone() -> None:
    log_mel = torch.zeros(30, 64, 40)
    log_mel[:, 30] = 1.0
    log_mel[:, :, 30] += 1.0
    moved = speed_and_pitch(log_mel, random())
    bands, frames = moved.mean(2).argmax(1), moved.mean(1).argmax(1)
    assert bands.min() < 30 < bands.max() and (bands - 30).abs().max() <= 3
    assert frames.min() < 30 < frames.max()


def test_a_microphone_changes_all_frames_alike() -> None:
    log_mel = torch.randn(8, 64, 20, generator=random())
    change = microphone(log_mel, random()) - log_mel
    torch.testing.assert_close(change, change[:, :, :1].expand_as(change), rtol=0, atol=1e-5)
    assert change[:, :, 0].std(1).min() > 0.05  # and tones differently


def test_augmented_sounds_are_finite_also_where_all_was_silence() -> None:
    silence = LogMel(CONFIG)(torch.zeros(4, 32_000))
    assert torch.isfinite(other_surroundings(torch.cat([silence, clicks(4)]), CONFIG, random())).all()
