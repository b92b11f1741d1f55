"""The service on a real Ray Serve, two processes of each kind: clients that leave, processes that die."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from ports import free_port
from service import EVENTS, JSON, PNG, SOUND, events_of, run

from serve.settings import ServeSettings
from soundguide.config import ManipulatorConfig
from soundguide.records import EditResult

ROOT = Path(__file__).parents[1]
NUM_SLOTS, MAX_EDITS = 2, 12
LONG = '{"num_steps": 2000}'


@pytest.fixture(scope="module")
def address(local_ray: None, tiny_models: ManipulatorConfig) -> Iterator[str]:
    """Serve the tiny world; return the address."""
    from ray import serve

    from serve.app import build

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    application = build(
        {
            "manipulator": {**tiny_models.model_dump(), "num_slots": NUM_SLOTS, "device": "cpu"},
            "edit": {"num_steps": 8, "num_views": 1},
            "replicas": {"num_ingress": 2, "min_manipulators": 2, "max_manipulators": 2, "cpus": 0.25},
            "limits": {"max_edits": MAX_EDITS, "preview_every": 2, "max_steps": 2000, "stay_seconds": 1.0},
        }
    )
    serve.run(application, name="soundguide", route_prefix="/")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def client(address: str) -> httpx.AsyncClient:
    # without kept-alive connections each request may meet another ingress
    return httpx.AsyncClient(base_url=address, timeout=60, limits=httpx.Limits(max_keepalive_connections=0))


def form(**data: str) -> dict[str, Any]:
    """Return what a request for one edit is sent with."""
    return {"files": {"audio": SOUND}, "data": data}


async def all_free(service: httpx.AsyncClient) -> None:
    """Return when no edit runs: as many as there is room for are taken at once."""
    for _ in range(100):
        parts = form(seed="1")
        replies = await asyncio.gather(*(service.post("/v1/edits", headers=PNG, **parts) for _ in range(MAX_EDITS)))
        if {reply.status_code for reply in replies} == {200}:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("slots were not freed")


def test_pictures_results_and_news_come_through(address: str) -> None:
    async def work() -> None:
        async with client(address) as service:
            parts = form(seed="3")
            png = await service.post("/v1/edits", headers=PNG, **parts)
            assert png.status_code == 200 and png.content[:4] == b"\x89PNG"
            result = EditResult.model_validate_json((await service.post("/v1/edits", headers=JSON, **parts)).content)
            assert result.status == "ok" and result.steps == 8
            page = await service.get("/")
            assert page.status_code == 200 and "text/html" in page.headers["content-type"]
            assert (await service.get("/readyz")).json() == {"status": "ready"}

    run(work)


def test_news_arrives_while_the_edit_runs(address: str) -> None:
    async def work() -> None:
        parts = form(seed="3", settings='{"num_steps": 400}')
        async with client(address) as service, service.stream("POST", "/v1/edits", headers=EVENTS, **parts) as reply:
            times = [time.monotonic() async for line in reply.aiter_lines() if line.startswith("event: progress")]
        assert len(times) == 200 and times[-1] - times[0] > 0.3

    run(work)


def test_every_ingress_knows_every_edit(address: str) -> None:
    async def work() -> None:
        async with client(address) as service:
            parts = form(seed="3")
            headers = {**JSON, "Idempotency-Key": "twice"}
            replies = await asyncio.gather(*(service.post("/v1/edits", headers=headers, **parts) for _ in range(8)))
            (id,) = {reply.json()["id"] for reply in replies}
            found = await asyncio.gather(*(service.get(f"/v1/edits/{id}", headers=JSON) for _ in range(8)))
            assert all(reply.json() == replies[0].json() for reply in found)

    run(work)


def test_a_stream_that_broke_is_re_attached_and_one_that_nobody_wants_ends(address: str) -> None:
    async def work() -> None:
        async with client(address) as service:
            parts = form(seed="3", settings=LONG)
            async with service.stream("POST", "/v1/edits", headers=EVENTS, **parts) as reply:
                path = reply.headers["location"]
                lines = reply.aiter_lines()
                while not (await anext(lines)).startswith("event: progress"):
                    pass
            assert (await service.get(path, headers=JSON)).status_code == 202  # it goes on
            async with service.stream("GET", path, headers={**EVENTS, "Last-Event-ID": "1"}) as reply:
                first = [await anext(reply.aiter_lines()) for _ in range(1)]
                assert first == ["id: 2"]
            await asyncio.sleep(2.0)  # longer than it stays
            gone = await service.get(path, headers=JSON)
            assert gone.status_code == 409 and gone.json()["error"]["kind"] == "Cancelled"

    run(work)


def test_any_ingress_cancels_any_edit(address: str) -> None:
    async def work() -> None:
        async with client(address) as service:
            parts = form(seed="3", settings=LONG)
            async with service.stream("POST", "/v1/edits", headers=EVENTS, **parts) as reply:
                cancelled = await service.delete(reply.headers["location"])
                assert cancelled.json() == {"cancelled": True}
                *_, (kind, _, data) = events_of((await reply.aread()).decode())
            assert (kind, data["error"]["kind"]) == ("error", "Cancelled")

    run(work)


def test_clients_that_leave_free_their_slots(address: str) -> None:
    async def work() -> None:
        async with client(address) as service:
            parts = form(seed="3", settings=LONG)
            leaving = [
                asyncio.ensure_future(service.post("/v1/edits", headers=kind, **parts))
                for kind in (PNG, JSON, EVENTS)
                for _ in range(3)
            ]
            await asyncio.sleep(1)
            for each in leaving:
                each.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)
            await asyncio.sleep(1.2)  # streams stay a second
            started = time.monotonic()
            await all_free(service)
            assert time.monotonic() - started < 5

    run(work)


def test_outcomes_and_slots_can_be_measured(address: str) -> None:
    import ray

    async def work() -> None:
        async with client(address) as service:
            await service.post("/v1/edits", headers=PNG, files={"audio": SOUND}, data={"seed": "3"})
            url = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
            wanted = {
                "soundguide_edits_total",
                "soundguide_slots",
                "soundguide_step_seconds",
                "soundguide_edits_running",
            }
            for _ in range(60):
                text = (await service.get(url)).text
                missing = {name for name in wanted if f"ray_{name}" not in text}
                if not missing:
                    break
                await asyncio.sleep(0.5)
            assert not missing

    run(work)


def manipulators() -> list[psutil.Process]:
    """Return the processes of this test's Ray that hold models."""
    family = psutil.Process().children(recursive=True)
    return [process for process in family if "ServeReplica:soundguide:Manipulator" in " ".join(process.cmdline())]


@pytest.mark.chaos
def test_a_killed_manipulator_costs_a_clean_error_at_most_and_is_replaced(address: str) -> None:
    async def work() -> None:
        async with client(address) as service:
            parts = form(seed="3", settings='{"num_steps": 800}')
            edits = [asyncio.ensure_future(service.post("/v1/edits", headers=PNG, **parts)) for _ in range(8)]
            await asyncio.sleep(0.7)
            victims = manipulators()
            assert len(victims) == 2
            victims[0].kill()
            replies = await asyncio.gather(*edits)
            codes = {reply.status_code for reply in replies}
            assert codes <= {200, 503} and 503 in codes, codes
            for reply in replies:
                if reply.status_code == 503:
                    assert reply.json()["error"]["kind"] == "Unavailable" and "retry-after" in reply.headers
            for _ in range(60):
                if len(manipulators()) == 2:
                    break
                await asyncio.sleep(0.5)
            again = await asyncio.gather(
                *(service.post("/v1/edits", headers=PNG, files={"audio": SOUND}, data={"seed": "3"}) for _ in range(8))
            )
            assert {reply.status_code for reply in again} == {200}

    run(work)


def test_a_service_that_ends_finishes_what_runs(address: str) -> None:
    """The last test of this module: it takes the application away."""
    from ray import serve

    async def work() -> None:
        async with client(address) as service:
            parts = form(seed="3", settings='{"num_steps": 1000}')
            edit = asyncio.ensure_future(service.post("/v1/edits", headers=PNG, **parts))
            await asyncio.sleep(0.5)
            await asyncio.to_thread(serve.delete, "soundguide")
            assert (await edit).status_code == 200

    run(work)


@pytest.mark.chaos
@pytest.mark.slow
def test_a_second_process_starts_when_edits_wait_and_goes_when_none_do(
    local_ray: None, tiny_models: ManipulatorConfig
) -> None:
    """After the test that takes the first application away: there is one address."""
    from ray import serve

    from serve.app import build

    models = {**tiny_models.model_dump(), "num_slots": 1, "device": "cpu"}
    replicas = {"min_manipulators": 1, "max_manipulators": 2, "cpus": 0.25, "idle_seconds": 3}
    port = free_port()
    serve.shutdown()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build({"manipulator": models, "replicas": replicas, "limits": {"max_steps": 10_000}}), name="soundguide")

    async def work() -> None:
        async with client(f"http://127.0.0.1:{port}") as service:
            parts = form(seed="3", settings='{"num_steps": 10000}')
            edits = [asyncio.ensure_future(service.post("/v1/edits", headers=PNG, **parts)) for _ in range(6)]
            for _ in range(180):
                if len(manipulators()) == 2:
                    break
                await asyncio.sleep(0.5)
            assert len(manipulators()) == 2
            for edit in edits:
                edit.cancel()
            await asyncio.gather(*edits, return_exceptions=True)
            for _ in range(300):  # Serve looks back half a minute
                if len(manipulators()) == 1:
                    break
                await asyncio.sleep(0.5)
            assert len(manipulators()) == 1

    run(work, seconds=300)
    serve.shutdown()


def test_the_config_file_has_no_key_that_nobody_reads() -> None:
    from ray.serve.schema import (
        DeploymentSchema,
        HTTPOptionsSchema,
        LoggingConfig,
        ServeApplicationSchema,
        ServeDeploySchema,
    )

    config = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
    ServeDeploySchema.model_validate(config)
    assert set(config) <= set(ServeDeploySchema.model_fields)
    assert set(config["http_options"]) <= set(HTTPOptionsSchema.model_fields)
    assert set(config["logging_config"]) <= set(LoggingConfig.model_fields)
    (application,) = config["applications"]
    assert set(application) <= set(ServeApplicationSchema.model_fields)
    assert not application.get("deployments") or set(application["deployments"][0]) <= set(
        DeploymentSchema.model_fields
    )
    ServeSettings.model_validate(application["args"])
    assert application["import_path"] == "serve.app:build"


def test_wrong_settings_are_told_before_anything_starts() -> None:
    from serve.app import build
    from soundguide.errors import InvalidCheckpoint, InvalidConfig

    with pytest.raises(InvalidConfig, match="max_edit"):
        build({"limits": {"max_edit": 3}})
    with pytest.raises(InvalidCheckpoint):
        build({"manipulator": {"generator": "nowhere"}})


def test_more_processes_are_wanted_as_edits_wait() -> None:
    from types import SimpleNamespace

    from serve.app import replicas_for_slots_wanted

    def wanted(*reported: float) -> int:
        context = SimpleNamespace(
            aggregated_metrics={"replicas_wanted": dict(enumerate(reported))},
            capacity_adjusted_min_replicas=1,
            capacity_adjusted_max_replicas=4,
        )
        return replicas_for_slots_wanted(context)[0]

    assert [wanted(), wanted(0.0), wanted(1.0), wanted(2.5), wanted(1.0, 1.0), wanted(9.0)] == [1, 1, 1, 3, 2, 4]


def test_logs_are_json_with_request_ids(address: str) -> None:
    import ray._private.worker

    folder = Path(ray._private.worker.global_worker.node.get_session_dir_path()) / "logs" / "serve"
    lines = [line for path in folder.glob("replica_soundguide_Ingress_*.log") for line in path.read_text().splitlines()]
    requests = [found for found in map(json.loads, lines) if found.get("route")]
    assert requests and all(found["request_id"] for found in requests)
    assert "/v1/edits" in {found["route"] for found in requests}
