"""How well the generator draws what the renderer paints, and how well CLIP tells the labels apart in both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from soundguide.miniature.reader import SceneReader
from soundguide.miniature.report.figures import Findings, Json
from soundguide.miniature.report.held_out import BATCH, Scenes, as_floats
from soundguide.miniature.report.judge import read
from soundguide.miniature.report.measures import label_aucs, mean
from soundguide.models.protocols import ImageTextEncoder

NUM_COMPARED = 512  # scenes whose pixels are compared with the renderer's


def measure_generator(scenes: Scenes, reader: SceneReader) -> Findings:
    """Compare the first `NUM_COMPARED` scenes with their renderings; let the reader find the labels in all of them."""
    drawn, truth = as_floats(scenes.generated[:NUM_COMPARED]), as_floats(scenes.rendered[:NUM_COMPARED])
    masks = scenes.masks[:NUM_COMPARED]
    errors = (drawn - truth).abs().mean(1, keepdim=True) / 2  # [S, 1, R, R], 0..1
    aucs = label_aucs(read(reader, scenes.generated).logits, scenes.factors, scenes.domain)
    on_renders = label_aucs(read(reader, scenes.rendered).logits, scenes.factors, scenes.domain)
    figures = {
        "generator_error": float(errors.mean()),
        "generator_event_error": float((errors * masks).sum() / masks.sum()),
        "generator_gradient_energy": float(gradient_energy(drawn) / gradient_energy(truth)),
        "generator_event_auc_min": min(aucs.values()),
        "generator_event_auc_mean": mean(list(aucs.values())),
    }
    details: dict[str, Json] = {
        "reader_auc_on_generated": {**aucs},
        "reader_auc_on_renders": {**on_renders},
        "event_error_by_label": {
            **_errors_by_label(errors, masks, scenes.factors[:NUM_COMPARED], scenes.domain.labels)
        },
    }
    return Findings(figures, details, worst={"generator_event_auc_min": min(aucs, key=lambda label: aucs[label])})


def measure_clip(scenes: Scenes, image_text: ImageTextEncoder, *, device: torch.device) -> Findings:
    """Rank renders and generated scenes by their cosine with each class name."""
    figures: dict[str, float] = {}
    details: dict[str, Json] = {}
    with torch.no_grad():
        texts = image_text.encode_text(list(scenes.domain.labels)).to(device)
        for name, images in (("renders", scenes.rendered), ("generated", scenes.generated)):
            parts = [
                image_text.encode_image(as_floats(part.to(device))) @ texts.T for part in torch.split(images, BATCH)
            ]
            aucs = label_aucs(torch.cat(parts).cpu(), scenes.factors, scenes.domain)
            figures[f"clip_auc_{name}"] = mean(list(aucs.values()))
            details[f"auc_on_{name}"] = {**aucs}
    return Findings(figures, details)


def gradient_energy(images: Tensor) -> Tensor:
    """Return the mean squared difference of neighbours, right and below, of images ``[S, 3, R, R]``."""
    return images.diff(dim=3).square().mean() + images.diff(dim=2).square().mean()


def _errors_by_label(errors: Tensor, masks: Tensor, factors: Tensor, labels: Sequence[str]) -> dict[str, float]:
    """Return the error inside the event masks of the scenes that show each label, 0..1; NaN where none does."""
    result = {}
    for index, label in enumerate(labels, start=factors.shape[1] - len(labels)):
        rows = factors[:, index] > 0
        result[label] = float((errors[rows] * masks[rows]).sum() / masks[rows].sum())
    return result
