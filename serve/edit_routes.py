"""`/v1/edits`: begin, watch, ask again, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, File, Form, Header, Request, UploadFile
from fastapi.responses import JSONResponse, Response, StreamingResponse

from serve.forms import ABOUT_PRESET, EVENTS, JSON, PNG, only_fields, wanted_form
from serve.guard import request_id
from serve.live_edits import Event, Terms
from serve.offers import Offers
from serve.replies import (
    Digests,
    ErrorReply,
    error_reply,
    event_stream,
    location,
    picture_reply,
    progress_of,
    result_of,
)
from serve.settings import ServiceLimits
from serve.uploads import Uploads
from soundguide.records import EditResult, PreparedEdit

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply} for status in (400, 401, 404, 406, 408, 409, 413, 415, 422, 429, 503)
}
_CONTENT = {
    200: {
        "description": "The edit: the picture, its result, or its news, by `Accept`.",
        "content": {
            PNG: {"schema": {"type": "string", "format": "binary"}},
            EVENTS: {"schema": {"type": "string"}},
        },
    }
}


class Board(Protocol):
    """Where edits run: `serve.live_edits.LiveEdits`, here or in another process."""

    def edit(self, edit: PreparedEdit, terms: Terms) -> AsyncGenerator[Event, None]: ...

    def watch(self, id: str, *, after: int = -1, stay_seconds: float = 0.0) -> AsyncGenerator[Event, None]: ...

    async def ends(self, id: str) -> tuple[Event, Event]: ...

    async def cancel(self, id: str) -> bool: ...


def edit_routes(board: Board, offers: Offers, limits: ServiceLimits) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1/edits", responses=_ERRORS, tags=["edits"])

    @routes.post(
        "",
        response_model=EditResult,
        responses=_CONTENT,
        summary="Edit a picture with a sound",
        dependencies=[Depends(only_fields("audio", "image", "latent", "seed", "settings", "preset"))],
    )
    async def begin(
        request: Request,
        audio: Annotated[UploadFile | None, File(description="Sound file: WAV, FLAC, OGG, MP3, M4A, WebM.")] = None,
        image: Annotated[UploadFile | None, File(description="Photo to edit: PNG, JPEG, WebP ...")] = None,
        latent: Annotated[UploadFile | None, File(description="W+ code of an earlier edit, safetensors.")] = None,
        seed: Annotated[int | None, Form(ge=0, lt=2**63, description="Edit the picture of this seed.")] = None,
        settings: Annotated[
            str, Form(description="JSON: any edit setting (see /v1/models), `text`, `mix`, and `deadline_s`.")
        ] = "{}",
        preset: Annotated[str, Form(description=ABOUT_PRESET)] = "",
        idempotency_key: Annotated[
            str, Header(max_length=255, description="The same key with the same request is one edit.")
        ] = "",
    ) -> Response:
        """Send a sound, or the setting `text`, or both; and one source: `image`, `seed` or `latent`.

        `Accept: image/png` gives the picture, `text/event-stream` its news while it changes, JSON the result.
        """
        form = wanted_form(request)
        offer = offers.find(preset)
        asked = await offer.desk.read_edit(Uploads(audio, image, latent), seed, settings)
        streams = form == EVENTS
        terms = Terms(
            deadline_seconds=asked.deadline_seconds,
            preview_every=limits.preview_every if streams else 0,
            preset=offer.preset.name,
            key=idempotency_key,
            fingerprint=f"{offer.preset.name} {asked.fingerprint}",
            stay_seconds=limits.stay_seconds if streams else 0.0,
        )
        events = board.edit(asked.edit, terms)
        if not streams:
            return await _until_left(request, _outcome(request, form, events, offer.digests))
        begun = await anext(events)
        return _stream(request, begun, _after(begun, events), offer.digests)

    @routes.get("/{id}", response_model=EditResult, responses=_CONTENT, summary="Ask for an edit, or watch it again")
    async def find(
        request: Request,
        id: str,
        last_event_id: Annotated[str, Header(description="Number of the last event that was seen.")] = "",
    ) -> Response:
        """Give its result or picture, 202 with its progress while it runs, or its events after `Last-Event-ID`."""
        form = wanted_form(request)
        begun, last = await board.ends(id)
        models = offers.find(begun.preset).digests
        if form == EVENTS:
            after = int(last_event_id) if last_event_id.isascii() and last_event_id.isdigit() else -1
            events = board.watch(id, after=min(after, 2**31), stay_seconds=limits.stay_seconds)
            return _stream(request, begun, events, models)
        if last.kind in ("begun", "progress"):
            running = {"id": id, "status": "running", "progress": progress_of(last)}
            return JSONResponse(running, 202, {"Retry-After": "1"})
        return _answer(request, form, begun, last, models)

    @routes.delete("/{id}", summary="Cancel an edit")
    async def cancel(id: str) -> dict[str, bool]:
        """Free its slot within one step; `cancelled` is false where it had ended already."""
        return {"cancelled": await board.cancel(id)}

    return routes


def _stream(request: Request, begun: Event, events: AsyncGenerator[Event, None], models: Digests) -> Response:
    rendered = event_stream(begun, events, models, request_id(request.scope))
    headers = {**location(begun.id), "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(rendered, media_type=EVENTS, headers=headers)


async def _after(first: Event, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    async with aclosing(events):
        yield first
        async for event in events:
            yield event


async def _outcome(request: Request, form: str, events: AsyncGenerator[Event, None], models: Digests) -> Response:
    async with aclosing(events):
        begun = last = await anext(events)
        async for event in events:
            last = event
    return _answer(request, form, begun, last, models)


def _answer(request: Request, form: str, begun: Event, last: Event, models: Digests) -> Response:
    if last.kind == "error":
        return error_reply(last.error_kind, last.error, request_id(request.scope))
    if form == PNG:
        return picture_reply(begun, last, models)
    result = result_of(begun, last, models)
    return Response(result.model_dump_json(), media_type=JSON, headers=location(begun.id))


async def _until_left(request: Request, answer: Any) -> Response:
    """Return the answer, unless the client leaves first: then nobody waits for it, and it is given up."""
    work = asyncio.ensure_future(answer)
    left = asyncio.ensure_future(_leaves(request))
    try:
        await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        return Response(status_code=499)  # nobody reads it
    finally:
        work.cancel()
        left.cancel()
        await asyncio.gather(work, left, return_exceptions=True)


async def _leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
