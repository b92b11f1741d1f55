"""Real recordings: a folder with ``index.csv`` that names files and labels, and splits by the files' own folders."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from soundguide.errors import InvalidConfig
from soundguide.miniature.labels import LABELS


@dataclass(frozen=True, slots=True)
class Recording:
    """One file of real sound: its name in the index, its label, its bytes."""

    name: str
    label: str
    sound: bytes


def read_recordings(folder: Path, *, split: str = "val/", labels: tuple[str, ...] = LABELS) -> list[Recording]:
    """Return the recordings of a split of ``folder``: rows of ``index.csv`` whose file lies under ``split``.

    Raises `InvalidConfig` where the index or a file is missing, a label is unknown, or the split has no row.
    """
    index = folder / "index.csv"
    try:
        with index.open(encoding="utf-8", newline="") as file:
            rows = [(row.get("file") or "", row.get("label") or "") for row in csv.DictReader(file)]
        chosen = [(name, label) for name, label in rows if name.startswith(split)]
        recordings = [Recording(name, label, (folder / name).read_bytes()) for name, label in chosen]
    except OSError as error:
        raise InvalidConfig(
            f"recordings: {error.filename} cannot be read ({error.strerror}). "
            "Name a folder whose index.csv lists file and label."
        ) from error
    unknown = sorted({item.label for item in recordings} - set(labels))
    if unknown or not recordings:
        raise InvalidConfig(
            f"recordings: {index} has {len(recordings)} rows under {split}, unknown labels {unknown}. "
            f"Label the recordings with: {', '.join(labels)}."
        )
    return recordings
