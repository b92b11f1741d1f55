"""The sound tower of AudioCLIP (Guzhov et al., ICASSP 2022): ESResNeXt with a learned time-frequency transform."""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from scipy.signal.windows import blackmanharris
from torch import Tensor, nn

from soundguide.errors import InvalidAudio
from soundguide.models.resnet import resnext

# Of the released weights.
N_FFT, HOP_SAMPLES, WINDOW_SAMPLES, NUM_BANDS = 2048, 561, 1654, 3
FULL_SCALE, LEAST_POWER, EPSILON = 32768.0, 1e-18, 1e-8
# Kernels of the depthwise convolution in each attention, as mels and frames: in turn along the one and the other
ATTENTION_KERNELS = ((3, 1), (1, 5), (3, 1), (1, 5), (3, 5))

_FourSizes = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]


class AudioClipConfig(BaseModel):
    """One sound tower of AudioCLIP; travels with its weights. The defaults are ResNeXt-50 32x4d (Xie et al. 2017)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["audioclip"] = "audioclip"
    sample_rate: Annotated[Literal[44_100], Field(description="Rate of the waveforms, Hz.")] = 44_100
    window_seconds: Annotated[
        float, Field(ge=0.1, le=60, description="Length of the windows of a long sound, s; the network reads any.")
    ] = 5.0
    embed_dim: Annotated[PositiveInt, Field(description="Width E of the embedding space.")] = 1024
    depths: Annotated[_FourSizes, Field(description="Blocks of each stage.")] = (3, 4, 6, 3)
    channels: Annotated[
        _FourSizes, Field(description="Channels of each stage; its output has 4 times as many. Multiples of 16.")
    ] = (64, 128, 256, 512)


class AudioClipEncoder(nn.Module):
    """A ResNeXt with attention, on three bands of a learned spectrogram.

    It meets `soundguide.models.protocols.AudioEncoder`. Embeddings by the partially trained weights lie in the space of
    CLIP RN50. ``seed`` draws the initial weights; a checkpoint replaces them.
    """

    window: Tensor

    def __init__(self, config: AudioClipConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.sample_rate = config.sample_rate
        self.num_samples = round(config.window_seconds * config.sample_rate)
        self.embed_dim = config.embed_dim
        window = torch.from_numpy(blackmanharris(WINDOW_SAMPLES, sym=False)).float()
        self.register_buffer("window", window)  # the released weights bring their own
        with torch.random.fork_rng(devices=[]):  # both draw from the global generator: leave that as it was
            torch.manual_seed(seed)
            self.fbsp = LearnedSpectrum(N_FFT // 2 + 1, N_FFT)
            self.resnext = resnext(config.channels, config.depths, num_classes=config.embed_dim)
            widths = (64, *(4 * width for width in config.channels))
            steps = zip(widths, (*widths[1:], widths[-1]), ATTENTION_KERNELS, strict=True)
            self.att1, self.att2, self.att3, self.att4, self.att5 = (Attention(*step) for step in steps)

    def encode_audio(self, waveforms: Tensor) -> Tensor:
        """Embed ``waveforms`` ``[B, T]``, mono in [-1, 1] at `sample_rate`, as ``[B, E]`` of unit norm, float32.

        Any T will do. Raises `InvalidAudio` for another shape.
        """
        body = self.resnext
        x = body.maxpool(body.act1(body.bn1(body.conv1(self.bands_db(waveforms)))))
        for number, attention in enumerate((self.att1, self.att2, self.att3, self.att4), 1):
            features: Tensor = body.get_submodule(f"layer{number}")(x)
            x = features * attention(x, (features.shape[2], features.shape[3]))
        pooled = x.mean((2, 3), keepdim=True) * self.att5(x, (1, 1))
        embeddings: Tensor = body.fc(pooled.flatten(1))
        return F.normalize(embeddings.float(), dim=-1)

    def bands_db(self, waveforms: Tensor) -> Tensor:
        """Return the power in dB of three bands, as three channels, ``[B, 3, 341, F]``, float32.

        Frames of 1654 samples every 561; zeros fill up the last, half of them before the sound. The highest two of the
        1025 bins are left out.
        """
        if waveforms.ndim != 2 or waveforms.shape[1] == 0:
            raise InvalidAudio(
                f"waveforms must be [B, T] at {self.sample_rate} Hz, got {list(waveforms.shape)}. Give one channel."
            )
        with torch.autocast(waveforms.device.type, enabled=False):
            # The range of 16-bit samples to [-1, 1] as they did it, which adds 1/65535: kept, silence shows it
            x = (waveforms.float() * FULL_SCALE + FULL_SCALE) * 2.0 / 65535.0 - 1.0
            missing = -(x.shape[1] - WINDOW_SAMPLES) % HOP_SAMPLES
            missing = max(missing, WINDOW_SAMPLES - x.shape[1])
            frames = F.pad(x, (missing // 2, missing - missing // 2)).unfold(1, WINDOW_SAMPLES, HOP_SAMPLES)
            beside = (N_FFT - WINDOW_SAMPLES) // 2
            power = self.fbsp(F.pad(frames * self.window, (beside, beside))).mT  # [B, bins, F]
            power = power[:, : power.shape[1] // NUM_BANDS * NUM_BANDS].unflatten(1, (NUM_BANDS, -1))
            return 10.0 * torch.where(power > 0, power, LEAST_POWER).log10()


class LearnedSpectrum(nn.Module):
    """The power of frequency B-spline wavelets with learned shapes (Guzhov et al., IJCNN 2021, ESResNe(X)t-fbsp).

    For each bin ``fc`` is the centre frequency in cycles over the frame, ``fb`` the bandwidth and ``m`` the order: the
    wavelet is ``sqrt(fb) * sinc(fb t / m) ** m * exp(-i fc t)`` for t in [-pi, pi].
    """

    def __init__(self, num_bins: int, num_samples: int) -> None:
        super().__init__()
        self.num_samples = num_samples
        self.m = nn.Parameter(torch.zeros(num_bins))
        self.fb = nn.Parameter(torch.ones(num_bins))
        self.fc = nn.Parameter(torch.arange(num_bins, dtype=torch.float32))

    def forward(self, frames: Tensor) -> Tensor:
        """Return the power ``[B, F, bins]`` of frames ``[B, F, num_samples]``."""
        wavelets = self.wavelets()
        return F.linear(frames, wavelets.real).square() + F.linear(frames, wavelets.imag).square()

    def wavelets(self) -> Tensor:
        """Return the wavelets ``[bins, num_samples]``, complex, of unit norm where they are plain waves."""
        m, fb, fc = self.m[:, None], self.fb[:, None], self.fc[:, None]
        time = math.pi * torch.linspace(-1.0, 1.0, self.num_samples, device=m.device)[None] + EPSILON
        x = fb * time / (m + EPSILON)
        sinc = torch.where(x == 0, 1.0, x.sin() / x)
        # a negative number to a broken power is complex; here 0 to the power of 0 is 1, where theirs was not a number
        envelope = torch.polar(sinc.abs() ** m, m * math.pi * (sinc < 0))
        carrier = torch.polar(torch.ones_like(sinc), -fc * time)
        return (fb / self.num_samples).sqrt() * envelope * carrier


class Attention(nn.Module):
    """A gate in 0..1 for a stage's output, read from the stage's input."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_depth = nn.Conv2d(in_channels, in_channels, kernel, padding=padding, groups=in_channels)
        self.conv_point = nn.Conv2d(in_channels, out_channels, 1)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the gate ``[B, out, *size]`` for ``[B, in, H, W]``."""
        gate: Tensor = self.bn(self.conv_point(self.conv_depth(F.adaptive_max_pool2d(x, size))))
        return gate.sigmoid()
