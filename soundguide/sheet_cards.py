"""One card of the contact sheet per row: what the template shows, already worded."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from soundguide.config import EditSettings
from soundguide.records import Row
from soundguide.sheet_media import Picture

NOTHING = "–"


@dataclass(frozen=True)
class Scale:
    """The axis that all similarity bars of a page share."""

    low: float
    high: float

    def percent(self, value: float) -> float:
        """Return where `value` lies, 0 at the low end and 100 at the high one."""
        return round(100 * (value - self.low) / (self.high - self.low), 1)


@dataclass(frozen=True)
class Heard:
    """A label that the encoder heard, with its probability in percent."""

    label: str
    percent: str
    width: float


@dataclass(frozen=True)
class Gate:
    """A bar of the gates' sparkline, in percent of its box."""

    x: float
    width: float
    y: float
    height: float


@dataclass(frozen=True)
class Media:
    """The pictures of a row, and the key of its sound on the page; "" for none."""

    source: Picture | None = None
    edit: Picture | None = None
    photo: Picture | None = None
    sound: str = ""


@dataclass(frozen=True)
class Card:
    """One row of the sheet. Numbers for sorting are floats or None; the rest is text to show."""

    id: str
    status: str
    kind: str
    error: str
    note: str
    text: str
    origin: str
    sound_name: str
    media: Media
    heard: tuple[Heard, ...]
    before: str
    after: str
    gain_text: str
    gain: float | None
    bar: tuple[float, float] | None
    distance_text: str
    distance: float | None
    seconds_text: str
    seconds: float
    steps: int
    inversion: str
    alignment_note: str
    identity: str
    identity_note: str
    settings: tuple[tuple[str, str], ...]
    gates: tuple[Gate, ...]


def make_card(row: Row, media: Media, *, scale: Scale, common: Mapping[str, Any]) -> Card:
    """Word one row of the results table; settings that equal the defaults or are in `common` are left out."""
    before, after = finite(row["similarity_before"]), finite(row["similarity_after"])
    gain = None if before is None or after is None else after - before
    settings = read_settings(row["settings"])
    distance, inversion = finite(row["latent_distance"]), finite(row["inversion_error"])
    identity = finite(row["identity_similarity"])
    return Card(
        id=row["id"],
        status=row["status"],
        kind=kind_of(row),
        error=row["error"],
        note=row.get("note") or "",
        text=str(settings.get("text", "")),
        origin=_origin(row),
        sound_name=base_name(row["audio"]),
        media=media,
        heard=heard_labels(row["label_names"], row["label_probabilities"]),
        before=decimal(before, 3),
        after=decimal(after, 3),
        gain_text=NOTHING if gain is None else f"{gain:+.3f}".replace("-", "\N{MINUS SIGN}"),
        gain=gain,
        bar=None if before is None or after is None else (scale.percent(before), scale.percent(after)),
        distance_text=decimal(distance, 2),
        distance=distance,
        seconds_text=decimal(row["seconds"], 1),
        seconds=row["seconds"],
        steps=row["steps"],
        inversion=decimal(inversion, 3) if inversion is not None else "",
        alignment_note=row["alignment_note"],
        identity=decimal(identity, 3) if identity is not None else "",
        identity_note=row["identity_note"],
        settings=tuple((name, plain(value)) for name, value in changed(settings).items() if name not in common),
        gates=_gates(row["gates"]),
    )


def kind_of(row: Row) -> str:
    """Return the kind of error of a row, "" when it is ok; its status where no kind was recorded."""
    return "" if row["status"] == "ok" else row["error_kind"] or row["status"]


def read_settings(settings: str) -> dict[str, Any]:
    """Return the settings of a row by name; empty where it has none."""
    return dict(json.loads(settings)) if settings else {}


def changed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that differ from the defaults, without the text, which has a place of its own."""
    defaults = EditSettings().model_dump()
    return {n: v for n, v in settings.items() if n != "text" and (n not in defaults or defaults[n] != v)}


def common_settings(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the changed settings that all rows share; empty for fewer than two rows, which show their own."""
    each = [changed(read_settings(row["settings"])) for row in rows if row["settings"]]
    if len(each) < 2:
        return {}
    return {n: v for n, v in each[0].items() if all(n in other and other[n] == v for other in each)}


def similarity_scale(rows: Sequence[Row]) -> Scale:
    """Return the axis from the lowest to the highest similarity of `rows`, rounded outwards to tenths."""
    values = [
        v for row in rows for v in (finite(row["similarity_before"]), finite(row["similarity_after"])) if v is not None
    ]
    low, high = math.floor(10 * min(values, default=0.0)) / 10, math.ceil(10 * max(values, default=1.0)) / 10
    return Scale(low, high if high > low else low + 0.1)


def finite(value: float | None) -> float | None:
    """Return `value`, or None where it is missing or not finite."""
    return value if value is not None and math.isfinite(value) else None


def decimal(value: float | None, digits: int) -> str:
    """Return `value` with so many decimals and a true minus sign, a dash where there is none."""
    return NOTHING if value is None else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def plain(value: Any) -> str:
    """Return a setting as a reader would write it."""
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)


def base_name(uri: str) -> str:
    """Return the last part of a path or URI."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


def _origin(row: Row) -> str:
    if row["image"]:
        return f"photo {base_name(row['image'])}"
    if row["latent"]:
        return f"latent {base_name(row['latent'])}"
    return "" if row["seed"] is None else f"seed {row['seed']}"


def heard_labels(names: Sequence[str] | None, probabilities: Sequence[float] | None) -> tuple[Heard, ...]:
    """Return the three likeliest labels of a sound, worded."""
    top = list(zip(names or (), probabilities or (), strict=False))[:3]
    return tuple(
        Heard(name, "<1" if p < 0.005 else f"{100 * p:.0f}", round(100 * min(max(p, 0.0), 1.0), 1)) for name, p in top
    )


def _gates(gates: Sequence[float] | None) -> tuple[Gate, ...]:
    """Return the bars of the sparkline; none when all gates are alike."""
    values = [value for value in gates or () if math.isfinite(value)]
    if not values or max(values) - min(values) < 0.01:
        return ()
    pitch, top = 100 / len(values), max(values)
    heights = [max(4.0, 100 * max(value, 0.0) / top) for value in values]
    return tuple(
        Gate(round(i * pitch + 0.12 * pitch, 2), round(0.76 * pitch, 2), round(100 - h, 1), round(h, 1))
        for i, h in enumerate(heights)
    )
