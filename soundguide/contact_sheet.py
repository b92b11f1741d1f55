"""The contact sheet of a run: one HTML file to look through its edits, complete in itself and without any network."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from soundguide.records import Row
from soundguide.sheet_cards import Media, base_name, common_settings, make_card, plain, similarity_scale
from soundguide.sheet_media import CLIP_SECONDS, Picture, Sound, embed_picture, embed_sound
from soundguide.sheet_page import render_page
from soundguide.storage import Storage, join_uri, resolve_uri

FILE_NAME = "index.html"
PAGE_BYTES = 18_000_000
_KNOWN = ("title", "rows", "ok", "error", "quarantined", "rows_per_minute", "config_hash", "models", "version")


def write_contact_sheet(
    *,
    output: str,
    results: pa.Table,
    storage: Storage,
    summary: Mapping[str, Any],
    max_rows: int = 200,
    sources: str = "",
) -> str:
    """Write ``index.html`` into the folder `output`, atomically, and return its URI.

    `results`: rows as `soundguide.tables.RESULT_SCHEMA` in manifest order, and optionally a column ``note`` (text).
    At most `max_rows` are shown, chosen by `choose_rows`. `summary`: ``title``, ``rows``, ``ok``, ``error``,
    ``quarantined``, ``rows_per_minute``, ``config_hash``, ``models`` (role to digest) and ``version``, each optional;
    counts default to those of `results`. All other entries are listed at the foot. `sources`: folder to which the
    sounds' and photos' URIs are relative, `output` by default. Pictures and sounds that cannot be read are left out.
    """
    assert max_rows >= 1, f"max_rows must be at least 1, got {max_rows}"
    rows = results.take(pa.array(choose_rows(results, max_rows), pa.int64())).to_pylist()
    sounds = _embed_sounds(rows, storage=storage, base=sources or output)
    media = _embed_pictures(rows, sounds, storage=storage, output=output, base=sources or output)
    common, scale = common_settings(rows), similarity_scale(rows)
    cards = [make_card(row, shown, scale=scale, common=common) for row, shown in zip(rows, media, strict=True)]
    page = render_page(
        "contact_sheet",
        cards=cards,
        sounds=_sound_data(rows, sounds),
        scale=scale,
        common={name: plain(value) for name, value in common.items()},
        kinds=_kinds(results),
        partial=len(rows) < results.num_rows,
        **_head(results, summary, title=base_name(output)),
    )
    uri = join_uri(output, FILE_NAME)
    storage.write_bytes(uri, page.encode())
    return uri


def choose_rows(results: pa.Table, max_rows: int) -> list[int]:
    """Return the indices of at most `max_rows` rows, ascending: the first of every kind of error, the rest even.

    The rest is spread evenly over all other rows. Should there be more kinds than `max_rows`, the first ones win.
    """
    total = results.num_rows
    if total <= max_rows:
        return list(range(total))
    kinds = _kind_column(results).combine_chunks().dictionary_encode()
    codes, first = np.unique(kinds.indices.to_numpy(), return_index=True)
    failed = [kinds.dictionary[int(code)].as_py() != "" for code in codes]
    return spread(total, max_rows, first[failed])


def spread(total: int, most: int, wanted: Iterable[int]) -> list[int]:
    """Return at most `most` of the indices below `total`, ascending: the first of those wanted, the rest evenly."""
    if total <= most:
        return list(range(total))
    kept = np.unique(np.fromiter(wanted, np.int64))[:most]
    num_others = most - len(kept)
    even = np.arange(num_others) * (total - len(kept)) // max(num_others, 1)  # counted without those kept
    even += np.searchsorted(kept - np.arange(len(kept)), even, side="right")
    return sorted(int(index) for index in np.concatenate([kept, even]))


def _kind_column(results: pa.Table) -> pa.ChunkedArray:
    """Return the kind of error of each row, "" for ok: as `soundguide.sheet_cards.kind_of`, for whole columns."""
    status, kind = results["status"], results["error_kind"]
    named = pc.if_else(pc.equal(kind, ""), status, kind)
    return pc.if_else(pc.equal(status, "ok"), "", named)


def _kinds(results: pa.Table) -> list[tuple[str, int]]:
    """Return (kind of error, number of rows) of the whole run, most frequent first."""
    counted = Counter({item["values"]: item["counts"] for item in _kind_column(results).value_counts().to_pylist()})
    del counted[""]
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))


def _embed_sounds(rows: Sequence[Row], *, storage: Storage, base: str) -> dict[str, Sound]:
    """Return each distinct sound of `rows` once, by its digest."""
    uris: dict[str, str] = {}
    for row in rows:
        if row["sound_sha256"] and row["audio"]:
            uris.setdefault(row["sound_sha256"], resolve_uri(row["audio"], base=base))
    seconds = CLIP_SECONDS * min(1.0, 200 / max(len(uris), 1))  # half of the page's bytes at most
    found = {digest: embed_sound(uri, storage=storage, max_seconds=seconds) for digest, uri in uris.items()}
    return {digest: sound for digest, sound in found.items() if sound is not None}


def _embed_pictures(
    rows: Sequence[Row], sounds: Mapping[str, Sound], *, storage: Storage, output: str, base: str
) -> list[Media]:
    """Return the pictures of each row; they share the bytes that the sounds left of the page."""
    uris = [
        {
            "source": row["source_image"] and resolve_uri(row["source_image"], base=output),
            "edit": row["edited_image"] and resolve_uri(row["edited_image"], base=output),
            "photo": row["image"] and row["status"] == "ok" and resolve_uri(row["image"], base=base),
        }
        for row in rows
    ]
    left = PAGE_BYTES - sum(len(sound.audio) + len(sound.spectrogram) for sound in sounds.values())
    num_pictures = max(sum(bool(uri) for named in uris for uri in named.values()), 1)
    share = max(left, PAGE_BYTES // 4) * 3 // 4 // num_pictures  # base64 turns 3 bytes into 4

    def embedded(uri: str | bool, max_bytes: int) -> Picture | None:
        return embed_picture(str(uri), storage=storage, max_bytes=max_bytes) if uri else None

    return [
        Media(
            source=embedded(named["source"], share),
            edit=embedded(named["edit"], share),
            photo=embedded(named["photo"], min(share, 12_000)),  # shown small
            sound=row["sound_sha256"] if row["sound_sha256"] in sounds else "",
        )
        for row, named in zip(rows, uris, strict=True)
    ]


def _sound_data(rows: Sequence[Row], sounds: Mapping[str, Sound]) -> dict[str, dict[str, Any]]:
    names: dict[str, str] = {}
    for row in rows:
        names.setdefault(row["sound_sha256"], base_name(row["audio"]))
    return {digest: {"name": names[digest], **asdict(sound)} for digest, sound in sounds.items()}


def _head(results: pa.Table, summary: Mapping[str, Any], *, title: str) -> dict[str, Any]:
    """Return what the head and the foot of the page say about the whole run."""
    counts = {item["values"]: item["counts"] for item in results["status"].value_counts().to_pylist()}
    ok = pc.equal(results["status"], "ok")
    gains = pc.subtract(results["similarity_after"], results["similarity_before"]).filter(ok).to_numpy()
    gains = gains[np.isfinite(gains)]
    models = summary.get("models") or next((dict(m) for m in results.slice(0, 1000)["models"].to_pylist() if m), {})
    versions = [version for version in results.slice(0, 1000)["version"].to_pylist() if version]
    return {
        "title": str(summary.get("title") or title),
        "rows": int(summary.get("rows", results.num_rows)),
        "counts": {
            status: int(summary.get(status, counts.get(status, 0))) for status in ("ok", "error", "quarantined")
        },
        "rate": None if summary.get("rows_per_minute") is None else float(summary["rows_per_minute"]),
        "median_gain": f"{np.median(gains):+.3f}".replace("-", "\N{MINUS SIGN}") if gains.size else "",
        "config_hash": str(summary.get("config_hash", "")),
        "models": {str(role): plain(digest) for role, digest in dict(models).items()},
        "version": str(summary.get("version") or (versions[0] if versions else "")),
        "provenance": {name: _worded(value) for name, value in summary.items() if name not in _KNOWN},
    }


def _worded(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
