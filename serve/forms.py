"""What a client may send and take: fields of a form, each once, and the forms of an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from starlette.requests import Request

from serve.replies import NotAcceptable, Unsupported
from soundguide.config import EditSettings
from soundguide.errors import InvalidSettings

JSON, PNG, EVENTS = "application/json", "image/png", "text/event-stream"
ABOUT_PRESET = "Whose models: the name of a preset of /v1/models; empty: its first."
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


def only_fields(*known: str) -> Callable[[Request], Awaitable[None]]:
    """Return a check (a FastAPI dependency) that a request is a form with these fields only, none of them twice.

    Raises `Unsupported` or `InvalidSettings`.
    """

    async def check(request: Request) -> None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _FORMS:
            raise Unsupported(f"the request is of type {kind!r:.80}. Send a form: {_FORMS[0]} (curl -F)")
        fields = [name for name, _ in (await request.form()).multi_items()]
        _refuse_unknown([name for name in fields if name not in known], known)
        twice = sorted({name for name in fields if fields.count(name) > 1})
        if twice:
            raise InvalidSettings(f"{' and '.join(twice)} came more than once. Send each field once")

    return check


def _refuse_unknown(names: list[str], known: Collection[str]) -> None:
    if not names:
        return
    if "settings" in known and names[0] in EditSettings.model_fields:
        raise InvalidSettings(
            f'there is no field {names[0]}: it is a setting. Send settings={{"{names[0]}": ...}} as JSON'
        )
    raise InvalidSettings(f"there is no field {names[0]!r:.80}. Send {', '.join(known)}")


def wanted_form(request: Request) -> str:
    """Return which of `JSON`, `PNG` and `EVENTS` the header ``Accept`` prefers; JSON where it does not care.

    Raises `NotAcceptable`.
    """
    accepts = request.headers.get("accept", "") or "*/*"
    best, form = 0.0, ""
    for part in accepts.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = _quality(parameters)
        for offered in (JSON, PNG, EVENTS):
            if kind in (offered, f"{offered.partition('/')[0]}/*", "*/*") and quality > best:
                best, form = quality, offered
    if not form:
        raise NotAcceptable(f"Accept is {accepts!r:.80}. Take {PNG}, {JSON} or {EVENTS}")
    return form


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0
