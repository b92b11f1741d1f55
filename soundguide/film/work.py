"""The work folder beside a film: what a run that was stopped has finished, so that the next one goes on."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from soundguide.config import EditSettings, Frozen
from soundguide.errors import InvalidLatent, OutputConflict
from soundguide.latents import decode_latent, encode_latent
from soundguide.storage import Storage, join_uri

Code = NDArray[np.float32]

_RECORD = "film.json"
_START = "source"


class KeyOrigin(Frozen):
    """What the key codes of a film follow from; a film that changes any of it has other key codes."""

    song_sha256: str
    source: Annotated[str, Field(description="The seed, or the SHA-256 of the photo or of the code file.")]
    segment_seconds: float
    settings: EditSettings
    models: Annotated[dict[str, str], Field(description="SHA-256 of each model's weights, by role.")]
    version: Annotated[str, Field(description="Of this package.")]


class WorkFolder:
    """The folder ``uri`` of a film: the source's code and the key codes, each written whole, of one `KeyOrigin` alone.

    Every key code names the SHA-256 of the code that it started from: one that was changed, or whose forerunner was,
    counts as missing. Raises `OutputConflict` where the folder belongs to another config.
    """

    def __init__(self, uri: str, config: KeyOrigin, storage: Storage = Storage()) -> None:  # noqa: B008 - frozen
        self.uri, self._config, self._storage = uri, config, storage
        record = join_uri(uri, _RECORD)
        self._begun = self._storage.exists(record)
        if self._begun:
            self._require_own(record)

    def _require_own(self, record: str) -> None:
        try:
            found = KeyOrigin.model_validate_json(self._storage.read_bytes(record))
        except ValidationError as error:
            raise OutputConflict(
                f"{record} is no record of a film's key codes. Delete the folder {self.uri}, or choose another output."
            ) from error
        changed = _differences(found, self._config)
        if changed:
            raise OutputConflict(
                f"{self.uri} holds key codes that were made with other options ({', '.join(changed)}). Give the "
                "options of before to go on; or delete the folder, or choose another output, to begin anew."
            )

    def read_source(self, *, num_ws: int, w_dim: int) -> Code | None:
        """Return the source's code ``[L, D]``, None where it is not there yet."""
        return self._read(_START, "", num_ws, w_dim)

    def write_source(self, code: Code) -> None:
        """Keep the source's code ``[L, D]``, which may have been long to find."""
        self._write(_START, code, "")

    def read_key(self, index: int, before: Code) -> Code | None:
        """Return key code ``index`` ``[L, D]`` where it is there and started from ``before``; None otherwise."""
        return self._read(_name(index), _digest(before), *before.shape)

    def write_key(self, index: int, code: Code, before: Code) -> None:
        """Keep key code ``index`` ``[L, D]``, which started from ``before``."""
        self._write(_name(index), code, _digest(before))

    def remove(self) -> None:
        """Remove the folder and all in it."""
        self._storage.remove_folder(self.uri)

    def _read(self, name: str, before: str, num_ws: int, w_dim: int) -> Code | None:
        uri = self._file(name)
        if not self._storage.exists(uri):
            return None
        data = self._storage.read_bytes(uri)
        try:
            code = decode_latent(data, num_ws=num_ws, w_dim=w_dim)
        except InvalidLatent:
            return None
        return code if encode_latent(code, metadata=self._facts(code, before)) == data else None

    def _write(self, name: str, code: Code, before: str) -> None:
        if not self._begun:  # not before there is something to keep: what fails before leaves nothing in the way
            self._storage.write_bytes(join_uri(self.uri, _RECORD), self._config.model_dump_json(indent=2).encode())
            self._begun = True
        self._storage.write_bytes(self._file(name), encode_latent(code, metadata=self._facts(code, before)))

    def _file(self, name: str) -> str:
        return join_uri(self.uri, f"{name}.safetensors")

    def _facts(self, code: Code, before: str) -> dict[str, str]:
        facts = {"config": self._config.digest(), "sha256": _digest(code), "started_from": before}
        return {"soundguide": json.dumps(facts, sort_keys=True)}


def _name(index: int) -> str:
    return f"key-{index:05d}"


def _digest(code: Code) -> str:
    return hashlib.sha256(np.ascontiguousarray(code, "<f4").tobytes()).hexdigest()


def _differences(found: KeyOrigin, wanted: KeyOrigin) -> list[str]:
    """Return the names of the fields in which two configs differ, those of the settings as they are given."""
    before, after = found.model_dump(), wanted.model_dump()
    settings = [name for name, value in before["settings"].items() if after["settings"][name] != value]
    return [name for name in before if name != "settings" and before[name] != after[name]] + settings
