"""``soundguide listen``: what the encoder hears in a sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from soundguide.cli.border import examples
from soundguide.cli.inputs import Audio, Models, load_config, naming_files, open_source
from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidAudio, InvalidConfig

if TYPE_CHECKING:
    from soundguide.listen import Listener

Heard = list[dict[str, Any]]
"""Labels with their probabilities, best first."""

_NUM_SHOWN = 5
_EPILOG = examples(
    ("what is this?", "listen recording.ogg"),
    ("which of these is it? Any words will do", 'listen recording.ogg --labels "rain,applause,frying"'),
    ("how a long recording goes on", "listen song.mp3 --windows --top 1"),
    ("for a program", "listen recording.ogg --json --top 3"),
)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(listen)


def listen(
    sound: Annotated[str, typer.Argument(help="Sound file, s3:// URI, or - for stdin.")],
    labels: Annotated[
        str, typer.Option(metavar="A,B,C", help="What it may be, by commas. Default: what the encoder was trained on.")
    ] = "",
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON: all labels with probabilities, best first.")
    ] = False,
    windows: Annotated[bool, typer.Option("--windows", help="Also say what each window of the sound is like.")] = False,
    top: Annotated[
        int | None, typer.Option(min=1, help="How many labels to print.", show_default=f"{_NUM_SHOWN}; all with --json")
    ] = None,
    models: Models = None,
    audio: Audio = None,
) -> None:
    """Print what the encoder hears in a sound, as probabilities of labels."""
    config = load_config(models, audio=audio)
    if labels.strip(", "):
        names = tuple(dict.fromkeys(filter(None, (label.strip() for label in labels.split(",")))))
        config = config.model_copy(update={"labels": names})
    elif labels:
        raise InvalidConfig(f"--labels names nothing, got {labels!r}. Write them by commas: --labels rain,applause.")
    num = top or (None if json else _NUM_SHOWN)
    heard, parts = _hear(sound, config, num=num, windows=windows)
    if json:
        _print_json(heard, parts if windows else None)
    else:
        _print_table(heard, parts)


def _hear(
    sound: str, config: ManipulatorConfig, *, num: int | None, windows: bool
) -> tuple[Heard, list[tuple[float, Heard]]]:
    """Return what is heard in the whole, and with the start in seconds in each window."""
    from soundguide.cli.console import err
    from soundguide.model_facts import read_model_facts

    with open_source(sound) as file, err.status("listening"), naming_files({InvalidAudio: sound}):
        _check_sound(file, read_model_facts(config).sample_rate)
        from soundguide.world import World

        world = World(config)
        listener = world.listener
        if not listener.labels:
            raise InvalidConfig("this sound encoder brings no labels of its own. Give --labels rain,applause.")
        heard = _ranked(listener, listener.probabilities(listener.embed(file)).tolist(), num)
        if not windows:
            return heard, []
        file.seek(0)
        rows = listener.probabilities(listener.embed_windows(file)).tolist()
        seconds = world.audio.num_samples / world.audio.sample_rate
        return heard, [(index * seconds, _ranked(listener, row, num)) for index, row in enumerate(rows)]


def _check_sound(file: BinaryIO, sample_rate: int) -> None:
    """Decode a sound to its end, so that a wrong one is told before models load. Raises `InvalidAudio`."""
    from soundguide.audio.decode import iter_audio

    for _ in iter_audio(file, sample_rate=sample_rate):
        pass
    file.seek(0)


def _ranked(listener: Listener, probabilities: list[float], num: int | None) -> Heard:
    pairs = sorted(zip(listener.labels, probabilities, strict=True), key=lambda pair: -pair[1])
    return [{"label": label, "probability": probability} for label, probability in pairs[:num]]


def _print_json(heard: Heard, parts: list[tuple[float, Heard]] | None) -> None:
    import json

    answer: dict[str, Any] = {"labels": heard}
    if parts is not None:
        answer["windows"] = [{"start_seconds": start, "labels": labels} for start, labels in parts]
    typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def _print_table(heard: Heard, parts: list[tuple[float, Heard]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from soundguide.cli.console import bar, out, percent

    table = Table.grid(padding=(0, 2))
    for start, labels in [(None, heard), *parts]:
        if start is not None:
            table.add_row(f"[dim]from {int(start) // 60}:{start % 60:04.1f}[/]")
        for item in labels:
            table.add_row(Text(item["label"]), bar(item["probability"]), percent(item["probability"]))
    out.print(table)
