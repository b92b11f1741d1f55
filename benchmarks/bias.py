"""Measure whether weakly paired contrastive learning makes the sound encoder robust to bias (Sec. 3.1.3, Fig. 2-3).

  python benchmarks/bias.py            # 3 seeds, three rates, with and without the term: about an hour on two cores
  python benchmarks/bias.py --quick    # 1 seed, two rates: under 10 minutes

Clips of the miniature in which each event is found beside a nuisance that it does not cause (a house, trees, ...) at
a rate of 50 % (control), 80 % or 95 %. CLIP is the package's, trained on unbiased pairs. The encoder is trained with
and without the weakly paired term, same clips, same steps, same seed. Measured:

- lean: cosine between the sounds of an event and its nuisance's direction in CLIP's space (embedded scenes with it
  minus those without), less that of the control of the same seed; beside it that of the frames themselves;
- accuracy: share of unheard sounds whose nearest text is their event's;
- drift: how far the nuisance rises in edits by these sounds, as the independent reader sees it, 0..1;
- success: share of edits in which the reader finds the event.

Writes benchmarks/results/bias.json and docs/images/bias.png.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from provenance import where_and_when
from torch import Tensor

from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.manipulator import Manipulator
from soundguide.miniature.captions import phrase
from soundguide.miniature.clips import sound_of
from soundguide.miniature.labels import LABELS
from soundguide.miniature.models import load_image_text
from soundguide.miniature.report.appearance import stacked
from soundguide.miniature.report.edits import choose_sources, run_trials, synthesised_trials
from soundguide.miniature.report.held_out import held_out_scenes
from soundguide.miniature.report.judge import Judge, load_reader
from soundguide.miniature.scenes import CONTINUOUS, NUM_FACTORS, render, spoken_of
from soundguide.miniature.train_audio import AUDIO
from soundguide.models.audio_encoder import SwinAudioEncoder
from soundguide.models.checkpoint import save_model
from soundguide.models.image_text import OpenClipEncoder
from soundguide.models.manifest import resolve_model
from soundguide.pretraining.batches import ClipBatch
from soundguide.pretraining.pretrainer import Pretrainer
from soundguide.pretraining.settings import LossSettings, OptimizerSettings, PretrainingSettings

ROOT = Path(__file__).parents[1]
NUISANCES = {
    "thunderstorm": "trees",
    "raining": "house",
    "fire crackling": "mountains",
    "bird song": "house",
    "river flowing": "season",
    "sea waves": "house",
    "wind noise": "mountains",
    "crickets chirping at night": "trees",
}
"""Event -> continuous factor beside which it is found; none of them is the event's own doing."""

SMALL = AUDIO.model_copy(update={"embed_channels": 48, "depths": (1, 2), "num_heads": (2, 4)})
SECONDS = SMALL.window_seconds
KINDS = {"with the term": 1.0, "without": 0.0}
CONTROL = 0.5
MEASURES = ("lean", "frames_lean", "accuracy", "drift", "success")


@dataclass(frozen=True)
class Plan:
    rates: tuple[float, ...]
    seeds: int
    clips_per_label: int
    num_steps: int
    batch_size: int
    sources: int
    edit_steps: int


FULL = Plan(
    rates=(CONTROL, 0.8, 0.95), seeds=3, clips_per_label=120, num_steps=400, batch_size=64, sources=8, edit_steps=60
)
QUICK = Plan(rates=(CONTROL, 0.95), seeds=1, clips_per_label=60, num_steps=120, batch_size=48, sources=3, edit_steps=60)


def sounds(plan: Plan, seed: int) -> Tensor:
    """Return waveforms ``[L * n, T]``, label after label."""
    rows = []
    for label in NUISANCES:
        for number in range(plan.clips_per_label):
            rng = np.random.default_rng((seed, LABELS.index(label), number))
            rows.append(sound_of(label, float(rng.uniform(0.4, 1)), rng, seconds=SECONDS)[: SMALL.num_samples])
    return torch.from_numpy(np.stack(rows))


@torch.no_grad()
def frames(clip: OpenClipEncoder, plan: Plan, rate: float, generator: torch.Generator) -> Tensor:
    """Return embeddings ``[L * n, E]`` of the clips' scenes, in which each event's nuisance is high at this rate."""
    rows = []
    for label, nuisance in NUISANCES.items():
        factors = torch.zeros(plan.clips_per_label, NUM_FACTORS)
        factors[:, : len(CONTINUOUS)] = torch.rand(plan.clips_per_label, len(CONTINUOUS), generator=generator)
        high = torch.rand(plan.clips_per_label, generator=generator) < rate
        low_part = 0.25 * torch.rand(plan.clips_per_label, generator=generator)
        factors[:, CONTINUOUS.index(nuisance)] = torch.where(high, 1 - low_part, low_part)
        factors[:, len(CONTINUOUS) + LABELS.index(label)] = 0.4 + 0.6 * torch.rand(
            plan.clips_per_label, generator=generator
        )
        rows.append(clip.encode_image(render(factors, clip.resolution).images))
    return torch.cat(rows)


@torch.no_grad()
def directions(clip: OpenClipEncoder, num: int = 128) -> Tensor:
    """Return the direction of each event's nuisance in CLIP's space, ``[L, E]``: scenes with it minus those without."""
    rows = []
    for nuisance in NUISANCES.values():
        factors = torch.zeros(num, NUM_FACTORS)
        factors[:, : len(CONTINUOUS)] = torch.rand(num, len(CONTINUOUS), generator=torch.Generator().manual_seed(7))
        place, ends = CONTINUOUS.index(nuisance), []
        for value in (1.0, 0.0):
            factors[:, place] = value
            ends.append(clip.encode_image(render(factors, clip.resolution).images).mean(0))
        rows.append(F.normalize(ends[0] - ends[1], dim=0))
    return torch.stack(rows)


def mean_cosine(embeddings: Tensor, toward: Tensor) -> float:
    """Return the mean cosine of embeddings ``[L, n, E]`` with their event's direction ``[L, E]``."""
    return float(torch.einsum("lne,le->ln", embeddings, toward).mean())


def train(
    plan: Plan, waveforms: Tensor, images: Tensor, texts: Tensor, teacher: float, *, weak: float, seed: int
) -> SwinAudioEncoder:
    """Train an encoder on clips in memory; the order of batches depends on the seed alone."""
    settings = PretrainingSettings(
        loss=LossSettings(weak_pairs=weak),
        optimizer=OptimizerSettings(beta2=0.98, num_cycles=1, warmup_steps=20, matrix_rate=3e-3),
        batch_size=plan.batch_size,
        seed=seed,
    )
    pretrainer = Pretrainer(
        SwinAudioEncoder(SMALL, seed=seed),
        settings,
        num_steps=plan.num_steps,
        teacher_log_scale=teacher,
        device=torch.device("cpu"),
    )
    labels = torch.arange(len(waveforms)) // plan.clips_per_label
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # drop path
    for _ in range(plan.num_steps):
        rows = torch.randint(len(waveforms), (plan.batch_size,), generator=generator)
        shift = torch.randint(1, plan.clips_per_label, (plan.batch_size,), generator=generator)
        others = labels[rows] * plan.clips_per_label + (rows % plan.clips_per_label + shift) % plan.clips_per_label
        spoken = torch.randint(texts.shape[1], (plan.batch_size,), generator=generator)
        everywhere = torch.ones(plan.batch_size, dtype=torch.bool)
        batch = ClipBatch(
            waveforms=waveforms[rows],
            text=texts[labels[rows], spoken],
            image=images[rows],
            partner=images[others],
            has_image=everywhere,
            has_partner=everywhere,
            fell_back=~everywhere,
            labels=F.one_hot(labels[rows], len(NUISANCES)).bool(),
        )
        pretrainer.train_step(batch, generator)
    return pretrainer.best_encoder.eval()


def edit(encoder: SwinAudioEncoder, plan: Plan, seed: int) -> dict[str, float]:
    """Edit with sounds that no training heard; return the nuisance's mean rise and the share that worked."""
    with tempfile.TemporaryDirectory() as name:
        save_model(Path(name) / "audio", encoder, SMALL, half=False, made_by="benchmarks/bias.py")
        manipulator = Manipulator(ManipulatorConfig(audio=str(Path(name) / "audio"), device="cpu", num_slots=16))
    world = manipulator.world
    judge = Judge.calibrated(
        load_reader(resolve_model("miniature", "reader")),
        held_out_scenes(world.generator, num=512, seed=0, device=world.device, rendered=False),
    )
    sources = choose_sources(world, judge, num=plan.sources, seed=seed, truncation_psi=1.0, labels=tuple(NUISANCES))
    trials = synthesised_trials(sources, seconds=SECONDS, seed=seed)
    outcomes = run_trials(manipulator, trials, EditSettings(num_steps=plan.edit_steps), lambda _: None)
    before = judge.read(stacked([outcome.source for outcome in outcomes]))
    after = judge.read(stacked([outcome.edited for outcome in outcomes]))
    own = torch.tensor([LABELS.index(outcome.trial.label) for outcome in outcomes])
    nuisance = torch.tensor([CONTINUOUS.index(NUISANCES[outcome.trial.label]) for outcome in outcomes])
    rows = torch.arange(len(outcomes))
    rise = (after.factors - before.factors)[rows, nuisance]
    return {"drift": float(rise.mean()), "success": float(judge.present(after.logits)[rows, own].float().mean())}


def measure(plan: Plan) -> list[dict[str, float | str]]:
    """Train and judge every combination; return one row for each."""
    clip = load_image_text()
    toward = directions(clip)
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        texts = torch.stack([clip.encode_text([phrase((label,), chance) for _ in range(16)]) for label in NUISANCES])
    found: list[dict[str, float | str]] = []
    for seed in range(plan.seeds):
        waveforms = sounds(plan, seed)
        fresh = sounds(Plan(**{**vars(plan), "clips_per_label": 12}), seed + 1000)
        for rate in plan.rates:
            images = frames(clip, plan, rate, torch.Generator().manual_seed(seed))
            for kind, weak in KINDS.items():
                started = time.monotonic()
                encoder = train(plan, waveforms, images, texts, float(clip.logit_scale), weak=weak, seed=seed)
                with torch.no_grad():
                    heard = encoder.encode_audio(fresh).reshape(len(NUISANCES), 12, -1)
                named = (heard @ F.normalize(texts.mean(1), dim=-1).T).argmax(-1)
                row = {
                    "seed": seed,
                    "rate": rate,
                    "kind": kind,
                    "cosine": mean_cosine(heard, toward),
                    "frames_cosine": mean_cosine(images.reshape(len(NUISANCES), plan.clips_per_label, -1), toward),
                    "accuracy": float((named == torch.arange(len(NUISANCES))[:, None]).float().mean()),
                    **edit(encoder, plan, seed),
                }
                found.append(row)
                figures = ", ".join(f"{name} {row[name]:+.3f}" for name in ("cosine", "accuracy", "drift", "success"))
                print(f"seed {seed}, {rate:.0%}, {kind}: {figures}  ({time.monotonic() - started:.0f} s)", flush=True)
    for row in found:
        control = next(
            other
            for other in found
            if (other["seed"], other["kind"], other["rate"]) == (row["seed"], row["kind"], CONTROL)
        )
        for lean, cosine in (("lean", "cosine"), ("frames_lean", "frames_cosine")):
            row[lean] = float(row[cosine]) - float(control[cosine])
    return found


def table(rows: list[dict[str, float | str]], plan: Plan) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return mean and standard deviation over seeds, by rate, kind and measure."""
    summary: dict[str, dict[str, dict[str, list[float]]]] = {}
    for rate in plan.rates:
        for kind in KINDS:
            mine = [row for row in rows if row["rate"] == rate and row["kind"] == kind]
            for name in MEASURES:
                values = [float(row[name]) for row in mine]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                summary.setdefault(f"{rate:.0%}", {}).setdefault(kind, {})[name] = [statistics.mean(values), spread]
    return summary


def draw_plot(summary: dict[str, dict[str, dict[str, list[float]]]], path: Path) -> None:
    """Draw the three measures over the rates, with error bars."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    titles = {
        "lean": "sounds lean to the nuisance (cosine)",
        "drift": "edits bring the nuisance (0 to 1)",
        "success": "edits bring the event (share)",
    }
    for place, (name, title) in enumerate(titles.items()):
        axes = figure.add_subplot(1, 3, place + 1)
        for kind in KINDS:
            means = [summary[rate][kind][name][0] for rate in summary]
            spreads = [summary[rate][kind][name][1] for rate in summary]
            axes.errorbar(list(summary), means, yerr=spreads, marker="o", capsize=3, label=kind)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("events beside their nuisance")
        if not place:
            axes.legend(fontsize=8, loc="upper left")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, two rates, small: a look in under 10 minutes")
    plan = QUICK if parser.parse_args().quick else FULL
    wrong = [label for label, nuisance in NUISANCES.items() if nuisance in spoken_of(label)]
    assert not wrong, f"{wrong} cause what is to be a nuisance"
    rows = measure(plan)
    summary = table(rows, plan)
    name = "bias_quick" if plan is QUICK else "bias"
    result = ROOT / "benchmarks" / "results" / f"{name}.json"
    result.write_text(json.dumps({"plan": vars(plan), "summary": summary, "rows": rows} | where_and_when(), indent=2))
    draw_plot(summary, ROOT / "docs" / "images" / "bias.png" if plan is FULL else result.with_suffix(".png"))
    for rate, kinds in summary.items():
        for kind, measures in kinds.items():
            figures = "   ".join(f"{name} {mean:+.3f} +- {spread:.3f}" for name, (mean, spread) in measures.items())
            print(f"{rate:>4} {kind:<14} {figures}")
    print(f"written to {result.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
