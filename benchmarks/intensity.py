"""Measure whether a stronger sound makes a stronger edit: the same sound at eight gains, and at eight intensities.

  python benchmarks/intensity.py                 # 8 sources: about 15 minutes on two cores
  python benchmarks/intensity.py --sources 2     # a look
  python benchmarks/intensity.py --audio DIR     # another sound encoder

Rain, wind, waves, fire and thunder each edit every source with each of the sounds. Strength is the intensity
of the event, 0 to 1, that the independent reader sees in the edit, mean over the sources. Reported: Spearman's
correlation of strength with gain and with intensity, for each event and on average (target: at least 0.8).

Writes benchmarks/results/intensity.json and docs/images/intensity.png: a row for each event and way, strengths rising
from left to right.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from provenance import where_and_when
from rich.progress import Progress
from scipy.stats import spearmanr

from soundguide.audio.decode import encode_wav
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.manipulator import Manipulator
from soundguide.miniature.labels import LABELS
from soundguide.miniature.report.appearance import stacked
from soundguide.miniature.report.edits import Outcome, Trial, choose_sources, run_trials
from soundguide.miniature.report.held_out import held_out_scenes
from soundguide.miniature.report.judge import Judge, load_reader
from soundguide.miniature.sounds import SAMPLE_RATE_HZ, mix, synthesise
from soundguide.models.manifest import resolve_model

ROOT = Path(__file__).parents[1]
EVENTS = ("raining", "wind noise", "sea waves", "fire crackling", "thunderstorm")
GAINS_DB = tuple(float(gain) for gain in np.linspace(-21, 0, 8))
INTENSITIES = tuple(float(intensity) for intensity in np.linspace(0.2, 1.0, 8))
SOUNDS_PER_STRENGTH = 4  # performances that take turns over the sources
SIDE, GAP, CAPTION = 96, 4, 190


def sound(event: str, *, intensity: float, gain_db: float, performance: int, seconds: float) -> bytes:
    """Return a WAV; performances of one number differ in nothing but what is asked for."""
    rng = np.random.default_rng((11, LABELS.index(event), performance))
    waveform = synthesise(event, seconds=seconds, intensity=intensity, rng=rng)
    return encode_wav(mix((waveform,), (gain_db,)), SAMPLE_RATE_HZ)


def trials_of(event: str, way: str, seeds: list[int], seconds: float) -> list[Trial]:
    """Return the trials of an event, strengths in order and sources within."""
    wanted = [{"intensity": 0.9, "gain_db": gain} for gain in GAINS_DB]
    if way == "intensity":
        wanted = [{"intensity": intensity, "gain_db": 0.0} for intensity in INTENSITIES]
    return [
        Trial(
            event,
            seed,
            sound(event, performance=number % SOUNDS_PER_STRENGTH, seconds=seconds, **strength),
            f"{way} {place}",
        )
        for place, strength in enumerate(wanted)
        for number, seed in enumerate(seeds)
    ]


def strengths(judge: Judge, outcomes: list[Outcome], event: str, num_sources: int) -> list[float]:
    """Return the event's intensity in the edits, 0..1, mean over the sources, for each strength of the sound."""
    seen = judge.read(stacked([outcome.edited for outcome in outcomes])).logits[:, LABELS.index(event)].sigmoid()
    return [float(intensity) for intensity in seen.reshape(-1, num_sources).mean(1)]


def draw_strip(rows: list[tuple[str, list[Outcome]]], path: Path) -> None:
    """Draw the first source of each row and its edits."""
    width = CAPTION + (1 + len(GAINS_DB)) * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, len(rows) * (SIDE + GAP) + GAP), (24, 26, 30))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for line, (caption, outcomes) in enumerate(rows):
        top = GAP + line * (SIDE + GAP)
        draw.multiline_text((10, top + SIDE // 2), caption, fill=(232, 232, 226), font=font, anchor="lm")
        for column, pixels in enumerate([outcomes[0].source, *(outcome.edited for outcome in outcomes)]):
            picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet.paste(picture, (CAPTION + column * (SIDE + GAP), top))
    sheet.quantize(128).save(path, optimize=True)  # a fifth of the bytes, for the repository


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=8, help="scenes that each sound edits")
    parser.add_argument("--audio", default="", help="folder of another sound encoder")
    options = parser.parse_args()
    chosen = {"audio": options.audio} if options.audio else {}
    manipulator = Manipulator(ManipulatorConfig(num_slots=16, **chosen))
    world, settings = manipulator.world, EditSettings()
    judge = Judge.calibrated(
        load_reader(resolve_model("miniature", "reader")),
        held_out_scenes(world.generator, num=512, seed=0, device=world.device, rendered=False),
    )
    sources = choose_sources(world, judge, num=options.sources, seed=3, truncation_psi=1.0, labels=EVENTS)
    seconds = world.audio.num_samples / world.audio.sample_rate
    found: dict[str, dict[str, dict[str, object]]] = {"gain": {}, "intensity": {}}
    rows: list[tuple[str, list[Outcome]]] = []
    total = 2 * len(EVENTS) * len(GAINS_DB) * options.sources * settings.num_steps
    with Progress() as progress:
        task = progress.add_task("editing", total=total)
        for way in found:
            for event in EVENTS:
                trials = trials_of(event, way, sources[event], seconds)
                outcomes = run_trials(manipulator, trials, settings, lambda steps: progress.advance(task, steps))
                rising = strengths(judge, outcomes, event, options.sources)
                rho = float(spearmanr(range(len(rising)), rising).statistic)
                found[way][event] = {"spearman": rho, "strengths": rising}
                rows.append((f"{event}\nby {way}", outcomes[:: options.sources]))
                progress.print(
                    f"{event:<18} by {way:<10} {rho:+.2f}   {' '.join(f'{strength:.2f}' for strength in rising)}"
                )
    mean = {way: float(np.mean([float(str(row["spearman"])) for row in found[way].values()])) for way in found}
    record = {"sources": options.sources, "mean_spearman": mean, "events": found, "models": manipulator.model_digests}
    result = ROOT / "benchmarks" / "results" / "intensity.json"
    result.write_text(json.dumps(record | where_and_when(), indent=2) + "\n")
    draw_strip(rows, ROOT / "docs" / "images" / "intensity.png")
    print(f"mean: by gain {mean['gain']:+.2f}, by intensity {mean['intensity']:+.2f}")


if __name__ == "__main__":
    main()
