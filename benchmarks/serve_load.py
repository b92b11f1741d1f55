"""What the service costs and withstands: edits a minute against the bare manipulator, overload, leavers, memory.

  python benchmarks/serve_load.py            # about 20 minutes on two cores, ten of them for memory
  python benchmarks/serve_load.py --quick    # about three minutes

Edits of the miniature, first through `Manipulator` in this process, one at a time and in full batches, then through
HTTP with 1, 4, 16 and 64 clients that each send the next request when the last is answered. Service, clients and
models share the machine's cores; threads and slots are the same on both sides. Then clients that leave at random, and
steady load while the memory of all processes of the service is watched. Writes benchmarks/results/serve_load.json.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
from provenance import where_and_when

from soundguide.audio.decode import encode_wav
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.manipulator import Manipulator
from soundguide.miniature.labels import LABELS
from soundguide.miniature.sounds import SAMPLE_RATE_HZ, synthesise
from soundguide.model_facts import read_model_facts
from soundguide.records import PreparedEdit
from soundguide.stages import EditPreparer

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "serve_load.json"
NUM_SLOTS, MAX_EDITS = 8, 32
THREADS = os.cpu_count() or 1
TARGET = 0.8


@dataclass(frozen=True)
class Plan:
    direct_edits: int
    requests: dict[int, int]  # by number of clients
    leavers: int
    memory_seconds: float


FULL = Plan(direct_edits=48, requests={1: 12, 4: 32, 16: 96, 64: 256}, leavers=64, memory_seconds=600)
QUICK = Plan(direct_edits=16, requests={1: 4, 4: 12, 16: 32, 64: 96}, leavers=24, memory_seconds=40)


def sounds() -> list[bytes]:
    rng = np.random.default_rng(0)
    waveforms = (synthesise(label, seconds=4.0, intensity=0.9, rng=rng) for label in LABELS[:8])
    return [encode_wav(waveform, SAMPLE_RATE_HZ) for waveform in waveforms]


def direct(plan: Plan, heard: list[bytes]) -> dict[str, float]:
    """Return edits a minute of the bare manipulator, alone and in full batches."""
    config = ManipulatorConfig(num_slots=NUM_SLOTS, num_threads=THREADS, device="cpu")
    manipulator = Manipulator(config)
    prepare = EditPreparer(read_model_facts(config)).check

    def edit(number: int) -> PreparedEdit:
        return prepare(str(number), EditSettings(), sound=heard[number % len(heard)], seed=number)

    async def work() -> dict[str, float]:
        await manipulator.edit(edit(0))
        started, num = time.monotonic(), max(3, plan.direct_edits // 8)
        for number in range(num):
            await manipulator.edit(edit(number))
        alone = 60 * num / (time.monotonic() - started)
        started = time.monotonic()
        await asyncio.gather(*(manipulator.edit(edit(number)) for number in range(plan.direct_edits)))
        return {"alone": alone, "full_batch": 60 * plan.direct_edits / (time.monotonic() - started)}

    return asyncio.run(work())


class Service:
    """The service in a process tree of its own."""

    def __init__(self) -> None:
        port = 18_650 + os.getpid() % 300
        limits = {"limits.max_edits": MAX_EDITS, "manipulator.num_slots": NUM_SLOTS, "manipulator.num_threads": THREADS}
        flags = [f"--{name}={value}" for name, value in {"port": port, **limits, "manipulator.device": "cpu"}.items()]
        self.process = subprocess.Popen([sys.executable, str(ROOT / "serve" / "run.py"), *flags])
        self.address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 180
        while True:
            try:
                if httpx.get(f"{self.address}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError("the service did not start")
            time.sleep(0.5)

    def memory_mib(self) -> float:
        """Return the private memory of the processes that serve, without what they share."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        ours = [child for child in family if "ServeReplica" in " ".join(child.cmdline()) or "Proxy" in child.name()]
        return sum(child.memory_full_info().uss for child in ours) / 2**20

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(120)


def client(service: Service) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=service.address, timeout=300, limits=limits)


async def ask(http: httpx.AsyncClient, heard: list[bytes], number: int, settings: str = "{}") -> int:
    reply = await http.post(
        "/v1/edits",
        headers={"Accept": "image/png"},
        files={"audio": ("a.wav", heard[number % len(heard)], "audio/wav")},
        data={"seed": str(number), "settings": settings},
    )
    return reply.status_code


async def load(service: Service, heard: list[bytes], clients: int, requests: int) -> dict[str, object]:
    """Return latencies and throughput with so many clients at once."""
    numbers, seconds, codes = iter(range(requests)), [], Counter()

    async def one(http: httpx.AsyncClient) -> None:
        for number in numbers:
            started = time.monotonic()
            code = await ask(http, heard, number)
            codes[code] += 1
            if code == 200:
                seconds.append(time.monotonic() - started)
            else:
                await asyncio.sleep(1)

    async with client(service) as http:
        started = time.monotonic()
        await asyncio.gather(*(one(http) for _ in range(clients)))
        took = time.monotonic() - started
    return {
        "clients": clients,
        "p50_seconds": round(statistics.median(seconds), 2),
        "p95_seconds": round(float(np.quantile(seconds, 0.95)), 2),
        "edits_per_minute": round(60 * codes[200] / took, 1),
        "answers": {str(code): count for code, count in sorted(codes.items())},
    }


async def leave(service: Service, heard: list[bytes], leavers: int) -> dict[str, object]:
    """Let clients leave at random; return whether all room is free again, and after how long."""
    chance = random.Random(0)
    async with client(service) as http:

        async def one(number: int) -> None:
            try:
                await asyncio.wait_for(ask(http, heard, number, '{"num_steps": 1000}'), chance.uniform(0.05, 3))
            except TimeoutError:
                pass

        await asyncio.gather(*(one(number) for number in range(leavers)))
        started = time.monotonic()
        while time.monotonic() - started < 60:
            tries = (ask(http, heard, number, '{"num_steps": 0}') for number in range(MAX_EDITS))
            if set(await asyncio.gather(*tries)) == {200}:
                return {"leavers": leavers, "all_free": True, "seconds": round(time.monotonic() - started, 2)}
            await asyncio.sleep(0.2)
    return {"leavers": leavers, "all_free": False}


async def watch_memory(service: Service, heard: list[bytes], seconds: float) -> dict[str, float]:
    """Return the memory after a tenth of the time under load, and at its end."""
    started, marks = time.monotonic(), []
    while (now := time.monotonic() - started) < seconds:
        await load(service, heard, 8, 24)
        marks.append((now, service.memory_mib()))
    early = [mib for at, mib in marks if at >= seconds / 10][:3] or [marks[0][1]]
    late = [mib for _, mib in marks[-3:]]
    first, last = statistics.median(early), statistics.median(late)
    return {"seconds": seconds, "first_mib": round(first), "last_mib": round(last), "ratio": round(last / first, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer requests, 40 seconds of memory")
    plan = QUICK if parser.parse_args().quick else FULL
    heard = sounds()
    bare = direct(plan, heard)
    print(f"manipulator alone {bare['alone']:.1f}, in full batches {bare['full_batch']:.1f} edits a minute", flush=True)
    service = Service()
    try:
        asyncio.run(load(service, heard, 4, 8))  # warm
        loads = []
        for clients, requests in plan.requests.items():
            loads.append(asyncio.run(load(service, heard, clients, requests)))
            print(loads[-1], flush=True)
        leavers = asyncio.run(leave(service, heard, plan.leavers))
        print(leavers, flush=True)
        memory = asyncio.run(watch_memory(service, heard, plan.memory_seconds))
        print(memory, flush=True)
    finally:
        service.stop()
    at_16 = next(each for each in loads if each["clients"] == 16)
    record = {
        "direct_edits_per_minute": {name: round(value, 1) for name, value in bare.items()},
        "loads": loads,
        "ratio_at_16": round(float(str(at_16["edits_per_minute"])) / bare["full_batch"], 3),
        "target": TARGET,
        "leavers": leavers,
        "memory": memory,
        **where_and_when(),
        "threads": THREADS,
    }
    result = RESULT.with_stem("serve_load_quick") if plan is QUICK else RESULT
    result.write_text(json.dumps(record, indent=2) + "\n")
    print(f"service at 16 / full batches = {record['ratio_at_16']} (target {TARGET}); written to {result.name}")


if __name__ == "__main__":
    main()
