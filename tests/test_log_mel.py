"""The log-mel front end against a plain NumPy reference and against physics."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from soundguide.audio.frontend import LogMel, LogMelConfig, spec_augment

CONFIG = LogMelConfig(mean_db=0.0, std_db=1.0)  # answers in dB


def sine(hz: float, amplitude: float = 1.0, seconds: float = 1.0) -> torch.Tensor:
    seconds_of = torch.arange(round(seconds * 16_000), dtype=torch.float64) / 16_000
    return (amplitude * torch.sin(2 * torch.pi * hz * seconds_of)).float()


def numpy_log_mel(samples: np.ndarray, config: LogMelConfig) -> np.ndarray:
    n, hop = config.n_fft, config.hop_samples
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    padded = np.concatenate([np.zeros(n // 2), samples, np.zeros(n // 2)])
    frames = np.stack([padded[start : start + n] * window for start in range(0, samples.size + 1, hop)])
    power = np.abs(np.fft.rfft(frames)) ** 2 / (n * (window**2).sum() / 4)
    mels = np.linspace(*(2595 * np.log10(1 + hz / 700) for hz in (config.min_hz, config.max_hz)), config.num_mels + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    hz = np.arange(n // 2 + 1) * config.sample_rate / n
    rising = (hz[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hz[None]) / (edges[2:] - edges[1:-1])[:, None]
    bands = np.maximum(0, np.minimum(rising, falling))
    db = 10 * np.log10(np.maximum(bands @ power.T, 10 ** (config.floor_db / 10)))
    return (db - config.mean_db) / config.std_db


@pytest.mark.parametrize(
    "config",
    [
        LogMelConfig(),
        LogMelConfig(sample_rate=44_100, n_fft=2048, hop_samples=441, num_mels=80, max_hz=22_050, floor_db=-80),
    ],
)
def test_log_mel_equals_a_numpy_reference(config: LogMelConfig) -> None:
    rng = np.random.default_rng(0)
    waveforms = rng.normal(0, 0.1, (2, 20_011)) * np.array([[1.0], [0.003]])
    actual = LogMel(config)(torch.from_numpy(waveforms).float()).numpy()
    expected = np.stack([numpy_log_mel(row, config) for row in waveforms])
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_samples", [1, 399, 400, 1_600, 160_000])
def test_the_number_of_frames_is_as_documented(num_samples: int) -> None:
    output = LogMel(CONFIG)(torch.zeros(3, num_samples))
    assert output.shape == (3, CONFIG.num_mels, CONFIG.num_frames(num_samples)) == (3, 64, 1 + num_samples // 400)


def test_twice_the_amplitude_is_six_db_more_everywhere_above_the_floor() -> None:
    noise = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0)) * 0.01
    quiet, loud = LogMel(CONFIG)(noise), LogMel(CONFIG)(2 * noise)
    assert quiet.min() > CONFIG.floor_db
    torch.testing.assert_close(loud - quiet, torch.full_like(quiet, 6.0206), atol=1e-3, rtol=0)


def test_a_full_scale_sine_sums_to_zero_db_at_any_pitch() -> None:
    tones = torch.stack([sine(hz) for hz in (200.0, 440.0, 1_000.0, 3_333.0, 6_000.0)])
    middle = LogMel(CONFIG)(tones)[:, :, 10:-10].double()
    total_db = 10 * torch.log10((10 ** (middle / 10)).sum(dim=1))
    torch.testing.assert_close(total_db, torch.zeros_like(total_db), atol=0.05, rtol=0)


def test_a_sine_peaks_in_the_band_whose_centre_is_nearest() -> None:
    mels = np.linspace(2595 * np.log10(1 + 30 / 700), 2595 * np.log10(1 + 8_000 / 700), 66)[1:-1]
    expected = int(np.abs(mels - 2595 * np.log10(1 + 1_000 / 700)).argmin())
    assert LogMel(CONFIG)(sine(1_000.0)[None])[0, :, 20].argmax().item() == expected


def test_silence_is_the_floor() -> None:
    assert (LogMel(CONFIG)(torch.zeros(1, 1_600)) == CONFIG.floor_db).all()


def test_rows_do_not_depend_on_their_neighbours() -> None:
    waveforms = torch.randn(3, 8_000, generator=torch.Generator().manual_seed(0))
    together = LogMel(CONFIG)(waveforms)
    alone = torch.cat([LogMel(CONFIG)(row[None]) for row in waveforms])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)


def test_no_buffer_is_saved_and_autocast_changes_nothing() -> None:
    front_end = LogMel(CONFIG)
    noise = torch.randn(1, 4_000, generator=torch.Generator().manual_seed(0))
    assert not front_end.state_dict()
    expected = front_end(noise)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(front_end(noise), expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_hz": 9_000.0}, "half of sample_rate"),
        ({"min_hz": 8_000.0}, "not below max_hz"),
        ({"hop_samples": 2_000}, "exceeds n_fft"),
        ({"num_mels": 400}, "lowest band"),
        ({"n_ftt": 512}, "Extra inputs"),
    ],
)
def test_configs_that_cannot_work_are_refused(changes: dict[str, float], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        LogMelConfig.model_validate(changes)


def test_every_accepted_band_hears_something() -> None:
    for num_mels in range(8, 200):
        try:
            config = LogMelConfig(num_mels=num_mels)
        except ValidationError:
            continue
        assert (LogMel(config).filterbank.sum(dim=1) > 0).all(), num_mels


def masked_spans(rows: torch.Tensor) -> list[int]:
    return [int(row.sum()) for row in rows]


def test_spec_augment_masks_whole_mels_and_frames_up_to_the_ratios() -> None:
    ones = torch.ones(200, 64, 100)
    masked = spec_augment(ones, generator=torch.Generator().manual_seed(0), fill=-2.0) == -2.0
    mels, frames = masked.all(dim=2), masked.all(dim=1)
    assert torch.equal(masked, mels[:, :, None] | frames[:, None, :])
    assert max(masked_spans(mels)) == int(0.15 * 64) and max(masked_spans(frames)) == int(0.3 * 100)
    for rows in (mels, frames):  # one span each: it starts at most once
        assert ((rows[:, 1:] & ~rows[:, :-1]).sum(dim=1) + rows[:, 0] <= 1).all()
        assert rows.any(dim=0).all()  # and it reaches every position


def test_spec_augment_draws_for_each_row_and_repeats_with_the_seed() -> None:
    ones = torch.ones(16, 64, 100)
    first = spec_augment(ones, generator=torch.Generator().manual_seed(3), fill=0.0)
    again = spec_augment(ones, generator=torch.Generator().manual_seed(3), fill=0.0)
    assert torch.equal(first, again)
    assert len({row.numpy().tobytes() for row in first}) > 12
    assert torch.equal(ones, torch.ones(16, 64, 100))


def test_spec_augment_without_ratios_is_the_identity() -> None:
    log_mel = torch.randn(4, 64, 50, generator=torch.Generator().manual_seed(0))
    augmented = spec_augment(
        log_mel, frequency_ratio=0.0, time_ratio=0.0, generator=torch.Generator().manual_seed(0), fill=9.0
    )
    assert torch.equal(augmented, log_mel)
