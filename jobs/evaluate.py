r"""Measure a sound encoder: zero-shot by the names of the classes, and by a linear probe on the set's own folds.

ESC-50 or UrbanSound8K, in the folders that their archives unpack to:
  python jobs/evaluate.py --esc50 ESC-50-master --audio out/encoder/encoder --image_text CLIP --output out/esc50
  python jobs/evaluate.py --urbansound8k UrbanSound8K --audio out/encoder/encoder --output out/us8k

sounds of your own (CSV, JSON Lines or Parquet with audio, label and perhaps fold):
  python jobs/evaluate.py --manifest sounds.csv --audio out/encoder/encoder --output out/mine

The output folder has evaluation.json with all figures, confusion_zero_shot.png, confusion_probe.png and map.png. Where
no linear probe can be made, it is said why, there and in evaluation.json (no_probe).
"""

import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated, Any, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from rich.console import Console
from rich.progress import track
from rich.table import Table

from job_config import JobConfig, place_output, run_job
from soundguide import __version__
from soundguide.errors import InvalidConfig, InvalidManifest
from soundguide.evaluation.measures import (
    EvaluationSettings,
    embed_classes,
    embed_sounds,
    figures,
    gather,
    linear_probe,
    zero_shot,
)
from soundguide.evaluation.plots import confusion_png, map_png
from soundguide.evaluation.sound_sets import read_esc50, read_plain_sounds, read_urbansound8k
from soundguide.models.checkpoint import load_model
from soundguide.models.image_text import OpenClipEncoder
from soundguide.models.kinds import AUDIO_ENCODERS
from soundguide.models.manifest import MINIATURE, resolve_model
from soundguide.models.protocols import AudioEncoder
from soundguide.storage import Storage, join_uri
from soundguide.world import device_name

_READERS = {"esc50": read_esc50, "urbansound8k": read_urbansound8k, "manifest": read_plain_sounds}
_NUM_SHOWN = 5
_USAGE = "python jobs/evaluate.py (--esc50 | --urbansound8k | --manifest) SOUNDS --audio MODEL --output O"


class EvaluateConfig(JobConfig):
    esc50: Annotated[str, Field(description="Folder of ESC-50.")] = ""
    urbansound8k: Annotated[str, Field(description="Folder of UrbanSound8K.")] = ""
    manifest: Annotated[str, Field(description="Manifest of sounds: audio, label and perhaps fold.")] = ""
    audio: Annotated[str, Field(description="Sound encoder: a model folder, or 'miniature'.")] = MINIATURE
    image_text: Annotated[str, Field(description="Its image-text encoder: a model folder, or 'miniature'.")] = MINIATURE
    output: Annotated[str, Field(description="Folder for evaluation.json and the pictures.")]
    evaluation: Annotated[EvaluationSettings, Field(description="Prompts, padding, folds.")] = EvaluationSettings()
    device: Annotated[str, Field(description="'auto' (CUDA where there is one), 'cpu' or 'cuda[:N]'.")] = "auto"

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        given = list(self.sources())
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(_READERS)}, got {' and '.join(given) or 'none'}")
        return self

    def sources(self) -> dict[str, str]:
        """Return what sounds were named, by the kind of the set."""
        named = {"esc50": self.esc50, "urbansound8k": self.urbansound8k, "manifest": self.manifest}
        return {kind: where for kind, where in named.items() if where}


def run(config: EvaluateConfig, console: Console) -> int:
    """Run the evaluation; return the exit code. Raises InvalidProgram, before anything is heard where it can."""
    for package in ("sklearn", "matplotlib"):
        if find_spec(package) is None:
            raise InvalidConfig(f"the package {package} is missing. Install it: pip install 'soundguide[evaluate]'")
    storage, settings = Storage(config.storage), config.evaluation
    output = place_output(config.output)
    [(kind, where)] = config.sources().items()
    sounds = _READERS[kind](where, storage)
    audio, text, digests = _models(config)
    found = track(
        embed_sounds(sounds, audio, settings, storage),
        total=len(sounds),
        description="listening",
        console=console,
        disable=not config.shows_bars,
        transient=True,
    )
    embedded = gather(iter(found))
    classes = sorted({sound.label for sound in embedded.sounds})
    labels = np.array([classes.index(sound.label) for sound in embedded.sounds])
    folds = [sound.fold for sound in embedded.sounds]
    answers = {"zero_shot": zero_shot(embedded.embeddings, embed_classes(classes, text, settings))}
    no_probe = ""
    try:
        answers["probe"] = linear_probe(embedded.embeddings, labels, folds, settings)
    except InvalidManifest as error:
        no_probe = str(error)
    measured = {name: figures(labels, answer, classes) for name, answer in answers.items()}
    report = {
        "set": kind,
        "classes": classes,
        **measured,
        "probe_by_fold": _by_fold(labels == answers["probe"], folds) if "probe" in answers else {},
        "no_probe": no_probe,
        "unreadable": embedded.failures,
        "settings": settings.model_dump(mode="json"),
        "models": digests,
        "version": __version__,
    }
    pictures = _pictures(measured, classes)
    pictures["map.png"] = map_png(embedded.embeddings, labels, classes, seed=settings.seed)
    for name, data in pictures.items():
        storage.write_bytes(join_uri(output, name), data)
    storage.write_bytes(join_uri(output, "evaluation.json"), (json.dumps(report, indent=2) + "\n").encode())
    show(console, report, output)
    return 3 if config.strict and embedded.failures else 0


def show(console: Console, report: dict[str, Any], output: str) -> None:
    """Print the figures, the classes that are named worst, and where the pictures are."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    kinds = {"zero_shot": "zero-shot", "probe": "linear probe"}
    both = [report[name] for name in kinds if name in report]
    table.add_column("")
    for name in (kinds[name] for name in kinds if name in report):
        table.add_column(name, justify="right")
    table.add_row("accuracy", *(f"{found['accuracy']:.1%}" for found in both), style="bold")
    table.add_row("95 % interval", *("{:.1%} to {:.1%}".format(*found["interval_95"]) for found in both))
    table.add_row("mean over classes", *(f"{found['accuracy_macro']:.1%}" for found in both))
    worst = sorted(report["classes"], key=lambda name: both[0]["accuracy_by_class"][name])
    for name in worst[:_NUM_SHOWN]:
        table.add_row(f"  {name}", *(f"{found['accuracy_by_class'][name]:.0%}" for found in both), style="dim")
    console.print(table)
    if report["no_probe"]:
        console.print(f"no linear probe, and so no confusion_probe.png: {report['no_probe']}", style="yellow")
    if report["unreadable"]:
        uri, reason = next(iter(report["unreadable"].items()))
        console.print(f"{len(report['unreadable'])} sounds left out, such as {uri}: {reason}", style="yellow")
    console.print(f"{both[0]['sounds']:,} sounds of {len(report['classes'])} classes; look at {output}")


def main(argv: Sequence[str]) -> int:
    """Run the program with the arguments `argv`; return its exit code."""
    return run_job(run, EvaluateConfig, argv, usage=_USAGE, description=str(__doc__))


def _models(config: EvaluateConfig) -> tuple[AudioEncoder, OpenClipEncoder, dict[str, str]]:
    device = torch.device(device_name(config.device))
    audio = load_model(resolve_model(config.audio, "audio"), device=device)
    text = load_model(resolve_model(config.image_text, "image_text"), device=device)
    if not isinstance(audio.module, AUDIO_ENCODERS) or not isinstance(text.module, OpenClipEncoder):
        raise InvalidConfig(
            f"audio is of kind {audio.config.kind!r} and image_text of {text.config.kind!r}. Name a sound encoder and "
            "an image-text encoder"
        )
    if audio.module.embed_dim != text.module.embed_dim:
        raise InvalidConfig(
            f"audio embeds {audio.module.embed_dim} wide and image_text {text.module.embed_dim}. Name the image-text "
            "encoder into whose space the sound encoder was trained"
        )
    return audio.module, text.module, {"audio": audio.sha256, "image_text": text.sha256}


def _by_fold(right: np.ndarray, folds: Sequence[str]) -> dict[str, float]:
    rows = np.array(folds)
    return {name: float(right[rows == name].mean()) for name in sorted(set(folds) - {""})}


def _pictures(measured: dict[str, dict[str, Any]], classes: Sequence[str]) -> dict[str, bytes]:
    pictures = {}
    for name, found in measured.items():
        title = f"{name.replace('_', '-')}: {found['accuracy']:.1%} right"
        pictures[f"confusion_{name}.png"] = confusion_png(np.array(found["confusion"]), classes, title)
    return pictures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
