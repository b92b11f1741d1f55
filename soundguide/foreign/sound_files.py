"""The sound encoders of Lee et al. (CVPR 2022), Wav2CLIP and AudioCLIP, from the tensors of their files."""

from collections.abc import Mapping

from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.clip_files import name_in_open_clip
from soundguide.foreign.imported import Imported
from soundguide.foreign.renamed import build_renamed
from soundguide.models.audioclip import AudioClipConfig, AudioClipEncoder
from soundguide.models.image_text import OpenClipConfig, OpenClipEncoder
from soundguide.models.lee_audio import LeeAudioConfig, LeeAudioEncoder
from soundguide.models.wav2clip import Wav2ClipConfig, Wav2ClipEncoder

_OF_TRAINING_WAV2CLIP = frozenset(
    {
        # The other half of the two-way loss, from CLIP's embedding of a frame back to the sound's: unused afterwards
        "image_transform.sequential.0.weight",
        "image_transform.sequential.0.bias",
        "image_transform.sequential.3.weight",
        "image_transform.sequential.3.bias",
        # Temperatures of the two losses
        "loss_fn.logit_scale",
        "loss_fn_a.logit_scale",
        "loss_fn_i.logit_scale",
        # A classifier that the network was built with and never ran
        "audio_encoder.fc.weight",
        "audio_encoder.fc.bias",
    }
)
_NO_BIAS = "audio.fbsp.bias"  # torch makes an empty tensor of a parameter that is left out
_OF_TRAINING_AUDIOCLIP = frozenset({"logit_scale_ai", "logit_scale_at"})  # temperatures of its losses with sounds


def read_lee(tensors: Mapping[str, object], source: str) -> Imported:
    """Read the 124 tensors of ``resnet18.pth`` or ``resnet18_57.pth``, with or without ``module.`` before each name.

    The embeddings pair with CLIP ViT-B/32. Raises `InvalidCheckpoint` where names or shapes are others.
    """
    config = LeeAudioConfig()
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    module = build_renamed(lambda: LeeAudioEncoder(config), tensors, lambda name: prefix + name, source=source)
    return Imported("audio", module, config, {"layout": "lee_resnet18", "pairs_with": "CLIP ViT-B/32"})


def read_wav2clip(tensors: Mapping[str, object], source: str) -> Imported:
    """Read ``Wav2CLIP.pt``; what only its training used is left out.

    The embeddings pair with CLIP ViT-B/32. Raises `InvalidCheckpoint` where names or shapes are others.
    """
    config = Wav2ClipConfig()
    used = {name: value for name, value in tensors.items() if name not in _OF_TRAINING_WAV2CLIP}
    module = build_renamed(lambda: Wav2ClipEncoder(config), used, _name_in_wav2clip, source=source)
    return Imported("audio", module, config, {"layout": "wav2clip", "pairs_with": "CLIP ViT-B/32"})


def read_audioclip(tensors: Mapping[str, object], source: str) -> tuple[Imported, Imported]:
    """Read ``AudioCLIP-Partial-Training.pt``: its sound tower, and the CLIP RN50 beside it into whose space it hears.

    The fully trained file has the same layout, but moved away from the space of OpenAI's RN50: then the two models of
    one file belong together. Raises `InvalidCheckpoint` where names or shapes are others.
    """
    bias = tensors.get(_NO_BIAS)
    if isinstance(bias, Tensor) and bias.numel():
        raise InvalidCheckpoint(
            f"{source}: {_NO_BIAS}: expected [0], got {list(bias.shape)}. Name a file of the released network."
        )
    used = {name: value for name, value in tensors.items() if name not in _OF_TRAINING_AUDIOCLIP | {_NO_BIAS}}
    heard = {name: value for name, value in used.items() if name.startswith("audio.")}
    seen = {name: value for name, value in used.items() if name not in heard}
    sound, clip = AudioClipConfig(), OpenClipConfig(architecture="RN50", quick_gelu=True)  # OpenAI's own weights
    sound_tower = build_renamed(lambda: AudioClipEncoder(sound), heard, _name_in_audioclip, source=source)
    towers = build_renamed(lambda: OpenClipEncoder(clip), seen, name_in_open_clip, source=source)
    return (
        Imported("audio", sound_tower, sound, {"layout": "audioclip", "pairs_with": "the CLIP RN50 of its file"}),
        Imported("image_text", towers, clip, {"layout": "audioclip"}),
    )


def _name_in_wav2clip(name: str) -> str:
    for ours, theirs in (
        ("window", "audio_encoder.spectrogram.window"),
        ("resnet.", "audio_encoder."),
        ("transform.0.", "audio_transform.sequential.0."),
        ("transform.2.", "audio_transform.sequential.3."),  # dropout stands between them
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise AssertionError(name)


def _name_in_audioclip(name: str) -> str:
    return "audio." + name.removeprefix("resnext.")
