"""Measure which pooling of a song's segments finds its style most often, in songs that are not all of one piece.

  python benchmarks/music_pooling.py             # 6 songs of each style and kind: some 500 edits
  python benchmarks/music_pooling.py --quick     # 1 song: a look, nothing is written

Songs of 40 to 60 s, of sounds outside the training ranges, in four kinds: the style alone; with a soft intro and a
pause; with loud applause at the end; with a part of another style or sound in the middle. Each is heard in segments of
10 s as `jobs/music_style.py` hears it. For each pooling one still of a scene that lacks the style is edited, and the
independent reader looks whether the style is there, and how far the layout of the scene drifted. Also: how often the
nearest label is the style. Targets, by the best pooling: the style appears in 80 % of stills, 60 % of each style's, and
the layout drifts by at most 0.08.

Writes benchmarks/results/music_pooling.json.
"""

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from provenance import where_and_when
from rich.progress import Progress

from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.listen import Listener
from soundguide.manipulator import Manipulator
from soundguide.miniature.dsp import shaped_noise
from soundguide.miniature.labels import EVENTS, LABELS, MUSIC_STYLES
from soundguide.miniature.report.appearance import stacked
from soundguide.miniature.report.edits import choose_sources
from soundguide.miniature.report.held_out import held_out_scenes
from soundguide.miniature.report.judge import Judge, layout_drift, load_reader
from soundguide.miniature.report.recognition import listener_of
from soundguide.miniature.sounds import SAMPLE_RATE_HZ, at_intensity, synthesise
from soundguide.models.manifest import resolve_model
from soundguide.models.protocols import AudioEncoder
from soundguide.records import ManipulatedEdit, PreparedEdit
from soundguide.songs.heard import Segments
from soundguide.songs.pooling import POOLINGS, Pooling, pool_segments
from soundguide.songs.segments import cut_segments, embed_segments

ROOT = Path(__file__).parents[1]
SEGMENT_SECONDS = 10.0
SONG_STREAM = 21  # so that no song is one that recognition or edits are measured on elsewhere

Samples = NDArray[np.float32]
Outcome = dict[str, object]
Rng = np.random.Generator


def performed(label: str, seconds: float, rng: Rng, intensity: float = 0.8) -> Samples:
    return synthesise(label, seconds=seconds, intensity=intensity, rng=rng, ranges="held_out")


def applause(seconds: float, rng: Rng) -> Samples:
    """Return claps of a crowd, as loud as loud music."""
    num_samples = round(seconds * SAMPLE_RATE_HZ)
    claps = shaped_noise(rng, num_samples, (-40, -25, -10, 0, 2, -2, -10))
    crowd = np.convolve(rng.poisson(0.01, num_samples), np.exp(-np.arange(400) / 80), "same")  # 160 claps a second
    return at_intensity(claps * crowd, 1.0)


def alone(style: str, rng: Rng) -> list[Samples]:
    return [performed(style, float(rng.uniform(40, 60)), rng)]


def with_intro(style: str, rng: Rng) -> list[Samples]:
    """Return a soft sound of something else, the music, a pause, and the music again."""
    intro = performed(str(rng.choice(EVENTS)), float(rng.uniform(8, 14)), rng, 0.35)
    pause = np.zeros(round(float(rng.uniform(4, 9)) * SAMPLE_RATE_HZ), np.float32)
    music = performed(style, float(rng.uniform(25, 35)), rng)
    turn = round(len(music) * float(rng.uniform(0.3, 0.7)))
    return [intro, music[:turn], pause, music[turn:]]


def with_applause(style: str, rng: Rng) -> list[Samples]:
    return [performed(style, float(rng.uniform(28, 40)), rng), applause(float(rng.uniform(10, 18)), rng)]


def with_foreign(style: str, rng: Rng) -> list[Samples]:
    """Return the music with another style or sound of the same loudness in it."""
    others = [label for label in LABELS if label != style]
    foreign = performed(str(rng.choice(others)), float(rng.uniform(10, 18)), rng, 0.9)
    music = performed(style, float(rng.uniform(30, 40)), rng)
    turn = round(len(music) * float(rng.uniform(0.25, 0.75)))
    return [music[:turn], foreign, music[turn:]]


KINDS: dict[str, Callable[[str, Rng], list[Samples]]] = {
    "alone": alone,
    "intro and pause": with_intro,
    "applause": with_applause,
    "foreign part": with_foreign,
}


@dataclass(frozen=True)
class Try:
    """One still by one pooling of one song."""

    style: str
    kind: str
    pooling: Pooling
    named: str
    edit: PreparedEdit


def hear(audio: AudioEncoder, song: Samples) -> Segments:
    def encode(waveforms: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return audio.encode_audio(waveforms).float()

    segments = cut_segments([song], round(SEGMENT_SECONDS * SAMPLE_RATE_HZ))
    return embed_segments(segments, encode, window_samples=audio.num_samples, sample_rate=SAMPLE_RATE_HZ)


def tries_of(style: str, seeds: Sequence[int], num_songs: int, audio: AudioEncoder, listener: Listener) -> list[Try]:
    """Return the stills of all songs of a style, each song on a scene of its own."""
    tries = []
    songs = [(kind, number) for kind in KINDS for number in range(num_songs)]
    for (kind, number), seed in zip(songs, seeds, strict=True):
        rng = np.random.default_rng([SONG_STREAM, LABELS.index(style), list(KINDS).index(kind), number])
        segments = hear(audio, np.concatenate(KINDS[kind](style, rng)))
        for pooling in POOLINGS:
            found = pool_segments(segments, pooling)
            named = listener.top(torch.from_numpy(found.embedding), 1)[0][0]
            guided = {"embedding": found.embedding, "level_db": found.level_db}
            edit = PreparedEdit(f"{style}/{kind}/{number}/{pooling}", EditSettings(), seed=seed, **guided)
            tries.append(Try(style, kind, pooling, named, edit))
    return tries


def edit_all(manipulator: Manipulator, tries: Sequence[Try], advance: Callable[[], None]) -> list[ManipulatedEdit]:
    async def one(tried: Try) -> ManipulatedEdit:
        edit = await manipulator.edit(tried.edit)
        advance()
        return edit

    async def gathered() -> list[ManipulatedEdit]:
        return await asyncio.gather(*map(one, tries))

    return asyncio.run(gathered())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--songs", type=int, default=6, help="songs of each style and kind")
    parser.add_argument("--quick", action="store_true", help="one song of each, and nothing is written")
    options = parser.parse_args()
    num_songs = 1 if options.quick else options.songs
    manipulator = Manipulator(ManipulatorConfig(num_slots=16, device="cpu"))
    world = manipulator.world
    judge = Judge.calibrated(
        load_reader(resolve_model("miniature", "reader")),
        held_out_scenes(world.generator, num=512, seed=0, device=world.device, rendered=False),
    )
    per_style = len(KINDS) * num_songs
    sources = choose_sources(world, judge, num=per_style, seed=4, truncation_psi=1.0, labels=MUSIC_STYLES)
    listener = listener_of(world)
    outcomes: list[Outcome] = []
    with Progress() as progress:
        task = progress.add_task("editing", total=len(MUSIC_STYLES) * per_style * len(POOLINGS))
        for style in MUSIC_STYLES:
            tries = tries_of(style, sources[style], num_songs, world.audio, listener)
            edits = edit_all(manipulator, tries, lambda: progress.advance(task))
            before, after = (judge.read(stacked([getattr(e, of) for e in edits])) for of in ("source", "image"))
            seen = judge.present(after.logits)[:, LABELS.index(style)].tolist()
            for tried, appears, drift in zip(tries, seen, layout_drift(before, after).tolist(), strict=True):
                told = {"pooling": tried.pooling, "kind": tried.kind, "style": style}
                outcomes.append({**told, "appears": appears, "named": tried.named == style, "drift": drift})
    record = {
        "songs": len(MUSIC_STYLES) * per_style,
        "poolings": {pooling: summarise([o for o in outcomes if o["pooling"] == pooling]) for pooling in POOLINGS},
        "models": manipulator.model_digests,
    }
    print(json.dumps(record["poolings"], indent=2))
    if not options.quick:
        path = ROOT / "benchmarks" / "results" / "music_pooling.json"
        path.write_text(json.dumps(record | where_and_when(), indent=2) + "\n")


def summarise(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Return the share of stills in which the style appears, and of songs that are named right: in all, and by part."""

    def share(of: str, **given: object) -> float:
        chosen = [o[of] for o in outcomes if all(o[name] == value for name, value in given.items())]
        return round(float(np.mean(chosen)), 3)

    return {
        "appears": share("appears"),
        "named": share("named"),
        "layout_drift": share("drift"),
        "appears_by_kind": {kind: share("appears", kind=kind) for kind in KINDS},
        "named_by_kind": {kind: share("named", kind=kind) for kind in KINDS},
        "appears_by_style": {style: share("appears", style=style) for style in MUSIC_STYLES},
    }


if __name__ == "__main__":
    main()
