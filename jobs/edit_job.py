"""What the jobs that edit share: models, settings of edits and actors, and where they find them."""

from typing import Annotated, Self

from pydantic import Field

from data_pipeline import PoolConfig
from job_config import RowJobConfig, is_submitted, place_output
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.errors import InvalidConfig
from soundguide.model_facts import ModelFacts, absolute_models
from soundguide.preset import apply_preset, load_preset

MAX_ROWS_PER_BLOCK = 64  # a block is what a crash can lose
CALLS_PER_ACTOR = 4  # blocks that one actor works on at once: slots stay full where one ends and the next begins


class EditJobConfig(RowJobConfig):
    output: Annotated[str, Field(description="Folder for results, pictures, run.json and index.html.")]
    preset: Annotated[
        str, Field(description="Models and settings of one domain: a preset's name, or a YAML file; all else wins.")
    ] = ""
    edit: Annotated[EditSettings, Field(description="Settings of all edits; columns of a manifest win.")] = (
        EditSettings()
    )
    manipulator: Annotated[ManipulatorConfig, Field(description="The models, and how they run.")] = ManipulatorConfig()
    pool: Annotated[PoolConfig, Field(description="The actors that edit.")] = PoolConfig()

    def placed(self) -> Self:
        """Return the config with what its preset sets, and with absolute folders, for actors may work in another.

        A submitted job must name them so.
        """
        edit, manipulator = self.edit, self.manipulator
        if self.preset:
            edit, manipulator = apply_preset(load_preset(self.preset), edit, manipulator)
        manipulator = manipulator if is_submitted() else absolute_models(manipulator)
        return self.model_copy(update={"output": place_output(self.output), "edit": edit, "manipulator": manipulator})

    def require_identity(self, facts: ModelFacts) -> None:
        """Raise InvalidConfig where all edits are to keep a face, and nothing tells faces apart."""
        if self.edit.lambda_id > 0 and "identity" not in dict(facts.digests):
            raise InvalidConfig(
                f"edit.lambda_id is {self.edit.lambda_id:g}, but no identity encoder is configured: no row could be "
                "edited. Set manipulator.identity, or leave edit.lambda_id at 0"
            )
