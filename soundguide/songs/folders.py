"""Folders of songs and of pictures as tables, and the names that their rows get."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from urllib.parse import quote, unquote

import pyarrow as pa

from soundguide.errors import InvalidConfig, SourceNotFound
from soundguide.storage import Storage, resolve_uri

SONG_ENDINGS = (
    *("wav", "flac", "mp3", "ogg", "oga", "opus", "m4a", "aac", "webm", "mp4", "mka", "mkv", "mov", "aif", "aiff"),
    *("wma", "wv", "w64", "caf", "au", "ac3"),
)
PICTURE_ENDINGS = ("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "gif")

JOINT = "--"
_NUM_SHOWN = 8


def list_songs(folder: str, storage: Storage) -> pa.Table:
    """Return the songs under a folder, local or on S3, at any depth: ``id`` and ``audio`` (URI), sorted by URI.

    Raises `InvalidConfig` where there are none.
    """
    names, uris = _list(folder, storage, SONG_ENDINGS, kind="songs")
    return pa.table({"id": pa.array(names, pa.string()), "audio": pa.array(uris, pa.string())})


def list_pictures(folder: str, storage: Storage) -> pa.Table:
    """Return the pictures under a folder: ``id``, ``image`` (URI) and ``seed`` (""); otherwise as `list_songs`."""
    names, uris = _list(folder, storage, PICTURE_ENDINGS, kind="images")
    return _pictures(names, uris, [""] * len(names))


def list_seeds(seeds: Sequence[int]) -> pa.Table:
    """Return pictures that the generator draws, as `list_pictures` does. Raises `InvalidConfig` for a repeated seed."""
    repeated = [str(seed) for seed, count in Counter(seeds).items() if count > 1]
    if repeated:
        raise InvalidConfig(f"seeds names {', '.join(repeated[:_NUM_SHOWN])} more than once; give each seed once")
    texts = [str(seed) for seed in seeds]
    return _pictures(texts, [""] * len(texts), texts)


def escape_part(name: str) -> str:
    """Return a name as a part of an id: without ``--``, a dash at either end, or what looks like a path out.

    Distinct names stay distinct, so that parts joined by ``--`` tell where one ends.
    """
    quoted = re.sub(r"[%\\:\x00-\x1f\x7f]", lambda found: quote(found[0], safe=""), name)
    quoted = re.sub(r"^-|-$|(?<=-)-", "%2D", quoted)
    return re.sub("^~", "%7E", quoted)


def _pictures(names: list[str], images: list[str], seeds: list[str]) -> pa.Table:
    columns = {"id": names, "image": images, "seed": seeds}
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _list(folder: str, storage: Storage, endings: Sequence[str], *, kind: str) -> tuple[list[str], list[str]]:
    """Return names and URIs of the files with one of the endings; names lack it where they differ without it."""
    folder = resolve_uri(folder, base=".").rstrip("/")
    try:
        found = storage.list(folder)
    except SourceNotFound as error:
        reason = f"{folder} is a file; name the folder that holds it" if storage.exists(folder) else str(error)
        raise InvalidConfig(f"there are no {kind} to read: {reason} (--{kind})") from error
    uris = [uri for uri in found if uri.lower().rpartition(".")[2] in endings]
    if not uris:
        there = f"of its {len(found):,} files none ends in" if found else "it is empty, or no folder; looked for"
        raise InvalidConfig(
            f"there are no {kind} in {folder}: {there} .{', .'.join(endings)}. Name the folder that holds them "
            f"(--{kind})"
        )
    below = [uri[len(folder) + 1 :] for uri in uris]
    if folder.lower().startswith("file://"):
        below = [unquote(name) for name in below]
    stems = [posixpath.splitext(name)[0] for name in below]
    alone = Counter(stems)
    return [escape_part(s if alone[s] == 1 else name) for s, name in zip(stems, below, strict=True)], uris
