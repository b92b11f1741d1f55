"""What every request passes: bounds on its body, the token, other sites, ids, and failures that show nothing."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from service import Service, get, post, start

from serve.engine import Engine
from serve.settings import ServiceLimits


def test_a_body_beyond_the_limit_is_refused_while_it_arrives(engine: Engine) -> None:
    small = start(engine, limits=ServiceLimits(max_body_mib=1))
    big = ("a.wav", bytes(2 * 2**20), "audio/wav")
    assert post(small, files={"audio": big}, data={"seed": "1"}).status_code == 413

    async def slowly() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'
        for _ in range(3):
            yield bytes(2**20)

    unannounced = post(small, content=slowly(), headers={"content-type": "multipart/form-data; boundary=x"})
    assert unannounced.status_code == 413 and unannounced.json()["error"]["kind"] == "RequestEntityTooLarge"


def test_a_body_that_never_ends_is_given_up(engine: Engine) -> None:
    hasty = start(engine, limits=ServiceLimits(upload_seconds=0.1))

    async def never() -> Any:
        yield b"--x"
        await asyncio.sleep(30)

    reply = post(hasty, content=never(), headers={"content-type": "multipart/form-data; boundary=x"})
    assert reply.status_code == 408 and "did not arrive" in reply.json()["error"]["message"]


def test_a_token_is_asked_of_all_but_health(engine: Engine) -> None:
    closed = start(engine, token="secret")
    basic = "Basic " + base64.b64encode(b"any:secret").decode()
    assert get(closed, "/healthz").status_code == get(closed, "/readyz").status_code == 200
    for path in ("/", "/v1/models", "/openapi.json", "/studio/studio.css", "/v1/edits/x"):
        refused = get(closed, path)
        challenges = refused.headers.get_list("www-authenticate")  # each on a line of its own, for browsers
        assert refused.status_code == 401 and {each.split()[0] for each in challenges} == {"Basic", "Bearer"}, path
    for wrong in ("", "Bearer", "Bearer secre", "Bearer secrets", "Basic c2VjcmV0", "Basic =", "secret"):
        assert get(closed, "/v1/models", headers={"Authorization": wrong}).status_code == 401
    for right in ("Bearer secret", "bearer secret", basic):
        assert get(closed, "/v1/models", headers={"Authorization": right}).status_code == 200
    elsewhere = {"Authorization": basic, "Sec-Fetch-Site": "cross-site"}
    assert get(closed, "/v1/models", headers=elsewhere).status_code == 401  # another site's page made the browser call


def test_pages_of_other_sites_may_call_only_where_the_operator_says_so(engine: Engine, service: Service) -> None:
    origin = {"Origin": "https://studio.example"}
    assert "access-control-allow-origin" not in get(service, "/v1/models", headers=origin).headers
    opened = start(engine, cors_origins=("https://studio.example",))
    reply = get(opened, "/v1/models", headers=origin)
    assert reply.headers["access-control-allow-origin"] == "https://studio.example"


def test_a_failure_inside_shows_clients_only_where_to_look(
    engine: Engine, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("secret/path.py")

    monkeypatch.setattr(engine, "draw", fail)
    reply = get(service, "/v1/pictures/1")
    assert reply.status_code == 500 and "secret" not in reply.text and reply.json()["error"]["request_id"]


def test_replies_carry_the_id_of_their_request(service: Service) -> None:
    assert get(service, "/healthz", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    for odd in ("", "a" * 65, "a b", "<script>"):
        assert get(service, "/healthz", headers={"X-Request-Id": odd}).headers["x-request-id"] not in ("", odd)
