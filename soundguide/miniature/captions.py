"""Captions of landscapes, from class names to sentences, and whether a caption is true of a scene."""

from __future__ import annotations

import torch
from torch import Tensor

from soundguide.miniature.labels import LABELS
from soundguide.miniature.scene_events import daylight_after_events
from soundguide.miniature.scenes import CONTINUOUS
from soundguide.miniature.vocabulary import Statement, Vocabulary

PHRASES: dict[str, tuple[str, ...]] = {
    "raining": ("rain falling", "a rainy day", "raindrops", "heavy rain", "a downpour"),
    "thunderstorm": ("thunder and lightning", "a lightning bolt", "a storm with thunder", "stormy sky", "thunder"),
    "wind noise": ("strong wind", "a windy day", "wind blowing leaves", "gusts of wind", "howling wind"),
    "fire crackling": ("a campfire", "a burning fire", "flames", "a bonfire", "fire"),
    "sea waves": ("waves on the shore", "the sea", "ocean waves", "surf on a beach", "the ocean"),
    "bird song": ("birds singing", "birds", "a flock of birds", "songbirds on a branch", "chirping birds"),
    "crickets chirping at night": (
        "crickets",
        "fireflies at night",
        "a summer night with crickets",
        "chirping crickets",
        "insects at night",
    ),
    "fireworks exploding": (
        "fireworks",
        "a firework display",
        "exploding fireworks",
        "new year's fireworks",
        "rockets bursting",
    ),
    "river flowing": ("a river", "a flowing stream", "running water", "a brook", "a stream"),
    "walking in snow": ("snow", "footsteps in the snow", "a snowy landscape", "winter snow", "snowfall"),
    "city traffic": ("cars on a road", "a busy street", "traffic", "cars in the city", "a city skyline with cars"),
    "train passing": ("a train", "a passing train", "a red train", "a railway train", "a steam train"),
    "underwater bubbling": ("underwater", "bubbles under water", "under the sea", "rising bubbles", "a diver's view"),
    "church bells": ("a church", "ringing bells", "a church tower with bells", "bells", "a chapel"),
    "funny music": (
        "a funny tune",
        "cheerful pastel colours",
        "a fairy tale in pastels",
        "playful music",
        "comic music",
    ),
    "latin music": ("a latin song", "passionate reds", "salsa", "hot red colours", "latin rhythm"),
    "techno music": ("techno", "neon colours", "an electronic beat", "a neon grid", "club music"),
    "dark ambient music": ("dark ambient", "a gloomy drone", "almost black and white", "bleak and grey", "dark drones"),
    "orchestral music": ("an orchestra", "golden light", "a symphony", "golden rays", "strings and brass"),
}
"""Other words for each label."""

_STATEMENTS: tuple[Statement, ...] = (
    ("night", "daylight", 0.0, 0.18),
    ("sunset", "daylight", 0.34, 0.56),
    ("a bright day", "daylight", 0.78, 1.0),
    ("a cloudy sky", "clouds", 0.7, 1.0),
    ("a clear sky", "clouds", 0.0, 0.15),
    ("high mountains", "mountains", 0.7, 1.0),
    ("flat land", "mountains", 0.0, 0.2),
    ("a forest", "trees", 0.7, 1.0),
    ("no trees", "trees", 0.0, 0.12),
    ("autumn", "season", 0.7, 1.0),
    ("green meadows", "season", 0.0, 0.25),
    ("a house", "house", 0.55, 1.0),
    ("mist", "haze", 0.75, 1.0),
)

TEMPLATES = (
    "{}",
    "{}",
    "{}",
    "a picture of {}",
    "a landscape with {}",
    "the sound of {}",
    "{} in the hills",
    "this is {}",
)


VOCABULARY = Vocabulary(LABELS, PHRASES, _STATEMENTS, TEMPLATES, "a landscape")
FACTS: tuple[str, ...] = VOCABULARY.facts
"""All facts, labels first."""


def truth(factors: Tensor) -> Tensor:
    """Return whether each fact holds of scenes ``[B, NUM_FACTORS]``: ``[B, num_facts]``, see `Vocabulary.truth`."""
    value = {name: factors[:, i] for i, name in enumerate((*CONTINUOUS, *LABELS))}
    value["daylight"] = daylight_after_events(value)
    return VOCABULARY.truth(value)


def draw_captions(facts: Tensor, generator: torch.Generator) -> tuple[list[str], Tensor]:
    """Write a true caption for each scene, see `Vocabulary.draw_captions`."""
    return VOCABULARY.draw_captions(facts, generator)


def phrase(facts: tuple[str, ...], generator: torch.Generator) -> str:
    """Write one caption that states ``facts``, see `Vocabulary.phrase`."""
    return VOCABULARY.phrase(facts, generator)
