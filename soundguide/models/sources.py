"""Where other projects' models are published: the table behind `soundguide models pull` and what presets need."""

import json
from functools import cache
from importlib.resources import files
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from soundguide.models.import_options import ImportOptions
from soundguide.models.manifest import Role


class Source(BaseModel):
    """One published file and the model that `soundguide models import` makes of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Annotated[Role, Field(description="What the model is.")]
    file: Annotated[str, Field(description="Name of the file.")]
    page: Annotated[str, Field(description="Where a person finds it.")]
    publisher: Annotated[str, Field(description="Who published it.")]
    licence: Annotated[str, Field(description="Terms of the weights, as their publisher states them.")]
    url: Annotated[str, Field(description="Direct address; empty where there is none.")] = ""
    repo: Annotated[str, Field(description="Repository of the Hugging Face hub that holds the file.")] = ""
    member: Annotated[str, Field(description="The model's file inside of a zip.")] = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$", description="Of the file; empty: not known.")] = ""
    options: Annotated[ImportOptions, Field(description="What `models import` is told beside it.")] = ImportOptions()
    part_of: Annotated[str, Field(description="The model with which it is imported, out of one file.")] = ""
    verified: Annotated[bool, Field(description="Whether the address was tried when the table was written.")] = False

    @model_validator(mode="after")
    def _check_places(self) -> Self:
        if self.url and self.repo:
            raise ValueError("give url or repo, not both.")
        return self

    @property
    def has_address(self) -> bool:
        """Whether `soundguide models pull` can fetch it."""
        return bool(self.url or self.repo)


@cache
def known_sources() -> dict[str, Source]:
    """Return what is known of published models, by the names that presets give them."""
    table = json.loads((files("soundguide.models") / "sources.json").read_text("utf-8"))
    return {name: Source.model_validate(fields) for name, fields in table.items()}


def import_command(name: str, source: Source) -> str:
    """Return the command line that imports the file of ``source`` as ``name``."""
    file = source.member or source.file
    return " ".join(["soundguide models import", file, "-o", source.part_of or name, *source.options.flags])


def how_to_get(name: str) -> str:
    """Return the command that gets a model of this name, with what has to be fetched for it and under which terms."""
    source = known_sources().get(name)
    if source is None:
        return f"soundguide models import FILE -o {name}"
    terms = f"{source.publisher}; {source.licence}; {source.page}"
    if source.has_address:
        return f"soundguide models pull {source.part_of or name} ({source.file}: {terms})"
    return f"fetch {source.file} ({terms}), then: {import_command(name, source)}"
