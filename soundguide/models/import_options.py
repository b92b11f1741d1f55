"""What `soundguide models import` is told beside a file, because the file does not tell it itself."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from soundguide.errors import InvalidConfig
from soundguide.validation import describe


class ImportOptions(BaseModel):
    """What a file is, and what a generator draws."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Annotated[str, Field(description="What the file is; empty: as it is recognised.")] = ""
    architecture: Annotated[str, Field(description="Of a CLIP: the name that open_clip gives it.")] = ""
    crop: Annotated[
        tuple[int, int, int, int] | None,
        Field(description="Of a generator: top, bottom, left and right of what is picture, pixels; none: all of it."),
    ] = None
    alignment: Annotated[
        Literal["", "none", "ffhq"], Field(description="Of a generator: how photos must lie; empty: not said.")
    ] = ""

    detector: Annotated[
        str, Field(description="Of a face encoder: the file of the detector that finds faces for it; empty for none.")
    ] = ""

    @model_validator(mode="after")
    def _check_crop(self) -> Self:
        if self.crop is not None:
            top, bottom, left, right = self.crop
            if not (0 <= top < bottom and 0 <= left < right):
                raise ValueError(f"crop must be top < bottom and left < right, from 0 on, got {self.crop}")
        return self

    @property
    def flags(self) -> list[str]:
        """The options as words of a command line; of files their names alone."""
        crop = "" if self.crop is None else ",".join(map(str, self.crop))
        given = {"kind": self.kind, "architecture": self.architecture, "crop": crop, "alignment": self.alignment}
        given["detector"] = Path(self.detector).name
        return [f"--{name} {value}" for name, value in given.items() if value]

    @property
    def domain(self) -> dict[str, Any]:
        """What is said of a generator's pictures, as its config holds it."""
        said: dict[str, Any] = {"alignment": self.alignment} if self.alignment else {}
        return said if self.crop is None else said | {"crop": list(self.crop)}


def read_options(*, kind: str, architecture: str, crop: str, alignment: str, detector: str) -> ImportOptions:
    """Return the options as they are typed, the crop like ``'64,448,0,512'``. Raises `InvalidConfig`."""
    given = {"kind": kind, "architecture": architecture, "alignment": alignment, "detector": detector}
    try:
        return ImportOptions.model_validate({**given, "crop": crop.split(",") if crop else None})
    except ValidationError as error:
        raise InvalidConfig(describe(error, "models import", of=ImportOptions)) from error
