"""How the packaged models of each world were trained: their sizes and the lengths of their trainings."""

from collections.abc import Mapping
from dataclasses import dataclass

from soundguide.miniature.domain import Domain
from soundguide.miniature.faces.domain import FACES
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.train_audio import AUDIO, NUM_CLIPS
from soundguide.miniature.train_generator import GENERATOR
from soundguide.miniature.train_image_text import IMAGE_TEXT
from soundguide.models.audio_encoder import SwinAudioConfig
from soundguide.models.image_text import OpenClipConfig
from soundguide.models.manifest import Role
from soundguide.models.stylegan2 import StyleGAN2Config


@dataclass(frozen=True, slots=True)
class Recipe:
    """One world's models. ``num_clips``: sounds synthesised to train on; ``steps``: of each training."""

    domain: Domain
    generator: StyleGAN2Config
    image_text: OpenClipConfig
    audio: SwinAudioConfig
    num_clips: int
    steps: Mapping[Role, int]


LANDSCAPE_RECIPE = Recipe(
    LANDSCAPE,
    GENERATOR,
    IMAGE_TEXT,
    AUDIO,
    NUM_CLIPS,
    {"generator": 8000, "image_text": 2000, "audio": 5800, "reader": 1500},
)

FACES_RECIPE = Recipe(
    FACES,
    GENERATOR,
    OpenClipConfig(
        model_config_json={
            "embed_dim": 128,
            "vision_cfg": {"image_size": 64, "layers": (1, 1, 1, 1), "width": 12},
            "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2},
        },
    ),
    AUDIO.model_copy(update={"embed_channels": 64, "depths": (2, 2)}),
    3600,
    {"generator": 5000, "image_text": 2500, "audio": 1800, "reader": 1200, "identity": 1200},
)


def recipe_of(world: str) -> Recipe:
    """Return the recipe of the world 'landscape' or 'faces'."""
    return FACES_RECIPE if world == "faces" else LANDSCAPE_RECIPE
