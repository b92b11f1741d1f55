"""Clips a second through Ray Train with one worker, against a plain PyTorch loop over the same shards, in one run.

  python benchmarks/pretraining_throughput.py --clips out/prepared --repeats 3

Decoding is on both sides, start-up on neither: the first epoch is not counted. Prints the ratio of the medians and
writes them to benchmarks/results/pretraining_throughput.json.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "jobs"))

import pretrain_encoder  # noqa: E402
from job_config import load_config  # noqa: E402
from pretrain_worker import ahead  # noqa: E402
from soundguide.clips.shards import weak_partners_uri  # noqa: E402
from soundguide.clips.weak_partners import WeakPartners  # noqa: E402
from soundguide.models.audio_encoder import SwinAudioEncoder  # noqa: E402
from soundguide.pretraining.batches import COLUMNS, BatchReader  # noqa: E402
from soundguide.pretraining.prepared_set import read_prepared_set  # noqa: E402
from soundguide.pretraining.pretrainer import Pretrainer  # noqa: E402
from soundguide.run_folder import RunFolder  # noqa: E402

CONFIG = ROOT / "jobs" / "configs" / "miniature.yaml"
RESULT = ROOT / "benchmarks" / "results" / "pretraining_throughput.json"
EPOCHS = 3  # the first one warms up


def flags(clips: str, output: str, batch_size: int, num_threads: int) -> list[str]:
    chosen = {
        "config": str(CONFIG),
        "clips": clips,
        "output": output,
        "training.num_epochs": EPOCHS,
        "training.batch_size": batch_size,
        "workers.num_threads": num_threads,
        "report_seconds": 0.001,
        "progress": "off",
    }
    return [f"--{name}={value}" for name, value in chosen.items()]


def through_ray(clips: str, batch_size: int, num_threads: int) -> float:
    """Return clips a second of the job, from the log that it writes."""
    with tempfile.TemporaryDirectory() as folder:
        assert pretrain_encoder.main(flags(clips, f"{folder}/out", batch_size, num_threads)) == 0
        log = [json.loads(line) for line in Path(folder, "out", "log.jsonl").read_text().splitlines()]
    seconds = clips_seen = 0.0
    for epoch in range(1, EPOCHS):  # from the first to the last step of each, without validation and start
        steps = [line for line in log if line["kind"] == "step" and line["epoch"] == epoch]
        seconds += steps[-1]["seconds"] - steps[0]["seconds"]
        clips_seen += (len(steps) - 1) * batch_size
    return clips_seen / seconds


def plain_loop(clips: str, batch_size: int, num_threads: int) -> float:
    """Return clips a second of the same steps without Ray."""
    torch.set_num_threads(num_threads)
    config = load_config(pretrain_encoder.PretrainConfig, flags(clips, "unused", batch_size, num_threads))
    found = read_prepared_set(RunFolder(clips))
    encoder, settings = config.encoder, config.training
    reader = BatchReader(
        found.labels,
        num_samples=encoder.num_samples,
        sample_rate=encoder.log_mel.sample_rate,
        partners=WeakPartners(Path(weak_partners_uri(found.folder)) / "train"),
        text_share=settings.augment.text_share,
        seed=settings.seed,
    )
    pretrainer = Pretrainer(
        SwinAudioEncoder(encoder),
        settings,
        num_steps=EPOCHS * (found.num_train // batch_size),
        teacher_log_scale=4.6,
        device=torch.device("cpu"),
    )
    seconds = clips_seen = 0.0
    for epoch in range(EPOCHS):
        last = 0.0
        for batch in ahead(tables(clips, batch_size), lambda table: reader.read(table, epoch=epoch), depth=3):  # noqa: B023
            pretrainer.train_step(batch, torch.Generator().manual_seed(pretrainer.step))
            now = time.monotonic()
            if epoch and last:
                seconds += now - last
                clips_seen += batch_size
            last = now
    return clips_seen / seconds


def tables(clips: str, batch_size: int) -> Iterator[pa.Table]:
    shards = ds.dataset(f"{clips}/results", format="parquet")
    chosen = (pc.field("status") == "ok") & (pc.field("split") == "train")
    for batch in shards.to_batches(columns=list(COLUMNS), filter=chosen, batch_size=batch_size):
        if batch.num_rows == batch_size:
            yield pa.Table.from_batches([batch])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", required=True, help="output folder of jobs/prepare_clips.py")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=96)
    parser.add_argument("--num-threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    sides = {"ray": through_ray, "plain": plain_loop}
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(given.repeats):
        for name, measure in sides.items():  # in turn, so that a slow minute meets both
            speeds[name].append(measure(given.clips, given.batch_size, given.num_threads))
            print(f"{repeat + 1}/{given.repeats} {name}: {speeds[name][-1]:.1f} clips/s", flush=True)
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    ratio = medians["ray"] / medians["plain"]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}"
    result = {"ratio": ratio, "target": 0.9, "clips_per_second": medians, "all": speeds, "machine": machine}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"Ray Train / plain loop = {ratio:.3f} (target 0.9); written to {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
