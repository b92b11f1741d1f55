"""Folders of songs and of pictures as tables, and the names that their rows get.

A run that goes on later tells what it has ``known``: names by the URIs of their files. A known file keeps its name
whatever joins it, and stays in the table when it leaves the folder: what was made of it stays, and what cannot be made
of it any more is an error of its row.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from urllib.parse import quote, unquote

import pyarrow as pa

from soundguide.errors import InvalidConfig, OutputConflict, SourceNotFound
from soundguide.storage import Storage, resolve_uri

SONG_ENDINGS = (
    *("wav", "flac", "mp3", "ogg", "oga", "opus", "m4a", "aac", "webm", "mp4", "mka", "mkv", "mov", "aif", "aiff"),
    *("wma", "wv", "w64", "caf", "au", "ac3"),
)
PICTURE_ENDINGS = ("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "gif")

JOINT = "--"
_NUM_SHOWN = 8
_NONE: Mapping[str, str] = MappingProxyType({})

logger = logging.getLogger(__name__)


def list_songs(folder: str, storage: Storage, known: Mapping[str, str] = _NONE) -> pa.Table:
    """Return the songs under a folder, local or on S3, at any depth: ``id`` and ``audio`` (URI), sorted by URI.

    Raises `InvalidConfig` where there are none, and `OutputConflict` where a known one was in another folder.
    """
    names, uris = _list(folder, storage, SONG_ENDINGS, known, kind="songs")
    return pa.table({"id": pa.array(names, pa.string()), "audio": pa.array(uris, pa.string())})


def list_pictures(folder: str, storage: Storage, known: Mapping[str, str] = _NONE) -> pa.Table:
    """Return the pictures under a folder: ``id``, ``image`` (URI) and ``seed`` (""); otherwise as `list_songs`."""
    names, uris = _list(folder, storage, PICTURE_ENDINGS, known, kind="images")
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


def _list(
    folder: str, storage: Storage, endings: Sequence[str], known: Mapping[str, str], *, kind: str
) -> tuple[list[str], list[str]]:
    """Return names and URIs of the files with one of the endings, and of those that were known."""
    folder = resolve_uri(folder, base=".")
    folder = (os.path.normpath(folder) if os.path.isabs(folder) else folder).rstrip("/")
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
    left = sorted(known.keys() - set(uris))
    for uri in left:
        if not uri.startswith(f"{folder}/"):
            raise OutputConflict(
                f"the {kind} of this run were read from another folder, such as {uri}; --{kind} is {folder}. Give that "
                "folder, or another output folder"
            )
    if left:
        logger.warning(
            "%d of this run's %s left %s, such as %s: what was made of them stays", len(left), kind, folder, left[0]
        )
    uris = sorted([*uris, *left])
    return _names(uris, folder, known), uris


def _names(uris: Sequence[str], folder: str, known: Mapping[str, str]) -> list[str]:
    """Return the names of files below a folder, which are the known ones, or lack their ending where that is enough."""
    below = [uri[len(folder) + 1 :] for uri in uris]
    if folder.lower().startswith("file://"):
        below = [unquote(name) for name in below]
    stems = [posixpath.splitext(name)[0] for name in below]
    alike, taken, names = Counter([*stems, *below]), set(known.values()), []
    for uri, stem, whole in zip(uris, stems, below, strict=True):
        name = known.get(uri)
        if name is None:
            name = escape_part(stem)
            if alike[stem] > 1 or name in taken:
                name = escape_part(whole)
            while name in taken:  # a known file was called so when it stood alone
                name += "_"
        names.append(name)
    return names
