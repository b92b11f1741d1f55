"""The sound encoder of "Sound-Guided Semantic Image Manipulation" (Lee et al., CVPR 2022), with its input as it was."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from soundguide.errors import InvalidAudio
from soundguide.models.resnet import resnet18

# Of the released pipeline (librosa 0.8.1, OpenCV): its weights fit no others.
N_FFT, HOP_SAMPLES, NUM_MELS, NUM_FRAMES = 2048, 512, 128, 864
PICTURE_ROWS, TOP_DB, SMALLEST_POWER = 512, 80.0, 1e-10


class LeeAudioConfig(BaseModel):
    """One sound encoder of Lee et al. (CVPR 2022); travels with its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["lee_resnet18"] = "lee_resnet18"
    sample_rate: Annotated[Literal[44_100], Field(description="Rate of the waveforms, Hz.")] = 44_100
    embed_dim: Annotated[PositiveInt, Field(description="Width E of the embedding space.")] = 512
    channels: Annotated[
        tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt],
        Field(description="Channels of the four stages; the default is ResNet-18 (He et al. 2016)."),
    ] = (64, 128, 256, 512)


class LeeAudioEncoder(nn.Module):
    """A ResNet-18 on a log-mel picture; meets `soundguide.models.protocols.AudioEncoder`.

    Its embeddings lie in the space of CLIP ViT-B/32. ``seed`` draws the initial weights; a checkpoint replaces them.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, config: LeeAudioConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.sample_rate = config.sample_rate
        self.num_samples = (NUM_FRAMES - 1) * HOP_SAMPLES  # makes just the frames that the network reads
        self.embed_dim = config.embed_dim
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        self.register_buffer("filterbank", slaney_filterbank(config.sample_rate), persistent=False)
        with torch.random.fork_rng(devices=[]):  # both draw from the global generator: leave that as it was
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(1, 3, 3)
            self.feature_extractor = resnet18(config.channels, in_channels=3, num_classes=config.embed_dim)

    def encode_audio(self, waveforms: Tensor) -> Tensor:
        """Embed ``waveforms`` ``[B, T]``, mono in [-1, 1] at `sample_rate`, as ``[B, E]`` of unit norm, float32.

        A T below `num_samples` is filled up as `log_mel` says. Raises `InvalidAudio` for another shape.
        """
        features: Tensor = self.feature_extractor(self.conv(scramble(self.log_mel(waveforms))))
        return F.normalize(features.float(), dim=-1)

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return mel power in dB below the loudest band of each row, in 0..1, ``[B, 128, 864]``, float32.

        0 is 80 dB below or less, 1 the loudest band; silence, which has none, is 1 everywhere, as it was for them. Each
        row is one window, and its own reference: their code took that of the whole recording, and then cut. Frames of a
        shorter sound come first and zeros follow: they filled up what is already in dB, where 0 is the quietest.
        """
        if waveforms.ndim != 2 or not N_FFT // 2 < waveforms.shape[1] <= self.num_samples:
            raise InvalidAudio(
                f"waveforms must be [B, T] at {self.sample_rate} Hz, T from {N_FFT // 2 + 1} to {self.num_samples}, "
                f"got {list(waveforms.shape)}. Cut longer sounds into windows; a shorter one holds no spectrum."
            )
        assert self.window.dtype == torch.float32, "the spectrum is of float32; do not cast it with the network"
        with torch.autocast(waveforms.device.type, enabled=False):
            spectrum = torch.stft(
                waveforms.float(), N_FFT, HOP_SAMPLES, window=self.window, pad_mode="reflect", return_complex=True
            )
            power = torch.matmul(self.filterbank, spectrum.real.square() + spectrum.imag.square())  # [B, M, F]
            db = 10.0 * power.clamp_min(SMALLEST_POWER).log10()
            db = (db - db.amax((1, 2), keepdim=True)).clamp_min(-TOP_DB)
            return F.pad(db / TOP_DB + 1.0, (0, NUM_FRAMES - db.shape[2]))


def slaney_filterbank(sample_rate: int) -> Tensor:
    """Return the mel filters of librosa's default, ``[128, 1025]``: Slaney's scale, triangles of equal area."""
    with torch.device("cpu"):  # torchaudio looks at the numbers, which the meta device does not have
        filters: Tensor = melscale_fbanks(
            N_FFT // 2 + 1, 0.0, sample_rate / 2, NUM_MELS, sample_rate, norm="slaney", mel_scale="slaney"
        )
    return filters.T.contiguous()


def scramble(log_mel: Tensor) -> Tensor:
    """Return what their encoder was trained on for ``[B, 128, F]``: ``[B, 1, 128, 512]``, which is no spectrogram.

    They asked OpenCV for a size of (128, 512), which it takes as width and height: mels are stretched to 512 rows and
    frames squeezed, unsmoothed, to 128 columns. The memory of that is then read as 128 rows of 512, so each row holds
    four interpolated mels side by side. Every weight has learnt this layout.
    """
    stretched = F.interpolate(log_mel[:, None], size=(PICTURE_ROWS, NUM_MELS), mode="bilinear", align_corners=False)
    return stretched.reshape(-1, 1, NUM_MELS, PICTURE_ROWS)
