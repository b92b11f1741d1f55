"""Write the inputs of the demo: a manifest of about thirty edits, with synthesised sounds and one photograph.

``python -m soundguide.miniature.demo FOLDER`` writes ``FOLDER/manifest.jsonl``, ``FOLDER/faces.jsonl`` (six faces with
a voice each, for the preset miniature-faces), ``FOLDER/sounds/*.wav`` and ``FOLDER/photos/china.png``.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundguide.audio.decode import encode_wav
from soundguide.images import encode_png
from soundguide.miniature.faces import voices
from soundguide.miniature.faces.labels import LABELS as EXPRESSIONS
from soundguide.miniature.labels import EVENTS
from soundguide.miniature.sounds import SAMPLE_RATE_HZ, synthesise
from soundguide.storage import Storage, escape_id

LOUD, SOFT = 0.95, 0.35
SECONDS = 6.0
SOFT_EVENTS = ("raining", "fire crackling", "fireworks exploding", "walking in snow")
DEMO_STYLES = ("orchestral music", "techno music")
SOURCE_SEEDS = (28, 138, 41, 153, 161, 63, 105, 182)  # calm scenes of different hours and seasons
FACE_SEEDS = (0, 1, 8, 3, 11, 23)  # people who are different, and calm

Entry = dict[str, Any]


def write_demo(folder: Path) -> Path:
    """Write the demo's inputs into ``folder`` and return the landscapes' manifest; the same files every time."""
    landscapes = [*_event_rows(), *_style_rows(), *_mixed_rows(), *_photo_rows(), _broken_row()]
    _write_sounds(folder, landscapes, synthesise)
    faces = _face_rows()
    _write_sounds(folder, faces, voices.synthesise)
    storage = Storage()
    storage.write_bytes(str(folder / "photos" / "china.png"), encode_png(_photograph()))
    storage.write_bytes(str(folder / "sounds" / "broken.wav"), b"RIFF....this file was cut off")
    _write_manifest(folder / "faces.jsonl", faces)
    return _write_manifest(folder / "manifest.jsonl", landscapes)


def _write_sounds(folder: Path, entries: list[Entry], play: Callable[..., NDArray[np.float32]]) -> None:
    heard = sorted({(entry["_label"], entry["_intensity"]) for entry in entries if "_label" in entry})
    for index, (label, intensity) in enumerate(heard):
        waveform = play(label, seconds=SECONDS, intensity=intensity, rng=np.random.default_rng((7, index)))
        Storage().write_bytes(str(folder / _sound_file(label, intensity)), encode_wav(waveform, SAMPLE_RATE_HZ))


def _write_manifest(path: Path, entries: list[Entry]) -> Path:
    lines = (json.dumps({key: value for key, value in entry.items() if not key.startswith("_")}) for entry in entries)
    Storage().write_bytes(str(path), ("\n".join(lines) + "\n").encode())
    return path


def _sound_file(label: str, intensity: float) -> str:
    return f"sounds/{escape_id(label.replace(' ', '-'))}-{'loud' if intensity == LOUD else 'soft'}.wav"


def _heard(label: str, intensity: float) -> Entry:
    return {"audio": _sound_file(label, intensity), "_label": label, "_intensity": intensity}


def _event_rows() -> list[Entry]:
    rows = []
    for index, label in enumerate(EVENTS):
        seed = SOURCE_SEEDS[index % len(SOURCE_SEEDS)]
        name = label.replace(" ", "-")
        rows.append({"id": name, "seed": seed, **_heard(label, LOUD)})
        if label in SOFT_EVENTS:
            rows.append({"id": f"{name}-soft", "seed": seed, **_heard(label, SOFT), "note": "the same, played softly"})
    return rows


def _style_rows() -> list[Entry]:
    return [
        {"id": f"{label.replace(' ', '-')}-{number}", "seed": seed, **_heard(label, LOUD)}
        for label in DEMO_STYLES
        for number, seed in enumerate(SOURCE_SEEDS[1:3], 1)
    ]


def _mixed_rows() -> list[Entry]:
    seed = SOURCE_SEEDS[4]
    sea = _heard("sea waves", LOUD)
    return [
        {"id": "text-alone", "seed": seed, "text": "fireworks", "note": "no sound: a text guides the edit"},
        {
            "id": "sound-and-text",
            "seed": seed,
            **sea,
            "text": "fireworks",
            "mix": 0.5,
            "note": "half sound, half text (Eq. 19)",
        },
        {
            "id": "sound-and-text-by-layers",
            "seed": seed,
            **sea,
            "text": "golden light",
            "mix_layers": "1-6 sound, 7-10 text",
            "note": "coarse layers from the sound, fine ones from the text (Sec. 4.6)",
        },
    ]


def _photo_rows() -> list[Entry]:
    note = "a photograph lies outside the miniature's painted world; its inversion is a likeness at best"
    return [
        {"id": f"photograph-{name}", "image": "photos/china.png", **_heard(label, LOUD), "note": note}
        for name, label in (("raining", "raining"), ("orchestral", "orchestral music"))
    ]


def _face_rows() -> list[Entry]:
    return [
        {"id": label, "seed": seed, **_heard(label, LOUD)} for label, seed in zip(EXPRESSIONS, FACE_SEEDS, strict=True)
    ]


def _broken_row() -> Entry:
    note = "broken on purpose: one bad row stops nothing"
    return {"id": "broken-file", "seed": SOURCE_SEEDS[0], "audio": "sounds/broken.wav", "note": note}


def _photograph() -> NDArray[np.uint8]:
    """Return the landscape photograph that scikit-learn ships, ``[427, 640, 3]`` uint8."""
    try:
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise ImportError(
            "the demo's photograph comes with scikit-learn. Install it: pip install 'soundguide[demo]'"
        ) from error
    picture: NDArray[np.uint8] = load_sample_image("china.jpg")
    return picture


if __name__ == "__main__":
    parser = ArgumentParser(prog="python -m soundguide.miniature.demo", description="Write the inputs of the demo.")
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("out/demo-inputs"), help="where they go (default: %(default)s)"
    )
    print(write_demo(parser.parse_args().folder))
