"""What the service does with requests that mean it harm: an answer below 500, always, and nothing left running."""

from __future__ import annotations

import asyncio
import io
import json
import os
import struct
import wave
import zlib
from collections.abc import Iterator
from typing import Any

import av
import httpx
import numpy as np
import pytest
import schemathesis
import soundfile
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from service import JSON, Service, run, start, tiny_engine
from tiny_edits import noise
from tiny_world import NUM_WS, SAMPLE_RATE, W_DIM

from serve.settings import ServiceLimits
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.latents import encode_latent
from soundguide.stages import SourceLimits

NUM_UPLOADS, AT_ONCE = 2_000, 16
LIMITS = ServiceLimits(
    max_body_mib=4,
    max_steps=3,
    deadline_seconds=20,
    max_deadline_seconds=20,
    sources=SourceLimits(max_sound_mib=2, max_sound_seconds=20.0, max_image_mib=2, max_image_pixels=4_000_000),
)
Part = tuple[str, tuple[str, bytes, str]]


@pytest.fixture(scope="module")
def service(tiny_models: ManipulatorConfig) -> Service:
    return start(
        tiny_engine(tiny_models), limits=LIMITS, edit=EditSettings(num_steps=1, num_views=1, inversion_steps=1)
    )


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
OPERATIONS = ["POST /v1/edits", "GET /v1/edits/{id}", "DELETE /v1/edits/{id}", "POST /v1/listen", "POST /v1/embeddings"]
OPERATIONS += ["GET /v1/samples/{name}", "GET /v1/pictures/{seed}", "GET /healthz", "GET /readyz", "GET /v1/models"]


def test_the_contract_lists_every_operation(service: Service) -> None:
    paths = service.api.openapi()["paths"]
    assert sorted(f"{method.upper()} {path}" for path, item in paths.items() for method in item) == sorted(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_whatever_the_contract_allows_is_answered_as_it_says(service: Service, operation: str) -> None:
    method, path = operation.split()
    schema = schemathesis.openapi.from_asgi("/openapi.json", service.api)

    @settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=schema[path][method].as_strategy())
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    ask()


def sounds() -> dict[str, bytes]:
    """Return small sounds of every container, and some that should not be."""
    waveform = np.random.default_rng(0).uniform(-0.3, 0.3, SAMPLE_RATE // 2).astype(np.float32)
    found = {"wav": noise(0)}
    for name, subtype in (("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("CAF", "PCM_16")):
        buffer = io.BytesIO()
        soundfile.write(buffer, waveform, SAMPLE_RATE, format=name, subtype=subtype)
        found[name.lower()] = buffer.getvalue()
    for container, codec, rate in (("webm", "libopus", 48_000), ("mp4", "aac", 44_100)):
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=container) as file:
            stream = file.add_stream(codec, rate=rate, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.resize(waveform, (1, rate // 4)), format="fltp", layout="mono")
            frame.sample_rate = rate
            for packet in (*stream.encode(frame), *stream.encode(None)):
                file.mux(packet)
        found[container] = buffer.getvalue()
    for name, value in (("nan", np.nan), ("inf", np.inf), ("silence", 0.0)):
        buffer = io.BytesIO()
        soundfile.write(buffer, np.full(4000, value, np.float32), SAMPLE_RATE, format="WAV", subtype="FLOAT")
        found[name] = buffer.getvalue()
    long = io.BytesIO()
    with wave.open(long, "wb") as file:
        file.setparams((1, 1, 1000, 0, "NONE", ""))
        file.writeframes(bytes(1_500_000))  # 25 minutes in 1.5 MB
    found["long"] = long.getvalue()
    found["playlist"] = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    found["concat"] = b"ffconcat version 1.0\nfile /etc/passwd\n"
    return found


def pictures() -> dict[str, bytes]:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 56, 3), np.uint8))
    found = {}
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        found[kind.lower()] = buffer.getvalue()
    bomb = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(bomb, "PNG")
    found["bomb"] = bomb.getvalue()
    header = b"IHDR" + struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 16, 6, 0, 0, 0)
    found["giant"] = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    text = b"zTXtcomment\0\0" + zlib.compress(bytes(50_000_000), 9)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    found["text bomb"] = found["png"][:33] + chunk + found["png"][33:]
    found["svg"] = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    found["postscript"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n"
    return found


def codes() -> dict[str, bytes]:
    ws = np.random.default_rng(2).normal(size=(NUM_WS, W_DIM)).astype(np.float32)
    npy = io.BytesIO()
    np.save(npy, ws)
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], object), allow_pickle=True)
    return {
        "safetensors": encode_latent(ws),
        "npy": npy.getvalue(),
        "pickle": pickled.getvalue(),
        "nan": encode_latent(np.full_like(ws, np.nan)),
        "header": struct.pack("<Q", 2**63) + b"{}",
    }


NAMES = [
    "a",
    "",
    "../../etc/passwd",
    "a\\b.wav",
    "\u202egnp.exe",
    "x" * 5000,
    "%00.wav",
    "a;b=c",
    "CON",
    "\U0001f3b5.mp3",
]
TYPES = ["audio/wav", "image/png", "application/octet-stream", "text/html", "audio/" + "x" * 900, "multipart/mixed", ""]
SETTINGS: list[Any] = [
    {},
    {"num_steps": 3},
    {"text": "rain \0 \u202e"},
    {"text": "x" * 2001},
    {"mix_layers": "1-99999999999999999999 sound"},
    {"num_steps": 10**400},
    {"learning_rate": 1e-320},
    {"learning_rate": 10, "lambda_reg": 1e308, "exploration": 5},
    {"deadline_s": True},
    {"__proto__": {"a": 1}},
    [],
    None,
    "text",
]


def harm(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one of some ways."""
    way = int(rng.integers(6))
    if way == 0 and data:
        return data[: int(rng.integers(len(data)))]
    if way in (1, 2) and data:
        damaged = bytearray(data)
        for _ in range(int(rng.integers(1, 30))):
            damaged[int(rng.integers(min(len(data), 200 if way == 1 else len(data))))] = int(rng.integers(256))
        return bytes(damaged)
    if way == 3:
        return data + data[: int(rng.integers(len(data) + 1))]
    if way == 4:
        return rng.bytes(int(rng.integers(400)))
    return data


def requests(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yield what `httpx` posts, without end."""
    files = {"audio": list(sounds().values()), "image": list(pictures().values()), "latent": list(codes().values())}
    everything = [data for kind in files.values() for data in kind]
    while True:
        parts: list[Part] = []
        for field in ("audio", "image", "latent"):
            for _ in range(int(rng.choice([0, 1, 2], p=[0.35, 0.6, 0.05]))):
                pool = everything if rng.random() < 0.1 else files[field]
                data = pool[int(rng.integers(len(pool)))]
                kind = {"audio": "audio/wav", "image": "image/png"}.get(field, "application/octet-stream")
                kind = kind if rng.random() < 0.8 else TYPES[int(rng.integers(len(TYPES)))]
                name = NAMES[int(rng.integers(len(NAMES)))]
                parts.append((field, (name, harm(data, rng) if rng.random() < 0.6 else data, kind)))
        data: dict[str, Any] = {}
        if rng.random() < 0.6:
            data["seed"] = str(rng.choice(["0", "7", "-1", "1e3", "9" * 30, "", "NaN", "\u0663"]))
        if rng.random() < 0.5:
            data["settings"] = json.dumps(SETTINGS[int(rng.integers(len(SETTINGS)))])
        headers = dict(JSON)
        if rng.random() < 0.1:
            headers |= {"Idempotency-Key": str(rng.choice(["a", "k" * 255, "k" * 9000, " "]))}
        if rng.random() < 0.05:
            headers |= {"X-Long": "h" * 60_000, "Accept": "*/*;" * 5000, "Last-Event-ID": "9" * 4000}
        yield {"files": parts or None, "data": data, "headers": headers}


@pytest.mark.slow
def test_thousands_of_hostile_uploads_harm_nothing(service: Service) -> None:
    stream = requests(np.random.default_rng(int(os.environ.get("SOUNDGUIDE_FUZZ_SEED", "0"))))

    async def work() -> dict[int, int]:
        codes: dict[int, int] = {}
        async with service.client() as client:

            async def one(parts: dict[str, Any]) -> None:
                path = "/v1/edits" if parts["files"] is None or len(parts["files"]) != 1 else "/v1/listen"
                reply = await client.post(path if path == "/v1/listen" else "/v1/edits", **parts)
                assert reply.status_code < 500, (reply.text, parts)
                if reply.status_code >= 400:
                    error = reply.json()["error"]
                    assert error["message"] and "Traceback" not in error["message"]
                codes[reply.status_code] = codes.get(reply.status_code, 0) + 1

            for _ in range(NUM_UPLOADS // AT_ONCE):
                await asyncio.gather(*(one(next(stream)) for _ in range(AT_ONCE)))
            assert (await client.get("/readyz")).status_code == 200
        return codes

    codes = run(work, seconds=400)
    assert sum(codes.values()) == NUM_UPLOADS
    assert codes[200] > 5 and codes[422] > 500  # both doors were open
    assert service.board.num_running == 0 and service.engine.manipulator.load.num_running == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x",
        b"--x--\r\n",
        b"--x\r\n\r\n\r\n",
        b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="seed"\r\n' + b"X: y\r\n" * 5000 + b"\r\n1\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="seed"\r\n\r\n' + b"1" * 2_000_000 + b"\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 3000 + b"--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="a"; filename="f"\r\n\r\n1\r\n' * 3000 + b"--x--\r\n",
        b"\xff" * 1000,
    ],
)
@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "multipart/form-data", "application/json", ""])
def test_bodies_that_are_no_form_are_refused(service: Service, body: bytes, kind: str) -> None:
    async def work() -> httpx.Response:
        async with service.client(**({"Content-Type": kind} if kind else {})) as client:
            return await client.post("/v1/edits", content=body)

    reply = run(work)
    assert 400 <= reply.status_code < 500 and reply.json()["error"]["message"]
