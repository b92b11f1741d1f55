"""The service on Ray Serve: `serve run serve.app:build`, `serve deploy serve/config.yaml`, or `make serve`.

Three deployments. *Ingress* speaks HTTP, checks and decodes. *Board*, one process, knows every edit in flight, so that
any ingress can watch, re-attach or cancel. *Manipulator* holds the models; edits join its running batch between steps.
Where there are presets, each has a *Manipulator-NAME* of its own.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncGenerator
from typing import Any

from pydantic import ValidationError
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.handle import DeploymentHandle
from ray.util.metrics import Counter, Gauge, Histogram

from serve.api import build_api
from serve.engine import Engine
from serve.live_edits import Event, LiveEdits, LiveLimits, Terms, Unavailable
from serve.offers import Offers, make_offer, offered_presets
from serve.remote import Remote, answering, streaming
from serve.settings import ServeSettings
from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidConfig, SoundGuideError
from soundguide.images import Pixels
from soundguide.model_facts import read_model_facts
from soundguide.preset import Preset
from soundguide.records import ManipulatedEdit, PreparedEdit, Progress
from soundguide.slot_gauges import SLOT_GAUGES, TAG_KEYS, slot_values
from soundguide.validation import describe

LIGHT_CPUS = 0.25  # CPUs that an ingress and the board ask for; they mostly wait
DRAIN_SECONDS = 30.0  # beside the longest deadline
READY_SECONDS = 2.0
_UPSCALE_SECONDS = 5.0  # for which edits must have waited: a process takes longer to load its models
_INGRESS_CALLS = 200  # beside the edits themselves: pages, samples, listening
_COMMON: dict[str, Any] = {"health_check_period_s": 5, "logging_config": {"encoding": "JSON"}}


def build(args: dict[str, Any] | ServeSettings | None = None) -> Application:
    """Return the application for settings (`serve.settings.ServeSettings`) as a dict. Raises on wrong ones."""
    try:
        settings = args if isinstance(args, ServeSettings) else ServeSettings.model_validate(args or {})
    except ValidationError as error:
        raise InvalidConfig(describe(error, "args", of=ServeSettings)) from error
    token = settings.token or os.environ.get("SOUNDGUIDE_TOKEN", "")
    settings = settings.model_copy(update={"token": token})
    presets = offered_presets(settings)
    for preset in presets:
        read_model_facts(preset.manipulator)  # missing models are told here, not by a replica's log
    replicas, limits = settings.replicas, settings.limits
    drain = limits.max_deadline_seconds + DRAIN_SECONDS
    calls = limits.max_edits + _INGRESS_CALLS
    each = ManipulatorReplica.options(
        max_ongoing_requests=calls,
        ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
        graceful_shutdown_timeout_s=drain,
        autoscaling_config=AutoscalingConfig(
            min_replicas=replicas.min_manipulators,
            initial_replicas=replicas.min_manipulators,
            max_replicas=max(replicas.min_manipulators, replicas.max_manipulators),
            upscale_delay_s=_UPSCALE_SECONDS,
            downscale_delay_s=replicas.idle_seconds,
            policy=AutoscalingPolicy(policy_function=replicas_for_slots_wanted),
        ),
    )
    name = str(each.name)
    manipulators = {
        preset.name: each.options(name=f"{name}-{preset.name}" if preset.name else name).bind(preset.manipulator)
        for preset in presets
    }
    board = BoardReplica.options(
        max_ongoing_requests=4 * calls * replicas.num_ingress, graceful_shutdown_timeout_s=drain
    ).bind(manipulators, limits.live)
    return Ingress.options(
        num_replicas=replicas.num_ingress, max_ongoing_requests=calls, graceful_shutdown_timeout_s=drain
    ).bind(board, manipulators, presets, settings)


def replicas_for_slots_wanted(context: Any) -> tuple[int, dict[str, Any]]:
    """Return how many processes would leave no edit waiting for a slot (an autoscaling policy of Ray Serve)."""
    reported = context.aggregated_metrics.get("replicas_wanted", {}).values() if context.aggregated_metrics else ()
    wanted = math.ceil(sum(reported) - 1e-6)
    low, high = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    return max(low, min(high, wanted)), {}


@serve.deployment(name="Manipulator", **_COMMON)
class ManipulatorReplica:
    """One process that edits."""

    def __init__(self, config: ManipulatorConfig) -> None:
        self._gauges = {
            name: Gauge(name, description=text, tag_keys=TAG_KEYS).set_default_tags({"program": "serve"})
            for name, text in SLOT_GAUGES.items()
        }
        self._engine = Engine(config, self._measure)

    async def run(
        self, edit: PreparedEdit, preview_every: int
    ) -> AsyncGenerator[Progress | ManipulatedEdit | SoundGuideError, None]:
        async for item in streaming(self._engine.run(edit, preview_every)):
            yield item

    async def ping(self) -> Any:
        return await answering(self._engine.ping())

    async def embed(self, sound: bytes, text: str, photo: Pixels | None) -> Any:
        return await answering(self._engine.embed(sound, text, photo))

    async def listen(self, sound: bytes, num: int) -> Any:
        return await answering(self._engine.listen(sound, num))

    async def draw(self, seed: int, truncation_psi: float) -> Any:
        return await answering(self._engine.draw(seed, truncation_psi))

    def record_autoscaling_stats(self) -> dict[str, float]:
        self._measure(self._engine)  # Serve asks every few seconds, and Ray forgets a gauge that is not set for 20
        return {"replicas_wanted": self._engine.num_edits / self._engine.manipulator.load.num_slots}

    def _measure(self, engine: Engine) -> None:
        for name, value in slot_values(engine.manipulator.load).items():
            self._gauges[name].set(value)


@serve.deployment(name="Board", num_replicas=1, ray_actor_options={"num_cpus": LIGHT_CPUS}, **_COMMON)
class BoardReplica:
    """The one process that knows all edits in flight."""

    def __init__(self, manipulators: dict[str, DeploymentHandle], limits: LiveLimits) -> None:
        self._manipulators = {preset: Remote(handle) for preset, handle in manipulators.items()}
        self._ended = Counter("soundguide_edits", description="Edits by outcome.", tag_keys=("outcome",))
        self._seconds = Histogram(
            "soundguide_edit_seconds",
            description="Seconds of an edit, waiting included.",
            boundaries=[0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600],
        )
        self._running = Gauge("soundguide_edits_running", description="Edits that run or wait.")
        self._live = LiveEdits(self._run, limits, on_end=self._measure)

    def _run(
        self, edit: PreparedEdit, preview_every: int, preset: str
    ) -> AsyncGenerator[Progress | ManipulatedEdit, None]:
        return self._manipulators[preset].stream("run", edit, preview_every)

    async def edit(self, edit: PreparedEdit, terms: Terms) -> AsyncGenerator[Event | SoundGuideError, None]:
        async for item in streaming(self._live.edit(edit, terms)):
            yield item

    async def watch(self, id: str, after: int, stay_seconds: float) -> AsyncGenerator[Event | SoundGuideError, None]:
        async for item in streaming(self._live.watch(id, after=after, stay_seconds=stay_seconds)):
            yield item

    async def drain(self) -> None:
        await self._live.drain()

    async def ends(self, id: str) -> Any:
        return await answering(self._live.ends(id))

    async def cancel(self, id: str) -> Any:
        return await answering(self._live.cancel(id))

    def check_health(self) -> None:
        self._running.set(self._live.num_running)  # again and again, as the slots' gauges

    def _measure(self, outcome: str, seconds: float) -> None:
        self._ended.inc(tags={"outcome": outcome})
        self._seconds.observe(seconds)


@serve.deployment(name="Ingress", ray_actor_options={"num_cpus": LIGHT_CPUS}, **_COMMON)
@serve.ingress()
class Ingress:
    """Speaks HTTP. Holds no model."""

    def __init__(
        self,
        board: DeploymentHandle,
        manipulators: dict[str, DeploymentHandle],
        presets: tuple[Preset, ...],
        settings: ServeSettings,
    ) -> None:
        self._board, self._presets, self._settings = Remote(board), presets, settings
        self._engines = {preset: Remote(handle) for preset, handle in manipulators.items()}

    def __serve_build_asgi_app__(self) -> Any:  # noqa: PLW3201 - the name that Ray Serve looks for
        offers = [
            make_offer(
                preset,
                read_model_facts(preset.manipulator),
                _RemoteEngine(self._engines[preset.name]),
                self._settings.limits,
            )
            for preset in self._presets
        ]
        board = _RemoteBoard(self._board)
        return build_api(board, Offers(offers), self._settings, self._ready, labels_replies=False)

    async def _ready(self) -> None:
        pings = [engine.call("ping") for engine in self._engines.values()]
        try:
            await asyncio.wait_for(asyncio.gather(*pings), READY_SECONDS)
        except TimeoutError as error:
            raise Unavailable("no process that edits answers: it starts, or is being replaced. Ask again") from error


class _RemoteBoard:
    def __init__(self, board: Remote) -> None:
        self._board = board

    def edit(self, edit: PreparedEdit, terms: Terms) -> AsyncGenerator[Event, None]:
        return self._board.stream("edit", edit, terms)

    def watch(self, id: str, *, after: int = -1, stay_seconds: float = 0.0) -> AsyncGenerator[Event, None]:
        return self._board.stream("watch", id, after, stay_seconds)

    async def ends(self, id: str) -> tuple[Event, Event]:
        first, last = await self._board.call("ends", id)
        return first, last

    async def cancel(self, id: str) -> bool:
        return bool(await self._board.call("cancel", id))


class _RemoteEngine:
    def __init__(self, engine: Remote) -> None:
        self._engine = engine

    async def embed(self, sound: bytes, text: str, photo: Pixels | None) -> Any:
        return await self._engine.call("embed", sound, text, photo)

    async def listen(self, sound: bytes, num: int) -> Any:
        return await self._engine.call("listen", sound, num)

    async def draw(self, seed: int, truncation_psi: float) -> Any:
        return await self._engine.call("draw", seed, truncation_psi)
