"""What Ray costs a bulk job: edits a second of jobs/bulk_manipulate.py against `Manipulator` called directly.

  python benchmarks/job_overhead.py            # 240 rows, 60 steps, 3 times: about 25 minutes on two cores
  python benchmarks/job_overhead.py --quick    # 48 rows, 10 steps, once: about 3 minutes

Both sides edit the same rows with the miniature, in as many processes with as many torch threads each: a sound of its
own and a seed in every row, so that nothing comes from a cache. Both decode each sound, encode two PNGs and a code,
and write and flush these files, with the same functions. The direct side is a loop as one would write it without Ray:
each process takes its share of the rows, prepares and finishes in threads beside the models, and writes one Parquet
file. The job is the program itself with its defaults; only a clock is put around its actor's class.

Start-up is on neither side. The direct side is timed from when all its processes have loaded their models until the
last has written its results; the job from the first call of an actor until its last block is committed. What the job
prepared before that first call, while models were loading, would be free: so it is charged for preparing every row
once more. Sides take turns, and medians are compared. Edits have their default steps: fewer make a row cheaper, and
what Ray costs a row weigh more. Both sides must write the same pictures to the byte. Writes
benchmarks/results/job_overhead.json.
"""

import argparse
import asyncio
import csv
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from provenance import where_and_when

from soundguide.audio.decode import encode_wav
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.manifest import read_manifest
from soundguide.miniature.labels import LABELS
from soundguide.miniature.sounds import SAMPLE_RATE_HZ, synthesise
from soundguide.model_facts import read_model_facts
from soundguide.records import EditResult, PreparedEdit, Row
from soundguide.stages import EditFinisher, EditPreparer
from soundguide.storage import Storage
from soundguide.tables import manipulated_row, result_table

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "job_overhead.json"
TARGET = 0.9
SOUND_SECONDS = 4.0  # as long as the miniature listens at once
PREPARED_AHEAD = 2  # edits that a direct process has in flight, for each slot
CLOCK = "SOUNDGUIDE_BENCHMARK_CLOCK"  # names the file in which actors note when they were first called


@dataclass(frozen=True)
class Plan:
    """What is measured; the help of the flags of the same names says more."""

    rows: int = 240
    steps: int = EditSettings().num_steps
    repeats: int = 3
    processes: int = os.cpu_count() or 1
    threads: int = 1

    @property
    def models(self) -> ManipulatorConfig:
        return ManipulatorConfig(device="cpu", num_threads=self.threads)


QUICK = Plan(rows=48, steps=10, repeats=1)


def write_inputs(folder: Path, num_rows: int) -> Path:
    """Write a sound for every row, and the manifest."""
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "audio", "seed"))
        for number in range(num_rows):
            rng = np.random.default_rng(number)
            sound = synthesise(LABELS[number % len(LABELS)], seconds=SOUND_SECONDS, intensity=0.9, rng=rng)
            (folder / f"{number}.wav").write_bytes(encode_wav(sound, SAMPLE_RATE_HZ))
            writer.writerow((f"row-{number:05d}", f"{number}.wav", number))
    return manifest


@dataclass(frozen=True)
class Took:
    """Seconds of one run of one side, and those of a CPU that its preparing took where that was measured."""

    seconds: float
    preparing: float = 0.0


def edit_directly(plan: Plan, manifest: Path, output: Path) -> Took:
    """Edit all rows in processes of our own, as without Ray."""
    os.environ["OMP_NUM_THREADS"] = str(plan.threads)  # as Ray does for its actors
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(plan.processes, mp_context=context) as pool:
        ready = manager.Barrier(plan.processes, timeout=600)
        shares = [
            pool.submit(edit_share, number, plan, str(manifest), output, ready) for number in range(plan.processes)
        ]
        started, ended, preparing = zip(*(share.result() for share in shares), strict=True)
    return Took(max(ended) - min(started), sum(preparing))


def edit_share(number: int, plan: Plan, manifest: str, output: Path, ready: Any) -> tuple[float, float, float]:
    """Edit this process's share of the rows; return when it began and ended, and its seconds of preparing."""
    from soundguide.manipulator import Manipulator

    rows = read_manifest(manifest, Storage()).to_pylist()[number :: plan.processes]
    facts = read_model_facts(plan.models)
    preparer = EditPreparer(facts, EditSettings(num_steps=plan.steps))
    finisher, manipulator = EditFinisher(str(output), facts.digests), Manipulator(plan.models)
    preparing: list[float] = []

    def prepare(row: Row) -> Row:
        started = time.thread_time()
        prepared = preparer.prepare(row)
        preparing.append(time.thread_time() - started)
        return prepared

    async def edit_all() -> list[EditResult]:
        room = asyncio.Semaphore(PREPARED_AHEAD * manipulator.load.num_slots)

        async def one(row: Row) -> EditResult:
            async with room:
                prepared = await asyncio.to_thread(prepare, row)
                edited = await manipulator.edit(PreparedEdit.from_row(prepared))
                return await asyncio.to_thread(finisher.finish, manipulated_row(edited, prepared=prepared))

        return await asyncio.gather(*(one(row) for row in rows))

    ready.wait()
    started = time.time()
    results = asyncio.run(edit_all())
    (output / "results").mkdir(exist_ok=True)
    pq.write_table(result_table(results), output / "results" / f"{number}.parquet")
    return started, time.time(), sum(preparing)


def edit_by_job(plan: Plan, manifest: Path, output: Path) -> Took:
    """Edit all rows with the job, a program of its own."""
    chosen = {
        "manifest": manifest,
        "output": output,
        "edit.num_steps": plan.steps,
        "pool.num_actors": plan.processes,
        "manipulator.device": plan.models.device,
        "manipulator.num_threads": plan.models.num_threads,
        "progress": "off",
    }
    flags = [f"--{name}={value}" for name, value in chosen.items()]
    clock = output.with_suffix(".clock")
    # Ray's workers step back behind whatever else runs; the direct side's processes do not
    environment = {**os.environ, CLOCK: str(clock), "RAY_worker_niceness": "0"}
    done = subprocess.run([sys.executable, __file__, "--job", *flags], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the job ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    started = min(float(line) for line in clock.read_text().split())
    # the time of the inode, which the renaming of a block's ids sets when its results are there for good
    return Took(max(path.stat().st_ctime for path in output.glob("_run/checkpoint/*/*.parquet")) - started)


def run_clocked_job(flags: list[str]) -> int:
    """Run the job with `flags`; its actors note when they are first called, and are the same otherwise."""
    sys.path.insert(0, str(ROOT / "jobs"))
    import bulk_manipulate  # type: ignore[import-not-found]
    import soundguide.manipulator
    from soundguide.manipulator import Manipulator

    class Clocked:
        def __init__(self, config: ManipulatorConfig, storage: Storage) -> None:
            self._manipulator, self._called = Manipulator(config, storage), False

        async def __call__(self, batch: Any) -> Any:
            if not self._called:
                self._called = True
                with Path(os.environ[CLOCK]).open("a") as file:
                    file.write(f"{time.time()}\n")
            return await self._manipulator(batch)

    soundguide.manipulator.Manipulator = Clocked  # type: ignore[misc, assignment]
    code: int = bulk_manipulate.main(flags)
    return code


def pictures(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (output / "images").iterdir()}


def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    """Run both sides in turn, and compare them."""
    manifest = write_inputs(folder, plan.rows)
    sides: dict[str, Callable[[Plan, Path, Path], Took]] = {"direct": edit_directly, "job": edit_by_job}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    preparing = 0.0
    for repeat in range(plan.repeats):
        made = {}
        for name, edit in sides.items():
            output = folder / f"{name}-{repeat}"
            output.mkdir()
            took = edit(plan, manifest, output)
            preparing = took.preparing or preparing
            seconds[name].append(took.seconds + (preparing / plan.processes if name == "job" else 0.0))
            made[name] = pictures(output)
        if made["direct"] != made["job"] or len(made["job"]) != plan.rows:
            raise SystemExit(f"the sides wrote different pictures: {len(made['direct'])} and {len(made['job'])}")
        latest = {name: round(each[-1], 1) for name, each in seconds.items()}
        print(f"{repeat + 1}/{plan.repeats}: seconds for {plan.rows} rows {latest}", flush=True)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    return {
        "ratio": round(medians["direct"] / medians["job"], 3),
        "target": TARGET,
        "rows_per_minute": {name: round(60 * plan.rows / each, 1) for name, each in medians.items()},
        "seconds": {name: [round(one, 2) for one in each] for name, each in seconds.items()},
        "charged_for_preparing": round(preparing / plan.processes, 2),
        "overhead_ms_per_row": round(1000 * plan.processes * (medians["job"] - medians["direct"]) / plan.rows, 1),
    }


def main() -> None:
    if sys.argv[1:2] == ["--job"]:
        sys.exit(run_clocked_job(sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="48 rows, 10 steps, once")
    parser.add_argument("--rows", type=int, help="rows of the manifest; 200 or more to be compared with the target")
    parser.add_argument("--steps", type=int, help="steps of each edit: the fewer, the more overhead weighs")
    parser.add_argument("--repeats", type=int, help="runs of each side; an odd number has a median")
    parser.add_argument("--processes", type=int, help="processes that edit, on each side")
    parser.add_argument("--threads", type=int, help="torch threads of each of them")
    given = vars(parser.parse_args())
    quick = given.pop("quick")
    plan = Plan(**(asdict(QUICK if quick else Plan()) | {name: value for name, value in given.items() if value}))
    with tempfile.TemporaryDirectory(prefix="job-overhead-") as folder:
        record = measure(plan, Path(folder))
    record |= {
        "plan": asdict(plan),
        **where_and_when(),
    }
    result = RESULT.with_stem("job_overhead_quick") if quick else RESULT
    result.write_text(json.dumps(record, indent=2) + "\n")
    print(f"job / direct = {record['ratio']} (target {TARGET}); written to {result.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
