"""What happens to an edit before and after the manipulator: prepare (fetch, decode, check) and finish (encode, write).

Both work row by row without torch, so that any cheap worker can do them. `InvalidEdit` becomes an error column here and
in the manipulator, nowhere else; all other exceptions stop the program.
"""

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from soundguide import __version__
from soundguide.audio.decode import AudioLimits, iter_audio
from soundguide.config import EditSettings, Frozen, require_layers
from soundguide.errors import InvalidAudio, InvalidEdit, InvalidSettings
from soundguide.images import ImageLimits, Pixels, encode_png
from soundguide.latents import MAX_LATENT_MIB, decode_latent, encode_latent
from soundguide.manifest import OVERRIDES
from soundguide.model_facts import ModelFacts
from soundguide.photos import read_photo
from soundguide.records import EditRequest, EditResult, ManipulatedEdit, PreparedEdit, Row
from soundguide.storage import Storage, escape_id, join_uri
from soundguide.tables import (
    MEASURES,
    prepared_row,
    prepared_table,
    raw_request,
    result_table,
    status_of,
    unprepared_row,
)
from soundguide.validation import describe

_MIB = 2**20

_NUM_VERDICTS = 4096
_verdicts: OrderedDict[tuple[str, int, AudioLimits], str] = OrderedDict()


class SourceLimits(Frozen):
    """What one row's sources may cost."""

    max_sound_mib: Annotated[int, Field(ge=1, description="Size of a sound file, MiB.")] = 512
    max_sound_seconds: Annotated[float, Field(gt=0, description="Length of a sound, seconds.")] = 4 * 3600.0
    min_sound_seconds: Annotated[float, Field(gt=0, description="Shortest sound, seconds.")] = 0.1
    max_image_mib: Annotated[int, Field(ge=1, description="Size of a picture file, MiB.")] = 64
    max_image_pixels: Annotated[int, Field(ge=1, description="Pixels of a picture, width times height.")] = 64_000_000

    @property
    def audio(self) -> AudioLimits:
        """The limits as the sound decoder takes them."""
        return AudioLimits(self.max_sound_mib * _MIB, self.max_sound_seconds, self.min_sound_seconds)

    @property
    def image(self) -> ImageLimits:
        """The limits as the picture decoder takes them."""
        return ImageLimits(max_bytes=self.max_image_mib * _MIB, max_pixels=self.max_image_pixels)


@dataclass(frozen=True, slots=True)
class EditPreparer:
    """Turns manifest rows into prepared edits; small, sent to workers. ``settings`` are what rows may override.

    ``on_read`` hears of the bytes of each source that was read.
    """

    facts: ModelFacts
    settings: EditSettings = EditSettings()
    storage: Storage = Storage()
    limits: SourceLimits = SourceLimits()
    on_read: Callable[[int], None] | None = None

    def read_request(self, row: Row) -> EditRequest:
        """Return the request of a manifest row; blank values are not given. Raises `InvalidEdit`."""
        _check_id(row["id"])
        given = _given(row)
        settings = self.settings.override({name: given[name] for name in OVERRIDES if name in given})
        sources = {name: given[name] for name in ("id", "audio", "image", "seed", "latent") if name in given}
        try:
            return EditRequest(**sources, settings=settings)
        except ValidationError as exc:
            raise InvalidSettings(describe(exc, "row", of=EditRequest)) from exc

    def fetch(self, request: EditRequest) -> PreparedEdit:
        """Read the sources that a request names, and check them. Raises `InvalidEdit`."""
        limits = self.limits
        sound = self._read(request.audio, limits.max_sound_mib * _MIB)
        photo = self._read(request.image, limits.max_image_mib * _MIB)
        latent = self._read(request.latent, MAX_LATENT_MIB * _MIB)
        return self.check(request.id, request.settings, sound=sound, seed=request.seed, photo=photo, latent=latent)

    def check(
        self,
        id: str,
        settings: EditSettings,
        *,
        sound: bytes | None = None,
        seed: int | None = None,
        photo: bytes | None = None,
        latent: bytes | None = None,
    ) -> PreparedEdit:
        """Check settings and files of one edit (None: not given), and decode picture or code. Raises `InvalidEdit`."""
        require_layers(settings.mix_layers, self.facts.num_ws)
        sound_sha256 = ""
        if sound is not None:
            sound_sha256 = hashlib.sha256(sound).hexdigest()
            _check_sound(sound, sound_sha256, self.facts.sample_rate, self.limits.audio)
        pixels: Pixels | None = None
        note = ""
        code: NDArray[np.float32] | None = None
        if photo is not None:
            pixels, note = read_photo(photo, self.facts, self.limits.image, self.storage, align=settings.align)
        elif latent is not None:
            code = decode_latent(latent, num_ws=self.facts.num_ws, w_dim=self.facts.w_dim)
        source = photo if photo is not None else latent
        source_sha256 = "" if source is None else hashlib.sha256(source).hexdigest()
        return PreparedEdit(id, settings, sound or b"", sound_sha256, seed, pixels, code, source_sha256, note)

    def prepare(self, row: Row) -> Row:
        """Return the row of `tables.PREPARED_SCHEMA` of a manifest row; what is wrong with it becomes its error."""
        request = raw_request(_given(row))
        try:
            edit = self.read_request(row)
            request = edit.model_dump_json()
            return prepared_row(self.fetch(edit), request=request)
        except InvalidEdit as error:
            return unprepared_row(row["id"], request=request, error=error)

    def prepare_table(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Prepare a table of manifest rows, yielding one row at a time: long recordings never pile up here."""
        for row in batch.to_pylist():
            yield prepared_table([self.prepare(row)])

    def refuse(self, batch: pa.Table, error: InvalidEdit) -> pa.Table:
        """Return rows that were not prepared, because of ``error``."""
        rows = batch.to_pylist()
        return prepared_table(unprepared_row(row["id"], request=raw_request(_given(row)), error=error) for row in rows)

    def _read(self, uri: str, max_bytes: int) -> bytes | None:
        if not uri:
            return None
        data = self.storage.read_bytes(uri, max_bytes=max_bytes)
        if self.on_read is not None:
            self.on_read(len(data))
        return data


@dataclass(frozen=True, slots=True)
class EditFinisher:
    """Writes the files of manipulated edits under the folder `output` and returns their results.

    ``models``: SHA-256 of the models' weights, by role, for the provenance that pictures and codes carry.
    ``on_written`` hears of the bytes of each file.
    """

    output: str
    models: tuple[tuple[str, str], ...]
    storage: Storage = Storage()
    on_written: Callable[[int], None] | None = None

    def finish(self, row: Row, also: Row | None = None) -> EditResult:
        """Write picture, source and code of a row of `tables.MANIPULATED_SCHEMA`, and return its result.

        ``also``: what the files' provenance says beside the result.
        """
        result = self._describe(row)
        if row["error"]:
            return result
        result = EditResult.model_validate({**result.model_dump(), **{name: row[name] for name in MEASURES}})
        edit = ManipulatedEdit.from_row(row)
        name = escape_id(edit.id)
        paths = {
            "edited_image": f"images/{name}.png",
            "source_image": f"sources/{name}.png",
            "edited_latent": f"latents/{name}.safetensors",
        }
        metadata = {"soundguide": provenance(result, also)}
        files = (
            encode_png(edit.image, metadata=metadata),
            encode_png(edit.source, metadata=metadata),
            encode_latent(edit.ws, metadata=metadata),
        )
        for path, data in zip(paths.values(), files, strict=True):
            self.storage.write_bytes(join_uri(self.output, *path.split("/")), data)
            if self.on_written is not None:
                self.on_written(len(data))
        return EditResult.model_validate({**result.model_dump(), **paths})

    def finish_table(self, batch: pa.Table) -> pa.Table:
        """Finish a table of manipulated rows, order kept."""
        return result_table(self.finish(row) for row in batch.to_pylist())

    def _describe(self, row: Row) -> EditResult:
        """Return the result without files and measures: who, from what, with which settings and models."""
        try:
            sources = EditRequest.model_validate_json(row["request"]).model_dump(exclude={"id"})
        except ValidationError:  # the row never became a request: its error says why
            raw: dict[str, Any] = json.loads(row["request"])
            sources = {name: raw.get(name) or "" for name in ("audio", "image", "latent")}
        return EditResult(
            id=row["id"],
            status=status_of(row["error_kind"]),
            error=row["error"],
            error_kind=row["error_kind"],
            sound_sha256=row["sound_sha256"],
            source_sha256=row["source_sha256"],
            models=dict(self.models),
            version=__version__,
            **sources,
        )


def provenance(result: EditResult, also: Row | None = None) -> str:
    """Return as JSON what an edit was made from: sources, settings, digests, version, threads, and ``also``."""
    names = {"id", "audio", "image", "seed", "latent", "settings", "sound_sha256", "source_sha256", "models", "version"}
    made_from = result.model_dump(mode="json", include={*names, "threads"})
    return json.dumps(made_from | (also or {}), sort_keys=True)


def _given(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None and value != ""}


def _check_id(id: str) -> None:
    if re.search(r"(?:^|[/\\])\.\.?(?:[/\\]|$)|^[/\\~]|^[A-Za-z]:[/\\]|[\x00-\x1f\x7f]", id) or len(id) > 1024:
        raise InvalidEdit(
            f"the id {id!r:.200} looks like a path out of the output folder, holds control characters, or is longer "
            "than 1024. Use letters, digits, '-', '_', '.' and spaces"
        )


def _check_sound(data: bytes, sha256: str, sample_rate: int, limits: AudioLimits) -> None:
    """Decode a sound to its end; the verdict on its content is remembered in this process."""
    key = (sha256, sample_rate, limits)
    verdict = _verdicts.get(key)
    if verdict is None:
        verdict = ""
        try:
            for _ in iter_audio(data, sample_rate=sample_rate, limits=limits):
                pass
        except InvalidAudio as exc:
            verdict = str(exc)
        _verdicts[key] = verdict
        if len(_verdicts) > _NUM_VERDICTS:
            _verdicts.popitem(last=False)
    if verdict:
        raise InvalidAudio(verdict)
