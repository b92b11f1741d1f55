"""Measure films of pieces that change their style: how far the picture follows the music.

  python benchmarks/film_quality.py              # 20 films, all ordered pairs of styles: 10 minutes on two cores
  python benchmarks/film_quality.py --films 4    # a look

Pieces are of 30 s, their parameters outside the training ranges, their seeds and the sources' those that no training
saw. Three films are made of each pair: ours (meaning and reaction), one with --react 0 (meaning alone) and one with
--semantic 0 (reaction alone: a random walk as large as the piece is loud, made as long, on average, as our film of the
pair). The scene reader looks at two frames a second; a style counts as seen in a part of the film where it is seen in
most of its frames. Parts: from 3 s on to 2 s before the cross-fade, and from 2 s after it to the end.

Targets: first style seen before and second after, in at least 75 % of ours; Spearman's correlation of loudness (RMS of
0.4 s, dB) and distance from the source over the frames at least 0.5, near 0 with --react 0; no frame further from the
one before than the stated bound; drift of the layout (mountains and their ridge, trees, house) at most 0.08. Writes
benchmarks/results/film_quality.json, and strips of the films into --strips DIR.
"""

import argparse
import asyncio
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from provenance import where_and_when
from scipy.stats import spearmanr

from soundguide.audio.decode import encode_flac
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.film.keys import Code, find_keys
from soundguide.film.motion import Motion, random_walk
from soundguide.film.path import path_through
from soundguide.film.reaction import drive_of, measure_song
from soundguide.film.segments import at_one_level, hear_segments
from soundguide.film.settings import FilmSettings
from soundguide.film.strip import Strip
from soundguide.manipulator import Manipulator
from soundguide.miniature.labels import LABELS, MUSIC_STYLES
from soundguide.miniature.report.edits import choose_sources, draw
from soundguide.miniature.report.held_out import held_out_scenes
from soundguide.miniature.report.judge import Judge, layout_drift, load_reader
from soundguide.miniature.song import CROSSFADE_SECONDS, change_of_style
from soundguide.models.manifest import resolve_model

ROOT = Path(__file__).parents[1]
SECONDS, RATE_HZ = 30.0, 16_000
LOOKS_PER_SECOND = 2
FROM_SECONDS, MARGIN_SECONDS = 3.0, 2.0
BOUND = 0.25  # of the farthest key code's distance, per frame
MODES = {"ours": {}, "react 0": {"react": 0.0}, "reaction only": {"semantic": 0.0}}
STYLES = [LABELS.index(style) for style in MUSIC_STYLES]


@dataclass(frozen=True)
class Scene:
    """One pair of styles, its piece ``[T]`` and its source."""

    first: str
    second: str
    seed: int
    piece: np.ndarray

    @property
    def song(self) -> bytes:
        return encode_flac(self.piece, RATE_HZ)


def choose_scenes(manipulator: Manipulator, judge: Judge, num: int, seed: int) -> list[Scene]:
    """Return the first ``num`` pairs, each with a source in which the reader sees neither style."""
    world = manipulator.world
    found = choose_sources(world, judge, num=4 * 4, seed=seed, truncation_psi=1.0, labels=MUSIC_STYLES)
    scenes = []
    pairs = [(a, b) for step in range(1, 5) for a, b in zip(MUSIC_STYLES, np.roll(MUSIC_STYLES, step), strict=True)]
    for number, (first, second) in enumerate(pairs[:num]):
        for source in list(found[first]):
            found[first].remove(source)
            seen = judge.present(judge.read(draw(world, world.code(source, None, 1.0)[None])).logits)[0]
            if not seen[[LABELS.index(first), LABELS.index(second)]].any():
                break
        rng = np.random.default_rng([23, seed, number])
        piece = change_of_style(first, str(second), seconds=SECONDS, rng=rng, ranges="held_out")
        scenes.append(Scene(first, str(second), source, piece))
    return scenes


def loudness_db(piece: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the RMS of 0.4 s around each time, in dB: plainly, and by none of the film's own code."""
    total = np.concatenate([[0.0], np.cumsum(piece.astype(np.float64) ** 2)])
    first, last = ((times[:, None] + np.array([-0.2, 0.2])) * RATE_HZ).astype(int).clip(0, len(piece)).T
    return 10 * np.log10((total[last] - total[first]) / np.maximum(last - first, 1) + 1e-10)


async def keys_of(
    manipulator: Manipulator, scene: Scene, settings: EditSettings
) -> tuple[Code, list[Code], list[float]]:
    segments = at_one_level(hear_segments(scene.song, manipulator.world.listener, seconds=10.0))
    source = manipulator.world.code(scene.seed, None, 1.0).cpu().numpy()
    keys = [key.code async for key in find_keys(manipulator, source, segments, settings)]
    return source, keys, [segment.middle for segment in segments]


def motions_of(
    manipulator: Manipulator, scene: Scene, found: tuple[Code, list[Code], list[float]]
) -> dict[str, Motion]:
    """Return the three films of a pair; the walk is made as far from the source, on average, as ours."""
    source, keys, middles = found
    num_frames = round(SECONDS * FilmSettings().fps)
    drive = drive_of(measure_song(io.BytesIO(scene.song)), num_frames=num_frames, fps=FilmSettings().fps)
    path = path_through(source, keys, middles, seconds=SECONDS)
    world = manipulator.world

    def walk(length: float):
        scale = world.step_scale.cpu().numpy()
        return random_walk(scale, num_ws=world.num_ws, seconds=SECONDS, pace=10.0, seed=scene.seed, length=length)

    ours = Motion(source, path, drive, None, FilmSettings())
    unit = Motion(source, None, drive, walk(1.0), FilmSettings(semantic=0))
    length = float(distances(ours, num_frames).mean() / distances(unit, num_frames).mean())
    return {
        "ours": ours,
        "react 0": Motion(source, path, None, None, FilmSettings(react=0)),
        "reaction only": Motion(source, None, drive, walk(length), FilmSettings(semantic=0)),
    }


def distances(motion: Motion, num_frames: int) -> np.ndarray:
    return np.linalg.norm((motion.codes(0, num_frames) - motion.source).reshape(num_frames, -1), axis=1)


def judge_film(
    manipulator: Manipulator, judge: Judge, scene: Scene, motion: Motion, farthest: float
) -> dict[str, object]:
    world, fps = manipulator.world, motion.settings.fps
    num_frames = round(SECONDS * fps)
    codes = motion.codes(0, num_frames)
    times = np.arange(num_frames) / fps
    jumps = np.linalg.norm(np.diff(codes, axis=0).reshape(num_frames - 1, -1), axis=1)
    far = distances(motion, num_frames)
    after_lead = times >= FROM_SECONDS
    rho = spearmanr(far[after_lead], loudness_db(scene.piece, times[after_lead])).statistic if np.ptp(far) else 0.0
    looked = np.arange(0, num_frames, fps // LOOKS_PER_SECOND)
    images = draw(world, torch.from_numpy(codes[looked]).to(world.device))
    reading, source = (
        judge.read(images),
        judge.read(draw(world, torch.from_numpy(motion.source)[None].to(world.device))),
    )
    change = CROSSFADE_SECONDS / 2 + MARGIN_SECONDS
    before = torch.from_numpy((times[looked] >= FROM_SECONDS) & (times[looked] <= SECONDS / 2 - change))
    after = torch.from_numpy(times[looked] >= SECONDS / 2 + change)
    present = judge.present(reading.logits).float()
    first, second = LABELS.index(scene.first), LABELS.index(scene.second)
    rises = judge.rises(source.logits, reading.logits)[:, STYLES]
    strongest = [MUSIC_STYLES[int(rises[part].mean(0).argmax())] for part in (before, after)]
    drift = layout_drift(source, reading)[before | after].mean()
    flicker = draw_differences(manipulator, motion, num_frames)
    return {
        "first_before": float(present[before, first].mean()),
        "second_after": float(present[after, second].mean()),
        "first_after": float(present[after, first].mean()),
        "strongest_style_right": [strongest[0] == scene.first, strongest[1] == scene.second],
        "spearman": float(rho),
        "largest_jump": float(jumps.max() / farthest),
        "layout_drift": float(drift),
        "mean_distance": float(far.mean()),
        "frame_difference": flicker,
    }


def draw_differences(manipulator: Manipulator, motion: Motion, num_frames: int) -> dict[str, float]:
    """Return mean and largest of the mean difference of neighbouring frames' pixels, 0..255, over some seconds."""
    some = motion.codes(num_frames // 4, num_frames // 4 + 5 * motion.settings.fps)
    images = draw(manipulator.world, torch.from_numpy(some).to(manipulator.world.device)).float()
    steps = (images[1:] - images[:-1]).abs().mean((1, 2, 3))
    return {"mean": float(steps.mean()), "largest": float(steps.max())}


def write_strip(manipulator: Manipulator, motion: Motion, path: Path) -> None:
    fps = motion.settings.fps
    strip, num_frames = Strip(fps), round(SECONDS * fps)
    for second in range(int(SECONDS)):
        code = torch.from_numpy(motion.codes(second * fps, second * fps + 1)).to(manipulator.world.device)
        strip.add(second * fps, draw(manipulator.world, code).permute(0, 2, 3, 1).numpy())
    page = strip.page(motion.drive if motion.drive is not None else np.zeros(num_frames))
    Image.fromarray(page).save(path)


def summary(films: list[dict[str, dict[str, object]]], mode: str) -> dict[str, float]:
    mine = [film[mode] for film in films]
    right = [answer for film in mine for answer in film["strongest_style_right"]]
    seen = [film["first_before"] > 0.5 and film["second_after"] > 0.5 for film in mine]
    return {
        "both_styles_seen": float(np.mean(seen)),
        "first_before": float(np.mean([film["first_before"] > 0.5 for film in mine])),
        "second_after": float(np.mean([film["second_after"] > 0.5 for film in mine])),
        "first_after": float(np.mean([film["first_after"] > 0.5 for film in mine])),
        "strongest_style_right": float(np.mean(right)),
        "spearman": float(np.mean([film["spearman"] for film in mine])),
        "spearman_worst": float(min(film["spearman"] for film in mine)),
        "largest_jump": float(max(film["largest_jump"] for film in mine)),
        "layout_drift": float(np.mean([film["layout_drift"] for film in mine])),
        "frame_difference": float(np.mean([film["frame_difference"]["mean"] for film in mine])),
        "largest_frame_difference": float(max(film["frame_difference"]["largest"] for film in mine)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=20, help="how many of the 20 pairs")
    parser.add_argument("--seed", type=int, default=5, help="another seed, other pieces and sources")
    parser.add_argument("--strips", type=Path, help="folder for strips of the films")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other edit settings, for tuning")
    options = parser.parse_args()
    settings = EditSettings().override(dict(pair.split("=", 1) for pair in options.set))
    manipulator = Manipulator(ManipulatorConfig(num_slots=4))
    judge = Judge.calibrated(
        load_reader(resolve_model("miniature", "reader")),
        held_out_scenes(manipulator.world.generator, num=512, seed=0, device=manipulator.world.device, rendered=False),
    )
    scenes = choose_scenes(manipulator, judge, options.films, options.seed)

    async def all_keys() -> list[tuple[Code, list[Code], list[float]]]:
        return await asyncio.gather(*(keys_of(manipulator, scene, settings) for scene in scenes))

    films = []
    for scene, found in zip(scenes, asyncio.run(all_keys()), strict=True):
        motions = motions_of(manipulator, scene, found)
        farthest = max(float(np.linalg.norm(key - found[0])) for key in found[1])
        judged = {mode: judge_film(manipulator, judge, scene, motion, farthest) for mode, motion in motions.items()}
        films.append(judged)
        ours = judged["ours"]
        print(
            f"{scene.first:<19} then {scene.second:<19} seed {scene.seed}: first before {ours['first_before']:.2f}, "
            f"second after {ours['second_after']:.2f}, spearman {ours['spearman']:+.2f} "
            f"(react 0: {judged['react 0']['spearman']:+.2f}), drift {ours['layout_drift']:.3f}",
            flush=True,
        )
        if options.strips:
            options.strips.mkdir(parents=True, exist_ok=True)
            for mode, motion in motions.items():
                name = f"{scene.first}-{scene.second}-{mode}".replace(" ", "_")
                write_strip(manipulator, motion, options.strips / f"{name}.png")
    record = {mode: summary(films, mode) for mode in MODES}
    for mode, values in record.items():
        print(f"{mode:<14} " + "  ".join(f"{name} {value:.3f}" for name, value in values.items()))
    if options.films == 20 and not options.set:
        pairs = [
            {"first": s.first, "second": s.second, "seed": s.seed, **film}
            for s, film in zip(scenes, films, strict=True)
        ]
        whole = {"bound": BOUND, "modes": record, "films": pairs, "models": manipulator.model_digests}
        result = ROOT / "benchmarks" / "results" / "film_quality.json"
        result.write_text(json.dumps(whole | where_and_when(), indent=2) + "\n")


if __name__ == "__main__":
    main()
