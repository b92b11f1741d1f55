"""Every kind of model that a folder can hold: what its ``config.json`` says, and the module that it builds."""

from collections.abc import Callable, Mapping
from typing import Any

from soundguide.models.audio_encoder import SwinAudioConfig, SwinAudioEncoder
from soundguide.models.audioclip import AudioClipConfig, AudioClipEncoder
from soundguide.models.image_text import OpenClipConfig, OpenClipEncoder
from soundguide.models.inversion_encoder import InversionEncoder, InversionEncoderConfig
from soundguide.models.lee_audio import LeeAudioConfig, LeeAudioEncoder
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config
from soundguide.models.wav2clip import Wav2ClipConfig, Wav2ClipEncoder

AudioConfig = SwinAudioConfig | LeeAudioConfig | Wav2ClipConfig | AudioClipConfig
AudioModel = SwinAudioEncoder | LeeAudioEncoder | Wav2ClipEncoder | AudioClipEncoder
AUDIO_ENCODERS: tuple[type[AudioModel], ...] = (SwinAudioEncoder, LeeAudioEncoder, Wav2ClipEncoder, AudioClipEncoder)

ModelConfig = StyleGAN2Config | OpenClipConfig | AudioConfig | InversionEncoderConfig
Model = StyleGAN2 | OpenClipEncoder | AudioModel | InversionEncoder

KINDS: Mapping[str, tuple[type[ModelConfig], Callable[[Any], Model]]] = {
    "stylegan2": (StyleGAN2Config, StyleGAN2),
    "open_clip": (OpenClipConfig, OpenClipEncoder),
    "swin_audio": (SwinAudioConfig, SwinAudioEncoder),
    "lee_resnet18": (LeeAudioConfig, LeeAudioEncoder),
    "wav2clip": (Wav2ClipConfig, Wav2ClipEncoder),
    "audioclip": (AudioClipConfig, AudioClipEncoder),
    "inversion_encoder": (InversionEncoderConfig, InversionEncoder),
}
"""By the name in ``config.json``."""
