"""Does a model folder hold a model that works? Its hash, every tensor, and one forward pass."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.models.checkpoint import LoadedModel, load_model
from soundguide.models.fetch import file_sha256
from soundguide.models.manifest import DETECTOR_FILE, ROLE_OF_KIND, detector_sha256, read_config
from soundguide.models.protocols import AudioEncoder, Generator, IdentityEncoder, ImageTextEncoder, Inverter

_PHOTO_SIZE = 256  # pixels; an inversion encoder resizes by itself


def verify_model(folder: Path) -> LoadedModel:
    """Return a model after a strict load and one forward pass on the CPU with a fixed input.

    Raises `InvalidCheckpoint` for a hash, name, shape or number that is wrong.
    """
    loaded = load_model(folder, device="cpu")
    expected = detector_sha256(read_config(folder))
    if expected and (found := file_sha256(folder / DETECTOR_FILE)) != expected:
        raise InvalidCheckpoint(
            f"{folder / DETECTOR_FILE}: damaged or exchanged, expected SHA-256 {expected}, got {found or 'no file'}. "
            "Import the model again."
        )
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
            faces = cast(IdentityEncoder, loaded.module)
            face = torch.rand(1, 3, faces.resolution, faces.resolution, generator=noise) * 2 - 1
            return {"the embedding of a face": faces.encode_identity(face)}
        case "inverter":
            photo = torch.rand(1, 3, _PHOTO_SIZE, _PHOTO_SIZE, generator=noise) * 2 - 1
            return {"the code of a photo": cast(Inverter, loaded.module).invert(photo)}
        case role:
            raise AssertionError(f"load_model built a {role}, which nothing here asks")
