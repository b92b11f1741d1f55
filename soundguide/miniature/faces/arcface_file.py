"""The face world's identity encoder as a file: an ONNX network for insightface, and what its import makes of it."""

from pathlib import Path

from soundguide.foreign.face_files import read_arcface_onnx
from soundguide.foreign.onnx_export import write_arcface_onnx
from soundguide.models.arcface import ArcFaceEncoder
from soundguide.models.arcface_graph import ArcFaceGraphConfig
from soundguide.models.checkpoint import save_model

ONNX_FILE = "arcface.onnx"


def save_identity(folder: Path, encoder: ArcFaceEncoder, *, made_by: str) -> str:
    """Write `ONNX_FILE` beside ``folder``, and into ``folder`` the model that this file is imported as.

    So edits take the way that users' own ArcFace files take. Returns the SHA-256 of the weights in ``folder``.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / ONNX_FILE
    write_arcface_onnx(encoder, path)
    found = read_arcface_onnx(path)
    assert isinstance(found.config, ArcFaceGraphConfig)
    config = found.config.model_copy(update={"alignment": encoder.config.alignment})
    return save_model(folder, found.module, config, half=True, made_by=made_by, extra=found.extra)
