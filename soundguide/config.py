"""Frozen, checked configuration: one pydantic model per idea, shared by flags, YAML, HTTP and the manifest."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from soundguide.errors import InvalidSettings
from soundguide.validation import describe


class Frozen(BaseModel):
    """A model that cannot change and refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def digest(self) -> str:
        """Return 16 hex digits that name this configuration: equal fields, equal digest."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


class EditSettings(Frozen):
    """How one edit is done; any field can be overridden per manifest row or request."""

    num_steps: Annotated[int, Field(ge=0, le=10_000, description="Optimisation steps; 0 returns the source.")] = 60
    learning_rate: Annotated[
        float, Field(gt=0, le=10, description="Adam step, in standard deviations of each code of the generator.")
    ] = 0.1
    rampup: Annotated[float, Field(ge=0, le=1, description="Share of the steps in which the rate rises from 0.")] = 0.05
    rampdown: Annotated[float, Field(ge=0, le=1, description="Share of the steps of the cosine descent to 0.")] = 0.25
    latent_space: Annotated[
        Literal["w", "w+"], Field(description="'w': one move for all layers; 'w+': each layer moves for itself.")
    ] = "w+"
    lambda_reg: Annotated[float, Field(ge=0, description="Weight of the distance to the source code (Eq. 14-17).")] = (
        0.004
    )
    lambda_spread: Annotated[
        float, Field(ge=0, description="Weight of the differences between the layers' moves; ties a w+ edit softly.")
    ] = 0.006
    lambda_id: Annotated[
        float, Field(ge=0, description="Weight of the identity term (Eq. 18); needs an identity model.")
    ] = 0.0
    margin: Annotated[
        float,
        Field(ge=0, le=2, description="Similarity to gain before the guidance rests (Eq. 15); 1 never rests."),
    ] = 1.0
    loudness_margin: Annotated[
        float,
        Field(
            ge=0,
            le=2,
            description="Similarity to gain by a loud sound (-15 dBFS), and less by a softer one, before the guidance "
            "rests: loud rain is heavy rain. 0: loudness does not count.",
        ),
    ] = 0.6
    regulariser: Annotated[
        Literal["squared", "paper"],
        Field(description="'squared': sum of gated squared distances; 'paper': Eq. 17 to the letter."),
    ] = "squared"
    layer_gates: Annotated[
        Literal["uniform", "adaptive"],
        Field(description="Adaptive layer masking (Sec. 3.2.2), or equal gates (plain L2)."),
    ] = "uniform"
    gate_learning_rate: Annotated[float, Field(gt=0, le=10, description="Adam step of the gates.")] = 0.02
    gate_entropy_floor: Annotated[
        float, Field(ge=0, le=1, description="Least entropy of the gates, as a share of the largest possible.")
    ] = 0.9
    num_views: Annotated[
        int, Field(ge=1, le=16, description="Random crops and colour jitters per step over which guidance is averaged.")
    ] = 2
    exploration: Annotated[
        float,
        Field(
            ge=0,
            le=5,
            description="Noise on the code in the first steps, in standard deviations: finds what no small step shows.",
        ),
    ] = 1.0
    plateau_steps: Annotated[
        int,
        Field(
            ge=0, le=1000, description="Stop when the loss has not fallen by the tolerance for so many steps; 0: never."
        ),
    ] = 0
    plateau_tolerance: Annotated[float, Field(ge=0, description="Fall of the loss that counts as progress.")] = 0.002
    text: Annotated[str, Field(max_length=2000, description="A text target beside, or instead of, the sound.")] = ""
    mix: Annotated[
        float,
        Field(ge=0, le=1, description="Share of the text's code in the edit (Eq. 19): 0 sound alone, 1 text alone."),
    ] = 0.5
    mix_layers: Annotated[
        str,
        Field(
            description="Style mixing (Sec. 4.6): layers by source, like '1-5 sound, 6-10 text'; others follow `mix`."
        ),
    ] = ""
    truncation_psi: Annotated[
        float, Field(ge=0, le=2, description="Truncation of seeds: 1 none, 0 the mean picture.")
    ] = 1.0
    inversion_steps: Annotated[
        int,
        Field(ge=0, le=10_000, description="Steps to find the code of a photo; 0: an inversion encoder's, as it is."),
    ] = 200
    inversion_reg: Annotated[
        float,
        Field(
            ge=0,
            description="Weight of the distance to where that began, a picture of the generator's own or an inversion "
            "encoder's code: a lower one copies a photo more closely, a higher one gives what can be edited.",
        ),
    ] = 0.004
    align: Annotated[
        Literal["auto", "never"],
        Field(
            description="'auto': where the generator draws faces aligned as in FFHQ, photos are aligned too, by the "
            "identity encoder's face detector; 'never': their middle is taken as it is.",
            exclude_if=lambda align: align == "auto",  # runs and pictures without aligned faces are what they were
        ),
    ] = "auto"
    view_seed: Annotated[int, Field(ge=0, lt=2**31, description="Seed of the random views of this edit.")] = 0

    @field_validator("text")
    @classmethod
    def _strip(cls, text: str) -> str:
        return text.strip()  # blanks alone are no target

    @model_validator(mode="after")
    def _check_ramps_and_layers(self) -> Self:
        if self.rampup + self.rampdown > 1:
            raise ValueError(
                f"rampup + rampdown must be at most 1, got {self.rampup} + {self.rampdown}. Lower one of them."
            )
        parse_mix_layers(self.mix_layers)
        return self

    def override(self, values: dict[str, Any]) -> EditSettings:
        """Return these settings with some fields replaced; raise `InvalidSettings` naming field, value and rule.

        A `mix` that comes without `mix_layers` replaces these too: it would change nothing where they name all layers.
        What neither these settings nor ``values`` name stays unset.
        """
        ranges = {"mix_layers": ""} if "mix" in values else {}
        try:
            return EditSettings.model_validate({**self.model_dump(exclude_unset=True), **ranges, **values})
        except ValidationError as error:
            raise InvalidSettings(describe(error, "settings", of=EditSettings)) from error


def parse_mix_layers(spec: str) -> list[tuple[int, int, Literal["sound", "text"]]]:
    """Read ``'1-9 sound, 10-18 text'`` as ``[(1, 9, 'sound'), (10, 18, 'text')]``; layers count from 1, ends included.

    Raises ``ValueError`` for another form, an empty range or layers named twice.
    """
    ranges: list[tuple[int, int, Literal["sound", "text"]]] = []
    for part in filter(None, (piece.strip() for piece in spec.split(","))):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?\s+(sound|text)", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if found is None or first < 1 or last < first:
            raise ValueError(
                f"mix_layers must look like '1-9 sound, 10-18 text', got {part!r}. Write ranges that count from 1."
            )
        if any(first <= other_last and other_first <= last for other_first, other_last, _ in ranges):
            raise ValueError(f"mix_layers names layers of {part!r} twice in {spec!r}. Give each layer one source.")
        ranges.append((first, last, "sound" if found[3] == "sound" else "text"))
    return ranges


def require_layers(spec: str, num_ws: int) -> None:
    """Raise `InvalidSettings` where ``mix_layers`` names a layer that a generator of ``num_ws`` layers lacks."""
    last = max((last for _, last, _ in parse_mix_layers(spec)), default=0)
    if last > num_ws:
        raise InvalidSettings(f"mix_layers names layer {last}, but this generator has {num_ws}. Use layers 1-{num_ws}.")


class ManipulatorConfig(Frozen):
    """The models of one world and how the optimiser runs; a model is a name, a folder, or `miniature`."""

    generator: Annotated[
        str, Field(description="Generator: an imported model's name, a model folder (s3:// too), or 'miniature'.")
    ] = "miniature"
    image_text: Annotated[
        str, Field(description="Image and text encoder: a name or folder (s3:// too), or 'miniature'.")
    ] = "miniature"
    audio: Annotated[str, Field(description="Sound encoder: a name or folder (s3:// too), or 'miniature'.")] = (
        "miniature"
    )
    identity: Annotated[
        str,
        Field(description="Face encoder for lambda_id > 0 and the results' measure: a name or folder; empty: none."),
    ] = ""
    inverter: Annotated[
        str, Field(description="Inversion encoder: a name or folder; empty: find codes by optimisation alone.")
    ] = ""
    labels: Annotated[
        tuple[str, ...],
        Field(description="What the listener may hear, for the result's top labels; empty: the encoder's own."),
    ] = ()
    device: Annotated[str, Field(description="'auto' (CUDA where there is one), 'cpu' or 'cuda[:N]'.")] = "auto"
    precision: Annotated[
        Literal["fp32", "bf16"],
        Field(
            description="In what the networks compute a step. 'bf16': bfloat16 on a GPU or a processor with AMX, for "
            "speed and nearly the same picture; codes, losses and the picture that is written stay in float32."
        ),
    ] = "fp32"
    num_slots: Annotated[int, Field(ge=0, le=1024, description="Edits optimised side by side; 0: by device.")] = 0
    group_size: Annotated[
        int,
        Field(
            ge=0,
            le=1024,
            description="Slots computed in one call, filled up where fewer run: with equal sizes the same edit is the "
            "same picture in any company. 1: a single edit is fastest; 0: by device.",
        ),
    ] = 0
    num_threads: Annotated[
        int, Field(ge=0, le=1024, description="Torch threads of this process; 0: leave as it is.")
    ] = 0
    check_every: Annotated[
        int,
        Field(
            ge=1, le=1000, description="Steps between looks at stop rules and non-finite numbers (one small copy each)."
        ),
    ] = 10
    cache_mb: Annotated[int, Field(ge=0, description="Memory for embeddings of sounds and codes of photos.")] = 256
