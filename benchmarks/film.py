"""Measure a film's speed against the bare generator, and its memory and a batch's against the length of a song.

  python benchmarks/film.py           # about 15 minutes on two cores: the longest film lasts an hour
  python benchmarks/film.py --quick   # a look, 2 minutes

Speed: frames a second of a whole film (codes, drawing, enlarging, encoding with sound) and of bare
`Generator.synthesize` on the same batches of codes, in turns in one process; the ratio is the median of the turns'
(target: at least 0.7). Memory: the largest resident set of a process that makes a film of a 1-minute song, and of one
that makes a film of a 30-minute song, every frame of it, with few steps for each key code (target: flat, at most 32 MiB
more), and of one of an hour; and the same of a process that hears such a song as the batches of music do. Writes
benchmarks/results/film.json; --quick writes nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import torch
from provenance import where_and_when

from soundguide.audio.decode import AudioLimits, encode_flac
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.film.encode import FilmWriter, enlargement
from soundguide.film.make import make_film
from soundguide.film.motion import Motion, random_walk
from soundguide.film.path import path_through
from soundguide.film.reaction import drive_of, measure_song
from soundguide.film.render import batch_size, render
from soundguide.film.settings import FilmSettings
from soundguide.manipulator import Manipulator
from soundguide.miniature.song import change_of_style
from soundguide.records import PreparedEdit
from soundguide.songs.embed import SongEmbedder, SongFiles
from soundguide.storage import Storage

ROOT = Path(__file__).parents[1]
SEED = 28
LEAST_RATIO, MOST_GROWTH_MIB = 0.7, 32.0
RATE_HZ = 44_100


def piece(seconds: float) -> np.ndarray:
    return change_of_style(
        "orchestral music", "techno music", seconds=seconds, rng=np.random.default_rng(5), ranges="train"
    )


def measure_speed(*, seconds: float, turns: int) -> dict[str, object]:
    manipulator, settings = Manipulator(ManipulatorConfig(num_slots=1, group_size=1)), FilmSettings()
    world = manipulator.world
    song = encode_flac(piece(seconds), 16_000)
    num_frames = round(seconds * settings.fps)
    source = world.code(SEED, None, 1.0).cpu().numpy()
    # what the key codes are does not matter to how long a frame takes
    walk = random_walk(world.step_scale.cpu().numpy(), num_ws=world.num_ws, seconds=seconds, pace=10, seed=0)
    keys = [source + move for move in walk.codes[1:-1]]
    middles = [5.0 + 10.0 * index for index in range(len(keys))]
    path = path_through(source, keys, middles, seconds=max(seconds, middles[-1] + 1))
    drive = drive_of(measure_song(song), num_frames=num_frames, fps=settings.fps)
    motion = Motion(source, path, drive, None, settings)
    size = batch_size(world)
    batches = [
        torch.from_numpy(motion.codes(first, min(first + size, num_frames))).to(world.device)
        for first in range(0, num_frames, size)
    ]
    height, width = world.picture_size
    factor = enlargement(height, width, size=settings.size)

    def bare() -> None:
        with torch.no_grad():
            for codes in batches:
                images = world.generator.synthesize(codes)
        images.sum().item()  # a GPU is done only now

    def film(folder: str) -> None:
        with FilmWriter(
            Path(folder) / "film.mp4", height=height, width=width, factor=factor, fps=settings.fps, song=BytesIO(song)
        ) as writer:
            render(world, motion, num_frames, writer, lambda first, frames: None)

    rates: dict[str, list[float]] = {"bare": [], "film": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(turns + 1):
            for name, work in (("bare", bare), ("film", lambda: film(folder))):
                started = time.perf_counter()
                work()
                if turn:  # the first turn warms up
                    rates[name].append(num_frames / (time.perf_counter() - started))
            if turn:
                print(
                    f"turn {turn}: bare {rates['bare'][-1]:.0f}, film {rates['film'][-1]:.0f} frames a second",
                    flush=True,
                )
    ratios = [film / bare for film, bare in zip(rates["film"], rates["bare"], strict=True)]
    return {
        "frames": num_frames,
        "batch": size,
        "film_fps": float(np.median(rates["film"])),
        "bare_fps": float(np.median(rates["bare"])),
        "ratio": float(np.median(ratios)),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "target_ratio": LEAST_RATIO,
    }


def write_song(path: Path, minutes: float) -> None:
    """Write a stereo song of 44.1 kHz, minute by minute: its writer holds one, too."""
    minute = np.repeat(piece(60.0), 3)[: 60 * RATE_HZ]  # what it sounds like does not matter here
    with soundfile.SoundFile(str(path), "w", RATE_HZ, 2, format="FLAC") as file:
        for _ in range(int(minutes)):
            file.write(np.stack([minute, minute[::-1]], 1))


def measure_memory(work: str, minutes: int) -> dict[str, float]:
    """Film or hear a song in a process of its own; return its peak and how long it took."""
    with tempfile.TemporaryDirectory() as folder:
        write_song(Path(folder) / "song.flac", minutes)
        started = time.monotonic()
        command = [sys.executable, __file__, "--child", work, folder]
        subprocess.run(command, check=True, stdout=subprocess.PIPE)
        peak = float((Path(folder) / "peak").read_text())
        seconds = round(time.monotonic() - started, 1)
        print(f"{work}, {minutes} min: {peak:.0f} MiB, {seconds:.0f} s", flush=True)
        return {"minutes": minutes, "peak_mib": peak, "seconds": seconds}


def work_in_child(work: str, folder: Path) -> None:
    config = ManipulatorConfig(num_slots=1, group_size=1)
    if work == "film":
        edit = PreparedEdit("film", EditSettings(num_steps=2, num_views=1), seed=SEED)
        with (folder / "song.flac").open("rb") as song:
            make_film(Manipulator(config), edit, song, folder / "film.mp4", FilmSettings())
    else:
        files = SongFiles(str(folder), encoder="", segment_seconds=10.0)
        row = SongEmbedder(files, AudioLimits(), None, config, Storage()).hear(str(folder / "song.flac"))
        assert not row["error"], row["error"]
    # not ru_maxrss, which begins with what the process that started this one had
    (peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    (folder / "peak").write_text(str(int(peak) / 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short films; nothing is recorded")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return work_in_child(options.child[0], Path(options.child[1]))
    speed = measure_speed(seconds=10 if options.quick else 30, turns=3 if options.quick else 15)
    lengths = (1, 3) if options.quick else (1, 30, 60)
    memory = {work: [measure_memory(work, minutes) for minutes in lengths] for work in ("film", "hear")}
    growth = {work: [peak["peak_mib"] - peaks[0]["peak_mib"] for peak in peaks[1:]] for work, peaks in memory.items()}
    print(f"speed: {speed['film_fps']:.0f} of {speed['bare_fps']:.0f} frames a second, ratio {speed['ratio']:.2f}")
    for work, added in growth.items():
        for minutes, mib in zip(lengths[1:], added, strict=True):
            print(f"memory, {work}: {mib:+.0f} MiB from {lengths[0]} to {minutes} minutes")
    if not options.quick:
        record = {"speed": speed, "memory": memory, "growth_mib": growth, "target_growth_mib": MOST_GROWTH_MIB}
        result = ROOT / "benchmarks" / "results" / "film.json"
        result.write_text(json.dumps(record | where_and_when(), indent=2) + "\n")


if __name__ == "__main__":
    main()
