"""The HTTP interface as one ASGI application, without Ray: it only knows a board of edits and an engine."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from serve.edit_routes import Board, edit_routes
from serve.forms import ABOUT_PRESET
from serve.guard import Guard, kind_of_status, request_id
from serve.live_edits import TooManyEdits
from serve.offers import Offers
from serve.replies import ErrorReply, error_content, error_reply
from serve.settings import ServeSettings
from serve.sound_routes import SAMPLES, sound_routes
from soundguide import __version__
from soundguide.config import EditSettings
from soundguide.errors import SoundGuideError

logger = logging.getLogger(__name__)

_STUDIO = Path(__file__).parent / "studio"
_MIB = 2**20

Check = Callable[[], Awaitable[None]]
"""Returns when edits can be made; raises `serve.live_edits.Unavailable` otherwise."""


def build_api(
    board: Board,
    offers: Offers,
    settings: ServeSettings,
    ready: Check,
    *,
    labels_replies: bool = True,
) -> FastAPI:
    """Return the application; ``labels_replies`` as in `Guard`."""
    api = FastAPI(
        title="SoundGuide",
        version=__version__,
        description=" ".join(["Edit pictures with sounds.", *(f"Preset: {name}." for name in offers.names)]),
        docs_url=None,  # its page would come from another server
        redoc_url=None,
    )
    api.include_router(edit_routes(board, offers, settings.limits))
    api.include_router(sound_routes(offers))
    _add_own_routes(api, offers, settings, ready)
    _add_errors(api)
    api.mount("/studio", StaticFiles(directory=_STUDIO))
    api.add_middleware(
        Guard,
        token=settings.token,
        max_bytes=settings.limits.max_body_mib * _MIB,
        seconds=settings.limits.upload_seconds,
        labels_replies=labels_replies,
    )
    if settings.cors_origins:
        origins = list(settings.cors_origins)
        api.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    return api


def _add_own_routes(api: FastAPI, offers: Offers, settings: ServeSettings, ready: Check) -> None:
    @api.get("/", include_in_schema=False)
    def studio() -> FileResponse:
        return FileResponse(_STUDIO / "index.html")

    @api.get("/healthz", tags=["health"], summary="Whether this process answers")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/readyz", tags=["health"], summary="Whether edits can be made", responses={503: {"model": ErrorReply}})
    async def readiness() -> dict[str, str]:
        await ready()
        return {"status": "ready"}

    @api.get("/v1/models", tags=["models"], summary="The models, and what may be asked of them")
    def models(preset: Annotated[str, Query(description=ABOUT_PRESET)] = "") -> dict[str, Any]:
        offer = offers.find(preset)
        facts, schema = offer.facts, EditSettings.model_json_schema()["properties"]
        return {
            "version": __version__,
            "preset": offer.preset.name,
            "presets": offers.summary(),
            "models": dict(facts.digests),
            "resolution": facts.resolution,
            "height": facts.height,
            "width": facts.width,
            "num_ws": facts.num_ws,
            "sample_rate": facts.sample_rate,
            "settings": {name: {**schema[name], "default": getattr(offer.preset.edit, name)} for name in schema},
            "limits": settings.limits.model_dump(mode="json"),
            "samples": [
                {"name": name, "label": label, "url": f"/v1/samples/{name}"} for name, label in SAMPLES.items()
            ],
        }


def _add_errors(api: FastAPI) -> None:
    @api.exception_handler(SoundGuideError)
    async def ours(request: Request, error: SoundGuideError) -> JSONResponse:
        retry = error.retry_seconds if isinstance(error, TooManyEdits) else None
        return error_reply(type(error).__name__, str(error), request_id(request.scope), retry_seconds=retry)

    @api.exception_handler(RequestValidationError)
    async def fields(request: Request, error: RequestValidationError) -> JSONResponse:
        found = "; ".join(f"{'.'.join(map(str, item['loc'][1:]))}: {_plain(item['msg'])}" for item in error.errors())
        return error_reply("InvalidRequest", f"{found:.1000}. See /openapi.json", request_id(request.scope))

    @api.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        content = error_content(kind_of_status(error.status_code), str(error.detail)[:1000], request_id(request.scope))
        return JSONResponse(content, error.status_code, error.headers)

    @api.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        id = request_id(request.scope)
        logger.error("request %s failed", id, exc_info=error)
        return JSONResponse(error_content("Internal", "the service failed. Its log says why, under this id", id), 500)


def _plain(message: str) -> str:
    """Return what pydantic says in words that a client knows."""
    return "must be a file (curl -F name=@file)" if "UploadFile" in message else message
