"""The service's HTTP interface in this process: the real board, engine and models of the tiny world, without Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI
from tiny_edits import noise

from serve.api import build_api
from serve.engine import Engine
from serve.live_edits import LiveEdits
from serve.offers import Offers, make_offer, offered_presets
from serve.settings import ServeSettings, ServiceLimits
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.model_facts import read_model_facts

SHORT = EditSettings(num_steps=8, num_views=1, inversion_steps=4)
LIMITS = ServiceLimits(preview_every=2, max_steps=2000)
PNG, JSON, EVENTS = ({"Accept": kind} for kind in ("image/png", "application/json", "text/event-stream"))
SOUND = ("noise.wav", noise(0), "audio/wav")

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Service:
    """An application and what lies behind it."""

    api: FastAPI
    board: LiveEdits
    engine: Engine

    @asynccontextmanager
    async def client(self, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
        """Give a client; what fails inside the service is its 500, as over a real connection."""
        transport = httpx.ASGITransport(self.api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service", headers=headers) as client:
            yield client


def start(engine: Engine, **settings: Any) -> Service:
    """Build the application for settings (`ServeSettings`) around an engine."""
    config = ServeSettings(**{"edit": SHORT, "limits": LIMITS, "manipulator": engine.manipulator.config, **settings})
    return start_all({"": engine}, config)


def start_all(engines: dict[str, Engine], settings: ServeSettings) -> Service:
    """Build the application for settings around an engine for each preset; the first is the `Service`'s."""

    async def ready() -> None:
        for engine in engines.values():
            await engine.ping()

    offers = [
        make_offer(preset, read_model_facts(preset.manipulator), engines[preset.name], settings.limits)
        for preset in offered_presets(settings)
    ]
    board = LiveEdits(lambda edit, every, preset: engines[preset].run(edit, every), settings.limits.live)
    return Service(build_api(board, Offers(offers), settings, ready), board, next(iter(engines.values())))


def tiny_engine(config: ManipulatorConfig, *, num_slots: int = 4) -> Engine:
    return Engine(config.model_copy(update={"num_slots": num_slots, "device": "cpu"}))


def run(work: Callable[[], Awaitable[Answer]], *, seconds: float = 60) -> Answer:
    async def bounded() -> Answer:
        return await asyncio.wait_for(work(), seconds)

    return asyncio.run(bounded())


def events_of(text: str) -> Iterator[tuple[str, int | None, Any]]:
    """Yield (kind, number, data) of a text/event-stream; comments are left out."""
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            yield fields["event"], int(fields["id"]) if "id" in fields else None, json.loads(fields["data"])


def post(service: Service, path: str = "/v1/edits", *, headers: dict[str, str] = JSON, **parts: Any) -> httpx.Response:
    async def work() -> httpx.Response:
        async with service.client(**headers) as client:
            return await client.post(path, **parts)

    return run(work)


def get(service: Service, path: str, *, headers: dict[str, str] | None = None) -> httpx.Response:
    async def work() -> httpx.Response:
        async with service.client(**(headers or {})) as client:
            return await client.get(path)

    return run(work)
