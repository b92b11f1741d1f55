"""What a generator draws, beside its numbers: which part of its square is picture, and how its faces lie."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from soundguide.errors import InvalidCheckpoint
from soundguide.models.manifest import CONFIG_FILE
from soundguide.validation import describe

Crop = tuple[int, int, int, int]
"""Top, bottom, left and right in pixels; bottom and right are the first outside."""

_Edge = Annotated[int, Field(ge=0)]


class Domain(BaseModel):
    """The domain of a generator; travels with its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(max_length=100, description="What it draws, such as 'faces'; empty: not said.")] = ""
    alignment: Annotated[
        Literal["none", "ffhq"], Field(description="How pictures must lie: 'ffhq', with the eyes and mouth in place.")
    ] = "none"
    crop: Annotated[
        tuple[_Edge, _Edge, _Edge, _Edge] | None,
        Field(
            description="Top, bottom, left and right of the part that is picture, pixels; the rest of the square is "
            "padding. None: all of it."
        ),
    ] = None

    @model_validator(mode="after")
    def _check_crop(self) -> Self:
        if self.crop is not None:
            top, bottom, left, right = self.crop
            if top >= bottom or left >= right:
                raise ValueError(f"crop must be top < bottom and left < right, got {self.crop}. Swap them.")
        return self

    def visible(self, resolution: int) -> Crop:
        """Return the part that is picture of a square of ``resolution`` pixels.

        Raises `InvalidCheckpoint` where the crop lies outside of it.
        """
        if self.crop is None:
            return (0, resolution, 0, resolution)
        if max(self.crop) > resolution:
            raise InvalidCheckpoint(
                f"the generator's domain has the crop {self.crop} (top, bottom, left, right), but its pictures have "
                f"{resolution} x {resolution} pixels. Correct the crop in {CONFIG_FILE}, or remove it."
            )
        return self.crop


def read_domain(manifest: dict[str, Any], folder: Path) -> Domain:
    """Return the domain in what `read_config` read from ``folder``; a plain `Domain` where none is given.

    Raises `InvalidCheckpoint`.
    """
    try:
        return Domain.model_validate(manifest.get("domain", {}))
    except ValidationError as error:
        raise InvalidCheckpoint(describe(error, f"{folder / CONFIG_FILE}: domain")) from error
