"""How a film follows its song."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from soundguide.config import Frozen


class FilmLook(Frozen):
    """What decides a film's frames beside its key codes."""

    fps: Annotated[int, Field(ge=1, le=60, description="Frames a second.")] = 24
    react: Annotated[
        float,
        Field(
            ge=0,
            le=2,
            description="How far loudness, onsets and beat move the strength of the change; 0: not at all.",
        ),
    ] = 1.0
    semantic: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of what the sound means in the change; 0: only a random walk as large as the sound is "
            "loud, as audio-reactive films are made.",
        ),
    ] = 1.0
    size: Annotated[
        int,
        Field(
            ge=16,
            le=4096,
            description="Shorter side of the film, pixels, at least: smaller pictures are enlarged by a whole number.",
        ),
    ] = 256

    @model_validator(mode="after")
    def _check_movement(self) -> Self:
        if self.react == 0 and self.semantic == 0:
            raise ValueError("react and semantic are both 0, so that nothing would move. Raise one of them.")
        return self


class FilmSettings(FilmLook):
    """What a film is beside its key codes' own `EditSettings`."""

    segment_seconds: Annotated[
        float,
        Field(ge=1, le=120, description="Seconds of the song that each key code hears; the paper's are 10."),
    ] = 10.0
