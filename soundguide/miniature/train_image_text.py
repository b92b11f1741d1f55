"""Train the miniature's CLIP on rendered scenes, on the generator's own pictures, and on spoiled ones."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from soundguide.contrastive import INITIAL_LOG_SCALE, clamp_logit_scale, info_nce
from soundguide.miniature.domain import Domain
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.train_generator import ScenePool
from soundguide.miniature.training import Training
from soundguide.miniature.vocabulary import undecided_or_true_of
from soundguide.models.image_text import OpenClipConfig, OpenClipEncoder
from soundguide.models.stylegan2 import StyleGAN2

IMAGE_TEXT = OpenClipConfig(
    model_config_json={
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": (2, 2, 2, 1), "width": 20},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    },
)

BATCH = 128
POOL = 32_768
REFILL, REFILL_EVERY = 1024, 32


def spoil(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, shift, recolour and add noise to pictures ``[B, 3, H, W]`` in [-1, 1], a third of them not at all.

    An encoder that has seen such pictures is harder to fool by an optimiser.
    """
    num = len(images)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(num, *shape, generator=generator)

    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), 3, 1)
    spoiled = torch.lerp(images, blurred, draw(-0.4, 1.0, 1, 1, 1))  # below 0: sharpened
    spoiled = spoiled * draw(0.8, 1.2, 3, 1, 1) * draw(0.8, 1.2, 1, 1, 1) + draw(-0.12, 0.12, 1, 1, 1)
    grain = torch.randn(images.shape, generator=generator)
    blotches = F.interpolate(
        torch.randn(num, 3, 8, 8, generator=generator), scale_factor=images.shape[2] // 8, mode="bilinear"
    )
    spoiled = spoiled + draw(0, 0.15, 1, 1, 1) * grain + draw(0, 0.2, 1, 1, 1) * blotches
    pad = images.shape[2] // 16
    dx, dy = torch.randint(0, 2 * pad + 1, (2,), generator=generator).tolist()
    spoiled = F.pad(spoiled, (pad,) * 4, mode="replicate")[:, :, dy : dy + images.shape[2], dx : dx + images.shape[3]]
    kept = torch.rand(num, 1, 1, 1, generator=generator) < 1 / 3
    return torch.where(kept, images, spoiled).clamp(-1, 1)


@torch.no_grad()
def generated_pool(pool: ScenePool, generator_model: StyleGAN2, rows: Tensor) -> None:
    """Replace the pictures of some rows of a pool by the generator's, of codes with a little noise."""
    for part in rows.split(64):
        ws = generator_model.map(pool.z[part])
        ws = ws + 0.15 * ws[:, :1].std(0) * torch.randn(ws.shape, generator=pool.generator)
        images = generator_model.synthesize(ws).clamp(-1, 1)
        pool.images[part] = ((images + 1) * 127.5).round().to(torch.uint8)


def train_image_text(
    folder: Path,
    generator_model: StyleGAN2,
    *,
    domain: Domain = LANDSCAPE,
    config: OpenClipConfig = IMAGE_TEXT,
    num_steps: int = 2000,
    pool_size: int = POOL,
) -> OpenClipEncoder:
    """Train (or go on training) the image and text encoder of a world in ``folder``; return the averaged one.

    ``pool_size``: pictures kept at hand.
    """
    model = OpenClipEncoder(config)
    model.clip.visual.to(memory_format=torch.channels_last)
    model.logit_scale.data.fill_(INITIAL_LOG_SCALE)
    training = Training(
        model,
        folder,
        num_steps=num_steps,
        learning_rate=2e-3,
        matrices=[weight for weight in model.clip.visual.parameters() if weight.dim() == 4],
        matrix_rate=0.01,
        weight_decay=0.02,
        betas=(0.9, 0.98),
        average_over=200,
    )
    pool = ScenePool(domain, model.resolution, pool_size, training.generator)
    pool.refill(pool_size)
    generated_pool(pool, generator_model, torch.arange(0, pool_size, 2))  # every second picture is the generator's
    for step in training.steps():
        if (step + 1) % REFILL_EVERY == 0:
            first = pool.next
            pool.refill(REFILL)
            generated_pool(pool, generator_model, torch.arange(first, first + REFILL, 2))
        z, images, _ = pool.draw(BATCH)
        facts = domain.truth(domain.latents.factors(z))
        texts, stated = domain.vocabulary.draw_captions(facts, training.generator)
        same = undecided_or_true_of(facts, stated)
        image = model.encode_image(spoil(images, training.generator))
        text = model.encode_text(texts)
        loss = info_nce(image, text, logit_scale=model.logit_scale, same=same)
        training.update(loss, scale=model.logit_scale.detach().exp())
        clamp_logit_scale(model.logit_scale)
    averaged = training.averaged
    assert isinstance(averaged, OpenClipEncoder)
    return averaged.eval().requires_grad_(False)
