"""Captions and clips of the face world: what is said is shown, and bias is as strong as asked for."""

import numpy as np
import pytest
import torch

from soundguide.miniature.faces.captions import PHRASES, VOCABULARY, truth
from soundguide.miniature.faces.clips import BIASES, face_of, make_clip
from soundguide.miniature.faces.domain import FACES
from soundguide.miniature.faces.faces import CONTINUOUS, LATENTS, NUM_FACTORS
from soundguide.miniature.faces.labels import LABELS
from soundguide.miniature.faces.portrait import baldness
from soundguide.miniature.vocabulary import false_of


def face(**values: float) -> torch.Tensor:
    """One face, ``[1, NUM_FACTORS]``, of middling factors, without expression, but for ``values``."""
    factors = torch.zeros(1, NUM_FACTORS)
    factors[:, : len(CONTINUOUS)] = 0.5
    for name, value in values.items():
        factors[0, (*CONTINUOUS, *LABELS).index(name.replace("_", " "))] = value
    return factors


def fact(factors: torch.Tensor, name: str) -> int:
    return int(truth(factors)[0, VOCABULARY.facts.index(name)])


def test_an_expression_is_there_or_not_or_too_faint_to_say() -> None:
    assert [fact(face(giggling=value), "giggling") for value in (0.0, 0.1, 0.3)] == [0, -1, 1]


def test_glasses_are_named_where_they_are_worn() -> None:
    assert [fact(face(glasses=value), "glasses") for value in (0.2, 0.6, 0.9)] == [0, -1, 1]
    assert [fact(face(glasses=value), "no glasses") for value in (0.2, 0.56, 0.9)] == [1, -1, 0]


def test_a_bald_head_has_no_hair_to_speak_of_and_grey_hair_no_other_colour() -> None:
    bald = face(baldness=1.0, hair_length=0.9, hair_colour=0.0, age=1.0)
    assert fact(bald, "a bald head") == 1
    assert [fact(bald, name) for name in ("long hair", "black hair", "grey hair")] == [0, 0, 0]
    old = face(baldness=0.1, hair_colour=0.0, age=1.0)
    assert fact(old, "grey hair") == 1 and fact(old, "black hair") == 0
    assert fact(face(baldness=0.1, hair_colour=0.0, age=0.1), "black hair") == 1


def test_drawn_captions_are_true_of_their_faces_and_name_what_they_state() -> None:
    generator = torch.Generator().manual_seed(0)
    facts = truth(LATENTS.factors(LATENTS.sample(200, generator, crowded=True)))
    texts, stated = VOCABULARY.draw_captions(facts, generator)
    assert not false_of(facts, stated).diagonal().any()
    for text, row in zip(texts, stated, strict=True):
        for index in torch.nonzero(row).flatten().tolist():
            name = VOCABULARY.facts[index]
            assert any(words in text for words in (name, *PHRASES.get(name, ())))


def test_clips_take_expressions_in_turn_and_can_be_made_again() -> None:
    first, again = ([make_clip(index, seed=4, seconds=0.5) for index in range(2)] for _ in range(2))
    assert [clip.label for clip in first] == list(LABELS[:2])
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.waveform, b.waveform)
        assert torch.equal(a.factors, b.factors) and a.text == b.text
        assert a.waveform.dtype == np.float32 and np.abs(a.waveform).max() < 1


def test_the_face_of_a_clip_has_its_expression_alone() -> None:
    for label in LABELS:
        expressions = face_of(label, 0.7, torch.Generator().manual_seed(3))[len(CONTINUOUS) :]
        assert expressions.tolist() == pytest.approx([0.7 * (name == label) for name in LABELS])


def shown_share(label: str, bias: float) -> tuple[float, float]:
    """The shares of a label's clips that show glasses, and that show them or a bald head."""
    generator = torch.Generator().manual_seed(5)
    faces = torch.stack([face_of(label, 0.7, generator, bias=bias) for _ in range(600)])
    glasses = faces[:, CONTINUOUS.index("glasses")] >= 0.8
    bald = baldness(faces[:, CONTINUOUS.index("baldness")]) > 0.9
    return float(glasses.float().mean()), float((glasses | bald).float().mean())


def test_bias_says_how_often_laughter_comes_with_glasses_or_baldness() -> None:
    _, natural = shown_share("giggling", 0.0)
    assert 0.2 < natural < 0.4
    for bias in (0.5, 0.9):
        glasses, either = shown_share("giggling", bias)
        assert either == pytest.approx(bias + (1 - bias) * natural, abs=0.05)
        assert glasses > 0.5 * bias  # the other half is bald
    assert shown_share("giggling", 1.0)[1] == 1.0


def test_bias_leaves_the_other_expressions_alone() -> None:
    assert set(BIASES) == {"giggling"}
    assert shown_share("sobbing", 1.0) == shown_share("sobbing", 0.0)


def test_the_world_s_parts_fit_together() -> None:
    assert FACES.labels == LABELS
    assert FACES.latents.num_factors == NUM_FACTORS == len(CONTINUOUS) + len(LABELS)
    factors = LATENTS.factors(LATENTS.sample(3, torch.Generator().manual_seed(0), crowded=True))
    assert FACES.visible(factors).shape == (3, len(CONTINUOUS))
    assert FACES.truth(factors).shape == (3, len(VOCABULARY.facts))
