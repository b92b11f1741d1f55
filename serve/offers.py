"""What the service offers: its presets, or one world without a name; each with its settings, models and engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serve.settings import ServeSettings, ServiceLimits
from serve.uploads import Desk
from soundguide.errors import InvalidConfig, InvalidSettings
from soundguide.images import Pixels
from soundguide.model_facts import ModelFacts, absolute_models
from soundguide.preset import Preset, apply_preset, load_preset


class Engine(Protocol):
    """What the models are asked: `serve.engine.Engine`, here or in another process."""

    async def embed(self, sound: bytes, text: str, photo: Pixels | None) -> NDArray[np.float32]: ...

    async def listen(self, sound: bytes, num: int) -> tuple[tuple[str, float], ...]: ...

    async def draw(self, seed: int, truncation_psi: float) -> Pixels: ...


@dataclass(frozen=True, slots=True)
class Offer:
    """One preset, what is known of its models, who reads requests for it and who answers them."""

    preset: Preset
    facts: ModelFacts
    engine: Engine
    desk: Desk

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the models' weights, by role."""
        return dict(self.facts.digests)


class Offers:
    """All presets of a service; the first is meant where a request names none."""

    def __init__(self, offers: Sequence[Offer]) -> None:
        self._offers = {offer.preset.name: offer for offer in offers}

    @property
    def names(self) -> list[str]:
        """Names of the presets; none for a service of one world without a name."""
        return [name for name in self._offers if name]

    def find(self, name: str) -> Offer:
        """Return what a request with this preset (empty: none) is about. Raises `InvalidSettings`."""
        if not name:
            return next(iter(self._offers.values()))
        if name not in self._offers:
            there = f"Send {' or '.join(self.names)}" if self.names else "This service has no presets: leave it out"
            raise InvalidSettings(f"there is no preset {name!r:.80}. {there}")
        return self._offers[name]

    def summary(self) -> list[dict[str, Any]]:
        """Return the presets as `/v1/models` lists them."""
        found = [self._offers[name] for name in self.names]
        return [{"name": each.preset.name, "description": each.preset.description} for each in found]


def offered_presets(settings: ServeSettings) -> tuple[Preset, ...]:
    """Return what a service with these settings offers, with absolute model folders; settings of its own win.

    Raises `InvalidConfig` where a preset is unknown, named twice, or lacks a model.
    """
    found = [load_preset(name) for name in settings.presets]
    names = [preset.name for preset in found]
    if len(set(names)) < len(names):
        raise InvalidConfig(f"presets are {', '.join(names)}. Name each once")
    if not found:
        found = [Preset(name="", description="", manipulator=settings.manipulator, edit=settings.edit)]
    offered = []
    for preset in found:
        edit, manipulator = settings.edit, settings.manipulator
        if preset.name:
            edit, manipulator = apply_preset(preset, edit, manipulator)
        offered.append(preset.model_copy(update={"edit": edit, "manipulator": absolute_models(manipulator)}))
    return tuple(offered)


def make_offer(preset: Preset, facts: ModelFacts, engine: Engine, limits: ServiceLimits) -> Offer:
    """Return a preset with its desk."""
    return Offer(preset, facts, engine, Desk(facts, preset.edit, limits))
