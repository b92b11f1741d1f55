"""What a file of another project is, told from its content, and the models in it."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.bounds import Bounds
from soundguide.foreign.imported import Imported
from soundguide.foreign.nvidia import read_nvidia
from soundguide.foreign.record import Record
from soundguide.foreign.rosinality import read_rosinality
from soundguide.foreign.torch_file import checked_size, read_torch_file

KINDS = ("nvidia", "rosinality", "inversion", "ir_se50", "arcface_onnx", "lee", "wav2clip", "audioclip", "clip")
"""What is read; each but ``arcface_onnx`` is told from the names of its tensors."""

_ANY_FILE = Bounds()
_NUM_SHOWN = 5
_MAX_HEADER_BYTES = 4 * 2**20  # of safetensors: a few bytes there become a tensor
_TENSORFLOW_NETWORK = "dnnlib.tflib.network.Network"
_REFUSED = {
    "tensorflow": "a StyleGAN2 of the TensorFlow code. Convert it with legacy.py of NVIDIA's stylegan3 first",
    "clap": "a LAION-CLAP: its sounds lie in a space with texts alone, where no picture can be compared with them. "
    "Import Wav2CLIP, AudioCLIP or the encoder of Lee et al.",
    "imagebind": "an ImageBind, which is not read. Import Wav2CLIP, AudioCLIP or the encoder of Lee et al.",
}


def read_foreign(path: Path, *, kind: str = "", architecture: str = "", bounds: Bounds = _ANY_FILE) -> list[Imported]:
    """Return the models in a checkpoint of another project, the one that it is for first; nothing in it is executed.

    ``kind``: one of `KINDS`, where it is not to be recognised. ``architecture``: of a CLIP, its name in open_clip.
    Raises `InvalidCheckpoint` for a file that is missing, damaged, hostile or of no such kind, and for weights that do
    not fit their architecture, naming key, expected and got.
    """
    if kind not in ("", *KINDS):
        raise InvalidCheckpoint(
            f"{path}: the kind {kind!r:.80} is none of {', '.join(KINDS)}. Correct it or leave it out."
        )
    start = _start(path, bounds)
    if _is_onnx(path, start):
        from soundguide.foreign.face_files import read_arcface_onnx

        return [read_arcface_onnx(path)]
    source = str(path)
    tree = _read_safetensors(path, start) if _is_safetensors(path, start) else read_torch_file(path, bounds=bounds)
    return _read_tree(tree, kind or recognise(tree), source, architecture)


def recognise(tree: object) -> str:
    """Return what a tree read from a file is: one of `KINDS`, or else tensorflow, clap, imagebind or unknown."""
    match tree:
        case (Record(name=name), Record(), Record()) if name == _TENSORFLOW_NETWORK:
            return "tensorflow"
        case {"G_ema": Record()} | Record(state={"_modules": _}):
            return "nvidia"
        case {"g_ema": dict()}:
            return "rosinality"
        case {"state_dict": dict(), "opts": _}:
            return "inversion"
    names = _named(tree).keys()
    signs = {
        "ir_se50": {"input_layer.0.weight", "body.0.res_layer.1.weight", "output_layer.3.weight"} <= names,
        "lee": {"conv.weight", "feature_extractor.conv1.weight"} <= names,
        "wav2clip": any(name.startswith("audio_transform.") for name in names),
        "audioclip": any(name.startswith("audio.fbsp.") for name in names),
        "clap": any(name.startswith("audio_branch.") for name in names),
        "imagebind": any(name.startswith("modality_trunks.") for name in names),
        "clip": "logit_scale" in names and any(name.startswith("visual.") for name in names),
    }
    return next((kind for kind, found in signs.items() if found), "unknown")


def _read_tree(tree: object, kind: str, source: str, architecture: str) -> list[Imported]:
    match kind:
        case "nvidia":
            return [read_nvidia(tree, source)]
        case "rosinality":
            return [read_rosinality(tree, source)]
        case "inversion":
            from soundguide.foreign.inversion_files import read_inversion, read_inversion_generator

            found = [read_inversion(tree, source)]
            if any(name.startswith("decoder.") for name in _named(tree)):
                found.append(read_inversion_generator(tree, source))
            return found
        case "ir_se50":
            from soundguide.foreign.face_files import read_ir_se50

            return [read_ir_se50(_tensors(tree, source), source)]
        case "lee":
            from soundguide.foreign.sound_files import read_lee

            return [read_lee(_tensors(tree, source), source)]
        case "wav2clip":
            from soundguide.foreign.sound_files import read_wav2clip

            return [read_wav2clip(_tensors(tree, source), source)]
        case "audioclip":
            from soundguide.foreign.sound_files import read_audioclip

            return [*read_audioclip(_tensors(tree, source), source)]
        case "clip":
            from soundguide.foreign.clip_files import read_clip

            return [read_clip(_tensors(tree, source), source, architecture=architecture)]
        case other:
            raise InvalidCheckpoint(f"{source}: {_REFUSED.get(other, _unknown(tree))}.")


def _unknown(tree: object) -> str:
    got = f"the names {[*tree][:_NUM_SHOWN]!r:.300}" if isinstance(tree, dict) else type(tree).__name__
    return (
        "no checkpoint that is known. Looked for G_ema (NVIDIA), g_ema (rosinality), state_dict with opts (e4e, pSp), "
        f"and weights as IR-SE50, Lee et al., Wav2CLIP, AudioCLIP and CLIP name them; got {got}. Name another file"
    )


def _tensors(tree: object, source: str) -> dict[str, Tensor]:
    tensors = {}
    for name, value in _named(tree).items():
        if not isinstance(value, Tensor):
            raise InvalidCheckpoint(
                f"{source}: {name!r:.80} expected a tensor, got {type(value).__name__}. Name a file of weights alone."
            )
        tensors[name] = value
    return tensors


def _named(tree: object) -> dict[str, object]:
    """Return what a state dict has, alone or under ``state_dict``, without the prefix that parallel training adds."""
    match tree:
        case {"state_dict": dict(state)} | dict(state):
            named = {name: value for name, value in state.items() if isinstance(name, str)}
        case _:
            return {}
    prefix = "module." if named and all(name.startswith("module.") for name in named) else ""
    return {name.removeprefix(prefix): value for name, value in named.items()}


def _start(path: Path, bounds: Bounds) -> bytes:
    checked_size(path, bounds)
    with path.open("rb") as file:
        return file.read(16)


def _is_onnx(path: Path, start: bytes) -> bool:
    return path.suffix == ".onnx" and start.startswith(b"\x08")  # the version of its layout comes first


def _is_safetensors(path: Path, start: bytes) -> bool:
    return path.suffix == ".safetensors" and start[8:9] == b"{"  # after the length of its JSON


def _read_safetensors(path: Path, start: bytes) -> object:
    header_bytes = int.from_bytes(start[:8], "little")
    if header_bytes > _MAX_HEADER_BYTES:
        raise InvalidCheckpoint(
            f"{path}: no safetensors file that is read, its header has {header_bytes} bytes and at most "
            f"{_MAX_HEADER_BYTES} are expected. Download it again."
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InvalidCheckpoint(f"{path}: no safetensors file ({error}). Download it again.") from error
