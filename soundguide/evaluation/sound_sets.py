"""Labelled sounds on disk: ESC-50's and UrbanSound8K's own layouts, and plain manifests."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from soundguide.errors import InvalidManifest
from soundguide.manifest import read_cells
from soundguide.records import Row
from soundguide.storage import Storage, join_uri, resolve_uri


@dataclass(frozen=True, slots=True)
class LabelledSound:
    """One sound: its ``uri``, its class as the data set writes it, and its fold (``""``: none is given)."""

    uri: str
    label: str
    fold: str


def read_esc50(root: str, storage: Storage) -> list[LabelledSound]:
    """Read ESC-50 (Piczak 2015): ``meta/esc50.csv`` and ``audio/``. Raises `InvalidManifest`."""
    return _read(
        join_uri(root, "meta", "esc50.csv"),
        storage,
        needs=("filename", "fold", "category"),
        sound=lambda row: LabelledSound(join_uri(root, "audio", row["filename"]), row["category"], row["fold"]),
    )


def read_urbansound8k(root: str, storage: Storage) -> list[LabelledSound]:
    """Read UrbanSound8K (Salamon 2014): ``metadata/UrbanSound8K.csv`` and ``audio/fold1`` to ``fold10``.

    Raises `InvalidManifest`.
    """
    return _read(
        join_uri(root, "metadata", "UrbanSound8K.csv"),
        storage,
        needs=("slice_file_name", "fold", "class"),
        sound=lambda row: LabelledSound(
            join_uri(root, "audio", f"fold{row['fold']}", row["slice_file_name"]), row["class"], row["fold"]
        ),
    )


def read_plain_sounds(manifest: str, storage: Storage) -> list[LabelledSound]:
    """Read a manifest with the columns audio, label and perhaps fold; paths are relative to it.

    Raises `InvalidManifest`.
    """
    base = posixpath.dirname(manifest) or "."
    return _read(
        manifest,
        storage,
        needs=("audio", "label"),
        sound=lambda row: LabelledSound(resolve_uri(row["audio"], base=base), row["label"], row.get("fold", "")),
    )


def _read(
    uri: str, storage: Storage, *, needs: tuple[str, ...], sound: Callable[[Mapping[str, str]], LabelledSound]
) -> list[LabelledSound]:
    rows = [_texts(row) for row in read_cells(uri, storage).to_pylist()]
    missing = [name for name in needs if not rows or name not in rows[0]]
    if missing:
        raise InvalidManifest(
            f"{uri} lists {len(rows)} sounds and lacks {', '.join(missing)}. Name the data set's own folder, or a "
            f"manifest with the columns {', '.join(needs)}"
        )
    return [sound(row) for row in rows]


def _texts(row: Row) -> dict[str, str]:
    return {name: "" if value is None else str(value).strip() for name, value in row.items()}
