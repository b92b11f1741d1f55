"""Captions that are known to be true, false or undecided of a scene."""

import torch

from soundguide.miniature.captions import (
    FACTS,
    PHRASES,
    draw_captions,
    phrase,
    truth,
)
from soundguide.miniature.labels import LABELS
from soundguide.miniature.scenes import CONTINUOUS, NUM_FACTORS, factors_from_z, sample_z
from soundguide.miniature.vocabulary import false_of, undecided_or_true_of


def scene(**values: float) -> torch.Tensor:
    """One scene, ``[1, NUM_FACTORS]``, all factors at a half and all events absent but for ``values``."""
    factors = torch.zeros(1, NUM_FACTORS)
    factors[:, : len(CONTINUOUS)] = 0.5
    for name, value in values.items():
        factors[0, (*CONTINUOUS, *LABELS).index(name.replace("_", " "))] = value
    return factors


def fact(facts: torch.Tensor, name: str) -> int:
    return int(facts[0, FACTS.index(name)])


def test_an_event_is_there_or_not_or_too_faint_to_say() -> None:
    assert [fact(truth(scene(raining=value)), "raining") for value in (0.0, 0.1, 0.3)] == [0, -1, 1]


def test_statements_about_the_hour_follow_the_light_that_events_leave() -> None:
    assert fact(truth(scene(daylight=0.9)), "a bright day") == 1
    assert fact(truth(scene(daylight=0.9, crickets_chirping_at_night=1.0)), "night") == 1


def test_drawn_captions_are_true_of_their_scenes_and_name_what_they_state() -> None:
    generator = torch.Generator().manual_seed(0)
    facts = truth(factors_from_z(sample_z(200, generator, crowded=True)))
    texts, stated = draw_captions(facts, generator)
    assert not false_of(facts, stated).diagonal().any()
    for text, row in zip(texts, stated, strict=True):
        for index in torch.nonzero(row).flatten().tolist():
            assert any(words in text for words in (FACTS[index], *PHRASES.get(FACTS[index], ())))


def test_a_caption_is_false_of_a_scene_as_soon_as_one_of_its_facts_is() -> None:
    facts = truth(torch.cat([scene(raining=1.0, house=0.9), scene(raining=1.0, house=0.1), scene(house=0.9)]))
    stated = torch.zeros(1, len(FACTS), dtype=torch.bool)
    stated[0, [FACTS.index("raining"), FACTS.index("a house")]] = True
    assert false_of(facts, stated).flatten().tolist() == [False, True, True]
    assert undecided_or_true_of(facts, stated).flatten().tolist() == [True, False, False]


def test_the_class_name_is_used_about_as_often_as_other_words() -> None:
    generator = torch.Generator().manual_seed(1)
    plain = sum("fire crackling" in phrase(("fire crackling",), generator) for _ in range(400))
    assert 150 < plain < 250
