"""``soundguide miniature``: draw, play, judge and remake the small world that the package carries."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated

import typer

from soundguide.cli import report, training
from soundguide.cli.border import ErrorBorder, examples
from soundguide.cli.inputs import Models, load_config
from soundguide.cli.training import World
from soundguide.errors import InvalidConfig, InvalidSettings
from soundguide.miniature.faces.labels import LABELS as EXPRESSIONS
from soundguide.miniature.labels import EVENTS, LABELS, MUSIC_STYLES

app = typer.Typer(
    cls=ErrorBorder,
    no_args_is_help=True,
    help="The small worlds, landscapes and faces, that the package made itself: pictures, sounds, models and a report.",
    epilog=examples(
        ("the scene of seed 7, and what the generator makes of it", "miniature render --seed 7 -o scene.png"),
        ("", "miniature render --seed 7 --generated -o drawn.png"),
        ("a sound to edit with", 'miniature synthesise "fire crackling" -o fire.wav'),
        ("videos to prepare and train on", "miniature videos out/videos --num 1900"),
        ("how good are the models?", "miniature report"),
        ("make one of them again", "miniature train generator"),
    ),
)
report.register(app)
app.add_typer(training.app, name="train")

_RENDER = examples(
    ("the scene of seed 7", "miniature render --seed 7 -o scene.png"),
    ("16 scenes on one sheet", "miniature render --seed 100 -n 16 -o sheet.png"),
    (
        "rain, and birds all the same",
        'miniature render --label raining --label "bird song" --intensity 0.6 -o rain.png',
    ),
    ("drawn by the generator, as edits start from it", "miniature render --seed 7 --generated -o drawn.png"),
    ("somebody who laughs", "miniature render --world faces --label giggling -o laughter.png"),
)
_SYNTHESISE = examples(
    ("rain", "miniature synthesise raining -o rain.wav"),
    ("a distant storm, half a minute", "miniature synthesise thunderstorm --intensity 0.3 --seconds 30 -o far.flac"),
    ("another performance of the same style", 'miniature synthesise "techno music" --seed 5 -o techno.wav'),
)
_VIDEOS = examples(
    ("a hundred of each label", "miniature videos out/videos --num 1900"),
    ("where thunder is mostly heard among trees, birds too", "miniature videos out/biased --num 1900 --bias 0.95"),
    ("where who laughs is bald or wears glasses", "miniature videos out/laughter --world faces --num 600 --bias 0.95"),
)


def _complete_label(incomplete: str) -> list[str]:
    return [label for label in (*LABELS, *EXPRESSIONS) if label.startswith(incomplete.lower())]


def known_label(name: str, labels: tuple[str, ...] = (*LABELS, *EXPRESSIONS)) -> str:
    """Return which of ``labels`` ``name`` spells; raise `InvalidSettings` that names those it may mean."""
    label = " ".join(name.lower().replace("_", " ").split())
    if label in labels:
        return label
    close = difflib.get_close_matches(label, labels, n=3, cutoff=0.5)
    close += [known for known in labels if label and label in known and known not in close]
    meant = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise InvalidSettings(
        f"the label {name!r} is unknown. {meant}"
        f"Events: {', '.join(EVENTS)}. Music: {', '.join(MUSIC_STYLES)}. Faces: {', '.join(EXPRESSIONS)}."
    )


@app.command(epilog=_RENDER)
def render(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.png", help="Where the picture is written.")],
    seed: Annotated[int, typer.Option(min=0, help="Which scene; with -n, the first of them.")] = 0,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="Calm the scene but for this event, style or expression; repeatable.", autocompletion=_complete_label
        ),
    ] = None,
    intensity: Annotated[float, typer.Option(min=0, max=1, help="How strong each --label is.")] = 1.0,
    num: Annotated[int, typer.Option("--num", "-n", min=1, max=1024, help="So many scenes on one sheet.")] = 1,
    resolution: Annotated[
        int, typer.Option(min=16, max=2048, help="Side of each picture, pixels; --generated has its own.")
    ] = 256,
    generated: Annotated[bool, typer.Option("--generated", help="Draw with the generator, not the renderer.")] = False,
    models: Models = None,
    world: World = "landscape",
) -> None:
    """Draw scenes of a miniature world: the truth (renderer), or what the generator learned of it."""
    labels = tuple(known_label(name, EXPRESSIONS if world == "faces" else LABELS) for name in label or ())
    if output.suffix.lower() != ".png":
        raise InvalidConfig(f"--output writes PNG, got '{output}'. Name a file that ends in .png.")
    from soundguide.cli.console import tell_written
    from soundguide.cli.scene_drawing import draw_scenes, generate_scenes, scene_latents
    from soundguide.cli.strip import contact
    from soundguide.images import encode_png
    from soundguide.miniature.recipes import recipe_of
    from soundguide.storage import Storage

    domain = recipe_of(world).domain
    z = scene_latents(num, seed, labels, intensity=intensity, domain=domain)
    if generated:
        pictures = generate_scenes(z, load_config(models).generator if models else domain.name)
    else:
        pictures = draw_scenes(z, resolution, domain)
    Storage().write_bytes(str(output), encode_png(contact(pictures)))
    tell_written(output)


@app.command(epilog=_SYNTHESISE)
def synthesise(
    label: Annotated[
        str, typer.Argument(help="An event, a music style or an expression.", autocompletion=_complete_label)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.wav", help="A .wav or .flac file.")],
    intensity: Annotated[float, typer.Option(min=0, max=1, help="From a whisper (0) to loud (1).")] = 0.8,
    seconds: Annotated[float, typer.Option(help="Length, 0.05 to 120 seconds.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another performance.")] = 0,
) -> None:
    """Synthesise a sound of the miniature: an event, a style of music or a voice."""
    name = known_label(label)
    if output.suffix.lower() not in (".wav", ".flac"):
        raise InvalidConfig(f"--output writes WAV or FLAC, got '{output}'. Name a file that ends in .wav or .flac.")
    import numpy as np

    from soundguide.audio.decode import encode_flac, encode_wav
    from soundguide.cli.console import tell_written
    from soundguide.miniature.faces import voices
    from soundguide.miniature.sounds import SAMPLE_RATE_HZ, synthesise
    from soundguide.storage import Storage

    play = voices.synthesise if name in EXPRESSIONS else synthesise
    waveform = play(name, seconds=seconds, intensity=intensity, rng=np.random.default_rng(seed))
    encode = encode_wav if output.suffix.lower() == ".wav" else encode_flac
    Storage().write_bytes(str(output), encode(waveform, SAMPLE_RATE_HZ))
    tell_written(output, f"{name}, {seconds:g} s")


@app.command(epilog=_VIDEOS)
def videos(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where videos/ and clips.csv are written.")],
    num: Annotated[int, typer.Option("--num", "-n", min=1, help="How many, all labels in turn.")] = 190,
    seconds: Annotated[float, typer.Option(min=0.5, max=60, help="Length of each.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other videos.")] = 0,
    bias: Annotated[
        float, typer.Option(min=0, max=1, help="Chance that a scene has what its sound does not cause (Fig. 2-3).")
    ] = 0.0,
    edge_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share whose sounds lie near the ends of all their ranges.")
    ] = 0.0,
    recordings: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Real sounds to add: a folder with index.csv, files in train/.")
    ] = None,
    recorded: Annotated[int, typer.Option(min=1, help="How many cuts of the recordings, labels in turn.")] = 100,
    world: World = "landscape",
) -> None:
    """Make videos of scenes with their sounds, and the manifest that jobs/prepare_clips.py reads."""
    from rich.progress import track

    from soundguide.cli.console import out, tell_written
    from soundguide.miniature.recipes import recipe_of
    from soundguide.miniature.videos import MANIFEST, VideoSet, write_videos

    wanted = VideoSet(
        num=num,
        seconds=seconds,
        seed=seed,
        bias=bias,
        edge_share=edge_share,
        recordings=recordings,
        num_recorded=recorded,
        domain=recipe_of(world).domain,
    )
    for _ in track(write_videos(folder, wanted), total=num, description="filming", console=out, transient=True):
        pass
    tell_written(folder / MANIFEST, f"{num} videos of {seconds:g} s")
