"""Wav2CLIP (Wu et al., ICASSP 2022): sound into the space of CLIP ViT-B/32, learnt by distillation from it."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn

from soundguide.errors import InvalidAudio
from soundguide.models.resnet import resnet18

N_FFT, HOP_SAMPLES = 512, 353  # of the released weights
SMALLEST_POWER, SMALLEST_STD = 1e-7, 1e-9  # added before the logarithm, and to the divisor


class Wav2ClipConfig(BaseModel):
    """One Wav2CLIP; travels with its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["wav2clip"] = "wav2clip"
    sample_rate: Annotated[Literal[16_000], Field(description="Rate of the waveforms, Hz.")] = 16_000
    window_seconds: Annotated[
        float, Field(ge=0.1, le=60, description="Length of the windows of a long sound, s; the network reads any.")
    ] = 5.0
    embed_dim: Annotated[PositiveInt, Field(description="Width E of the embedding space.")] = 512
    channels: Annotated[
        tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt],
        Field(description="Channels of the four stages; the default is ResNet-18 (He et al. 2016)."),
    ] = (64, 128, 256, 512)


class Wav2ClipEncoder(nn.Module):
    """A ResNet-18 on a log-power spectrogram; meets `soundguide.models.protocols.AudioEncoder`.

    ``seed`` draws the initial weights; a checkpoint replaces them.
    """

    window: Tensor

    def __init__(self, config: Wav2ClipConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.sample_rate = config.sample_rate
        self.num_samples = round(config.window_seconds * config.sample_rate)
        self.embed_dim = config.embed_dim
        self.register_buffer("window", torch.hann_window(N_FFT))  # the released weights bring their own
        with torch.random.fork_rng(devices=[]):  # both draw from the global generator: leave that as it was
            torch.manual_seed(seed)
            self.resnet = resnet18(config.channels, in_channels=1, num_classes=0)
            width = config.channels[-1]
            self.transform = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.embed_dim))

    def encode_audio(self, waveforms: Tensor) -> Tensor:
        """Embed ``waveforms`` ``[B, T]``, mono in [-1, 1] at `sample_rate`, as ``[B, E]`` of unit norm, float32.

        Any T above 256 will do. Raises `InvalidAudio` for another shape.
        """
        features: Tensor = self.transform(self.resnet(self.log_power(waveforms)[:, None]))
        return F.normalize(features.float(), dim=-1)

    def log_power(self, waveforms: Tensor) -> Tensor:
        """Return the logarithm of the power spectrogram, of mean 0 and standard deviation 1, ``[B, 257, F]``, float32.

        Each row by its own mean and deviation. The authors took those of the whole batch, so that a sound's embedding
        depended on its company; ours is theirs for a batch of one. Silence, which has no deviation, is 0 everywhere.
        """
        if waveforms.ndim != 2 or waveforms.shape[1] <= N_FFT // 2:
            raise InvalidAudio(
                f"waveforms must be [B, T] at {self.sample_rate} Hz with T above {N_FFT // 2}, got "
                f"{list(waveforms.shape)}. Give one channel; a shorter sound holds no spectrum."
            )
        assert self.window.dtype == torch.float32, "the spectrum is of float32; do not cast it with the network"
        with torch.autocast(waveforms.device.type, enabled=False):
            spectrum = torch.stft(
                waveforms.float(), N_FFT, HOP_SAMPLES, window=self.window, pad_mode="reflect", return_complex=True
            )
            log_power = (spectrum.real.square() + spectrum.imag.square() + SMALLEST_POWER).log()  # [B, bins, F]
            # in float64 the mean of equal numbers is that number: their difference must not be blown up by 1e9
            std, mean = torch.std_mean(log_power.double(), (1, 2), keepdim=True)
            return ((log_power.double() - mean) / (std + SMALLEST_STD)).float()
