"""A checkpoint of another project made into models of ours, with names, in the home."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soundguide.errors import InvalidConfig
from soundguide.models.checkpoint import save_model
from soundguide.models.home import HOME_VARIABLE, home_folder, require_free
from soundguide.models.import_options import ImportOptions
from soundguide.models.manifest import Role

if TYPE_CHECKING:
    from soundguide.foreign.imported import Imported

_CHUNK = 4 * 2**20


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """A model that now lies in the home under ``name``."""

    name: str
    role: Role
    folder: Path


def import_file(
    path: Path,
    name: str,
    options: ImportOptions,
    *,
    overwrite: bool = False,
    on_bytes: Callable[[int], None] | None = None,
) -> list[ImportedModel]:
    """Read a foreign checkpoint without executing anything, and keep its models in the home.

    The first is called ``name``; others in the same file are called after it and their role, like ``NAME-generator``.
    What ``options`` say of a generator's pictures stands over what the file says. ``overwrite``: over models that have
    these names. ``on_bytes`` hears of the bytes that were hashed.

    Raises:
        InvalidConfig: the name is none, or taken; the options do not suit the file; nothing can be written.
        InvalidCheckpoint: the file is of no kind that is known, damaged, or does not fit its architecture.
    """
    require_free(name, overwrite=overwrite)
    source = {"file": path.name, "sha256": _sha256(path, on_bytes), "bytes": path.stat().st_size}
    from soundguide.foreign.recognise import read_foreign

    found = read_foreign(path, kind=options.kind, architecture=options.architecture)
    named = {name if index == 0 else f"{name}-{each.role.replace('_', '-')}": each for index, each in enumerate(found)}
    for each_name in named:
        require_free(each_name, overwrite=overwrite)
    if options.domain and all(each.role != "generator" for each in found):
        raise InvalidConfig(f"{path}: holds no generator, but --crop or --alignment was given. Leave it out.")
    _check_detector(options.detector, found, path)
    made_by = " ".join(["soundguide models import", path.name, "-o", name, *options.flags])
    for each_name, each in named.items():
        extra = {**each.extra, "source": source}
        if each.role == "generator" and options.domain:
            extra["domain"] = {**extra.get("domain", {}), **options.domain}
        _save(each, home_folder(each_name), made_by=made_by, extra=extra, detector=options.detector)
    return [ImportedModel(each_name, each.role, home_folder(each_name)) for each_name, each in named.items()]


def _check_detector(detector: str, found: list[Imported], path: Path) -> None:
    if not detector:
        return
    from soundguide.face_detector import check_detector

    if all(each.role != "identity" for each in found):
        raise InvalidConfig(f"{path}: holds no face encoder, but --detector was given. Leave it out.")
    check_detector(Path(detector))


def _save(model: Imported, folder: Path, *, made_by: str, extra: dict[str, Any], detector: str) -> None:
    try:
        save_model(folder, model.module, model.config, half=False, made_by=made_by, extra=extra)
        if detector and model.role == "identity":
            from soundguide.face_detector import add_detector

            add_detector(folder, Path(detector))
    except OSError as error:
        raise InvalidConfig(
            f"{folder}: the model cannot be kept there ({error.strerror or error}). Make room, or set {HOME_VARIABLE} "
            "to another folder."
        ) from error


def _sha256(path: Path, on_bytes: Callable[[int], None] | None) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                if on_bytes is not None:
                    on_bytes(len(chunk))
    except OSError as error:
        raise InvalidConfig(f"{path}: cannot be read ({error.strerror}). Name a checkpoint file.") from error
    return digest.hexdigest()
