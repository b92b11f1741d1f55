"""A service of several presets: each request has the models and settings of the one that it names."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from ports import free_port
from service import EVENTS, JSON, LIMITS, PNG, SOUND, Service, events_of, get, post, run, start, start_all, tiny_engine
from tiny_presets import write_presets

from serve.engine import Engine
from serve.live_edits import Unavailable
from serve.offers import offered_presets
from serve.settings import ReplicaSettings, ServeSettings
from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidConfig
from soundguide.models.home import HOME_VARIABLE


@pytest.fixture(scope="module")
def settings(tiny_models: ManipulatorConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeSettings]:
    large, small, home = write_presets(tmp_path_factory.mktemp("served"), tiny_models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(home))
        yield ServeSettings(presets=(str(large), str(small)), limits=LIMITS)


@pytest.fixture(scope="module")
def engines(settings: ServeSettings) -> dict[str, Engine]:
    return {preset.name: tiny_engine(preset.manipulator) for preset in offered_presets(settings)}


@pytest.fixture(scope="module")
def service(settings: ServeSettings, engines: dict[str, Engine]) -> Service:
    return start_all(engines, settings)


def ask(service: Service, preset: str = "", **others: Any) -> Any:
    return post(service, files={"audio": SOUND}, data={"seed": "3", **({"preset": preset} if preset else {})}, **others)


def size(picture: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(picture)).size


def inside(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2])


@pytest.mark.parametrize(("preset", "side", "steps"), [("", 16, 8), ("large", 16, 8), ("small", 8, 4)])
def test_a_request_has_the_models_and_settings_of_its_preset(
    service: Service, engines: dict[str, Engine], preset: str, side: int, steps: int
) -> None:
    result = ask(service, preset).json()
    assert size(inside(result["edited_image"])) == (side, side) and result["steps"] == steps
    assert result["models"] == engines[preset or "large"].manipulator.model_digests
    assert get(service, f"/v1/edits/{result['id']}", headers=JSON).json() == result
    png = get(service, f"/v1/edits/{result['id']}", headers=PNG).content
    assert size(png) == (side, side)


def test_edits_of_two_presets_run_side_by_side(service: Service) -> None:
    async def work() -> list[tuple[int, int]]:
        async with service.client(**PNG) as client:
            parts = {"files": {"audio": SOUND}}
            asked = [
                client.post("/v1/edits", data={"seed": "1", "preset": name}, **parts) for name in 2 * ("large", "small")
            ]
            return [size(reply.content) for reply in await asyncio.gather(*asked)]

    assert run(work) == [(16, 16), (8, 8), (16, 16), (8, 8)]


def test_events_tell_of_the_preset_s_models(service: Service, engines: dict[str, Engine]) -> None:
    *_, (kind, _, result) = events_of(ask(service, "small", headers=EVENTS).text)
    assert kind == "result" and result["models"] == engines["small"].manipulator.model_digests


def test_an_unknown_preset_is_told_those_there_are(service: Service) -> None:
    for reply in (
        ask(service, "tiny"),
        get(service, "/v1/models?preset=tiny"),
        get(service, "/v1/pictures/1?preset=tiny"),
    ):
        assert reply.status_code == 422
        assert "there is no preset 'tiny'. Send large or small" in reply.json()["error"]["message"]


def test_a_service_without_presets_says_so(engine: Engine) -> None:
    plain = start(engine)
    refused = ask(plain, "large")
    assert refused.status_code == 422 and "no presets: leave it out" in refused.json()["error"]["message"]
    told = get(plain, "/v1/models").json()
    assert (told["preset"], told["presets"]) == ("", [])


def test_the_same_key_with_another_preset_is_another_request(service: Service) -> None:
    key = {"Idempotency-Key": "one", **JSON}
    assert ask(service, "large", headers=key).status_code == 200
    assert ask(service, "small", headers=key).status_code == 409


def test_layers_and_codes_are_checked_against_the_preset_s_generator(service: Service) -> None:
    data = {"seed": "1", "settings": '{"text": "rain", "num_steps": 1, "mix_layers": "1-6 text"}'}
    assert post(service, data={**data, "preset": "large"}).status_code == 200
    refused = post(service, data={**data, "preset": "small"})
    assert refused.status_code == 422 and "layers 1-4" in refused.json()["error"]["message"]
    code = inside(ask(service, "large").json()["edited_latent"])
    parts = {"audio": SOUND, "latent": ("code.safetensors", code, "application/octet-stream")}
    assert post(service, files=parts, data={"preset": "small"}).json()["error"]["kind"] == "InvalidLatent"


def test_models_and_defaults_are_told_by_preset(service: Service) -> None:
    first, small = (get(service, f"/v1/models{query}").json() for query in ("", "?preset=small"))
    assert (first["preset"], small["preset"]) == ("large", "small")
    assert (first["resolution"], small["resolution"]) == (16, 8)
    assert (first["num_ws"], small["num_ws"]) == (6, 4)
    assert small["settings"]["lambda_reg"]["default"] == 0.25 != first["settings"]["lambda_reg"]["default"]
    assert (
        first["presets"]
        == small["presets"]
        == [
            {"name": "large", "description": "a large world"},
            {"name": "small", "description": "a small world"},
        ]
    )


def test_pictures_sounds_and_embeddings_are_the_preset_s_too(service: Service) -> None:
    shown = get(service, "/v1/pictures/3?preset=small").content
    source = inside(ask(service, "small").json()["source_image"])
    assert (np.asarray(Image.open(io.BytesIO(shown))) == np.asarray(Image.open(io.BytesIO(source)))).all()
    for path in ("/v1/listen", "/v1/embeddings"):
        assert post(service, path, files={"audio": SOUND}, data={"preset": "small"}).status_code == 200
        assert post(service, path, files={"audio": SOUND}, data={"preset": "tiny"}).status_code == 422


def test_the_interface_s_description_names_the_presets(service: Service) -> None:
    assert "Preset: large. Preset: small." in get(service, "/openapi.json").json()["info"]["description"]


def test_it_is_ready_when_the_models_of_every_preset_are(
    settings: ServeSettings, engines: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert get(start_all(engines, settings), "/readyz").status_code == 200

    async def gone() -> None:
        raise Unavailable("it starts")

    monkeypatch.setattr(engines["small"], "ping", gone)
    assert get(start_all(engines, settings), "/readyz").status_code == 503


def test_a_service_is_refused_presets_that_it_cannot_offer(settings: ServeSettings) -> None:
    with pytest.raises(InvalidConfig, match="Name each once"):
        offered_presets(ServeSettings(presets=(settings.presets[0],) * 2))
    with pytest.raises(InvalidConfig, match="models pull stylegan2-ffhq-1024"):
        offered_presets(ServeSettings(presets=("ffhq-1024",)))


@pytest.mark.slow
def test_on_ray_serve_each_preset_has_processes_of_its_own(local_ray: None, settings: ServeSettings) -> None:
    from ray import serve

    from serve.app import build

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    replicas = ReplicaSettings(cpus=0.25)
    manipulator = ManipulatorConfig(num_slots=2, device="cpu")
    try:
        application = build(settings.model_copy(update={"replicas": replicas, "manipulator": manipulator}))
        serve.run(application, name="soundguide")
        status = serve.status().applications["soundguide"].deployments
        assert set(status) == {"Board", "Ingress", "Manipulator-large", "Manipulator-small"}

        async def work() -> list[tuple[int, int]]:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=PNG, timeout=60) as client:
                assert (await client.get("/readyz")).status_code == 200
                rows = [{"seed": "1"}, {"seed": "1", "preset": "small"}]
                parts = {"files": {"audio": SOUND}}
                replies = await asyncio.gather(*(client.post("/v1/edits", data=row, **parts) for row in rows))
                again = await client.get(replies[1].headers["location"])
                return [size(reply.content) for reply in (*replies, again)]

        assert run(work) == [(16, 16), (8, 8), (8, 8)]
    finally:
        serve.shutdown()
