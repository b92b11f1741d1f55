"""CLIP (Radford et al. 2021) through open_clip's own classes, as an `ImageTextEncoder`."""

from copy import deepcopy
from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator
from torch import Tensor, nn

from soundguide.errors import InvalidConfig
from soundguide.views import area_resize

# Per channel of sRGB in [0, 1], as in the `Normalize` of OpenAI's clip/clip.py
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_Channels = tuple[float, float, float]


class OpenClipConfig(BaseModel):
    """One image and text encoder; travels with its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    kind: Literal["open_clip"] = "open_clip"
    architecture: Annotated[str, Field(description="Name of an open_clip model, such as 'ViT-B-32'.")] = ""
    model_config_json: Annotated[
        dict[str, Any],
        Field(description="An architecture of one's own, as in open_clip's files: embed_dim, vision_cfg, text_cfg."),
    ] = {}
    context_length: Annotated[
        NonNegativeInt,
        Field(description="Tokens of a text, with its two ends; 0: as the architecture says."),
    ] = 0
    mean: Annotated[_Channels, Field(description="Mean of each channel of sRGB in [0, 1].")] = CLIP_MEAN
    std: Annotated[_Channels, Field(description="Standard deviation of each channel of sRGB in [0, 1].")] = CLIP_STD
    quick_gelu: Annotated[
        bool,
        Field(description="x * sigmoid(1.702 x) for GELU; OpenAI's own weights need it, most others must not."),
    ] = False

    @model_validator(mode="after")
    def _check_one_architecture(self) -> Self:
        if bool(self.architecture) == bool(self.model_config_json):
            raise ValueError(
                "give either architecture or model_config_json, "
                f"got {'both' if self.architecture else 'neither'}. Name an open_clip model, or describe one."
            )
        missing = {"embed_dim", "vision_cfg", "text_cfg"} - self.model_config_json.keys()
        if self.model_config_json and missing:
            raise ValueError(f"model_config_json lacks {sorted(missing)}. Write it as open_clip's model files are.")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}. Leave it out for CLIP's own.")
        return self


class OpenClipEncoder(nn.Module):
    """A CLIP with both towers; meets `soundguide.models.protocols.ImageTextEncoder`.

    ``seed`` draws the initial weights; a checkpoint replaces them. Rows are independent of each other in ``eval()``
    (towers with batch normalisation mix them while they train).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: OpenClipConfig, *, seed: int = 0) -> None:
        super().__init__()
        try:
            from open_clip.model import CLIP, CustomTextCLIP
            from open_clip.tokenizer import SimpleTokenizer
        except ImportError as error:
            raise ImportError(
                "CLIP needs the package open_clip_torch. Install it: pip install open_clip_torch"
            ) from error
        architecture = _describe(config)
        towers = CustomTextCLIP if architecture.pop("custom_text", False) else CLIP
        with torch.random.fork_rng(devices=[]):  # open_clip draws from the global generator: leave that as it was
            torch.manual_seed(seed)
            try:
                self.clip = towers(**architecture)
            except TypeError as error:  # a key that its classes do not know
                raise InvalidConfig(
                    f"open_clip cannot build this model_config_json: {error}. Write it as open_clip's model files are."
                ) from error
        self.config = config
        self.embed_dim = int(architecture["embed_dim"])
        self.resolution = _square(architecture["vision_cfg"]["image_size"])
        self.context_length = int(self.clip.context_length)
        self._tokenize = SimpleTokenizer(context_length=self.context_length)
        self.register_buffer("mean", torch.tensor(config.mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).reshape(3, 1, 1), persistent=False)

    @property
    def logit_scale(self) -> nn.Parameter:
        """The logarithm of the scale at which CLIP compares its embeddings, a scalar."""
        scale = self.clip.logit_scale
        assert isinstance(scale, nn.Parameter)
        return scale

    def encode_image(self, images: Tensor) -> Tensor:
        """Embed ``images`` ``[B, 3, H, W]``, sRGB in [-1, 1], as ``[B, E]`` of unit norm, in float32 at least.

        Any size is resampled by exact area to `resolution`, the whole picture, stretched if it is not square.
        """
        images = (area_resize(images, self.resolution) + 1) / 2
        return _unit(self.clip.encode_image((images - self.mean) / self.std))

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embed B texts as ``[B, E]`` of unit norm; what exceeds the context length is cut off."""
        return self.encode_tokens(self.tokenize(texts))

    def tokenize(self, texts: list[str]) -> Tensor:
        """Return the tokens of B texts, ``[B, context_length]``, int64, on the device of the weights."""
        tokens: Tensor = self._tokenize(texts)
        return tokens.to(self.logit_scale.device)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Embed what `tokenize` returned as ``[B, E]``, for training loops that tokenise ahead."""
        return _unit(self.clip.encode_text(tokens))


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def _describe(config: OpenClipConfig) -> dict[str, Any]:
    """Return the architecture as arguments of open_clip's classes; raise `InvalidConfig` if it cannot be had."""
    import open_clip

    if config.architecture and config.architecture not in open_clip.list_models():
        raise InvalidConfig(
            f"open_clip has no architecture {config.architecture!r}. Take a name of open_clip.list_models(), "
            "such as 'ViT-B-32' or 'RN50'."
        )
    known = open_clip.get_model_config(config.architecture) if config.architecture else config.model_config_json
    architecture: dict[str, Any] = deepcopy(known)
    text, vision = architecture["text_cfg"], architecture["vision_cfg"]
    if "multimodal_cfg" in architecture or text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        raise InvalidConfig(
            f"the text tower of {config.architecture or 'model_config_json'} needs a tokenizer from the network. "
            "Take an architecture with CLIP's own tokenizer, such as 'ViT-B-32' or 'RN50'."
        )
    vision.setdefault("image_size", 224)  # open_clip's own default
    if vision.get("timm_model_name"):
        vision["timm_model_pretrained"] = False  # weights come from the checkpoint, never from the network
    if config.context_length:
        text["context_length"] = config.context_length
    architecture["quick_gelu"] = config.quick_gelu or bool(architecture.get("quick_gelu", False))
    return architecture


def _square(image_size: int | list[int] | tuple[int, int]) -> int:
    sides = {image_size} if isinstance(image_size, int) else set(image_size)
    if len(sides) != 1:
        raise InvalidConfig(f"image_size must be square, got {image_size}. Take an architecture of square pictures.")
    return int(sides.pop())
