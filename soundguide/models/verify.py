"""Does a model folder hold a model that works? Its hash, every tensor, and one forward pass."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.models.checkpoint import LoadedModel, load_model
from soundguide.models.manifest import ROLE_OF_KIND
from soundguide.models.protocols import AudioEncoder, Generator, IdentityEncoder, ImageTextEncoder

_FACE_SIZE = 256  # pixels; the encoders of faces and codes resize by themselves


def verify_model(folder: Path) -> LoadedModel:
    """Return a model after a strict load and one forward pass on the CPU with a fixed input.

    Raises `InvalidCheckpoint` for a hash, name, shape or number that is wrong.
    """
    loaded = load_model(folder, device="cpu")
    with torch.no_grad():
        outputs = _forward(loaded)
    for name, values in outputs.items():
        if not bool(values.isfinite().all()):
            raise InvalidCheckpoint(f"{folder}: {name} has numbers that are not finite. Import the model again.")
    return loaded


def _forward(loaded: LoadedModel) -> dict[str, Tensor]:
    noise = torch.Generator().manual_seed(0)
    match ROLE_OF_KIND[loaded.config.kind]:
        case "generator":
            generator = cast(Generator, loaded.module)
            ws = generator.map(torch.randn(1, generator.z_dim, generator=noise))
            return {"its code": ws, "its picture": generator.synthesize(ws)}
        case "image_text":
            clip = cast(ImageTextEncoder, loaded.module)
            image = torch.rand(1, 3, clip.resolution, clip.resolution, generator=noise) * 2 - 1
            return {"the embedding of a picture": clip.encode_image(image), "of a text": clip.encode_text(["rain"])}
        case "audio":
            audio = cast(AudioEncoder, loaded.module)
            waveform = torch.randn(1, audio.num_samples, generator=noise) / 10
            return {"the embedding of a sound": audio.encode_audio(waveform)}
        case "identity":
            face = torch.rand(1, 3, _FACE_SIZE, _FACE_SIZE, generator=noise) * 2 - 1
            return {"the embedding of a face": cast(IdentityEncoder, loaded.module).encode_identity(face)}
        case role:
            raise AssertionError(f"load_model built a {role}, which nothing here asks")
