"""The face detector in the folder of a face encoder: SCRFD of insightface, an ONNX file with landmarks."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.onnx_file import read_onnx
from soundguide.models.fetch import file_sha256
from soundguide.models.manifest import CONFIG_FILE, DETECTOR_FILE, read_config, resolve_model
from soundguide.storage import Storage

if TYPE_CHECKING:
    from insightface.model_zoo.scrfd import SCRFD

_kept: dict[tuple[str, str], SCRFD] = {}
_kept_lock = threading.Lock()


def load_detector(path: Path, sha256: str, *, num_threads: int) -> SCRFD:
    """Return insightface's detector with the weights in an ONNX file, on the CPU.

    Raises `InvalidCheckpoint` for another file than that of ``sha256``, one that does not stand alone (`read_onnx`), or
    one that gives no landmarks.
    """
    if (found := file_sha256(path)) != sha256:
        raise InvalidCheckpoint(
            f"{path}: expected the face detector of SHA-256 {sha256}, got {found or 'no file'}. Copy the model again."
        )
    check_detector(path)
    try:
        import onnxruntime
        from insightface.model_zoo.scrfd import SCRFD
    except ImportError as error:
        raise ImportError(
            "face detection needs the package insightface. Install the extra: pip install 'soundguide[identity]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = num_threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # one picture per edit: let others work
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return SCRFD(model_file=str(path), session=session)


def kept_detector(encoder: str, sha256: str, storage: Storage) -> SCRFD:
    """Return the detector of a face encoder, named as in a config, loaded once in a process.

    It computes on one thread: where a face lies must not depend on how many there are. Raises what `resolve_model` and
    `load_detector` raise.
    """
    with _kept_lock:
        detector = _kept.get((encoder, sha256))
        if detector is None:
            folder = resolve_model(encoder, "identity", storage)
            detector = _kept[encoder, sha256] = load_detector(folder / DETECTOR_FILE, sha256, num_threads=1)
        return detector


def check_detector(path: Path) -> None:
    """Raise `InvalidCheckpoint` unless an ONNX file stands alone and has the outputs of SCRFD with landmarks.

    For each of three or five scales: scores, boxes, landmarks.
    """
    outputs = read_onnx(path).graph.output
    if len(outputs) not in (9, 15):
        raise InvalidCheckpoint(
            f"{path}: expected 9 or 15 outputs, scores, boxes and landmarks of each scale, got {len(outputs)}. Use a "
            "detector of insightface with landmarks, such as det_10g.onnx."
        )


def add_detector(folder: Path, detector: Path) -> None:
    """Put a face detector, an ONNX file, into the folder of a face encoder, which uses it from then on.

    Raises `InvalidCheckpoint` where the folder holds no face encoder, or the file is no detector (`check_detector`).
    """
    config = read_config(folder)
    if not isinstance(config.get("alignment"), dict):
        raise InvalidCheckpoint(f"{folder}: of kind {config['kind']!r}, expected a face encoder. Name such a folder.")
    check_detector(detector)
    storage = Storage()
    storage.write_bytes(str(folder / DETECTOR_FILE), detector.read_bytes())
    config["alignment"]["detector_sha256"] = file_sha256(folder / DETECTOR_FILE)
    storage.write_bytes(str(folder / CONFIG_FILE), json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n")
