"""How the sound encoder is pretrained; the defaults are the figures of Sec. 4.1. No torch here."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from soundguide.config import Frozen


class LossSettings(Frozen):
    """The four terms of Eq. 13."""

    text: Annotated[float, Field(ge=0, description="Weight of sound against text (Eq. 5).")] = 1.0
    image: Annotated[float, Field(ge=0, description="Weight of sound against its own frame (Eq. 6).")] = 1.0
    self_supervised: Annotated[
        float, Field(ge=0, description="Weight of sound against its augmented self (Eq. 8).")
    ] = 1.0
    weak_pairs: Annotated[
        float, Field(ge=0, description="Weight of sound against frames of other clips of its label (Eq. 12).")
    ] = 1.0
    mask_same_labels: Annotated[
        bool, Field(description="Clips that share a label are no negatives of each other in the text term.")
    ] = True
    kl_form: Annotated[
        Literal["full", "diagonal"], Field(description="'full': whole rows (Fig. 7); 'diagonal': Eq. 11 to the letter.")
    ] = "full"

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if not any(self.weights().values()):
            raise ValueError("all weights of the loss are 0: nothing would be learnt. Raise one.")
        return self

    def weights(self) -> dict[str, float]:
        """Return the weight of each term by name."""
        return {
            "text": self.text,
            "image": self.image,
            "self_supervised": self.self_supervised,
            "weak_pairs": self.weak_pairs,
        }


class AugmentSettings(Frozen):
    """What is done to sounds and texts while they train (Sec. 3.1.1, 3.1.2)."""

    frequency_ratio: Annotated[float, Field(ge=0, le=1, description="Largest share of mels masked in one view.")] = 0.15
    time_ratio: Annotated[float, Field(ge=0, le=1, description="Largest share of frames masked in one view.")] = 0.3
    text_share: Annotated[float, Field(ge=0, le=1, description="Share of clips that get an augmented text.")] = 0.5
    surroundings: Annotated[
        bool, Field(description="Also put sounds into other rooms, microphones and backgrounds; not in the paper.")
    ] = False


class OptimizerSettings(Frozen):
    """Adam and its rate."""

    learning_rate: Annotated[float, Field(gt=0, le=10, description="Highest step of Adam.")] = 1e-3
    beta1: Annotated[float, Field(ge=0, lt=1, description="Decay of the mean of the gradients.")] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1, description="Decay of the mean of their squares.")] = 0.999
    weight_decay: Annotated[float, Field(ge=0, description="Weight decay, decoupled from the gradient.")] = 1e-4
    num_cycles: Annotated[
        int, Field(ge=1, le=1000, description="Times that the rate falls from its height to 0, as a cosine.")
    ] = 5
    warmup_steps: Annotated[int, Field(ge=0, description="Steps in which the rate rises, at the very beginning.")] = 100
    max_gradient_norm: Annotated[float, Field(gt=0, description="Longer gradients are cut to this length.")] = 1.0
    matrix_rate: Annotated[
        float, Field(ge=0, le=10, description="Highest step of Muon for the inner matrices; 0: Adam learns them too.")
    ] = 0.0


class PretrainingSettings(Frozen):
    """All that decides what a pretraining makes of the clips it is given."""

    loss: Annotated[LossSettings, Field(description="The four terms of the loss.")] = LossSettings()
    augment: Annotated[AugmentSettings, Field(description="Augmentation of sounds and texts.")] = AugmentSettings()
    optimizer: Annotated[OptimizerSettings, Field(description="Optimiser and learning rate.")] = OptimizerSettings()
    num_epochs: Annotated[
        int,
        Field(ge=1, le=100_000, description="Passes over the clips; a rest that fills no batch waits for the next."),
    ] = 50
    batch_size: Annotated[
        int, Field(ge=2, le=65_536, description="Clips in a step, over all workers: each is the others' negative.")
    ] = 384
    shuffle_clips: Annotated[
        int, Field(ge=0, description="Clips among which a worker shuffles, beside the order of the shards; 0: none.")
    ] = 1536
    average_steps: Annotated[
        int, Field(ge=0, description="Steps over which the weights that are kept are averaged; 0: the last ones.")
    ] = 0
    seed: Annotated[int, Field(ge=0, lt=2**31, description="Seed of weights, order, crops and augmentation.")] = 0
