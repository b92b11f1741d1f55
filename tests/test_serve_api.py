"""The HTTP interface: every door of an edit, and what is said of wrong requests."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from service import EVENTS, JSON, PNG, SHORT, SOUND, Service, events_of, get, post, run, start
from tiny_edits import do, noise, with_photo, with_sound

from serve.engine import Engine
from serve.settings import ServiceLimits
from soundguide.config import EditSettings
from soundguide.images import encode_png
from soundguide.manipulator import Manipulator
from soundguide.records import EditResult


def edited(uri: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def peak_signal_to_noise(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    error = np.square(first.astype(float) - second.astype(float)).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def test_a_picture_comes_back_with_what_made_it(service: Service, single: Manipulator) -> None:
    reply = post(service, headers=PNG, files={"audio": SOUND}, data={"seed": "3"})
    assert reply.status_code == 200 and reply.headers["content-type"] == "image/png"
    image = Image.open(io.BytesIO(reply.content))
    made_from = json.loads(image.text["soundguide"])  # type: ignore[attr-defined]
    assert made_from["seed"] == 3 and made_from["settings"] == SHORT.model_dump(mode="json")
    assert reply.headers["location"] == f"/v1/edits/{made_from['id']}"
    alone = do(single, with_sound("alone", noise(0), SHORT, seed=3))
    assert peak_signal_to_noise(np.asarray(image), alone.image) >= 45


def test_the_result_is_the_row_of_a_bulk_job_with_files_inside(service: Service) -> None:
    reply = post(service, files={"audio": SOUND}, data={"seed": "3"})
    result = EditResult.model_validate_json(reply.content)
    assert result.status == "ok" and result.steps == SHORT.num_steps and result.label_names
    assert edited(result.edited_image).shape == edited(result.source_image).shape == (16, 16, 3)
    assert (edited(result.edited_image) != edited(result.source_image)).any()


@pytest.mark.parametrize("given", ["text", "photo", "latent"])
def test_texts_photos_and_codes_are_sources_too(service: Service, photo: NDArray[np.uint8], given: str) -> None:
    png = encode_png(photo)
    if given == "text":
        reply = post(service, data={"seed": "1", "settings": '{"text": "rain", "num_steps": 2}'})
    elif given == "photo":
        reply = post(service, files={"audio": SOUND, "image": ("p.png", png, "image/png")})
        assert reply.json()["inversion_error"] is not None
    else:
        first = post(service, files={"audio": SOUND}, data={"seed": "3"}).json()
        code = base64.b64decode(first["edited_latent"].partition(",")[2])
        parts = {"audio": SOUND, "latent": ("code.safetensors", code, "application/octet-stream")}
        reply = post(service, files=parts, data={"settings": '{"num_steps": 0}'})
        assert (edited(reply.json()["source_image"]) == edited(first["edited_image"])).all()
    assert reply.status_code == 200, reply.text


def test_an_event_stream_tells_every_step_and_ends_with_the_result(service: Service) -> None:
    reply = post(service, headers=EVENTS, files={"audio": SOUND}, data={"seed": "3"})
    events = list(events_of(reply.text))
    assert [kind for kind, _, _ in events] == ["begun", *["progress"] * 4, "result"]
    assert [number for _, number, _ in events] == list(range(6))
    steps = [data for kind, _, data in events if kind == "progress"]
    assert [news["step"] for news in steps] == [2, 4, 6, 8] and set(steps[0]["terms"]) >= {"guidance"}
    assert edited(steps[0]["preview"]).shape == (16, 16, 3)
    last = EditResult.model_validate(events[-1][2])
    assert last.id == events[0][2]["id"] and last.status == "ok"


def test_an_edit_can_be_asked_for_again_in_every_form(service: Service) -> None:
    reply = post(service, headers=EVENTS, files={"audio": SOUND}, data={"seed": "3"})
    path, result = reply.headers["location"], list(events_of(reply.text))[-1][2]
    assert get(service, path, headers=JSON).json() == result
    png = get(service, path, headers=PNG)
    assert (np.asarray(Image.open(io.BytesIO(png.content))) == edited(result["edited_image"])).all()
    again = list(events_of(get(service, path, headers={**EVENTS, "Last-Event-ID": "3"}).text))
    assert [number for _, number, _ in again] == [4, 5] and again[-1][2] == result


def test_a_running_edit_is_202_until_it_is_cancelled(service: Service) -> None:
    async def work() -> None:
        async with service.client() as client:
            parts = {"files": {"audio": SOUND}, "data": {"seed": "3", "settings": '{"num_steps": 2000}'}}
            running = asyncio.ensure_future(client.post("/v1/edits", headers=EVENTS, **parts))
            while not service.board._live or service.board.num_running == 0:
                await asyncio.sleep(0.01)
            id = next(id for id, live in service.board._live.items() if not live.ended)
            state = await client.get(f"/v1/edits/{id}", headers=JSON)
            assert state.status_code == 202 and state.json()["status"] == "running"
            assert (await client.delete(f"/v1/edits/{id}")).json() == {"cancelled": True}
            *_, (kind, _, data) = events_of((await running).text)
            assert (kind, data["error"]["kind"]) == ("error", "Cancelled")
            assert (await client.delete(f"/v1/edits/{id}")).json() == {"cancelled": False}
            assert (await client.get(f"/v1/edits/{id}")).status_code == 409
            while service.engine.manipulator.load.num_running:  # the step that runs is seen through
                await asyncio.sleep(0.01)

    run(work)


def test_a_key_makes_retries_one_edit(service: Service) -> None:
    async def work() -> None:
        async with service.client(**{"Idempotency-Key": "a retry", **JSON}) as client:
            parts = {"files": {"audio": SOUND}, "data": {"seed": "3"}}
            replies = await asyncio.gather(*(client.post("/v1/edits", **parts) for _ in range(3)))
            assert len({reply.json()["id"] for reply in replies}) == 1
            other = await client.post("/v1/edits", files={"audio": SOUND}, data={"seed": "4"})
            assert other.status_code == 409 and "new key" in other.json()["error"]["message"]

    run(work)


def test_the_same_request_alone_and_in_a_full_batch_gives_the_same_picture(service: Service) -> None:
    async def work() -> list[NDArray[np.uint8]]:
        async with service.client(**JSON) as client:

            async def one(seed: int) -> NDArray[np.uint8]:
                reply = await client.post("/v1/edits", files={"audio": SOUND}, data={"seed": str(seed)})
                assert reply.status_code == 200, reply.text
                return edited(reply.json()["edited_image"])

            alone = await one(0)
            together = await asyncio.gather(*(one(seed) for seed in range(9)))
            return [alone, together[0]]

    assert peak_signal_to_noise(*run(work)) >= 45


def test_more_edits_than_there_is_room_for_get_a_429_and_when_to_come_back(engine: Engine) -> None:
    full = start(engine, limits=ServiceLimits(max_edits=2))

    async def work() -> None:
        async with full.client(**JSON) as client:
            parts = {"files": {"audio": SOUND}, "data": {"seed": "3"}}
            replies = await asyncio.gather(*(client.post("/v1/edits", **parts) for _ in range(6)))
            codes = sorted(reply.status_code for reply in replies)
            assert set(codes) == {200, 429} and codes.count(200) >= 2
            refused = next(reply for reply in replies if reply.status_code == 429)
            assert int(refused.headers["retry-after"]) > 0 and refused.json()["error"]["kind"] == "TooManyEdits"

    run(work)


def test_a_deadline_ends_an_edit_cleanly(service: Service) -> None:
    settings = '{"num_steps": 2000, "deadline_s": 0.2}'
    reply = post(service, files={"audio": SOUND}, data={"seed": "3", "settings": settings})
    assert reply.status_code == 408 and reply.json()["error"]["kind"] == "DeadlineExceeded"
    reply = post(service, headers=EVENTS, files={"audio": SOUND}, data={"seed": "3", "settings": settings})
    assert list(events_of(reply.text))[-1][2]["error"]["kind"] == "DeadlineExceeded"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html, */*;q=0.1", "application/json"),
        ("image/png;q=0.1, application/json", "application/json"),
        ("image/*", "image/png"),
        ("TEXT/event-stream", "text/event-stream; charset=utf-8"),
    ],
)
def test_the_answer_has_the_form_that_the_client_prefers(service: Service, accept: str, kind: str) -> None:
    data = {"seed": "1", "settings": '{"text": "rain", "num_steps": 0}'}
    assert post(service, headers={"Accept": accept}, files={}, data=data).headers["content-type"] == kind
    refused = post(service, headers={"Accept": "image/jpeg"}, data=data)
    assert refused.status_code == 406 and "image/png" in refused.json()["error"]["message"]


def asked(settings: dict[str, Any] | str = "", **files: tuple[str, bytes, str]) -> dict[str, Any]:
    text = settings if isinstance(settings, str) else json.dumps(settings)
    return {"files": files or None, "data": {"seed": "1", "settings": text or "{}"}}


TALL = io.BytesIO()
Image.new("1", (9000, 9000)).save(TALL, "PNG")

WRONG = {
    "no sound and no text": (asked(), 422, "InvalidSettings", "Send a sound file"),
    "two sources": (asked(audio=SOUND, image=("a.png", b"x", "image/png")), 422, "InvalidSettings", "image and seed"),
    "an empty sound": (asked(audio=("a.wav", b"", "audio/wav")), 422, "InvalidAudio", "0 bytes"),
    "no sound at all": (asked(audio=("a.wav", b"RIFF, cut off", "audio/wav")), 422, "InvalidAudio", ""),
    "a text as sound": (asked(audio=("a.txt", b"hello", "text/plain")), 415, "Unsupported", "audio/"),
    "an unknown setting": (asked({"steps": 3}, audio=SOUND), 422, "InvalidSettings", "steps"),
    "a setting out of range": (asked({"mix": 2}, audio=SOUND), 422, "InvalidSettings", "mix"),
    "a number that is none": (asked('{"mix": NaN}', audio=SOUND), 422, "InvalidSettings", "mix"),
    "no JSON": (asked("{steps}", audio=SOUND), 422, "InvalidSettings", "no JSON"),
    "nested JSON": (asked("[" * 100_000, audio=SOUND), 422, "InvalidSettings", "no JSON"),
    "a list": (asked("[1]", audio=SOUND), 422, "InvalidSettings", "no JSON object"),
    "half a character": (asked('{"text": "\\ud800"}', audio=SOUND), 422, "InvalidSettings", "text"),
    "too many steps": (asked({"num_steps": 5000}, audio=SOUND), 422, "InvalidSettings", "2000 at most"),
    "no such identity": (asked({"lambda_id": 1}, audio=SOUND), 422, "InvalidSettings", "identity"),
    "a long deadline": (asked({"deadline_s": 1e9}, audio=SOUND), 422, "InvalidSettings", "deadline_s"),
    "an address": (
        {"data": {"seed": "1", "audio": "http://evil/a.wav"}},
        422,
        "InvalidRequest",
        "audio: must be a file",
    ),
    "a setting as a field": (
        asked(audio=SOUND) | {"data": {"seed": "1", "text": "a"}},
        422,
        "InvalidSettings",
        "setting",
    ),
    "an unknown field": (asked(audio=SOUND) | {"data": {"sead": "1"}}, 422, "InvalidSettings", "no field 'sead'"),
    "a field twice": (asked(audio=SOUND) | {"data": {"seed": ["1", "2"]}}, 422, "InvalidSettings", "more than once"),
    "no form": ({"json": {"seed": 1}}, 415, "Unsupported", "Send a form"),
    "blanks alone": (asked({"text": "  "}), 422, "InvalidSettings", "Send a sound file"),
    "a wrong seed": ({"files": {"audio": SOUND}, "data": {"seed": "-1"}}, 422, "InvalidRequest", "seed"),
    "a huge picture": (
        {"files": {"audio": SOUND, "image": ("a.png", TALL.getvalue(), "image/png")}},
        422,
        "InvalidImage",
        "9000 x 9000",
    ),
    "a code of another world": (
        {"files": {"audio": SOUND, "latent": ("a.safetensors", b"x" * 40, "application/octet-stream")}},
        422,
        "InvalidLatent",
        "",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_told_what_is_wrong(service: Service, name: str) -> None:
    parts, status, kind, says = WRONG[name]
    reply = post(service, **parts)
    error = reply.json()["error"]
    assert (reply.status_code, error["kind"]) == (status, kind), error
    assert says in error["message"] and error["request_id"] == reply.headers["x-request-id"]


def test_listening_tells_labels_and_shows_the_sound(service: Service) -> None:
    heard = post(service, "/v1/listen", files={"audio": SOUND}, data={"top": "2"}).json()
    assert len(heard["labels"]) == 2 and len(heard["waveform"]) == 240 and heard["seconds"] == pytest.approx(0.75)
    assert max(heard["waveform"]) <= 1 and edited(heard["spectrogram"]).shape[:2] == (64, 360)
    assert post(service, "/v1/listen", files={"audio": ("a", b"x", "audio/wav")}).status_code == 422


def test_sounds_texts_and_pictures_embed_into_one_space(
    service: Service, single: Manipulator, photo: NDArray[np.uint8]
) -> None:
    parts: list[dict[str, Any]] = [
        {"files": {"audio": SOUND}},
        {"data": {"text": "rain"}},
        {"files": {"image": ("p.png", encode_png(photo), "image/png")}},
    ]
    found = [post(service, "/v1/embeddings", **part).json() for part in parts]
    assert all(np.linalg.norm(each["embedding"]) == pytest.approx(1, abs=1e-5) for each in found)
    assert np.allclose(found[0]["embedding"], single.world.listener.embed(noise(0)).numpy(), atol=1e-5)
    assert np.allclose(found[1]["embedding"], single.world.embed_text("rain").numpy(), atol=1e-5)
    assert found[0]["model"] == single.model_digests["audio"] and found[1]["model"] == found[2]["model"]
    assert post(service, "/v1/embeddings", data={"text": "a"}, files={"audio": SOUND}).status_code == 422
    assert post(service, "/v1/embeddings", data={"text": ""}).status_code == 422


def test_the_picture_of_a_seed_is_where_its_edit_starts(service: Service) -> None:
    shown = np.asarray(Image.open(io.BytesIO(get(service, "/v1/pictures/3").content)))
    result = post(service, files={"audio": SOUND}, data={"seed": "3"}).json()
    assert (shown == edited(result["source_image"])).all()
    assert get(service, "/v1/pictures/-1").status_code == 422


def test_every_sample_that_is_listed_can_be_edited_with(service: Service) -> None:
    samples = get(service, "/v1/models").json()["samples"]
    assert {"raining", "sea waves", "orchestral music"} <= {sample["label"] for sample in samples}
    flac = get(service, samples[0]["url"])
    assert flac.headers["content-type"] == "audio/flac" and flac.content[:4] == b"fLaC"
    parts = {"files": {"audio": ("s.flac", flac.content, "audio/flac")}, "data": {"seed": "1"}}
    assert post(service, **parts).status_code == 200
    assert get(service, "/v1/samples/none").status_code == 404


def test_the_models_and_their_settings_are_told(service: Service, single: Manipulator) -> None:
    told = get(service, "/v1/models").json()
    assert told["models"] == single.model_digests and told["resolution"] == told["height"] == told["width"] == 16
    assert told["settings"]["num_steps"]["default"] == SHORT.num_steps
    assert set(told["settings"]) == set(EditSettings.model_fields)


def test_what_a_photo_becomes_is_what_the_library_makes_of_it(
    service: Service, single: Manipulator, photo: NDArray[np.uint8]
) -> None:
    parts = {"audio": SOUND, "image": ("p.png", encode_png(photo), "image/png")}
    result = post(service, files=parts).json()
    alone = do(single, with_photo("alone", photo, SHORT))
    assert peak_signal_to_noise(edited(result["edited_image"]), alone.image) >= 45
