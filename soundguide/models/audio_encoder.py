"""Sound into the space of CLIP: a Swin transformer on the log-mel picture (Lee et al., Sec. 4.1)."""

from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from torch import Tensor, nn

from soundguide.audio.frontend import LogMel, LogMelConfig
from soundguide.errors import InvalidAudio

# The paper gives neither sample rate nor size. 128 bands and about ten seconds are those of its authors' earlier code;
# this hop makes ten seconds 512 frames, which four stages of windows of 8 by 8 patches divide without a rest.
TEN_SECONDS_OF_128_MELS = LogMelConfig(
    sample_rate=32_000, n_fft=2048, hop_samples=625, num_mels=128, min_hz=30.0, max_hz=16_000.0
)


class SwinAudioConfig(BaseModel):
    """One sound encoder; travels with its weights. The defaults are of the size of Swin-T (Liu et al. 2021)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["swin_audio"] = "swin_audio"
    log_mel: Annotated[LogMelConfig, Field(description="Front end, from waveform to log-mel.")] = (
        TEN_SECONDS_OF_128_MELS
    )
    window_seconds: Annotated[float, Field(gt=0, description="Length of the sounds that it reads, s.")] = 10.0
    embed_dim: Annotated[PositiveInt, Field(description="Width E of the embedding space.")] = 512
    patch_size: Annotated[PositiveInt, Field(description="Mels and frames of one patch.")] = 4
    embed_channels: Annotated[
        PositiveInt, Field(description="Channels of the first stage; each next one doubles them.")
    ] = 96
    depths: Annotated[tuple[PositiveInt, ...], Field(min_length=1, description="Blocks of each stage.")] = (2, 2, 6, 2)
    num_heads: Annotated[tuple[PositiveInt, ...], Field(description="Attention heads of each stage.")] = (3, 6, 12, 24)
    window_size: Annotated[PositiveInt, Field(description="Patches along each side of an attention window.")] = 8
    drop_path: Annotated[float, Field(ge=0, lt=1, description="Share of residual branches left out in training.")] = 0.1

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        if len(self.depths) != len(self.num_heads):
            raise ValueError(
                f"depths {self.depths} and num_heads {self.num_heads} differ in length. Give both for each stage."
            )
        for stage, heads in enumerate(self.num_heads):
            channels = self.embed_channels * 2**stage
            if channels % heads:
                raise ValueError(
                    f"num_heads {heads} must divide the {channels} channels of stage {stage}. Change either."
                )
        if self.num_samples < 1:
            raise ValueError(f"window_seconds {self.window_seconds} is less than one sample. Raise it.")
        return self

    @property
    def num_samples(self) -> int:
        """Number T of samples of the waveforms that it reads."""
        return round(self.window_seconds * self.log_mel.sample_rate)

    @property
    def img_size(self) -> tuple[int, int]:
        """Mels and frames of the picture that the transformer reads, multiples of `patch_size`.

        Both are rounded up and filled with silence, except that the log-mel's last frame, half of which lies behind the
        end of the sound, does not open a new patch: it is left out where only it would.
        """
        frames = max(1, self.num_samples // self.log_mel.hop_samples)
        return _round_up(self.log_mel.num_mels, self.patch_size), _round_up(frames, self.patch_size)

    @property
    def silence(self) -> float:
        """The log-mel value of silence: the floor of the front end."""
        return (self.log_mel.floor_db - self.log_mel.mean_db) / self.log_mel.std_db


class SwinAudioEncoder(nn.Module):
    """A Swin transformer on one channel; meets `soundguide.models.protocols.AudioEncoder`.

    ``seed`` draws the initial weights; a checkpoint replaces them.
    """

    def __init__(self, config: SwinAudioConfig, *, seed: int = 0) -> None:
        super().__init__()
        try:
            from timm.models.swin_transformer import SwinTransformer
        except ImportError as error:
            raise ImportError("the sound encoder needs the package timm. Install it: pip install timm") from error
        self.config = config
        self.sample_rate = config.log_mel.sample_rate
        self.num_samples = config.num_samples
        self.embed_dim = config.embed_dim
        self.log_mel = LogMel(config.log_mel)
        with torch.random.fork_rng(devices=[]):  # timm draws from the global generator: leave that as it was
            torch.manual_seed(seed)
            self.swin = SwinTransformer(
                img_size=config.img_size,
                patch_size=config.patch_size,
                in_chans=1,
                num_classes=config.embed_dim,
                embed_dim=config.embed_channels,
                depths=config.depths,
                num_heads=config.num_heads,
                window_size=config.window_size,
                drop_path_rate=config.drop_path,
            )

    def encode_audio(self, waveforms: Tensor) -> Tensor:
        """Embed ``waveforms`` ``[B, T]``, mono in [-1, 1] at `sample_rate`, as ``[B, E]`` of unit norm, float32.

        Raises `InvalidAudio` unless T is `num_samples`.
        """
        if waveforms.ndim != 2 or waveforms.shape[1] != self.num_samples:
            raise InvalidAudio(
                f"waveforms must be [B, {self.num_samples}] at {self.sample_rate} Hz, got {list(waveforms.shape)}. "
                "Cut the sound into windows of that length, or pad it with zeros."
            )
        return self.encode_log_mel(self.log_mel(waveforms))

    def encode_log_mel(self, log_mel: Tensor) -> Tensor:
        """Embed the output ``[B, M, F]`` of `log_mel`, perhaps augmented, as ``[B, E]`` of unit norm, float32."""
        mels, frames = self.config.img_size
        missing = (0, frames - log_mel.shape[2], 0, mels - log_mel.shape[1])  # negative: leave frames out
        features: Tensor = self.swin(F.pad(log_mel, missing, value=self.config.silence)[:, None])
        return F.normalize(features.float(), dim=-1)


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit
