"""What clients get: results as JSON or PNG, news as server-sent events, errors of one form."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator
from typing import Any

from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from serve.live_edits import Event, KeyConflict, TooManyEdits, Unavailable, UnknownEdit
from soundguide import __version__
from soundguide.errors import SoundGuideError
from soundguide.images import encode_png
from soundguide.latents import encode_latent
from soundguide.records import EditResult
from soundguide.sheet_media import data_uri
from soundguide.stages import provenance
from soundguide.tables import MEASURES

Digests = dict[str, str]
"""SHA-256 of the models' weights, by role."""

STATUS_OF_KIND = {
    "Cancelled": 409,
    "DeadlineExceeded": 408,
    KeyConflict.__name__: 409,
    TooManyEdits.__name__: 429,
    Unavailable.__name__: 503,
    UnknownEdit.__name__: 404,
}
"""HTTP status of an error by its kind; what is wrong with a request itself is 422."""

_WRONG_REQUEST = 422
_SILENCE_SECONDS = 10.0  # after which a stream says that it is alive, or proxies cut it


class Unsupported(SoundGuideError):
    """The body, or a file in it, is of a type that no route reads."""


STATUS_OF_KIND[Unsupported.__name__] = 415


class NotAcceptable(SoundGuideError):
    """The client takes none of the forms in which there is an answer."""


STATUS_OF_KIND[NotAcceptable.__name__] = 406


class ErrorBody(BaseModel):
    """What went wrong, under which request id."""

    kind: str = Field(description="Name of the error, such as InvalidAudio.")
    message: str = Field(description="What is wrong, what was got, and the remedy.")
    request_id: str = Field(description="Find it in the service's log.")


class ErrorReply(BaseModel):
    """Every reply that is not a success."""

    error: ErrorBody


def error_reply(kind: str, message: str, request_id: str, *, retry_seconds: int | None = None) -> JSONResponse:
    """Return an error as JSON, with the status that its kind has."""
    status = STATUS_OF_KIND.get(kind, _WRONG_REQUEST)
    if status == 503 and retry_seconds is None:
        retry_seconds = 5
    headers = {} if retry_seconds is None else {"Retry-After": str(retry_seconds)}
    return JSONResponse(error_content(kind, message, request_id), status, headers)


def error_content(kind: str, message: str, request_id: str) -> dict[str, Any]:
    """Return what stands in an error's body."""
    return ErrorReply(error=ErrorBody(kind=kind, message=message, request_id=request_id)).model_dump()


def result_of(begun: Event, done: Event, models: Digests) -> EditResult:
    """Return the result of a finished edit; files are data URIs."""
    assert done.edit is not None
    result = _described(begun, done, models)
    metadata = {"soundguide": provenance(result)}
    return result.model_copy(
        update={
            "edited_image": data_uri("image/png", encode_png(done.edit.image, metadata=metadata)),
            "source_image": data_uri("image/png", encode_png(done.edit.source, metadata=metadata)),
            "edited_latent": data_uri("application/octet-stream", encode_latent(done.edit.ws, metadata=metadata)),
        }
    )


def picture_reply(begun: Event, done: Event, models: Digests) -> Response:
    """Return the edited picture as PNG with its provenance."""
    assert done.edit is not None
    png = encode_png(done.edit.image, metadata={"soundguide": provenance(_described(begun, done, models))})
    return Response(png, media_type="image/png", headers=location(done.id))


def _described(begun: Event, done: Event, models: Digests) -> EditResult:
    """Return the result of a finished edit without its files."""
    assert begun.prepared is not None and done.edit is not None
    row, prepared = done.edit.to_row(), begun.prepared
    return EditResult(
        id=done.id,
        status="ok",
        seed=prepared.seed,
        settings=prepared.settings,
        sound_sha256=prepared.sound_sha256,
        source_sha256=prepared.source_sha256,
        models=models,
        version=__version__,
        **{name: row[name] for name in MEASURES},
    )


def location(id: str) -> dict[str, str]:
    """Return the header that says where an edit can be asked for again."""
    return {"Location": f"/v1/edits/{id}"}


def progress_of(event: Event) -> dict[str, Any] | None:
    """Return a piece of progress as JSON takes it; None for other events."""
    if event.progress is None:
        return None
    news = event.progress
    preview = None if news.preview is None else data_uri("image/png", encode_png(news.preview))
    return {
        "phase": news.phase,
        "step": news.step,
        "num_steps": news.num_steps,
        "loss": _or_none(news.loss),
        "terms": {name: _or_none(value) for name, value in news.terms.items()},
        "preview": preview,
    }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no other numbers


async def event_stream(
    begun: Event, events: AsyncGenerator[Event, None], models: Digests, request_id: str
) -> AsyncGenerator[bytes, None]:
    """Render events as text/event-stream; while nothing happens, comments say that the stream is alive."""
    pending: asyncio.Future[Event] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(events))
            await asyncio.wait({pending}, timeout=_SILENCE_SECONDS)
            if not pending.done():
                yield b": still here\n\n"
                continue
            event, pending = pending.result(), None
            yield _render(begun, event, models, request_id)
    except StopAsyncIteration:
        pass
    except SoundGuideError as error:
        yield _sse("error", _json(error_content(type(error).__name__, str(error), request_id)))
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
        await events.aclose()


def _render(begun: Event, event: Event, models: Digests, request_id: str) -> bytes:
    if event.kind == "result":
        data = result_of(begun, event, models).model_dump_json()
    elif event.kind == "error":
        data = _json(error_content(event.error_kind, event.error, request_id))
    else:
        data = _json(progress_of(event) or {"id": event.id})
    return _sse(event.kind, data, event.number)


def _sse(kind: str, data: str, number: int | None = None) -> bytes:
    id = "" if number is None else f"id: {number}\n"
    return f"{id}event: {kind}\ndata: {data}\n\n".encode()


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, allow_nan=False)
