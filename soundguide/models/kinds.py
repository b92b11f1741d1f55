"""Every kind of model that a folder can hold: what its ``config.json`` says, and the module that it builds."""

from collections.abc import Callable, Mapping

from soundguide.models.arcface import ArcFaceConfig, ArcFaceEncoder
from soundguide.models.arcface_graph import ArcFaceGraph, ArcFaceGraphConfig
from soundguide.models.audio_encoder import SwinAudioConfig, SwinAudioEncoder
from soundguide.models.audioclip import AudioClipConfig, AudioClipEncoder
from soundguide.models.image_text import OpenClipConfig, OpenClipEncoder
from soundguide.models.inversion_encoder import InversionEncoder, InversionEncoderConfig
from soundguide.models.lee_audio import LeeAudioConfig, LeeAudioEncoder
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config
from soundguide.models.stylegan3 import StyleGAN3, StyleGAN3Config
from soundguide.models.wav2clip import Wav2ClipConfig, Wav2ClipEncoder

GeneratorConfig = StyleGAN2Config | StyleGAN3Config
GeneratorModel = StyleGAN2 | StyleGAN3
GENERATORS: tuple[type[GeneratorModel], ...] = (StyleGAN2, StyleGAN3)

AudioConfig = SwinAudioConfig | LeeAudioConfig | Wav2ClipConfig | AudioClipConfig
AudioModel = SwinAudioEncoder | LeeAudioEncoder | Wav2ClipEncoder | AudioClipEncoder
AUDIO_ENCODERS: tuple[type[AudioModel], ...] = (SwinAudioEncoder, LeeAudioEncoder, Wav2ClipEncoder, AudioClipEncoder)
FaceModel = ArcFaceEncoder | ArcFaceGraph
FACE_ENCODERS: tuple[type[FaceModel], ...] = (ArcFaceEncoder, ArcFaceGraph)

ModelConfig = (
    GeneratorConfig | OpenClipConfig | AudioConfig | ArcFaceConfig | ArcFaceGraphConfig | InversionEncoderConfig
)
Model = GeneratorModel | OpenClipEncoder | AudioModel | FaceModel | InversionEncoder

KINDS: Mapping[str, tuple[type[ModelConfig], Callable[..., Model]]] = {
    "stylegan2": (StyleGAN2Config, StyleGAN2),
    "stylegan3": (StyleGAN3Config, StyleGAN3),
    "open_clip": (OpenClipConfig, OpenClipEncoder),
    "swin_audio": (SwinAudioConfig, SwinAudioEncoder),
    "lee_resnet18": (LeeAudioConfig, LeeAudioEncoder),
    "wav2clip": (Wav2ClipConfig, Wav2ClipEncoder),
    "audioclip": (AudioClipConfig, AudioClipEncoder),
    "arcface": (ArcFaceConfig, ArcFaceEncoder),
    "arcface_graph": (ArcFaceGraphConfig, ArcFaceGraph),
    "inversion_encoder": (InversionEncoderConfig, InversionEncoder),
}
"""By the name in ``config.json``."""
