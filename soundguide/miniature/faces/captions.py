"""Captions of faces, from class names to sentences, and whether a caption is true of a face."""

from __future__ import annotations

import torch
from torch import Tensor

from soundguide.miniature.faces.faces import CONTINUOUS
from soundguide.miniature.faces.labels import LABELS
from soundguide.miniature.faces.portrait import baldness, greyness
from soundguide.miniature.vocabulary import Statement, Vocabulary

PHRASES: dict[str, tuple[str, ...]] = {
    "giggling": ("laughter", "laughing", "a laughing face", "a fit of giggles", "somebody who laughs"),
    "sobbing": ("tears", "crying", "a crying face", "weeping", "somebody in tears"),
    "coughing": ("a cough", "a coughing fit", "coughing into a fist", "a bad cough", "somebody who coughs"),
    "sneezing": ("a sneeze", "achoo", "a sneezing face", "a loud sneeze", "somebody who sneezes"),
    "screaming": ("a scream", "shouting", "yelling", "a screaming face", "somebody who shrieks"),
    "yawning": ("a yawn", "a sleepy face", "tiredness", "a big yawn", "somebody who yawns"),
}
"""Other words for each label."""

_STATEMENTS: tuple[Statement, ...] = (
    ("glasses", "glasses", 0.66, 1.0),
    ("no glasses", "glasses", 0.0, 0.5),
    ("a beard", "beard", 0.72, 1.0),
    ("no beard", "beard", 0.0, 0.48),
    ("a bald head", "bald", 0.75, 1.0),
    ("long hair", "hair length", 0.75, 1.0),
    ("short hair", "hair length", 0.0, 0.22),
    ("curly hair", "hair style", 0.85, 1.0),
    ("a fringe", "hair style", 0.0, 0.2),
    ("black hair", "hair colour", 0.0, 0.12),
    ("brown hair", "hair colour", 0.25, 0.38),
    ("red hair", "hair colour", 0.5, 0.62),
    ("blond hair", "hair colour", 0.85, 1.0),
    ("grey hair", "grey", 0.6, 1.0),
    ("an old face", "age", 0.85, 1.0),
    ("a young face", "age", 0.0, 0.4),
    ("pale skin", "skin", 0.0, 0.15),
    ("dark skin", "skin", 0.85, 1.0),
    ("brown eyes", "eye colour", 0.0, 0.2),
    ("green eyes", "eye colour", 0.6, 0.74),
    ("blue eyes", "eye colour", 0.88, 1.0),
    ("a wide face", "width", 0.85, 1.0),
    ("a narrow face", "width", 0.0, 0.15),
    ("a big nose", "nose", 0.85, 1.0),
    ("bushy eyebrows", "brows", 0.85, 1.0),
)
TEMPLATES = (
    "{}",
    "{}",
    "{}",
    "a picture of {}",
    "a portrait with {}",
    "the sound of {}",
    "a face, {}",
    "this is {}",
)

VOCABULARY = Vocabulary(LABELS, PHRASES, _STATEMENTS, TEMPLATES, "a face")
_NOWHERE = 2.0  # a value that no statement's range comes near


def truth(factors: Tensor) -> Tensor:
    """Return whether each fact holds of faces ``[B, NUM_FACTORS]``: ``[B, num_facts]``, see `Vocabulary.truth`.

    Of hair that is grey no other colour is true, and of a bald head no hair at all.
    """
    value = {name: factors[:, i] for i, name in enumerate((*CONTINUOUS, *LABELS))}
    value["bald"], value["grey"] = baldness(value["baldness"]), greyness(value["age"])
    hairless = value["bald"] > 0.6
    value["grey"] = torch.where(hairless, _NOWHERE, value["grey"])
    for name in ("hair length", "hair style", "hair colour"):
        value[name] = torch.where(hairless, _NOWHERE, value[name])
    value["hair colour"] = torch.where(value["grey"] > 0.3, _NOWHERE, value["hair colour"])
    return VOCABULARY.truth(value)
