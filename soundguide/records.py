"""An edit is a row is a request: the records that travel between prepare, manipulate and finish. No torch here.

`EditRequest` is a manifest row. `PreparedEdit` has everything fetched and checked. `ManipulatedEdit` is what the
manipulator made of it. `EditResult` is the output row and the service's answer. The two in the middle also travel as
flat rows (`to_row`,
`from_row`) whose columns Arrow can hold, bytes and numbers only, so that nothing is ever pickled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from soundguide.config import EditSettings, Frozen

Row = dict[str, Any]
"""One row of a table: column names to plain values, as Arrow gives and takes them."""


class EditRequest(Frozen):
    """One edit as its user writes it: sources as URIs, and settings.

    The source is exactly one of ``image``, ``seed`` and ``latent``; the target is ``audio``, or
    ``settings.text``, or both.
    """

    id: Annotated[str, Field(min_length=1, max_length=1024, description="Unique within its manifest.")]
    audio: Annotated[str, Field(description="URI of the sound; empty for an edit by text alone.")] = ""
    image: Annotated[str, Field(description="URI of a photo to edit.")] = ""
    seed: Annotated[int | None, Field(ge=0, lt=2**63, description="Seed of a picture that the generator draws.")] = None
    latent: Annotated[str, Field(description="URI of a W+ code (.safetensors or .npy), such as an earlier edit's.")] = (
        ""
    )
    settings: EditSettings = EditSettings()

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        given = [
            name
            for name, present in (("image", self.image), ("seed", self.seed is not None), ("latent", self.latent))
            if present
        ]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of image, seed and latent is the source, got {' and '.join(given) or 'none'}. Give one."
            )
        if not self.audio and not self.settings.text:
            raise ValueError("neither audio nor text is given. Name a sound file, or a text, or both.")
        return self


@dataclass(frozen=True, slots=True)
class PreparedEdit:
    """An edit with its sources fetched and checked.

    ``sound``: bytes of the sound file, empty without one, and where ``embedding`` ``[E]`` (float32, unit norm) stands
    in its place: what was heard before, at ``level_db``, dB relative to full scale. ``seed``, ``photo``
    (``[H, W, 3]`` uint8 of the size of the generator's pictures) and ``latent`` (``[L, D]`` float32): one is not None.
    Digests are SHA-256 in hex of the source files' bytes, empty where there is no file. ``alignment_note``: why a photo
    is not aligned as the generator's pictures are; empty where it is, or need not be.
    """

    id: str
    settings: EditSettings
    sound: bytes = b""
    sound_sha256: str = ""
    seed: int | None = None
    photo: NDArray[np.uint8] | None = None
    latent: NDArray[np.float32] | None = None
    source_sha256: str = ""
    alignment_note: str = ""
    embedding: NDArray[np.float32] | None = None
    level_db: float = 0.0

    def to_row(self) -> Row:
        """Return the flat columns ``prepared_*``."""
        return {
            "id": self.id,
            "prepared_settings": self.settings.model_dump_json(),
            "prepared_sound": self.sound,
            "prepared_sound_sha256": self.sound_sha256,
            "prepared_seed": -1 if self.seed is None else self.seed,
            "prepared_photo": b"" if self.photo is None else self.photo.tobytes(),
            "prepared_photo_height": 0 if self.photo is None else self.photo.shape[0],
            "prepared_latent": b"" if self.latent is None else self.latent.astype("<f4").tobytes(),
            "prepared_latent_layers": 0 if self.latent is None else self.latent.shape[0],
            "prepared_source_sha256": self.source_sha256,
            "prepared_alignment_note": self.alignment_note,
            "prepared_embedding": b"" if self.embedding is None else self.embedding.astype("<f4").tobytes(),
            "prepared_level_db": self.level_db,
        }

    @classmethod
    def from_row(cls, row: Row) -> PreparedEdit:
        """Return what `to_row` flattened."""
        photo = np.frombuffer(row["prepared_photo"], np.uint8)
        latent = np.frombuffer(row["prepared_latent"], "<f4")
        embedding = np.frombuffer(row["prepared_embedding"], "<f4")
        return cls(
            id=row["id"],
            settings=EditSettings.model_validate_json(row["prepared_settings"]),
            sound=bytes(row["prepared_sound"]),
            sound_sha256=row["prepared_sound_sha256"],
            seed=None if row["prepared_seed"] < 0 else int(row["prepared_seed"]),
            photo=photo.reshape(int(row["prepared_photo_height"]), -1, 3) if len(photo) else None,
            latent=latent.reshape(int(row["prepared_latent_layers"]), -1) if len(latent) else None,
            source_sha256=row["prepared_source_sha256"],
            alignment_note=row["prepared_alignment_note"],
            embedding=embedding if len(embedding) else None,
            level_db=row["prepared_level_db"],
        )


@dataclass(frozen=True, slots=True)
class ManipulatedEdit:
    """What came of one edit: pictures ``[H, W, 3]`` uint8, the code ``ws`` ``[L, D]``, and its measures.

    Similarities are cosines of the picture's embedding and the target's (the sound's; the text's where there is no
    sound): higher is closer. ``latent_distance`` is the root of the squared distance between edited and source code,
    summed over layers, in raw w units. ``gates`` ``[L]`` sum to L. ``steps``: the most of any of its codes where it has
    two. ``threads``: torch threads that computed it, 0 on a GPU. ``inversion_error`` is the mean absolute error, 0..1,
    between a photo and its reconstruction; NaN for other sources. ``alignment_note`` is that of the `PreparedEdit`.
    ``identity_similarity`` is the cosine of the faces in source and edit; NaN where there is no identity encoder, or no
    face, as ``identity_note`` says then. ``level_db``: loudness of the sound, dB relative to full scale; NaN without
    one. ``labels`` are (label, probability), best first, of the sound; empty without one.
    """

    id: str
    image: NDArray[np.uint8]
    source: NDArray[np.uint8]
    ws: NDArray[np.float32]
    similarity_before: float
    similarity_after: float
    latent_distance: float
    gates: tuple[float, ...]
    steps: int
    seconds: float
    threads: int = 0
    inversion_error: float = float("nan")
    alignment_note: str = ""
    identity_similarity: float = float("nan")
    identity_note: str = ""
    level_db: float = float("nan")
    labels: tuple[tuple[str, float], ...] = ()

    def to_row(self) -> Row:
        """Return the flat columns ``edited_*`` and the measures under their own names."""
        return {
            "id": self.id,
            "edited_image": self.image.tobytes(),
            "edited_source": self.source.tobytes(),
            "edited_height": self.image.shape[0],
            "edited_ws": self.ws.astype("<f4").tobytes(),
            "edited_layers": self.ws.shape[0],
            "similarity_before": self.similarity_before,
            "similarity_after": self.similarity_after,
            "latent_distance": self.latent_distance,
            "gates": list(self.gates),
            "steps": self.steps,
            "seconds": self.seconds,
            "threads": self.threads,
            "inversion_error": self.inversion_error,
            "alignment_note": self.alignment_note,
            "identity_similarity": self.identity_similarity,
            "identity_note": self.identity_note,
            "level_db": self.level_db,
            "label_names": [label for label, _ in self.labels],
            "label_probabilities": [probability for _, probability in self.labels],
        }

    @classmethod
    def from_row(cls, row: Row) -> ManipulatedEdit:
        """Return what `to_row` flattened."""
        image = np.frombuffer(row["edited_image"], np.uint8)
        height = int(row["edited_height"])
        probabilities = (float(p) for p in row["label_probabilities"])
        return cls(
            id=row["id"],
            image=image.reshape(height, -1, 3),
            source=np.frombuffer(row["edited_source"], np.uint8).reshape(height, -1, 3),
            ws=np.frombuffer(row["edited_ws"], "<f4").reshape(int(row["edited_layers"]), -1),
            similarity_before=float(row["similarity_before"]),
            similarity_after=float(row["similarity_after"]),
            latent_distance=float(row["latent_distance"]),
            gates=tuple(float(gate) for gate in row["gates"]),
            steps=int(row["steps"]),
            seconds=float(row["seconds"]),
            threads=int(row["threads"]),
            inversion_error=float(row["inversion_error"]),
            alignment_note=row["alignment_note"],
            identity_similarity=float(row["identity_similarity"]),
            identity_note=row["identity_note"],
            level_db=float(row["level_db"]),
            labels=tuple(zip(row["label_names"], probabilities, strict=True)),
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """News of a running edit: where it is, its loss and terms, now and then a preview ``[H, W, 3]``.

    ``margin``: the similarity that it is to gain, of which the term ``guidance`` is what is still missing (Eq. 15).
    """

    id: str
    phase: Literal["invert", "edit"]
    step: int
    num_steps: int
    loss: float
    terms: dict[str, float] = field(default_factory=dict)
    preview: NDArray[np.uint8] | None = None
    margin: float = 1.0


Status = Literal["ok", "error", "quarantined"]
STATUSES: tuple[Status, ...] = ("ok", "error", "quarantined")
"""Every row of a manifest ends with one of them."""

Measure = Annotated[float, BeforeValidator(lambda value: float("nan") if value is None else value)]
"""A number that may be missing: NaN here, null in JSON."""


class EditResult(Frozen):
    """The output row, and the service's answer: one per request, whatever became of it.

    ``error`` is ``""`` when all went well. URIs are relative to the output folder where the result lies in one.
    Measures are as in `ManipulatedEdit`, NaN (null in JSON) where there is none.
    """

    model_config = {**Frozen.model_config, "allow_inf_nan": True, "ser_json_inf_nan": "null"}

    id: str
    status: Status
    error: str = ""
    error_kind: str = ""
    audio: str = ""
    image: str = ""
    seed: int | None = None
    latent: str = ""
    settings: EditSettings | None = None
    edited_image: Annotated[str, Field(description="The edit, PNG.")] = ""
    source_image: Annotated[str, Field(description="The source as the generator draws it, PNG.")] = ""
    edited_latent: Annotated[str, Field(description="The edit's W+ code, safetensors; can be a source in turn.")] = ""
    similarity_before: Measure = float("nan")
    similarity_after: Measure = float("nan")
    latent_distance: Measure = float("nan")
    gates: tuple[float, ...] = ()
    steps: int = 0
    seconds: float = 0.0
    threads: Annotated[
        int,
        BeforeValidator(lambda value: value or 0),
        Field(description="Torch threads that computed it; 0: on a GPU."),
    ] = 0
    inversion_error: Measure = float("nan")
    alignment_note: Annotated[
        str,
        Field(description="Why a photo was not aligned as the generator's pictures are; empty: it was, or need not."),
    ] = ""
    identity_similarity: Annotated[
        Measure, Field(description="Cosine of the faces in source and edit; null without an identity encoder.")
    ] = float("nan")
    identity_note: Annotated[
        str, Field(description="Why the identity was neither kept nor measured; empty: it was.")
    ] = ""
    level_db: Annotated[Measure, Field(description="Of the sound, dB relative to full scale.")] = float("nan")
    label_names: tuple[str, ...] = ()
    label_probabilities: tuple[float, ...] = ()
    sound_sha256: str = ""
    source_sha256: str = ""
    models: Annotated[dict[str, str], Field(description="SHA-256 of each model's weights, by role.")] = {}
    version: Annotated[str, Field(description="Of this package.")] = ""
