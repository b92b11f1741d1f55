"""Captions of scenes, from class names to sentences, and whether a caption is true of a scene.

A fact is a label (an event or a style is there) or a plain statement about a continuous factor. Because the world is
known, a caption is known to be true, false or undecided of every scene: contrastive training need not take a picture
for a negative that the
caption fits as well.
"""

from __future__ import annotations

import torch
from torch import Tensor

from soundguide.miniature.labels import LABELS
from soundguide.miniature.scene_events import daylight_after_events
from soundguide.miniature.scenes import CONTINUOUS

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

_STATEMENTS: tuple[tuple[str, str, float, float], ...] = (
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
FAINT = 0.15
"""Captions speak of an event from this intensity on: guidance must feel it before it is plain to see."""

_SLACK = 0.12  # so near its range a statement is neither true nor false

FACTS: tuple[str, ...] = (*LABELS, *(name for name, *_ in _STATEMENTS))
"""All facts, labels first."""

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


def truth(factors: Tensor) -> Tensor:
    """Return whether each fact holds, ``[B, num_facts]``: 1 true, 0 false, -1 undecided."""
    labels = factors[:, len(CONTINUOUS) :]
    known = torch.where(labels >= FAINT, 1, torch.where(labels <= 0, 0, -1))
    value = {name: factors[:, i] for i, name in enumerate((*CONTINUOUS, *LABELS))}
    value["daylight"] = daylight_after_events(value)
    columns = []
    for _, factor, low, high in _STATEMENTS:
        x = value[factor]
        inside = (x >= low) & (x <= high)
        near = (x >= low - _SLACK) & (x <= high + _SLACK)
        columns.append(torch.where(inside, 1, torch.where(near, -1, 0)))
    return torch.cat([known, torch.stack(columns, 1)], 1)


def false_of(facts: Tensor, captions: Tensor) -> Tensor:
    """Return ``[B, C]`` bool: caption c is false of scene b.

    ``facts``: ``[B, num_facts]`` from `truth`; ``captions``: ``[C, num_facts]`` bool, the facts that each caption
    states.
    """
    return (facts == 0).float() @ captions.float().T > 0


def undecided_or_true_of(facts: Tensor, captions: Tensor) -> Tensor:
    """Return ``[B, C]`` bool: caption c may be said of scene b, so that the two are no negatives."""
    return ~false_of(facts, captions)


def draw_captions(facts: Tensor, generator: torch.Generator) -> tuple[list[str], Tensor]:
    """Write a true caption for each scene; return texts and the stated facts ``[B, num_facts]`` bool.

    Five of six captions speak of one event or style where there is one, the others of one or two facts of any kind: the
    more an embedding says about the scene around an event, the more of the scene changes when a sound guides an edit.
    """
    texts, stated = [], torch.zeros(facts.shape, dtype=torch.bool)
    for row, fact_row in enumerate(facts):
        true = torch.nonzero(fact_row == 1).flatten()
        sounding = true[true < len(LABELS)]
        pool = sounding if len(sounding) and _draw(6, generator) else true
        if not len(pool):
            texts.append("a landscape")
            continue
        num = 2 if len(pool) > 1 and pool is true and _draw(2, generator) else 1
        chosen = pool[torch.randperm(len(pool), generator=generator)[:num]]
        stated[row, chosen] = True
        texts.append(phrase(tuple(FACTS[i] for i in chosen.tolist()), generator))
    return texts, stated


def phrase(facts: tuple[str, ...], generator: torch.Generator) -> str:
    """Write one caption that states ``facts``; every second word is the class name itself."""
    words = []
    for fact in facts:
        others = PHRASES.get(fact, ())
        words.append(others[_draw(len(others), generator)] if others and _draw(2, generator) else fact)
    return TEMPLATES[_draw(len(TEMPLATES), generator)].format(" and ".join(words))


def _draw(num: int, generator: torch.Generator) -> int:
    return int(torch.randint(num, (1,), generator=generator))
