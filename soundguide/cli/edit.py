"""``soundguide edit``: one picture, one sound."""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from soundguide.cli.border import examples
from soundguide.cli.inputs import (
    Audio,
    Models,
    Preset,
    load_config,
    model_option,
    naming_files,
    read_settings,
    read_source,
    require_one_source,
    setting_option,
)
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.errors import InvalidAudio, InvalidConfig, InvalidImage, InvalidLatent, InvalidSettings
from soundguide.validation import describe

if TYPE_CHECKING:
    from soundguide.images import Pixels
    from soundguide.records import EditRequest, ManipulatedEdit, PreparedEdit

OUT_OF_DOMAIN = 0.08  # mean absolute error of an inversion, 0..1, above which the likeness is lost

_EPILOG = examples(
    ("let it rain over picture 7", "edit rain.wav --seed 7 -o rainy.png"),
    ("a photo of your own, with more patience", "edit waves.mp3 --image beach.jpg --steps 200 -o out.png"),
    ("a sound and a text, a third of it the text's", 'edit birds.ogg --seed 3 --text "autumn" --mix 0.33 -o out.png'),
    ("a text alone", 'edit --text "fireworks" --seed 3 -o out.png'),
    (
        "text paints the coarse layers, sound the fine ones",
        'edit a.wav --seed 3 --text night --mix-layers "1-4 text, 5-10 sound" -o b.png',
    ),
    ("chain edits: keep the code, go on from it", "edit rain.wav --seed 7 -o a.png --latent-out a.safetensors"),
    ("", "edit wind.wav --latent a.safetensors -o b.png"),
    ("a recording from another program", "edit - --seed 7 -o out.png < recording.webm"),
    ("faces, with the paper's settings for them", "edit giggle.wav --preset ffhq-1024 --image me.jpg -o out.png"),
    ("a generator of your own (soundguide models import)", "edit rain.wav --generator churches --seed 7 -o out.png"),
    ("any other setting (soundguide settings lists them)", "edit rain.wav --seed 7 --set num_views=4 -o out.png"),
)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(edit)


def edit(
    output: Annotated[str, typer.Option("--output", "-o", metavar="OUT.png", help="Where the edit is written.")],
    sound: Annotated[
        str, typer.Argument(show_default=False, help="Sound file, s3:// URI, or - for stdin. Optional with --text.")
    ] = "",
    image: Annotated[str, typer.Option(metavar="PHOTO", help="Edit this photo.")] = "",
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Edit the picture that the generator draws from N.")
    ] = None,
    latent: Annotated[str, typer.Option(metavar="FILE", help="Edit the picture of this code (see --latent-out).")] = "",
    latent_out: Annotated[str, typer.Option(metavar="FILE", help="Keep the edit's code (.safetensors).")] = "",
    strip: Annotated[bool, typer.Option(help="Write before and after side by side, OUT-strip.png.")] = True,
    preset: Preset = "",
    models: Models = None,
    generator: Annotated[str | None, model_option("generator")] = None,
    image_text: Annotated[str | None, model_option("image_text")] = None,
    audio: Audio = None,
    identity: Annotated[str | None, model_option("identity")] = None,
    inverter: Annotated[str | None, model_option("inverter")] = None,
    text: Annotated[str | None, setting_option("text")] = None,
    mix: Annotated[float | None, setting_option("mix")] = None,
    mix_layers: Annotated[str | None, setting_option("mix_layers")] = None,
    steps: Annotated[int | None, setting_option("num_steps", "--steps")] = None,
    learning_rate: Annotated[float | None, setting_option("learning_rate")] = None,
    latent_space: Annotated[str | None, setting_option("latent_space")] = None,
    lambda_reg: Annotated[float | None, setting_option("lambda_reg")] = None,
    inversion_steps: Annotated[int | None, setting_option("inversion_steps")] = None,
    inversion_reg: Annotated[float | None, setting_option("inversion_reg")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any other setting; may be repeated.", rich_help_panel="Settings"
        ),
    ] = None,
) -> None:
    """Change a picture so that it looks the way a sound sounds.

    Give a sound, a text, or both; and one source: --image, --seed or --latent.
    """
    named = {"text": text, "mix": mix, "mix_layers": mix_layers, "num_steps": steps, "learning_rate": learning_rate}
    named |= {"latent_space": latent_space, "lambda_reg": lambda_reg}
    named |= {"inversion_steps": inversion_steps, "inversion_reg": inversion_reg}
    others = {"generator": generator, "image_text": image_text, "identity": identity, "inverter": inverter}
    settings, config = read_settings(named, set_ or []), load_config(models, audio=audio, others=others)
    if preset:
        from soundguide.preset import apply_preset, load_preset

        settings, config = apply_preset(load_preset(preset), settings, config)
    request = _request(sound, image, seed, latent, output, settings)
    _edit(request, config, output=output, latent_out=latent_out, strip=strip)


def _request(sound: str, image: str, seed: int | None, latent: str, output: str, settings: EditSettings) -> EditRequest:
    from pydantic import ValidationError

    from soundguide.records import EditRequest

    require_one_source(image=image, seed=seed, latent=latent)
    if not sound and not settings.text:
        raise InvalidConfig("nothing to edit with. Name a sound file, or give --text, or both.")
    if not output.lower().endswith(".png"):
        raise InvalidConfig(f"--output writes PNG, got {output!r}. Name a file that ends in .png.")
    id = PurePosixPath(output).stem or "edit"
    try:
        return EditRequest(id=id, audio=sound, image=image, seed=seed, latent=latent, settings=settings)
    except ValidationError as error:
        raise InvalidSettings(describe(error, "edit", of=EditRequest)) from error


def _edit(request: EditRequest, config: ManipulatorConfig, *, output: str, latent_out: str, strip: bool) -> None:
    """Check all input before any model is loaded; then load, edit, write and tell."""
    from soundguide.cli.console import err
    from soundguide.images import encode_png
    from soundguide.latents import MAX_LATENT_MIB, encode_latent
    from soundguide.model_facts import read_model_facts
    from soundguide.stages import EditPreparer, SourceLimits
    from soundguide.storage import Storage

    limits = SourceLimits()
    sound = read_source(request.audio, max_mib=limits.max_sound_mib)
    photo = read_source(request.image, max_mib=limits.max_image_mib)
    latent = read_source(request.latent, max_mib=MAX_LATENT_MIB)
    facts = read_model_facts(config)
    preparer = EditPreparer(facts)
    with naming_files({InvalidAudio: request.audio, InvalidImage: request.image, InvalidLatent: request.latent}):
        prepared = preparer.check(
            request.id, request.settings, sound=sound, seed=request.seed, photo=photo, latent=latent
        )
    for name in filter(None, (output, latent_out)):  # told before any work
        Storage().require_folder(name.rpartition("/")[0] or ("/" if name.startswith("/") else "."))
    with err.status("loading the models"):
        from soundguide.cli.edit_progress import edit_with_progress
        from soundguide.manipulator import Manipulator

        manipulator = Manipulator(config)
    edited = edit_with_progress(manipulator, prepared)
    metadata = {"soundguide": _provenance(request, prepared, manipulator.model_digests, threads=edited.threads)}
    files = {output: encode_png(edited.image, metadata=metadata)}
    if strip:
        files[f"{output[:-4]}-strip.png"] = encode_png(
            _strip(prepared, edited, photo, aligned=facts.aligns_photos), metadata=metadata
        )
    if latent_out:
        files[latent_out] = encode_latent(edited.ws, metadata=metadata)
    for name, data in files.items():
        Storage().write_bytes(name, data)
    _tell(edited, list(files))


def _provenance(request: EditRequest, prepared: PreparedEdit, digests: dict[str, str], *, threads: int) -> str:
    from soundguide import __version__
    from soundguide.records import EditResult
    from soundguide.stages import provenance

    result = EditResult(
        status="ok",
        sound_sha256=prepared.sound_sha256,
        source_sha256=prepared.source_sha256,
        models=digests,
        version=__version__,
        threads=threads,
        **dict(request),
    )
    return provenance(result)


def _strip(prepared: PreparedEdit, edited: ManipulatedEdit, photo: bytes | None, *, aligned: bool) -> Pixels:
    from soundguide.cli.strip import MIN_SIDE, before_after
    from soundguide.images import decode_to_size

    pictures = [edited.source, edited.image]
    if aligned and prepared.photo is not None:
        pictures.insert(0, prepared.photo)
    elif photo is not None:  # shown as it is, too: what the generator makes of it may differ
        height, width = edited.image.shape[:2]
        rows = max(MIN_SIDE, height)
        pictures.insert(0, decode_to_size(photo, height=rows, width=round(width * rows / height)))
    return before_after(pictures, sound=prepared.sound, text=prepared.settings.text)


def _tell(edited: ManipulatedEdit, written: list[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    from soundguide.cli.console import out, percent, warn

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    if edited.labels:
        table.add_row("heard", Text(", ".join(f"{label} {percent(share)}" for label, share in edited.labels)))
    if not math.isnan(edited.level_db):
        table.add_row("loudness", f"{edited.level_db:.0f} dBFS")
    before, after = edited.similarity_before, edited.similarity_after
    colour = "green" if after > before else "yellow"
    table.add_row("similarity", f"{before:.3f} → [bold {colour}]{after:.3f}[/]")
    table.add_row("moved by", f"{edited.latent_distance:.2f} in the latent space")
    table.add_row("took", f"{edited.seconds:.1f} s, {edited.steps} steps")
    if not math.isnan(edited.inversion_error):
        table.add_row("likeness", f"inversion error {edited.inversion_error:.3f} (mean, 0 to 1)")
    if not math.isnan(edited.identity_similarity):
        table.add_row("identity", f"{edited.identity_similarity:.3f} (cosine of the faces, 1 is the same)")
    table.add_row("wrote", Text("\n".join(written)))
    out.print(table)
    if edited.alignment_note:
        warn(edited.alignment_note)
    if edited.identity_note:
        warn(edited.identity_note)
    if edited.inversion_error > OUT_OF_DOMAIN:
        warn(
            f"the photo lies outside of what this generator can draw: inversion error {edited.inversion_error:.3f}, "
            f"expected at most {OUT_OF_DOMAIN}. The edit starts from the nearest picture it knows; use a photo of its "
            "domain, or more --inversion-steps."
        )
