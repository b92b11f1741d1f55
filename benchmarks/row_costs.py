"""What one edit costs beside a model of one's own: processor, bytes, requests and arithmetic, and so 10^6 and 10^8.

  python benchmarks/row_costs.py                       # the inputs of docs/capacity.md, and its tables: some minutes
  python benchmarks/row_costs.py --gpu-seconds 1.9 6   # with GPU seconds for an edit of 256 and 1024 px as measured

- *prepare*: seconds of one CPU to read, decode and check a sound (10 s, stereo, 44.1 kHz, MP3), and with it a photo
  (12 megapixels, JPEG), with the job's own `EditPreparer`;
- *finish*: seconds of one CPU to encode and write the two PNGs, the code and the result, with `EditFinisher`. The
  picture is made of a photograph at its own resolution, which is harder to compress than a portrait;
- *bytes*: the files of a row, and what its row weighs between the stages;
- *requests*: the whole job on a simulated S3 with the miniature and no steps, counted by kind, from the difference
  of two manifests, so that a run's own are left out (they are counted too);
- *step*: floating-point operations and bytes of one step of one edit, counted by running the real objective on tensors
  without content: StyleGAN2 (configuration F) and CLIP ViT-B/32, two views. Bytes are what all operations read and
  write if nothing is kept in a cache; beside them what the backward pass keeps of each slot.

No GPU is needed: its seconds are computed from the step and from data sheets, with shares of the peaks that are
assumed (`GPUS`). Prices are assumed as well. Writes benchmarks/results/row_costs.json.
"""

import argparse
import csv
import io
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch
from PIL import Image
from provenance import where_and_when
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from soundguide import stages
from soundguide.audio.decode import encode_wav
from soundguide.config import EditSettings
from soundguide.images import Pixels
from soundguide.model_facts import ModelFacts
from soundguide.models.image_text import OpenClipConfig, OpenClipEncoder
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config
from soundguide.objective import EditObjective, Run
from soundguide.records import ManipulatedEdit, Row
from soundguide.stages import EditFinisher, EditPreparer
from soundguide.storage import Storage, StorageConfig
from soundguide.tables import manipulated_row, manipulated_table, prepared_row, prepared_table

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "row_costs.json"
SIDES = (256, 1024)
FILES = ("images", "sources", "latents")
ROWS_PER_BLOCK = 64  # the most that the job takes
Facts = dict[str, Any]


@dataclass(frozen=True)
class Gpu:
    """A machine with one GPU: dollars an hour, operations a second (TF32, dense), bytes a second, GiB."""

    dollars: float
    operations: float
    bytes: float
    gib: int


# Peaks are from NVIDIA's data sheets. The L4's price is that of cluster/README.md (spot); the H100's is assumed alike.
GPUS = {"L4": Gpu(0.4, 60e12, 300e9, 24), "H100": Gpu(3.0, 494e12, 3350e9, 80)}
OF_OPERATIONS, OF_BYTES = 0.4, 0.7  # shares of the peaks that are reached; assumed
EFFICIENCY = 0.9  # of the job, of the direct call's throughput: the target of benchmarks/job_overhead.py
WRITE_DOLLARS, READ_DOLLARS, MONTH_DOLLARS = 5e-6, 0.4e-6, 0.023e-9  # of a PUT or LIST, of a GET, of a byte for a month


def photograph(height: int, width: int) -> Pixels:
    """Return a picture of this size made of scikit-learn's photographs at their own resolution, side by side."""
    from sklearn.datasets import load_sample_images

    band = np.concatenate(load_sample_images().images, axis=1)
    times = (-(-height // band.shape[0]), -(-width // band.shape[1]), 1)
    return np.ascontiguousarray(np.tile(band, times)[:height, :width])


def facts_of(side: int) -> ModelFacts:
    return ModelFacts(side, 2 * (side.bit_length() - 1) - 2, 512, 16_000)


def cpu_seconds(work: Any, num: int) -> float:
    """Return the seconds of a CPU that one call of `work` takes: the least of three rounds, others disturb them."""
    rounds = []
    for _ in range(3):
        started = time.process_time()
        for _ in range(num):
            work()
        rounds.append((time.process_time() - started) / num)
    return min(rounds)


def measure_rows(side: int, folder: Path) -> Facts:
    """Return what preparing and finishing a row of this side take: seconds of a CPU, and bytes."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    sound, photo = folder / "sound.mp3", folder / "photo.jpg"
    soundfile.write(sound, 0.1 * rng.standard_normal((441_000, 2)), 44_100)
    Image.fromarray(photograph(3000, 4000)).save(photo, quality=90)
    facts, storage = facts_of(side), Storage()
    preparer = EditPreparer(facts)
    requests = {
        name: preparer.read_request({"id": "row", "audio": str(sound), **source})
        for name, source in (("seed", {"seed": "1"}), ("photo", {"image": str(photo)}))
    }

    def prepare(name: str) -> Row:
        stages._verdicts.clear()  # each row of a real manifest has a sound of its own
        return prepared_row(preparer.fetch(requests[name]), request=requests[name].model_dump_json())

    picture = photograph(side, side)
    code = np.random.default_rng(0).standard_normal((facts.num_ws, facts.w_dim)).astype(np.float32)
    edit = ManipulatedEdit("row", picture, picture[::-1], code, 0.1, 0.2, 1.0, (1.0,) * facts.num_ws, 60, 1.0)
    prepared = prepare("seed")
    manipulated = manipulated_table([manipulated_row(edit, prepared=prepared)])
    finisher = EditFinisher(str(folder / "out"), tuple((role, "0" * 64) for role in ("a", "g", "i")), storage)
    result = finisher.finish_table(manipulated)
    pq.write_table(pa.concat_tables([result] * ROWS_PER_BLOCK), folder / "block.parquet")
    files = {name: sum(path.stat().st_size for path in (folder / "out" / name).iterdir()) for name in FILES}
    return {
        "prepare_seed_cpu_seconds": round(cpu_seconds(lambda: prepare("seed"), 5), 4),
        "prepare_photo_cpu_seconds": round(cpu_seconds(lambda: prepare("photo"), 2), 4),
        "finish_cpu_seconds": round(cpu_seconds(lambda: finisher.finish_table(manipulated), 3), 4),
        "file_bytes": files,
        "result_row_bytes": round((folder / "block.parquet").stat().st_size / ROWS_PER_BLOCK),
        "prepared_row_bytes": {name: prepared_table([prepare(name)]).nbytes for name in requests},
        "manipulated_row_bytes": manipulated.nbytes,
    }


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read, written = ([each for each in tree_leaves(tree) if isinstance(each, torch.Tensor)] for tree in (args, out))
        places = {each.untyped_storage()._cdata for each in read}
        if func._schema.is_mutable or any(each.untyped_storage()._cdata not in places for each in written):
            # an expanded tensor has more elements than bytes
            self.num_bytes += sum(
                min(each.numel() * each.element_size(), each.untyped_storage().nbytes()) for each in (*read, *written)
            )
        return out


def count_step(side: int) -> Facts:
    """Return operations and bytes of one step of one edit, and the bytes that its backward pass keeps; no content."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    kept: dict[int, torch.UntypedStorage] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        generator = StyleGAN2(StyleGAN2Config(resolution=side)).eval().requires_grad_(False)
        clip = OpenClipEncoder(OpenClipConfig(architecture="ViT-B-32")).eval().requires_grad_(False)
        weights = {each.untyped_storage()._cdata for model in (generator, clip) for each in model.state_dict().values()}
        objective = EditObjective(generator, clip, None, num_slots=1, step_scale=torch.ones(generator.w_dim))
        start = torch.zeros(generator.num_ws, generator.w_dim)
        objective.admit(0, Run("edit", start, torch.zeros(clip.embed_dim), EditSettings()))

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                kept[storage._cdata] = storage
            return tensor

        ws, theta = start[None].clone().requires_grad_(), torch.zeros(1, generator.num_ws)
        with FlopCounterMode(display=False) as operations, Traffic() as traffic:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss, _ = objective(ws, theta, torch.arange(1))
            torch.autograd.grad(loss.sum(), ws)
    return {
        "operations": operations.get_total_flops(),
        "bytes": traffic.num_bytes,
        "kept_bytes": sum(storage.nbytes() for storage in kept.values()),
    }


class Requests(logging.Handler):
    """Counts the requests that a simulated S3 logs, as they are billed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        request = re.search(r'"(GET|HEAD|PUT|POST|DELETE) (\S+)', record.getMessage())
        if request:
            lists = request[1] == "GET" and "list-type" in request[2]
            self.found["list" if lists else request[1].lower()] += 1


def count_requests(num_rows: int) -> Counter[str]:
    """Run the job on a simulated S3, without steps; return its requests by kind."""
    from moto.server import ThreadedMotoServer

    requests, log = Requests(), logging.getLogger("werkzeug")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(logging.NullHandler())  # or werkzeug adds one that prints
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=True)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(keys)
    storage = Storage(StorageConfig(endpoint_url=endpoint))
    name = f"s3://bucket-{num_rows}"
    storage._s3().mkdir(name[5:])
    storage.write_bytes(f"{name}/sound.wav", encode_wav(np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000))
    text = io.StringIO()
    csv.writer(text).writerows(
        [("id", "audio", "seed"), *((f"row-{number}", "sound.wav", number) for number in range(num_rows))]
    )
    storage.write_bytes(f"{name}/manifest.csv", text.getvalue().encode())
    log.addHandler(requests)
    chosen = {
        "manifest": f"{name}/manifest.csv",
        "output": f"{name}/out",
        "storage.endpoint_url": endpoint,
        "edit.num_steps": 0,
        "pool.rows_per_block": ROWS_PER_BLOCK,
        "progress": "off",
    }
    flags = [f"--{key}={value}" for key, value in chosen.items()]
    subprocess.run([sys.executable, str(ROOT / "jobs" / "bulk_manipulate.py"), *flags], check=True, capture_output=True)
    log.removeHandler(requests)
    server.stop()
    return requests.found


def measure_requests() -> Facts:
    """Return requests of a row, with its share of its block's, and those of a run whatever its size."""
    few, many = 2 * ROWS_PER_BLOCK, 6 * ROWS_PER_BLOCK
    small, large = count_requests(few), count_requests(many)
    row = {kind: (large[kind] - small[kind]) / (many - few) for kind in sorted(large)}
    run = {kind: round(small[kind] - few * each) for kind, each in row.items()}
    return {"row": {kind: round(each, 2) for kind, each in row.items()}, "run": run}


def gpu_seconds(step: Facts, gpu: Gpu) -> float:
    """Return the seconds of an edit with the default number of steps; what is bound by memory computes little."""
    once = step["operations"] / (OF_OPERATIONS * gpu.operations) + step["bytes"] / (OF_BYTES * gpu.bytes)
    return float(EditSettings().num_steps * once)


def estimate(record: Facts, num_edits: int, side: int, name: str) -> Facts:
    """Return what so many edits of a side take on machines with one such GPU."""
    gpu, rows, requests = GPUS[name], record["rows"][str(side)], record["requests"]["row"]
    seconds = record["gpu_seconds"][name][str(side)] / EFFICIENCY
    num_bytes = sum(rows["file_bytes"].values()) + rows["result_row_bytes"]
    writes = sum(requests.get(kind, 0) for kind in ("put", "post", "list"))
    reads = sum(requests.get(kind, 0) for kind in ("get", "head"))
    hours = num_edits * seconds / 3600
    return {
        "edits": num_edits,
        "side": side,
        "gpu": name,
        "gpu_hours": hours,
        "gpus_for_a_week": hours / 168,
        "gpu_dollars": hours * gpu.dollars,
        "terabytes": num_edits * num_bytes / 1e12,
        "dollars_a_month": num_edits * num_bytes * MONTH_DOLLARS,
        "requests": num_edits * (writes + reads),
        "request_dollars": num_edits * (writes * WRITE_DOLLARS + reads * READ_DOLLARS),
        "cpus_for_each_gpu": (rows["prepare_photo_cpu_seconds"] + rows["finish_cpu_seconds"]) / seconds,
        "slots": int(0.8 * gpu.gib * 2**30 / record["step"][str(side)]["kept_bytes"]),
    }


def print_tables(record: Facts) -> None:
    """Print the tables of docs/capacity.md."""
    for name in GPUS:
        seconds = ", ".join(f"{side} px {each:.2f} s" for side, each in record["gpu_seconds"][name].items())
        print(f"{name}: an edit takes {seconds}")
    print("| edits | px | GPU | GPU hours | GPUs for a week | $ | TB | $/month | requests | their $ | CPUs/GPU |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for each in record["estimates"]:
        print(
            f"| {each['edits']:.0e} | {each['side']} | {each['gpu']} | {each['gpu_hours']:,.0f} "
            f"| {each['gpus_for_a_week']:,.1f} | {each['gpu_dollars']:,.0f} | {each['terabytes']:.2g} "
            f"| {each['dollars_a_month']:,.0f} | {each['requests']:.2g} | {each['request_dollars']:,.0f} "
            f"| {each['cpus_for_each_gpu']:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--gpu-seconds", type=float, nargs=2, metavar=("S256", "S1024"), help="of an edit on the L4, measured"
    )
    given = parser.parse_args()
    record: Facts = {"rows": {}, "step": {}}
    with tempfile.TemporaryDirectory(prefix="row-costs-") as folder:
        for side in SIDES:
            place = Path(folder, str(side))
            place.mkdir()
            record["rows"][str(side)], record["step"][str(side)] = measure_rows(side, place), count_step(side)
            print(f"{side} px: {record['rows'][str(side)]}\n{record['step'][str(side)]}", flush=True)
    record["requests"] = measure_requests()
    print(record["requests"], flush=True)
    record["gpu_seconds"] = {
        name: {side: gpu_seconds(step, gpu) for side, step in record["step"].items()} for name, gpu in GPUS.items()
    }
    if given.gpu_seconds:
        record["gpu_seconds"]["L4"] = dict(zip(map(str, SIDES), given.gpu_seconds, strict=True))
    record["estimates"] = [
        estimate(record, num_edits, side, name) for num_edits in (10**6, 10**8) for side in SIDES for name in GPUS
    ]
    record["assumed"] = {name: asdict(gpu) for name, gpu in GPUS.items()}
    record |= where_and_when()
    RESULT.write_text(json.dumps(record, indent=2) + "\n")
    print_tables(record)
    print(f"written to {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
