"""What the tests of the bulk job share: rows good and bad, their files, a small run's flags and its results."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from test_stages import noise, png_header
from tiny_world import SAMPLE_RATE

from soundguide.audio.decode import encode_wav
from soundguide.config import ManipulatorConfig

ROOT = Path(__file__).parents[1]
ERRORS = {
    "missing": ({"audio": "none.wav", "seed": "1"}, "SourceNotFound"),
    "truncated": ({"audio": "rain.wav", "image": "truncated.png"}, "InvalidImage"),
    "absurd": ({"audio": "rain.wav", "image": "absurd.png"}, "InvalidImage"),
    "empty": ({"audio": "empty.wav", "seed": "1"}, "InvalidAudio"),
    "silent": ({"audio": "silent.wav", "seed": "1"}, "InvalidAudio"),
    "text": ({"audio": "m.csv", "seed": "1"}, "InvalidAudio"),
    "scheme": ({"audio": "ftp://host/x.wav", "seed": "1"}, "SourceNotFound"),
    "../../x": ({"audio": "rain.wav", "seed": "1"}, "InvalidEdit"),
    "steps": ({"audio": "rain.wav", "seed": "1", "num_steps": "many"}, "InvalidSettings"),
    "identity": ({"audio": "rain.wav", "seed": "1", "lambda_id": "1"}, "InvalidSettings"),
}
GOOD = {
    "seed": {"audio": "rain.wav", "seed": "1"},
    "Seed two": {"audio": "wind.wav", "seed": "2", "num_steps": "0"},
    "photo": {"audio": "rain.wav", "image": "photo.png", "note": "a photo"},
    "words": {"audio": "", "seed": "3", "text": "snow"},
}
COLUMNS = ("id", "audio", "image", "seed", "text", "num_steps", "lambda_id", "note")


def write_manifest(path: Path, rows: dict[str, dict[str, str]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({"id": id, **values} for id, values in rows.items())
    return str(path)


def write_sources(folder: Path) -> None:
    """Put the files that `GOOD` and `ERRORS` name into `folder`, all but the missing one and the manifest."""
    for name, data in {
        "rain.wav": encode_wav(noise(), SAMPLE_RATE),
        "wind.wav": encode_wav(noise()[::-1], SAMPLE_RATE),
        "silent.wav": encode_wav(np.zeros(4000), SAMPLE_RATE),
        "empty.wav": b"",
        "absurd.png": png_header(50_000, 50_000),
    }.items():
        (folder / name).write_bytes(data)
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (20, 30, 3), np.uint8)).save(folder / "photo.png")
    (folder / "truncated.png").write_bytes((folder / "photo.png").read_bytes()[:200])


def flags(models: ManipulatorConfig, manifest: str, output: Path | str) -> list[str]:
    """The command line of a small run: few steps, one actor."""
    chosen = {
        "manifest": manifest,
        "output": str(output),
        "edit.num_steps": 3,
        "edit.num_views": 1,
        "edit.inversion_steps": 3,
        "manipulator.generator": models.generator,
        "manipulator.image_text": models.image_text,
        "manipulator.audio": models.audio,
        "manipulator.num_slots": 4,
        "pool.num_actors": 1,
        "pool.stall_seconds": 120,
    }
    return [part for name, value in chosen.items() for part in (f"--{name}", str(value))]


def results(output: Path) -> dict[str, dict[str, object]]:
    """All result rows by id; fails where an id has two."""
    rows = pq.read_table(output / "results").to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def result_files(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (output / "results").iterdir()}
