"""What the service's operator sets: models, processes, limits. `serve/config.yaml` and `make serve` give these."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from serve.live_edits import LiveLimits
from soundguide.config import EditSettings, Frozen, ManipulatorConfig
from soundguide.stages import SourceLimits


class ReplicaSettings(Frozen):
    """How many processes serve, and what each asks for."""

    num_ingress: Annotated[int, Field(ge=1, le=100, description="Processes that check and decode uploads.")] = 1
    min_manipulators: Annotated[int, Field(ge=1, le=1000, description="Processes that edit, at least.")] = 1
    max_manipulators: Annotated[int, Field(ge=1, le=1000, description="Processes that edit, at most.")] = 1
    idle_seconds: Annotated[
        float, Field(gt=0, description="After so long without work for it, a process more than the least goes.")
    ] = 600.0
    cpus: Annotated[float, Field(gt=0, le=1024, description="CPUs that each process that edits asks for.")] = 1.0
    gpus: Annotated[float, Field(ge=0, le=64, description="GPUs that each process that edits asks for.")] = 0.0


class ServiceLimits(Frozen):
    """What one client, and all of them together, may ask for."""

    max_body_mib: Annotated[int, Field(ge=1, le=4096, description="Size of a whole request, MiB.")] = 64
    upload_seconds: Annotated[float, Field(gt=0, description="A request must have arrived within so long.")] = 120.0
    max_edits: Annotated[int, Field(ge=1, le=100_000, description="Edits that run and wait; more get a 429.")] = 32
    max_steps: Annotated[int, Field(ge=1, le=10_000, description="Steps of one edit, and of an inversion.")] = 1000
    deadline_seconds: Annotated[float, Field(gt=0, description="Deadline where the client names none.")] = 300.0
    max_deadline_seconds: Annotated[float, Field(gt=0, description="Longest deadline that a client may ask for.")] = (
        1800.0
    )
    stay_seconds: Annotated[
        float, Field(ge=0, description="An edit whose event stream broke goes on for so long, to be re-attached.")
    ] = 15.0
    keep_seconds: Annotated[float, Field(gt=0, description="A finished edit can be asked for so long.")] = 300.0
    preview_every: Annotated[int, Field(ge=1, le=1000, description="Steps between previews in an event stream.")] = 4
    sources: Annotated[SourceLimits, Field(description="What one sound and one picture may cost.")] = SourceLimits(
        max_sound_mib=32, max_sound_seconds=900.0, max_image_mib=32, max_image_pixels=40_000_000
    )

    @property
    def live(self) -> LiveLimits:
        """The limits as the board of edits takes them."""
        return LiveLimits(max_edits=self.max_edits, keep_seconds=self.keep_seconds)


class ServeSettings(Frozen):
    """The arguments of `serve.app:build`."""

    presets: Annotated[
        tuple[str, ...],
        Field(
            description="Presets to serve, names or YAML files, each by processes of its own; a request chooses one, "
            "the first by default. None: the models below."
        ),
    ] = ()
    manipulator: Annotated[ManipulatorConfig, Field(description="Models, device and slots; wins over presets.")] = (
        ManipulatorConfig()
    )
    edit: Annotated[EditSettings, Field(description="Settings of edits, over presets; requests override them.")] = (
        EditSettings()
    )
    replicas: Annotated[ReplicaSettings, Field(description="Processes.")] = ReplicaSettings()
    limits: Annotated[ServiceLimits, Field(description="Limits.")] = ServiceLimits()
    token: Annotated[
        str,
        Field(
            max_length=4096,
            description="Secret that clients must send (Authorization: Bearer); empty: the variable SOUNDGUIDE_TOKEN "
            "of the process that deploys, which no list of processes shows, or none.",
        ),
    ] = ""
    cors_origins: Annotated[
        tuple[str, ...], Field(description="Origins of other sites' pages that may call the API; none by default.")
    ] = ()
