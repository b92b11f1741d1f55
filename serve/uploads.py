"""From a multipart request to a checked edit: limits first, then types, then bytes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from starlette.datastructures import UploadFile

from serve.replies import Unsupported
from serve.settings import ServiceLimits
from soundguide.audio.decode import Samples, decode_audio
from soundguide.config import EditSettings
from soundguide.errors import InvalidAudio, InvalidImage, InvalidSettings
from soundguide.images import Pixels, decode_image
from soundguide.latents import MAX_LATENT_MIB
from soundguide.model_facts import ModelFacts
from soundguide.records import PreparedEdit
from soundguide.sheet_media import RATE_HZ
from soundguide.stages import EditPreparer

Decoded = TypeVar("Decoded")

_MIB = 2**20
_ANY_TYPES = ("application/octet-stream", "application/ogg", "")
_SOUND_TYPES, _PICTURE_TYPES = ("audio/", "video/"), ("image/",)
_AT_ONCE = 2  # files decoded side by side in one process: decoding must not take the models' cores, or all memory


@dataclass(frozen=True, slots=True)
class Uploads:
    """The files of one request; None where one was not sent."""

    audio: UploadFile | None = None
    image: UploadFile | None = None
    latent: UploadFile | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked edit, its deadline in seconds, and a hash of all that was asked."""

    edit: PreparedEdit
    deadline_seconds: float
    fingerprint: str


class Desk:
    """Reads and checks what clients send."""

    def __init__(self, facts: ModelFacts, settings: EditSettings, limits: ServiceLimits) -> None:
        self._settings, self._limits, self._facts = settings, limits, facts
        self._preparer = EditPreparer(facts, limits=limits.sources)
        self._decoders = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="decoder")

    async def read_edit(self, uploads: Uploads, seed: int | None, settings: str) -> Asked:
        """Return the edit that a request asks for. Raises `InvalidEdit` or `Unsupported`."""
        chosen, deadline = self._read_settings(settings)
        files = {
            "sound": await self._bytes(uploads.audio, "audio"),
            "photo": await self._bytes(uploads.image, "image"),
            "latent": await self._bytes(uploads.latent, "latent"),
        }
        sources = {"image": files["photo"] is not None, "seed": seed is not None, "latent": files["latent"] is not None}
        given = [name for name, there in sources.items() if there]
        if len(given) != 1:
            raise InvalidSettings(
                f"exactly one of image, seed and latent is the source, got {' and '.join(given) or 'none'}. Send one"
            )
        if files["sound"] is None and not chosen.text:
            raise InvalidSettings("neither audio nor text was sent. Send a sound file, or the setting `text`, or both")
        edit = await self._aside(lambda: self._preparer.check("edit", chosen, seed=seed, **files))
        asked = (edit.sound_sha256, edit.source_sha256, edit.seed, chosen.model_dump_json(), deadline)
        return Asked(edit, deadline, hashlib.sha256(repr(asked).encode()).hexdigest())

    async def read_sound(self, audio: UploadFile) -> tuple[bytes, Samples]:
        """Return a sound's bytes and its samples at `RATE_HZ`. Raises `InvalidAudio` or `Unsupported`."""
        data = await self._bytes(audio, "audio") or b""
        limits = self._limits.sources.audio
        return data, await self._aside(lambda: decode_audio(data, sample_rate=RATE_HZ, limits=limits))

    async def read_photo(self, image: UploadFile) -> Pixels:
        """Return a picture as the generator takes it. Raises `InvalidImage` or `Unsupported`."""
        data = await self._bytes(image, "image") or b""
        limits = self._limits.sources.image
        return await self._aside(lambda: decode_image(data, resolution=self._facts.resolution, limits=limits))

    def _read_settings(self, text: str) -> tuple[EditSettings, float]:
        try:
            given = json.loads(text or "{}")
        except (ValueError, RecursionError) as error:
            raise InvalidSettings(f'settings are no JSON ({error!s:.200}). Write {{"num_steps": 60}}') from error
        if not isinstance(given, dict):
            raise InvalidSettings(f'settings are {text!r:.80}, no JSON object. Write {{"num_steps": 60}}')
        longest = self._limits.max_deadline_seconds
        deadline = given.pop("deadline_s", self._limits.deadline_seconds)
        if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not 0 < deadline <= longest:
            raise InvalidSettings(f"deadline_s is {deadline!r:.80} and must be above 0 and at most {longest:g} seconds")
        settings = self._settings.override(given)
        for name in ("num_steps", "inversion_steps"):
            steps = getattr(settings, name)
            if steps > self._limits.max_steps:
                raise InvalidSettings(
                    f"{name} is {steps}; this service takes {self._limits.max_steps} at most. Lower it"
                )
        if settings.lambda_id > 0 and "identity" not in dict(self._facts.digests):
            raise InvalidSettings("lambda_id is above 0, but this service has no identity encoder. Leave it at 0")
        return settings, float(deadline)

    async def _bytes(self, file: UploadFile | None, name: str) -> bytes | None:
        """Return a file's bytes, None where none was sent; types and sizes that no decoder takes are refused."""
        if file is None:
            return None
        sources = self._limits.sources
        kinds, mib, error = {
            "audio": (_SOUND_TYPES, sources.max_sound_mib, InvalidAudio),
            "image": (_PICTURE_TYPES, sources.max_image_mib, InvalidImage),
            "latent": ((), MAX_LATENT_MIB, InvalidSettings),
        }[name]
        kind = (file.content_type or "").partition(";")[0].strip().lower()
        if kind not in _ANY_TYPES and not kind.startswith(tuple(kinds)):
            expected = " or ".join(f"{each}*" for each in kinds) or _ANY_TYPES[0]
            raise Unsupported(f"{name} is of type {kind!r:.80}. Send {expected}")
        if (file.size or 0) > mib * _MIB:
            raise error(f"{name} has {file.size} bytes; at most {mib} MiB are allowed. Shorten or compress it")
        return await file.read()

    async def _aside(self, decode: Callable[[], Decoded]) -> Decoded:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, decode)
