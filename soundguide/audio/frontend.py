"""Waveform to log-mel image, with a fixed decibel reference, and SpecAugment."""

import math
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks


class LogMelConfig(BaseModel):
    """The log-mel front end of a sound encoder; it travels with the weights, which fit no other values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_rate: int = Field(default=16_000, ge=1_000, le=768_000, description="rate of the waveforms, Hz")
    n_fft: int = Field(default=1024, ge=16, description="samples per window; longer resolves pitch, shorter time")
    hop_samples: int = Field(
        default=400, ge=1, description="samples between frames; fewer give more frames and more work"
    )
    num_mels: int = Field(default=64, ge=1, description="mel bands M")
    min_hz: float = Field(default=30.0, ge=0.0, description="lower edge of the first band, Hz")
    max_hz: float = Field(
        default=8_000.0, gt=0.0, description="upper edge of the last band, Hz; at most half the sample rate"
    )
    floor_db: float = Field(default=-100.0, lt=0.0, description="quietest level told apart, dB re a full-scale sine")
    mean_db: float = Field(default=-50.0, description="level that becomes 0, dB re a full-scale sine")
    std_db: float = Field(default=20.0, gt=0.0, description="decibels that become 1")

    @model_validator(mode="after")
    def _check_bands(self) -> Self:
        if self.max_hz > self.sample_rate / 2:
            raise ValueError(f"max_hz {self.max_hz:g} exceeds half of sample_rate {self.sample_rate}; lower max_hz")
        if self.min_hz >= self.max_hz:
            raise ValueError(f"min_hz {self.min_hz:g} is not below max_hz {self.max_hz:g}; lower min_hz")
        if self.hop_samples > self.n_fft:
            raise ValueError(f"hop_samples {self.hop_samples} exceeds n_fft {self.n_fft}: sound between frames is lost")
        narrowest = _mel_to_hz(_hz_to_mel(self.min_hz) + 2 * self._band_mels()) - self.min_hz
        if narrowest < 2 * self.sample_rate / self.n_fft:
            raise ValueError(
                f"num_mels {self.num_mels} makes the lowest band {narrowest:.1f} Hz wide, less than two bins of "
                f"{self.sample_rate / self.n_fft:.1f} Hz; lower num_mels, or raise n_fft or min_hz"
            )
        return self

    def _band_mels(self) -> float:
        return (_hz_to_mel(self.max_hz) - _hz_to_mel(self.min_hz)) / (self.num_mels + 1)

    def num_frames(self, num_samples: int) -> int:
        """Return F for a waveform of `num_samples` samples: ``1 + num_samples // hop_samples``."""
        return 1 + num_samples // self.hop_samples


class LogMel(nn.Module):
    """Normalised log-mel spectrogram: ``[B, T]`` waveforms to ``[B, M, F]``, float32.

    Frame f is centred on sample ``f * hop_samples``; zeros stand before and after the sound, so any T >= 1 works and
    ``F = 1 + T // hop_samples``. Periodic Hann window; HTK mel scale; triangles of height 1, which sum to 1 between the
    first and the last centre. Power is scaled so that the bands of a full-scale sine (amplitude 1) sum to 0 dB. The
    reference never depends on the clip: twice the amplitude is 6.02 dB more everywhere above the floor.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, config: LogMelConfig) -> None:
        """Build the window and the filterbank of `config`."""
        super().__init__()
        self.config = config
        window = torch.hann_window(config.n_fft, periodic=True)
        filterbank = melscale_fbanks(
            config.n_fft // 2 + 1,
            config.min_hz,
            config.max_hz,
            config.num_mels,
            config.sample_rate,
            norm=None,
            mel_scale="htk",
        )
        # By Parseval, a sine of amplitude 1 has n_fft * sum(window^2) / 4 of power over the positive frequencies.
        full_scale = config.n_fft * window.double().square().sum().item() / 4
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filterbank", (filterbank / full_scale).T.contiguous(), persistent=False)  # [M, bins]

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return ``(dB - mean_db) / std_db`` of `waveforms` ``[B, T]`` in [-1, 1] as ``[B, M, F]``, float32."""
        assert waveforms.ndim == 2 and waveforms.shape[1] > 0, f"expected [B, T], got {tuple(waveforms.shape)}"
        assert self.window.dtype == torch.float32, "LogMel runs in float32; do not cast it with the network behind it"
        config = self.config
        with torch.autocast(waveforms.device.type, enabled=False):
            spectrum = torch.stft(
                waveforms.float(),
                config.n_fft,
                config.hop_samples,
                window=self.window,
                center=True,
                pad_mode="constant",  # reflection would need T > n_fft / 2
                return_complex=True,
            )
            power = spectrum.real.square() + spectrum.imag.square()  # [B, bins, F]
            mel_power = torch.matmul(self.filterbank, power)  # [B, M, F]
            db = 10.0 * mel_power.clamp_min(10.0 ** (config.floor_db / 10.0)).log10()
        return (db - config.mean_db) / config.std_db


def spec_augment(
    log_mel: Tensor,
    *,
    frequency_ratio: float = 0.15,
    time_ratio: float = 0.3,
    generator: torch.Generator,
    fill: float,
) -> Tensor:
    """Return `log_mel` ``[B, M, F]`` with one band of mels and one span of frames set to `fill`, drawn for each row.

    Widths are uniform from 0 to the given share of the axis, rounded down; starts are uniform. Lee et al., Sec. 3.1.2
    (ratios 0.15 and 0.3), without the optional time warp.
    """
    assert 0.0 <= frequency_ratio <= 1.0 and 0.0 <= time_ratio <= 1.0, "mask ratios lie in [0, 1]"
    num_rows, num_mels, num_frames = log_mel.shape
    mel_mask = _draw_spans(num_rows, num_mels, frequency_ratio, generator).to(log_mel.device)  # [B, M]
    frame_mask = _draw_spans(num_rows, num_frames, time_ratio, generator).to(log_mel.device)  # [B, F]
    return log_mel.masked_fill(mel_mask[:, :, None] | frame_mask[:, None, :], fill)


def _draw_spans(num_rows: int, size: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Draw one span for each row on the generator's device: True inside, ``[B, size]``."""
    draws = torch.rand(2, num_rows, 1, generator=generator, device=generator.device, dtype=torch.float64)
    widths = (draws[0] * (math.floor(ratio * size) + 1)).floor()
    starts = (draws[1] * (size - widths + 1)).floor()
    positions = torch.arange(size, device=generator.device)
    return (positions >= starts) & (positions < starts + widths)


def _hz_to_mel(hz: float) -> float:
    return 2595.0 * math.log10(1.0 + hz / 700.0)  # HTK book, Eq. 5.13


def _mel_to_hz(mel: float) -> float:
    return 700.0 * (math.pow(10.0, mel / 2595.0) - 1.0)
