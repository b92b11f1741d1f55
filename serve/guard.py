"""What every request passes before a route sees it: who may call, how much may be sent, and under which id."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import re
import secrets
from collections.abc import Sequence
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
REQUEST_ID = "x-request-id"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
}

_CHALLENGES = (
    (b"www-authenticate", b'Basic realm="SoundGuide: any name, the token as the password"'),
    (b"www-authenticate", b"Bearer"),
)


def request_id(scope: Scope) -> str:
    """Return the id under which a request is logged and answered."""
    found: str = scope.get("state", {}).get("request_id", "")
    return found


class Guard:
    """Gives each request an id, checks the token, and bounds its body.

    ``token``: empty for none; else clients send ``Authorization: Bearer TOKEN``, or Basic with it as the password,
    which is what a browser asks its user for. Health can always be asked. A body of more than ``max_bytes``, or one
    that has not arrived after ``seconds``, is refused while it arrives. ``labels_replies``: say the id in replies; not
    behind Ray Serve, whose proxy does.
    """

    def __init__(self, app: ASGIApp, *, token: str, max_bytes: int, seconds: float, labels_replies: bool) -> None:
        self._app, self._token, self._max_bytes, self._seconds = app, token.encode(), max_bytes, seconds
        self._labels_replies = labels_replies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")
        id = given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = id

        async def labelled(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                if self._labels_replies:
                    found[REQUEST_ID] = id
                for name, value in _HEADERS.items():
                    found.setdefault(name, value)
            await send(message)

        if self._token and scope["path"] not in OPEN_PATHS and not self._may_call(headers):
            # two lines: browsers overlook a Basic challenge behind another one
            await _refuse(
                labelled,
                401,
                "send the service's token: Authorization: Bearer TOKEN, or as a password",
                id,
                _CHALLENGES,
            )
            return
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self._max_bytes:
            await _refuse(labelled, 413, self._too_large(), id)
        else:
            await self._app(scope, self._bounded(receive), labelled)

    def _bounded(self, receive: Receive) -> Receive:
        num_bytes, complete = 0, False
        deadline = asyncio.get_running_loop().time() + self._seconds

        async def bounded() -> Message:
            nonlocal num_bytes, complete
            if complete:  # what comes now is that the client leaves, and may take as long as it likes
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                detail = f"the request did not arrive within {self._seconds:g} s. Send less, or over a faster line"
                raise HTTPException(408, detail) from error
            if message["type"] == "http.request":
                num_bytes += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if num_bytes > self._max_bytes:
                    raise HTTPException(413, self._too_large())
            return message

        return bounded

    def _may_call(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            # a browser sends these by itself, also when another site's page makes it call
            if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
                return False
            try:
                given = base64.b64decode(given, validate=True).decode(errors="replace").partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode(), self._token)

    def _too_large(self) -> str:
        return f"the request has more than the {self._max_bytes} bytes that are allowed. Shorten or compress the files"


def kind_of_status(status: int) -> str:
    """Return the name of an error that is no more than its status, such as NotFound."""
    return "".join(word.capitalize() for word in HTTPStatus(status).phrase.replace("-", " ").split())


async def _refuse(send: Send, status: int, message: str, id: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    error = {"kind": kind_of_status(status), "message": message, "request_id": id}
    body = json.dumps({"error": error}, separators=(",", ":")).encode()
    given = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": given})
    await send({"type": "http.response.body", "body": body})
