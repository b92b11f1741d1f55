"""How the bulk job grows with its manifest: 10^3 to 10^6 rows through all of it but the models and the pictures.

  python benchmarks/manifest_scale.py                  # 10^3 to 10^6 rows: hours on two cores; 3 GB under --folder
  python benchmarks/manifest_scale.py --quick          # 10^3 and 10^4: some minutes
  python benchmarks/manifest_scale.py --sizes 1000000  # one size

Each size is the job's own program from manifest to contact sheet, with two stand-ins: an actor that answers at once
with a tiny picture, and a finish that writes no files. Rows share a few small sounds and photos, which are read for
every row as ever. Each size is given three times, each time in processes of its own:

- killed (SIGKILL) when nine tenths of the rows are done: rows a second, memory of the driver and the largest worker;
- resumed: seconds until the first new row is done for good, and the memory and seconds of the end of a run, which
  reads all results. Then all ids are looked at; none may be missing, none there twice;
- once more: everything is done.

Rows a second leave out the start of Ray and what comes before the first finished block; both are shown. Linear means
a slope of at most 1.05 of log(seconds) on log(rows), from 10^4 rows on; flat, that the largest size takes no more
memory than 10^4 rows. Writes benchmarks/results/manifest_scale.json after each size.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from process_family import MIB, Family, kill
from provenance import where_and_when

from soundguide.audio.decode import encode_wav
from soundguide.config import ManipulatorConfig
from soundguide.images import encode_png
from soundguide.records import EditRequest, EditResult, ManipulatedEdit
from soundguide.run_folder import RunFolder
from soundguide.storage import Storage
from soundguide.tables import MEASURES, manipulated_row, manipulated_table, result_table

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "manifest_scale.json"
FULL, QUICK = (10**3, 10**4, 10**5, 10**6), (10**3, 10**4)
LINEAR_FROM, MAX_SLOPE = 10**4, 1.05
KILLED_AT = 0.9
NUM_FILES, SECONDS = 16, 0.5
Facts = dict[str, Any]


class InstantManipulator:
    """Stands in for `Manipulator`: answers at once, with a constant tiny picture and code."""

    def __init__(self, config: ManipulatorConfig, storage: Storage) -> None:
        pixels, code = np.zeros((8, 8, 3), np.uint8), np.zeros((10, 8), np.float32)
        self._edit = ManipulatedEdit("", pixels, pixels, code, 0.1, 0.2, 1.0, (1.0,) * 10, 60, 0.0, level_db=-20.0)

    async def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        return manipulated_table(manipulated_row(replace(self._edit, id=row["id"]), prepared=row) for row in rows)


@dataclass(frozen=True)
class RowsFinisher:
    """Stands in for `EditFinisher`: the same rows, but no pictures and codes."""

    output: str
    models: tuple[tuple[str, str], ...]
    storage: Storage
    on_written: Callable[[int], None]

    def finish_table(self, batch: pa.Table) -> pa.Table:
        return result_table(
            EditResult(
                status="ok",
                sound_sha256=row["sound_sha256"],
                source_sha256=row["source_sha256"],
                models=dict(self.models),
                **EditRequest.model_validate_json(row["request"]).model_dump(),
                **{name: row[name] for name in MEASURES},
            )
            for row in batch.to_pylist()
        )


def write_inputs(folder: Path, num_rows: int) -> Path:
    """Write the files that rows share, and a CSV of rows that edit a seed or, every other one, a photo."""
    rng = np.random.default_rng(0)
    for number in range(NUM_FILES):
        (folder / f"{number}.wav").write_bytes(encode_wav(0.1 * rng.standard_normal(int(16_000 * SECONDS)), 16_000))
        (folder / f"{number}.png").write_bytes(encode_png(rng.integers(0, 255, (96, 96, 3), np.uint8)))
    manifest = folder / f"manifest-{num_rows}.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "audio", "image", "seed"))
        for number in range(num_rows):
            source = (f"{number % NUM_FILES}.png", "") if number % 2 else ("", number)
            writer.writerow((f"row-{number:08d}", f"{number % NUM_FILES}.wav", *source))
    return manifest


def run_job(flags: list[str], log: Path) -> int:
    """Run the job's own program with the stand-ins; append to the log when its phases began and ended."""
    sys.path.insert(0, str(ROOT / "jobs"))
    import bulk_manipulate  # type: ignore[import-not-found]
    import soundguide.manipulator

    def note(phase: str, moment: str) -> None:
        with log.open("a") as file:
            file.write(json.dumps([phase, moment, time.time()]) + "\n")

    def clock(owner: Any, name: str) -> None:
        work = getattr(owner, name)

        @wraps(work)
        def timed(*arguments: Any, **named: Any) -> Any:
            note(name, "start")
            result = work(*arguments, **named)
            note(name, "end")
            return result

        setattr(owner, name, timed)

    for name in ("read_manifest", "connect", "stream_rows"):
        clock(bulk_manipulate, name)
    for name in ("claim", "count_done", "reconcile", "write_sheet"):
        clock(RunFolder, name)
    bulk_manipulate.EditFinisher = RowsFinisher
    soundguide.manipulator.Manipulator = InstantManipulator  # type: ignore[misc, assignment]
    code: int = bulk_manipulate.main(flags)
    return code


@dataclass(frozen=True)
class Outcome:
    """One start of the job: when, for how long, its phases, when its first and last block were done, its processes.

    A phase that was killed ended with the run. ``num_blocks`` are those that this start finished.
    """

    started: float
    seconds: float
    phases: dict[str, tuple[float, float]]
    num_blocks: int
    first_block: float
    last_block: float
    family: Family

    @property
    def facts(self) -> Facts:
        """The seconds of each phase, and the memory and processor time of the processes."""
        return {
            "seconds": {name: round(end - start, 2) for name, (start, end) in self.phases.items()},
            "processes": self.family.summary(),
            "driver_rss_mib": {
                name: round(max((rss for at, rss in self.family.driver_rss if start <= at <= end), default=0))
                for name, (start, end) in self.phases.items()
            },
        }


def start_job(manifest: Path, output: Path, *, kill_after_rows: int | None = None) -> Outcome:
    """Run the job in a process of its own, killed with all that it started after so many rows."""
    log = output.with_suffix(".phases")
    log.unlink(missing_ok=True)
    before, started = finished_blocks(output), time.time()
    flags = [f"--manifest={manifest}", f"--output={output}", "--progress=off"]
    process = subprocess.Popen([sys.executable, __file__, "--job", str(log), *flags], stdout=subprocess.DEVNULL)
    family = Family(process.pid)
    family.start()
    pause = min(5.0, (kill_after_rows or 5_000) / 10_000)  # looking through many files takes a while itself
    try:
        while process.poll() is None:
            time.sleep(pause)
            if kill_after_rows is not None and rows_of(finished_blocks(output)) >= kill_after_rows:
                break
    finally:
        if process.poll() is None:
            kill(process)
        family.done.set()
        family.join()
    ended = time.time()
    if process.returncode and kill_after_rows is None:
        raise SystemExit(f"the run ended with {process.returncode}; what it printed says why")
    phases: dict[str, tuple[float, float]] = {}
    for phase, moment, at in map(json.loads, log.read_text().splitlines()):
        phases[phase] = (at, ended) if moment == "start" else (phases[phase][0], at)
    new = [path.stat().st_ctime for path in finished_blocks(output) - before] or [0.0]
    return Outcome(started, ended - started, phases, len(new), min(new), max(new), family)


def finished_blocks(output: Path) -> set[Path]:
    """Return the ids of blocks that are done for good: Ray renames a block's ids when its results are written."""
    found = output.glob("_run/checkpoint/*/*.parquet")
    return {path for path in found if not path.name.endswith(".pending.parquet")}


def rows_of(blocks: set[Path]) -> int:
    """Return the rows of blocks; all but the last of a manifest have as many as the largest of the first few."""
    return len(blocks) * max((pq.read_metadata(path).num_rows for path in sorted(blocks)[:3]), default=0)


def measure(num_rows: int, folder: Path) -> Facts:
    """Run one size until nine tenths are done, kill it, resume it, then start it once more with nothing to do."""
    manifest, output = write_inputs(folder, num_rows), folder / "output"
    run = start_job(manifest, output, kill_after_rows=round(KILLED_AT * num_rows))
    kept = finished_blocks(output)
    num_kept = sum(pq.read_metadata(path).num_rows for path in kept)
    steady = run.last_block - run.first_block
    begun = {name: start for name, (start, _) in run.phases.items()}
    starting = {
        "imports": begun["read_manifest"] - run.started,
        "ray": begun["stream_rows"] - begun["connect"],
        "first_block": run.first_block - begun["stream_rows"],
    }
    facts: Facts = {
        "rows": num_rows,
        "rows_per_second": round(num_kept * (1 - 1 / len(kept)) / steady, 1),
        "starting_seconds": {name: round(each, 2) for name, each in starting.items()},
        "killed": {"rows_done": num_kept, "blocks_done": len(kept), "steady_seconds": round(steady, 1), **run.facts},
    }
    print(f"{num_rows:,} rows: {facts}", flush=True)
    resumed = start_job(manifest, output)
    ids: list[str] = pq.read_table(output / "results", columns=["id"])["id"].to_pylist()
    facts["output_mib"] = {
        name: round(sum(path.stat().st_size for path in (output / name).rglob("*.parquet")) / MIB, 2)
        for name in ("results", "_run")
    }
    again = start_job(manifest, output)
    shutil.rmtree(output)
    facts["resumed"] = {
        "first_new_row_seconds": round(resumed.first_block - resumed.started, 2),
        "first_row_seconds_of_a_new_run": round(run.first_block - run.started, 2),
        **resumed.facts,
        "ids_missing": num_rows - len(set(ids)),
        "ids_doubled": len(ids) - len(set(ids)),
    }
    facts["nothing_to_do_seconds"] = round(again.seconds, 2)
    print(f"  resumed: {facts['resumed']}; nothing to do: {facts['nothing_to_do_seconds']} s", flush=True)
    return facts


def judge(sizes: list[Facts]) -> Facts:
    """Return slope and growth of memory from `LINEAR_FROM` rows on, where there are two such sizes."""
    large = [size for size in sizes if size["rows"] >= LINEAR_FROM]
    if len(large) < 2:
        return {}
    rows = np.array([size["rows"] for size in large])
    slope = np.polyfit(np.log(rows), np.log([size["rows"] / size["rows_per_second"] for size in large]), 1)[0]

    def peak(size: Facts, kind: str, name: str) -> int:
        return max(int(size[start]["processes"][kind][name]) for start in ("killed", "resumed"))

    grown = {
        f"{kind}_{name}": round(peak(large[-1], kind, name) / peak(large[0], kind, name), 2)
        for kind in ("driver", "worker")
        for name in ("rss_mib", "own_mib")
    }
    return {"slope": round(float(slope), 3), "max_slope": MAX_SLOPE, "memory_grown": grown}


def main() -> None:
    if sys.argv[1:2] == ["--job"]:
        sys.exit(run_job(sys.argv[3:], Path(sys.argv[2])))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10^3 and 10^4 rows only")
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of rows, ascending; written as a quick look")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where inputs and outputs lie meanwhile")
    given = parser.parse_args()
    chosen, sizes = tuple(given.sizes or (QUICK if given.quick else FULL)), []
    result = RESULT if chosen == FULL else RESULT.with_stem("manifest_scale_quick")
    for num_rows in chosen:
        with tempfile.TemporaryDirectory(prefix="manifest-scale-", dir=given.folder) as folder:
            sizes.append(measure(num_rows, Path(folder)))
        record = {
            "sizes": sizes,
            **judge(sizes),
            **where_and_when(),
        }
        result.write_text(json.dumps(record, indent=2) + "\n")
    print(f"{judge(sizes)}; written to {result.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
