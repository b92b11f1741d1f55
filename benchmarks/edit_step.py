"""One step of a 256 px edit, StyleGAN2 and CLIP ViT-B/32 with random weights: ours against the peers' loop.

  python benchmarks/edit_step.py                   # two cores, fp32 and bf16: about 10 minutes
  python benchmarks/edit_step.py --quick           # fewer steps: about 2 minutes
  python benchmarks/edit_step.py --device cuda     # batch 1, 8 and 32, fp32 and bf16, eager and compiled

Peers: the loop that Lee et al. released (benchmarks/peer_loop.py says what it does): one picture, the sound encoded in
each step with autograd, gradients of all weights, fp32. Their filters take a plane for a picture, which is slow on a
CPU; 'peers depthwise' is the same loop with filters as quick as torch has them, and is told beside it. Ours:
`LatentOptimizer` on `EditObjective`, as the manipulator runs it. All take the same generator (channel_base 32768, as
theirs), the same image tower, the same source, one view and no identity; our default of two views is told too.

bf16 is what `precision: bf16` computes here: bfloat16 on a GPU or a processor with AMX, and float32 on any other, where
that is faster. To show it, 'bf16 forced' is bfloat16 all the same; the record says which of them bf16 was.

Ceiling: forward and backward of the generator and the image tower, frozen, one view, and nothing else. The share is
ceiling / ours. PSNR: of the picture that bf16 comes to against that of fp32, both drawn in fp32, after as many steps.

Peers and ours are processes of their own, for memory is managed per process; sides take turns of a few steps, one side
with all cores at a time, and the medians of a step's seconds are compared. Writes benchmarks/results/edit_step.json, on
a GPU edit_step_cuda.json.
"""

import argparse
import json
import math
import multiprocessing
import statistics
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from provenance import where_and_when
from step_sides import Plan, Side, World, dtype_of, make_step
from torch import Tensor

from soundguide.kept_memory import keep_freed_memory
from soundguide.precision import has_bfloat16_tiles

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "edit_step.json"
TARGETS = {"fp32": 1.5, "bf16": 2.5}  # times the speed of the peers
TARGET_PSNR_DB = 40.0
QUICK = {"steps": 3, "repeats": 2, "turn": 1}


def serve_sides(plan: Plan, sides: list[Side], pipe: Connection) -> None:
    """Take as many steps of a side as the pipe asks for, and answer their seconds, and its codes after the plan's."""
    torch.set_num_threads(plan.threads)
    if not sides[0].kind.startswith("peers") and plan.device == "cpu":
        keep_freed_memory()  # as the manipulator does
    world = World(plan)
    if not sides[0].kind.startswith("peers") and world.device.type == "cuda" and sides[0].dtype != "fp32":
        world.generator.to(memory_format=torch.channels_last)  # as `soundguide.world` does
    # an optimiser's slot ends with its last step: never within what is timed
    runners = {side.name: make_step(side, 10_000, world) for side in sides}
    taken = {side.name: 0 for side in sides}
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        name, num = asked
        step, codes = runners[name]
        seconds, reached = [], None
        for _ in range(num):
            started = time.perf_counter()
            step()
            if plan.device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
            taken[name] += 1
            if taken[name] == plan.steps:
                reached = codes().cpu().clone()
        pipe.send((seconds, reached))
    pipe.close()


def time_sides(plan: Plan, sides: list[Side]) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """Let the sides take turns; return the seconds of their steps, and their codes after ``plan.steps`` of them."""
    context = multiprocessing.get_context("spawn")
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    codes: dict[str, Tensor] = {}
    pipes: dict[str, Connection] = {}
    processes = []
    for home in dict.fromkeys(side.home for side in sides):
        here = [side for side in sides if side.home == home]
        pipe, theirs = context.Pipe()
        process = context.Process(target=serve_sides, args=(plan, here, theirs), daemon=True)
        process.start()
        theirs.close()  # so that a process that died is noticed
        pipe.recv()
        pipes |= {side.name: pipe for side in here}
        processes.append(process)

    def take(side: Side, num: int, *, keep: bool) -> None:
        pipes[side.name].send((side.name, num))
        took, reached = pipes[side.name].recv()
        if keep:
            seconds[side.name] += took
        if reached is not None:
            codes[side.name] = reached

    for side in sides:
        take(side, 1, keep=False)  # the first step allocates, transforms and compiles
    for repeat in range(plan.repeats):
        for side in sides:
            take(side, plan.turn, keep=True)
        print(f"{repeat + 1}/{plan.repeats}: seconds a step {_medians(seconds)}", flush=True)
    for side in sides:
        missing = plan.steps - 1 - plan.repeats * plan.turn
        if missing > 0 and side.kind == "ours" and side.views == 1:
            take(side, missing, keep=False)
    for pipe in dict.fromkeys(pipes.values()):
        pipe.send(None)
    for process in processes:
        process.join()
    return seconds, codes


def _medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(statistics.median(each), 4) for name, each in seconds.items() if each}


def psnr_db(world: World, codes: Tensor, expected: Tensor) -> float:
    """Return the PSNR of the first picture of two codes, as bytes of a file hold it: clamped to [-1, 1]."""
    with torch.no_grad():
        a, b = (world.generator.synthesize(each[:1].to(world.device)).clamp(-1, 1) for each in (codes, expected))
    error = float((a - b).square().mean())
    return math.inf if error == 0 else 10 * math.log10(4 / error)


def measure(plan: Plan, batch: int, compiled: bool) -> dict[str, Any]:
    """Compare all sides with one batch; the peers have no batch, and take its pictures one after another."""
    peers, kinder = Side("peers"), Side("peers depthwise")
    names = ("fp32", "bf16") if plan.device != "cpu" or has_bfloat16_tiles() else ("fp32", "bf16", "bf16 forced")
    ours = {name: Side("ours", name, batch, compiled=compiled) for name in names}
    both_views = {
        f"{name}, 2 views": Side("ours", name, batch, views=2, compiled=compiled) for name in ("fp32", "bf16")
    }
    ceilings = {name: Side("ceiling", name, batch) for name in ("fp32", "bf16")}
    seconds, codes = time_sides(plan, [peers, kinder, *ours.values(), *both_views.values(), *ceilings.values()])
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    theirs = medians[peers.name] * batch
    world = World(plan)
    rows: dict[str, Any] = {}
    for name, side in (ours | both_views).items():
        row: dict[str, Any] = {
            "seconds": round(medians[side.name], 4),
            "times_peers": round(theirs / medians[side.name], 2),
        }
        if name in ceilings:
            row["share_of_ceiling"] = round(medians[ceilings[name].name] / medians[side.name], 3)
        if name in ours and side.name in codes and name != "fp32":  # two views have another end
            psnr = psnr_db(world, codes[side.name], codes[ours["fp32"].name])
            row["psnr_db"] = round(psnr, 1) if psnr < math.inf else "equal"
        rows[name] = row
    return {
        "batch": batch,
        "compiled": compiled,
        "bf16_is": str(dtype_of("bf16", world.device)).removeprefix("torch."),
        "peers_seconds": round(theirs, 4),
        "peers_depthwise_seconds": round(medians[kinder.name] * batch, 4),
        "ceiling_seconds": {name: round(medians[side.name], 4) for name, side in ceilings.items()},
        "ours": rows,
        "all_seconds": {name: [round(one, 4) for one in each] for name, each in seconds.items()},
    }


def show(record: dict[str, Any]) -> None:
    """Print one comparison as a table."""
    compiled = ", compiled" if record["compiled"] else ""
    print(f"\nbatch {record['batch']}{compiled}; seconds a step, one view where not told; bf16 is {record['bf16_is']}")
    print(f"  {'peers fp32':20} {record['peers_seconds']:8.3f}")
    print(f"  {'peers depthwise':20} {record['peers_depthwise_seconds']:8.3f}")
    for name, seconds in record["ceiling_seconds"].items():
        print(f"  {'bare ' + name:20} {seconds:8.3f}")
    for name, row in record["ours"].items():
        share = f"  {row['share_of_ceiling']:.0%} of the bare networks' speed" if "share_of_ceiling" in row else ""
        target = f" (target {TARGETS[name]})" if name in TARGETS else ""
        psnr = f"  PSNR to fp32 {row['psnr_db']} (target {TARGET_PSNR_DB:.0f} dB)" if "psnr_db" in row else ""
        print(f"  {'ours ' + name:20} {row['seconds']:8.3f}  {row['times_peers']:5.2f} x peers{target}{share}{psnr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps: a look, not a measurement")
    parser.add_argument("--steps", type=int, help="steps after which the pictures of fp32 and bf16 are compared")
    parser.add_argument("--repeats", type=int, help="turns of each side")
    parser.add_argument(
        "--turn", type=int, help="steps of a turn; longer ones warm the caches up, shorter ones share noise"
    )
    parser.add_argument(
        "--channel_base", type=int, help="width of the generator: 32768 is the peers', 16384 half of it"
    )
    parser.add_argument(
        "--threads", type=int, help="torch threads of each side, one side runs at a time; default all cores"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="where the networks run; default cpu")
    parser.add_argument("--batch", type=int, nargs="+", help="edits side by side; default 1, on a GPU 1 8 32")
    parser.add_argument("--compile", action="store_true", help="compiled networks too; always on a GPU")
    given = vars(parser.parse_args())
    quick, compiled, batches = given.pop("quick"), given.pop("compile"), given.pop("batch")
    chosen = {name: value for name, value in given.items() if value is not None}
    plan = Plan(**((QUICK if quick else {}) | chosen))
    on_gpu = plan.device != "cpu"
    records = []
    for batch in batches or ([1, 8, 32] if on_gpu else [1]):
        for with_compiler in (False, True) if compiled or on_gpu else (False,):
            records.append(measure(plan, batch, with_compiler))
            show(records[-1])
    where = where_and_when() | ({"gpu": torch.cuda.get_device_name()} if on_gpu else {})
    target = RESULT.with_stem(RESULT.stem + ("_cuda" if on_gpu else "") + ("_quick" if quick else ""))
    record = {"targets": TARGETS | {"psnr_db": TARGET_PSNR_DB}, "sides": records, "plan": asdict(plan), **where}
    target.write_text(json.dumps(record, indent=2) + "\n")
    print(f"\nwritten to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
