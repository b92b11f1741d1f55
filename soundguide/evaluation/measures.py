"""Zero-shot and linear-probe accuracy from embeddings, with intervals and tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from torch import Tensor

from soundguide.audio.decode import Samples, decode_audio
from soundguide.audio.windows import pool_stream, split_windows
from soundguide.config import Frozen
from soundguide.errors import InvalidEdit, InvalidManifest
from soundguide.evaluation.sound_sets import LabelledSound
from soundguide.models.protocols import AudioEncoder, ImageTextEncoder
from soundguide.storage import Storage

Z_95 = 1.959963985  # two-sided 95 % of the normal distribution


class EvaluationSettings(Frozen):
    """What decides the figures beside the encoder and the sounds."""

    templates: Annotated[
        tuple[str, ...], Field(min_length=1, description="Prompts of a class; {} is its name. They are averaged.")
    ] = ("{}", "the sound of {}")

    @field_validator("templates")
    @classmethod
    def _check_templates(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if template.count("{}") != 1 or template.replace("{}", "").count("{"):
                raise ValueError(f"the template {template!r} must hold {{}} once, where the name of the class goes")
        return templates

    padding: Annotated[
        Literal["repeat", "zeros"], Field(description="How sounds shorter than the encoder's window fill it.")
    ] = "repeat"
    num_folds: Annotated[int, Field(ge=2, le=100, description="Folds of the probe where the sounds have none.")] = 5
    inverse_regularisation: Annotated[
        float, Field(gt=0, description="C of scikit-learn's LogisticRegression, on standardised embeddings.")
    ] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**32, description="Seed of folds and of t-SNE.")] = 0


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings ``[N, E]`` of the sounds that could be read, those sounds, and what was wrong with the others."""

    embeddings: NDArray[np.float64]
    sounds: list[LabelledSound]
    failures: dict[str, str]


def embed_sounds(
    sounds: Sequence[LabelledSound], encoder: AudioEncoder, settings: EvaluationSettings, storage: Storage
) -> Iterator[tuple[LabelledSound, Tensor | InvalidEdit]]:
    """Yield each sound with its embedding ``[E]``, or with what is wrong with it; windows are pooled by loudness."""
    device = next(encoder.parameters()).device if isinstance(encoder, torch.nn.Module) else torch.device("cpu")

    def encode(windows: Tensor) -> Tensor:
        with torch.no_grad():
            return encoder.encode_audio(windows.to(device)).float().cpu()

    for sound in sounds:
        try:
            waveform = decode_audio(storage.read_bytes(sound.uri), sample_rate=encoder.sample_rate)
            windows = split_windows(
                [_padded(waveform, encoder.num_samples, settings.padding)],
                window_samples=encoder.num_samples,
                hop_samples=encoder.num_samples,
            )
            yield sound, pool_stream(windows, encode, batch_size=16).embedding
        except InvalidEdit as error:
            yield sound, error


def gather(found: Iterator[tuple[LabelledSound, Tensor | InvalidEdit]]) -> Embedded:
    """Collect what `embed_sounds` yields. Raises `InvalidManifest` where no two classes can be read."""
    embeddings: list[NDArray[np.float64]] = []
    sounds: list[LabelledSound] = []
    failures: dict[str, str] = {}
    for sound, result in found:
        if isinstance(result, InvalidEdit):
            failures[sound.uri] = str(result)
        else:
            embeddings.append(result.double().numpy())
            sounds.append(sound)
    if len({sound.label for sound in sounds}) < 2:
        example = next(iter(failures.items()), ("", "there are none"))
        raise InvalidManifest(
            f"{len(sounds)} sounds of {len(sounds) + len(failures)} could be read, of fewer than two classes "
            f"({': '.join(filter(None, example))}). Check the folder and the paths"
        )
    return Embedded(np.stack(embeddings), sounds, failures)


def embed_classes(classes: Sequence[str], text: ImageTextEncoder, settings: EvaluationSettings) -> NDArray[np.float64]:
    """Return one unit embedding for each class, ``[C, E]``: the mean over the templates."""
    rows = []
    for name in classes:
        spoken = name.replace("_", " ")
        with torch.no_grad():
            rows.append(text.encode_text([template.format(spoken) for template in settings.templates]).double().mean(0))
    means = torch.stack(rows)
    unit: NDArray[np.float64] = (means / means.norm(dim=1, keepdim=True)).cpu().numpy()
    return unit


def zero_shot(embeddings: NDArray[np.float64], classes: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each sound ``[N, E]`` the index of the nearest class ``[C, E]``."""
    nearest: NDArray[np.int64] = (embeddings @ classes.T).argmax(1)
    return nearest


def linear_probe(
    embeddings: NDArray[np.float64], labels: NDArray[np.int64], folds: Sequence[str], settings: EvaluationSettings
) -> NDArray[np.int64]:
    """Return what a logistic regression that was fitted on the other folds takes each sound for, ``[N]``.

    ``folds``: the data set's own; where any is empty, stratified folds are drawn. -1 where fewer than two classes lie
    outside a fold. Raises `InvalidManifest` where no folds can be drawn.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = np.full(len(labels), -1, np.int64)
    for train, test in _splits(labels, folds, settings):
        if len(np.unique(labels[train])) < 2:
            continue
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=settings.inverse_regularisation, max_iter=2000))
        probe.fit(embeddings[train], labels[train])
        found[test] = probe.predict(embeddings[test])
    return found


def figures(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Return accuracy with its 95 % interval (Wilson), that of each class, and the confusion matrix as counts.

    ``confusion[i][j]``: sounds of class i taken for class j.
    """
    right = labels == predicted
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    known = predicted >= 0
    np.add.at(confusion, (labels[known], predicted[known]), 1)
    per_class = {name: float(right[labels == index].mean()) for index, name in enumerate(classes)}
    return {
        "accuracy": float(right.mean()),
        "interval_95": list(wilson_interval(int(right.sum()), len(right))),
        "sounds": len(right),
        "accuracy_by_class": per_class,
        "accuracy_macro": float(np.mean(list(per_class.values()))),
        "confusion": confusion.tolist(),
    }


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share that was seen ``right`` times in ``total`` (Wilson 1927)."""
    if not total:
        return 0.0, 1.0
    share, squared = right / total, Z_95**2
    centre = (share + squared / (2 * total)) / (1 + squared / total)
    half = Z_95 * math.sqrt(share * (1 - share) / total + squared / (4 * total**2)) / (1 + squared / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def _splits(
    labels: NDArray[np.int64], folds: Sequence[str], settings: EvaluationSettings
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the rows to fit on and the rows to judge, for each fold."""
    from sklearn.model_selection import LeaveOneGroupOut, StratifiedKFold

    if len(set(folds)) > 1 and all(folds):
        yield from LeaveOneGroupOut().split(labels[:, None], labels, np.array(folds))
        return
    rarest = int(np.bincount(labels).min())
    num_folds = min(settings.num_folds, rarest)
    if num_folds < 2:
        raise InvalidManifest(
            "some class has one sound alone, so that no fold can be judged by the others. Add sounds, or leave it out"
        )
    yield from StratifiedKFold(num_folds, shuffle=True, random_state=settings.seed).split(labels[:, None], labels)


def _padded(waveform: Samples, num_samples: int, padding: str) -> Samples:
    if padding == "zeros" and len(waveform) < num_samples:
        return np.pad(waveform, (0, num_samples - len(waveform)))
    return waveform  # `split_windows` repeats what is short
