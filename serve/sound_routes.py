"""What surrounds an edit: what the models hear and see in files, samples to try, the picture of a seed."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, File, Form, Path, Query, UploadFile
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from serve.forms import ABOUT_PRESET, only_fields
from serve.offers import Offers
from serve.replies import ErrorReply
from soundguide.audio.decode import encode_flac
from soundguide.errors import InvalidSettings
from soundguide.images import encode_png
from soundguide.miniature.labels import LABELS
from soundguide.miniature.sounds import SAMPLE_RATE_HZ, synthesise
from soundguide.sheet_media import RATE_HZ, data_uri, spectrogram_png

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply} for status in (400, 401, 404, 408, 413, 415, 422, 503)
}
_SAMPLE_SECONDS, _SAMPLE_INTENSITY = 6.0, 0.95
_NUM_PEAKS = 240
SAMPLES = {label.replace(" ", "-"): label for label in LABELS}
"""Names of the sounds that the package synthesises, by label."""


class Heard(BaseModel):
    """One label and its probability."""

    label: str
    probability: float


class Listening(BaseModel):
    """What the encoder hears in a sound, and what the sound looks like.

    ``waveform``: peak of each of 240 equal parts, 0..1. ``spectrogram``: data URI of a PNG, low tones at the bottom.
    """

    labels: list[Heard]
    seconds: float
    waveform: list[float]
    spectrogram: str


class Embedding(BaseModel):
    """A unit-norm vector in the space that sounds, texts and pictures share."""

    embedding: list[float]
    model: str


def sound_routes(offers: Offers) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1", responses=_ERRORS)

    @routes.post(
        "/listen",
        response_model=Listening,
        tags=["sounds"],
        summary="Hear what the encoder hears",
        dependencies=[Depends(only_fields("audio", "top", "preset"))],
    )
    async def listen(
        audio: Annotated[UploadFile, File(description="Sound file.")],
        top: Annotated[int, Form(ge=1, le=1000, description="How many labels.")] = 5,
        preset: Annotated[str, Form(description=ABOUT_PRESET)] = "",
    ) -> Listening:
        """Give the likeliest labels of a sound, best first, its waveform and its spectrogram."""
        offer = offers.find(preset)
        data, waveform = await offer.desk.read_sound(audio)
        heard = await offer.engine.listen(data, top)
        parts = np.array_split(np.abs(waveform), _NUM_PEAKS)
        return Listening(
            labels=[Heard(label=label, probability=probability) for label, probability in heard],
            seconds=len(waveform) / RATE_HZ,
            waveform=[round(float(part.max(initial=0.0)), 4) for part in parts],
            spectrogram=data_uri("image/png", spectrogram_png(waveform)),
        )

    @routes.post(
        "/embeddings",
        response_model=Embedding,
        tags=["sounds"],
        summary="Embed a sound, text or picture",
        dependencies=[Depends(only_fields("audio", "image", "text", "preset"))],
    )
    async def embed(
        audio: Annotated[UploadFile | None, File(description="Sound file.")] = None,
        image: Annotated[UploadFile | None, File(description="Picture file.")] = None,
        text: Annotated[str, Form(max_length=2000, description="Any words.")] = "",
        preset: Annotated[str, Form(description=ABOUT_PRESET)] = "",
    ) -> Embedding:
        """Send one of `audio`, `image` and `text`."""
        given = [name for name, there in (("audio", audio), ("image", image), ("text", text)) if there]
        if len(given) != 1:
            raise InvalidSettings(f"got {' and '.join(given) or 'nothing'} to embed. Send one of audio, image and text")
        offer = offers.find(preset)
        sound = (await offer.desk.read_sound(audio))[0] if audio else b""
        photo = await offer.desk.read_photo(image) if image else None
        found = await offer.engine.embed(sound, text, photo)
        model = offer.digests["audio" if audio else "image_text"]
        return Embedding(embedding=[float(value) for value in found], model=model)

    @routes.get("/samples/{name}", response_class=Response, tags=["sounds"], summary="A sound to try")
    def sample(name: Annotated[str, Path(description="One of the samples of /v1/models.")]) -> Response:
        """Give a synthesised sound as FLAC."""
        if name not in SAMPLES:
            raise HTTPException(404, f"there is no sample {name!r:.80}. /v1/models lists them")
        return Response(_sample(name), media_type="audio/flac", headers={"Cache-Control": "max-age=86400"})

    @routes.get("/pictures/{seed}", response_class=Response, tags=["pictures"], summary="The picture of a seed")
    async def picture(
        seed: Annotated[int, Path(ge=0, lt=2**63)],
        truncation_psi: Annotated[
            float | None, Query(ge=0, le=2, allow_inf_nan=False, description="Not given: as edits have it.")
        ] = None,
        preset: Annotated[str, Query(description=ABOUT_PRESET)] = "",
    ) -> Response:
        """Give the picture from which an edit of this seed starts, as PNG."""
        offer = offers.find(preset)
        psi = offer.preset.edit.truncation_psi if truncation_psi is None else truncation_psi
        png = encode_png(await offer.engine.draw(seed, psi))
        return Response(png, media_type="image/png", headers={"Cache-Control": "max-age=3600"})

    return routes


@lru_cache(maxsize=len(SAMPLES))
def _sample(name: str) -> bytes:
    label = SAMPLES[name]
    rng = np.random.default_rng((7, LABELS.index(label)))
    waveform = synthesise(label, seconds=_SAMPLE_SECONDS, intensity=_SAMPLE_INTENSITY, rng=rng)
    return encode_flac(waveform, SAMPLE_RATE_HZ)
