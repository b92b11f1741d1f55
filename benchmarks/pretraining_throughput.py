"""Clips a second through Ray Train with one worker, against a plain PyTorch loop over the same shards, in one run.

  python benchmarks/pretraining_throughput.py --clips out/prepared --repeats 3

Decoding is on both sides, start-up on neither: the first epoch is not counted. Prints the ratio of the medians, and
by how much the worker's peak memory grew after the first epoch, with an object store that is smaller than the clips;
writes them to benchmarks/results/pretraining_throughput.json.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from provenance import where_and_when

from soundguide.private_ray import prepare_environment

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "jobs"))
prepare_environment(local=True)

import pretrain_encoder  # noqa: E402
from pretrain_worker import ahead  # noqa: E402
from soundguide.clips.shards import weak_partners_uri  # noqa: E402
from soundguide.clips.splits import TRAIN  # noqa: E402
from soundguide.clips.weak_partners import WeakPartners  # noqa: E402
from soundguide.command_config import load_config  # noqa: E402
from soundguide.models.audio_encoder import SwinAudioEncoder  # noqa: E402
from soundguide.pretraining.batches import BatchReader  # noqa: E402
from soundguide.pretraining.prepared_set import read_prepared_set  # noqa: E402
from soundguide.pretraining.pretrainer import Pretrainer  # noqa: E402
from soundguide.run_folder import RunFolder  # noqa: E402

CONFIG = ROOT / "jobs" / "configs" / "miniature.yaml"
RESULT = ROOT / "benchmarks" / "results" / "pretraining_throughput.json"
EPOCHS = 3  # the first one warms up
OBJECT_STORE_MIB = 100


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


def through_ray(clips: str, batch_size: int, num_threads: int) -> tuple[float, float]:
    """Return clips a second of the job, from the log that it writes, and by how much memory grew after epoch 0."""
    with tempfile.TemporaryDirectory() as folder:
        assert pretrain_encoder.main(flags(clips, f"{folder}/out", batch_size, num_threads)) == 0
        log = [json.loads(line) for line in Path(folder, "out", "log.jsonl").read_text().splitlines()]
    seconds = clips_seen = 0.0
    for epoch in range(1, EPOCHS):  # from the first to the last step of each, without validation and start
        steps = [line for line in log if line["kind"] == "step" and line["epoch"] == epoch]
        seconds += steps[-1]["seconds"] - steps[0]["seconds"]
        clips_seen += (len(steps) - 1) * batch_size
    first = max(line["peak_memory_mib"] for line in log if line["kind"] == "step" and line["epoch"] == 0)
    last = max(line["peak_memory_mib"] for line in log if line["kind"] == "step")
    return clips_seen / seconds, last / first


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
        tables = found.stream(TRAIN, seed=settings.seed).tables(batch_size, epoch=epoch, shuffle=settings.shuffle_clips)
        for batch in ahead((reader.read(table, epoch=epoch) for table in tables), depth=3):  # noqa: B023
            pretrainer.train_step(batch, torch.Generator().manual_seed(pretrainer.step))
            now = time.monotonic()
            if epoch and last:
                seconds += now - last
                clips_seen += batch_size
            last = now
    return clips_seen / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", required=True, help="output folder of jobs/prepare_clips.py")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=96)
    parser.add_argument("--num-threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    # far less than the clips take: nothing may depend on their fitting in
    os.environ["RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES"] = str(OBJECT_STORE_MIB * 2**20)
    size = sum(path.stat().st_size for path in Path(given.clips, "results").glob("*.parquet")) / 2**20
    speeds: dict[str, list[float]] = {"ray": [], "plain": []}
    growth = 0.0
    for repeat in range(given.repeats):  # in turn, so that a slow minute meets both
        speed, grown = through_ray(given.clips, given.batch_size, given.num_threads)
        speeds["ray"].append(speed)
        growth = max(growth, grown)
        speeds["plain"].append(plain_loop(given.clips, given.batch_size, given.num_threads))
        print(
            f"{repeat + 1}/{given.repeats}: { ({name: round(each[-1], 1) for name, each in speeds.items()}) }",
            flush=True,
        )
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    result = {
        "ratio": medians["ray"] / medians["plain"],
        "target": 0.9,
        "clips_per_second": medians,
        "all": speeds,
        "peak_memory_last_over_first_epoch": growth,
        "shards_mib": round(size),
        "object_store_mib": OBJECT_STORE_MIB,
        **where_and_when(),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(
        f"Ray Train / plain loop = {result['ratio']:.3f} (target 0.9), peak memory x {growth:.3f} from the first epoch"
    )


if __name__ == "__main__":
    main()
