"""What other places, players and microphones do to a sound, done to its log-mel: cheap, and different at every step.

Everything works on ``[B, M, F]`` in the front end's units and draws from the given generator, a CPU generator.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from soundguide.audio.frontend import LogMelConfig

ABSENT = -9.0  # units: far below every floor
ECHO_FRAMES = 48
LEVEL = 0.2  # units: 3 dB of 15; loudness means something, and more would hide it


def other_surroundings(log_mel: Tensor, config: LogMelConfig, generator: torch.Generator) -> Tensor:
    """Return the sounds at other speeds and pitches, in other rooms, over each other, through noise and microphones."""
    log_mel = speed_and_pitch(log_mel, generator)
    log_mel = over_another(echo(log_mel, config, generator), config, generator)
    return microphone(hiss(log_mel, config, generator), generator)


def speed_and_pitch(log_mel: Tensor, generator: torch.Generator) -> Tensor:
    """Stretch time by 0.8 to 1.25 and shift all mels by up to 3 bands; what is missing at the ends is mirrored."""
    num, mels, frames = log_mel.shape
    theta = torch.zeros(num, 2, 3)
    theta[:, 0, 0] = torch.exp(_draw(num, -math.log(1.25), math.log(1.25), generator))
    theta[:, 1, 1] = 1
    theta[:, 1, 2] = _draw(num, -3, 3, generator) * 2 / mels
    grid = F.affine_grid(theta, [num, 1, mels, frames], align_corners=False).to(log_mel.device)
    return F.grid_sample(log_mel[:, None], grid, padding_mode="reflection", align_corners=False)[:, 0]


def echo(log_mel: Tensor, config: LogMelConfig, generator: torch.Generator) -> Tensor:
    """Add to four sounds of ten a room that fades by 60 dB in 0.15 to 1.5 s, 3 to 18 dB below the sound."""
    num = len(log_mel)
    frame_rate = config.sample_rate / config.hop_samples
    fade = math.log(1e6) / (torch.exp(_draw(num, math.log(0.15), math.log(1.5), generator)) * frame_rate)  # per frame
    kernel = torch.exp(-fade[:, None] * torch.arange(ECHO_FRAMES))
    wet = 10 ** _draw(num, -1.8, -0.3, generator) * (torch.rand(num, generator=generator) < 0.4)
    kernel = kernel / kernel.sum(1, keepdim=True) * wet[:, None]
    kernel[:, 0] += 1
    power = torch.exp(log_mel * _nepers(config)).transpose(0, 1)  # [M, B, F]
    weight = kernel.flip(1)[:, None].to(log_mel.device)  # [B, 1, K]
    power = F.conv1d(F.pad(power, (ECHO_FRAMES - 1, 0)), weight, groups=num)
    return power.transpose(0, 1).log() / _nepers(config)


def over_another(log_mel: Tensor, config: LogMelConfig, generator: torch.Generator) -> Tensor:
    """Mix half of the sounds with another of the batch, 12 to 26 dB below."""
    others = log_mel[torch.randperm(len(log_mel), generator=generator).to(log_mel.device)]
    return _with_below(log_mel, others, config, generator, below_db=(12.0, 26.0), share=0.5)


def hiss(log_mel: Tensor, config: LogMelConfig, generator: torch.Generator) -> Tensor:
    """Add steady noise of some tilt to three sounds of ten, 12 to 40 dB below."""
    num, mels, _ = log_mel.shape
    band = torch.linspace(-1, 1, mels, device=log_mel.device)[None, :, None]
    slope = _draw(num, -1.0, 0.6, generator)[:, None, None].to(log_mel.device)
    noise = (slope * band).expand_as(log_mel)
    return _with_below(log_mel, noise, config, generator, below_db=(12.0, 40.0), share=0.3)


def microphone(log_mel: Tensor, generator: torch.Generator) -> Tensor:
    """Change level, tilt, resonances and the ends of the band."""
    num, mels, _ = log_mel.shape

    def draw(low: float, high: float) -> Tensor:
        return _draw(num, low, high, generator)[:, None, None].to(log_mel.device)

    band = torch.linspace(-1, 1, mels, device=log_mel.device)[None, :, None]
    shape = draw(-0.6, 0.6) * band + draw(-LEVEL, LEVEL)
    for _ in range(3):
        shape = shape + draw(-0.2, 0.2) * torch.cos(draw(1, 7) * math.pi * (band + draw(0, 2)))
    shape = (
        shape - draw(0, 5) * (band - draw(0.5, 1.0)).clamp_min(0) - draw(0, 5) * (-band - draw(0.8, 1.0)).clamp_min(0)
    )
    return log_mel + shape


def _with_below(
    log_mel: Tensor,
    other: Tensor,
    config: LogMelConfig,
    generator: torch.Generator,
    *,
    below_db: tuple[float, float],
    share: float,
) -> Tensor:
    """Add ``other`` to a share of the rows, its power so many dB below the row's own."""
    num, nepers = len(log_mel), _nepers(config)

    def level(x: Tensor) -> Tensor:
        return (torch.logsumexp(x.flatten(1) * nepers, 1) / nepers)[:, None, None]

    below = _draw(num, *below_db, generator)[:, None, None].to(log_mel.device) / config.std_db
    mixed = torch.rand(num, 1, 1, generator=generator).to(log_mel.device) < share
    added = torch.where(mixed, other - level(other) + level(log_mel) - below, log_mel.new_tensor(ABSENT))
    return torch.logaddexp(log_mel * nepers, added * nepers) / nepers


def _nepers(config: LogMelConfig) -> float:
    """Return the nepers of power in one unit of the front end."""
    return config.std_db * math.log(10) / 10


def _draw(num: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(num, generator=generator)
