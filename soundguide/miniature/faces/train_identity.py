"""Train the face world's ArcFace (Deng et al. 2019): who it is, whatever the face expresses, wherever it is.

Every person is a class. Half of the people are siblings of another who differ in a few visible things only, such as
glasses: without them, all that a person wears could change a little before it were somebody else.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundguide.miniature.faces.faces import CONTINUOUS, IDENTITY, LATENTS, NUM_FACTORS, render, visible_factors
from soundguide.miniature.faces.labels import LABELS
from soundguide.miniature.train_generator import codes_of
from soundguide.miniature.train_image_text import spoil
from soundguide.miniature.training import Training, compiled
from soundguide.models.arcface import AlignmentConfig, ArcFaceConfig, ArcFaceEncoder
from soundguide.models.stylegan2 import StyleGAN2

# 112 pixels are the least that insightface reads; the world's faces lie in the same place of every picture. A
# first width that is no multiple of 16 crashes torch's backward pass of channels-last convolutions on some machines.
ARCFACE = ArcFaceConfig(
    layers=(1, 2, 2, 1), widths=(16, 24, 40, 48), input_size=112, embed_dim=96, alignment=AlignmentConfig(crop="whole")
)

NUM_PEOPLE = 2048
BATCH, POOL, REFILL, REFILL_EVERY = 64, 16_384, 512, 16
RENDER_SIDE = 64
SCALE, MARGIN = 24.0, 0.3  # of the cosines, and of the angle to one's own class
LEAST_CHANGE = 0.4  # of what siblings differ in, as a picture shows it


class PeoplePool:
    """Pictures of people, as bytes, slowly replaced by fresh ones; every second one is by the generator."""

    def __init__(self, people: Tensor, size: int, drawn_by: StyleGAN2, generator: torch.Generator) -> None:
        self.people, self.drawn_by, self.generator, self.next = people, drawn_by, generator, 0
        self.who = torch.zeros(size, dtype=torch.int64)
        self.images = torch.zeros(size, 3, RENDER_SIDE, RENDER_SIDE, dtype=torch.uint8)

    @torch.no_grad()
    def refill(self, num: int) -> None:
        """Take ``num`` fresh pictures, in place of the oldest ones."""
        for _ in range(num // 64):
            who = torch.randint(len(self.people), (64,), generator=self.generator)
            factors = in_any_mood(self.people[who], self.generator)
            drawn = self.drawn_by.synthesize(codes_of(factors[::2], self.drawn_by, LATENTS))
            images = render(factors, RENDER_SIDE).images
            images[::2] = drawn.clamp(-1, 1)
            place = slice(self.next, self.next + 64)
            self.who[place], self.images[place] = who, ((images + 1) * 127.5).round().to(torch.uint8)
            self.next = (self.next + 64) % len(self.who)

    def draw(self, num: int) -> tuple[Tensor, Tensor]:
        """Return ``num`` random pictures ``[num, 3, 64, 64]`` in [-1, 1] and who is in them."""
        rows = torch.randint(len(self.who), (num,), generator=self.generator)
        return self.images[rows].float() / 127.5 - 1, self.who[rows]


def draw_people(num: int, generator: torch.Generator) -> Tensor:
    """Draw what makes ``num`` people, ``[num, len(IDENTITY)]``: strangers first, then a sibling of each."""
    strangers = torch.rand(num - num // 2, len(IDENTITY), generator=generator)
    siblings = strangers[: num // 2].clone()
    before = _visible(siblings)
    alike = torch.ones(len(siblings), dtype=torch.bool)
    while alike.any():
        rows = torch.nonzero(alike).flatten()
        again = strangers[rows].clone()
        for _ in range(2):  # one or two things
            column = torch.randint(len(IDENTITY), (len(rows), 1), generator=generator)
            again.scatter_(1, column, torch.rand(len(rows), 1, generator=generator))
        siblings[rows] = again
        alike = (_visible(siblings) - before).abs().amax(1) < LEAST_CHANGE
    return torch.cat([strangers, siblings])


def in_any_mood(people: Tensor, generator: torch.Generator) -> Tensor:
    """Return factors ``[B, NUM_FACTORS]`` of people with any wall and clothes, three of four with an expression."""
    num = len(people)
    factors = torch.zeros(num, NUM_FACTORS)
    factors[:, : len(IDENTITY)] = people
    around = len(CONTINUOUS) - len(IDENTITY)
    factors[:, len(IDENTITY) : len(CONTINUOUS)] = torch.rand(num, around, generator=generator)
    label = torch.randint(len(LABELS), (num, 1), generator=generator)
    strength = (1.3 * torch.rand(num, 1, generator=generator) - 0.3).clamp_min(0)
    return factors.scatter(1, len(CONTINUOUS) + label, strength)


def angular_margin_loss(embeddings: Tensor, classes: Tensor, who: Tensor) -> Tensor:
    """Return Deng et al. 2019, Eq. 3: cross-entropy of scaled cosines, one's own at an angle larger by `MARGIN`.

    ``embeddings`` ``[B, E]`` of unit norm, ``classes`` ``[P, E]`` of any, ``who`` ``[B]``.
    """
    cosines = embeddings @ F.normalize(classes, dim=1).T  # [B, P]
    own = cosines.gather(1, who[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
    # an angle beyond pi would count as a smaller one again
    harder = torch.cos((torch.acos(own) + MARGIN).clamp(max=math.pi))
    return F.cross_entropy(SCALE * cosines.scatter(1, who[:, None], harder), who)


def train_identity(
    folder: Path,
    drawn_by: StyleGAN2,
    *,
    config: ArcFaceConfig = ARCFACE,
    num_steps: int = 1200,
    num_people: int = NUM_PEOPLE,
    pool_size: int = POOL,
) -> ArcFaceEncoder:
    """Train (or go on training) the identity encoder in ``folder``; return the averaged one.

    ``drawn_by``: the generator whose pictures are learned beside the renderer's; ``pool_size``: pictures at hand.
    """
    encoder = ArcFaceEncoder(config)
    drawn = torch.Generator().manual_seed(4)
    people = draw_people(num_people, drawn)
    classes = nn.Parameter(torch.randn(num_people, config.embed_dim, generator=drawn))
    module = nn.ModuleDict({"encoder": encoder, "classes": nn.ParameterList([classes])})
    module.to(memory_format=torch.channels_last)
    training = Training(
        module,
        folder,
        num_steps=num_steps,
        learning_rate=2e-3,
        matrices=[weight for weight in encoder.parameters() if weight.dim() == 4],
        matrix_rate=0.01,
        weight_decay=0.01,
        average_over=100,
        seed=78,
    )
    pool = PeoplePool(people, pool_size, drawn_by, training.generator)
    pool.refill(pool_size)
    module.train()
    encode = compiled(encoder.encode_identity, num_steps=num_steps)
    for step in training.steps():
        if (step + 1) % REFILL_EVERY == 0:
            pool.refill(REFILL)
        images, who = pool.draw(BATCH)
        embeddings = encode(spoil(images, training.generator))
        loss = angular_margin_loss(embeddings, classes, who)
        known = (embeddings.detach() @ F.normalize(classes.detach(), dim=1).T).argmax(1) == who
        training.update(loss, known=known.float().mean())
    averaged = training.averaged.get_submodule("encoder")
    assert isinstance(averaged, ArcFaceEncoder)
    return averaged.eval().requires_grad_(False)


def _visible(people: Tensor) -> Tensor:
    """Return what a picture shows of people, ``[B, len(IDENTITY)]``."""
    factors = torch.zeros(len(people), NUM_FACTORS)
    factors[:, : len(IDENTITY)] = people
    return visible_factors(factors)[:, : len(IDENTITY)]
