"""Models that lie in an object store, fetched once by a machine that needs them, however many processes do."""

import hashlib
import os
import shutil
import uuid
from pathlib import Path

from filelock import FileLock

from soundguide.errors import InvalidCheckpoint, InvalidConfig, SourceNotFound
from soundguide.models.manifest import CONFIG_FILE, DETECTOR_FILE, WEIGHTS_FILE, detector_sha256, parse_config
from soundguide.storage import Storage, join_uri

CACHE_VARIABLE = "SOUNDGUIDE_CACHE"
_CHUNK = 4 * 2**20


def cache_folder() -> Path:
    """Return where this machine keeps models: the variable SOUNDGUIDE_CACHE, or ``~/.cache/soundguide``."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "soundguide"


def fetch_model(uri: str, storage: Storage) -> Path:
    """Return a local folder with the model in the folder ``uri``, fetched unless this machine has it.

    The first process fetches and the others wait. A model is kept under the hash of its config, which holds that of its
    weights; weights that differ from it are never kept, and fetched again where they changed on the disk.

    Raises:
        InvalidCheckpoint: no model lies there, or its weights are damaged.
        InvalidConfig: the cache cannot be written.
    """
    try:
        text = storage.read_bytes(join_uri(uri, CONFIG_FILE))
    except SourceNotFound as error:
        raise InvalidCheckpoint(
            f"{uri}: no model there ({error}). Name a folder with {CONFIG_FILE} and {WEIGHTS_FILE}."
        ) from error
    config = parse_config(text, join_uri(uri, CONFIG_FILE))
    files = {WEIGHTS_FILE: str(config["weights_sha256"]), DETECTOR_FILE: detector_sha256(config)}
    folder = cache_folder() / "models" / hashlib.sha256(text).hexdigest()[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            wrong = [name for name, expected in files.items() if file_sha256(folder / name) != expected]
            for name in wrong:
                _fetch_file(join_uri(uri, name), storage, folder / name, files[name])
            if wrong or not (folder / CONFIG_FILE).is_file():
                Storage().write_bytes(str(folder / CONFIG_FILE), text)  # last: with it the model is whole
    except OSError as error:
        raise InvalidConfig(
            f"{folder}: the model {uri} cannot be kept there ({error.strerror or error}). Make room, or set "
            f"{CACHE_VARIABLE} to another folder."
        ) from error
    return folder


def _fetch_file(uri: str, storage: Storage, target: Path, expected: str) -> None:
    part = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with storage.open(uri) as source, part.open("wb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
        found = file_sha256(part)
        if found != expected:
            raise InvalidCheckpoint(
                f"{uri}: damaged or exchanged, expected SHA-256 {expected}, got {found}. Copy or save the model again."
            )
        os.replace(part, target)
    except SourceNotFound as error:
        raise InvalidCheckpoint(f"{uri}: missing ({error}). Copy the model again.") from error
    finally:
        part.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file; "" where there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
