"""CLIP through open_clip: what reaches the towers, which architectures can be had, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from soundguide.errors import InvalidConfig
from soundguide.models.image_text import OpenClipConfig, OpenClipEncoder

ARCHITECTURE = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def encoder(**changes: object) -> OpenClipEncoder:
    return OpenClipEncoder(OpenClipConfig.model_validate({"model_config_json": ARCHITECTURE} | changes)).eval()


def random_images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(2)) * 2 - 1


def test_towers_see_pictures_pooled_and_normalised_as_clip_was_trained() -> None:
    clip = encoder()
    images = random_images(2, 3, 96, 96)
    pixels = F.avg_pool2d((images + 1) / 2, 3)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's clip.py
    inputs = torch.stack([(pixels[:, i] - mean[i]) / std[i] for i in range(3)], 1)
    features = clip.clip.visual(inputs)
    expected = features / features.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(clip.encode_image(images), expected)


def test_mean_and_std_of_the_config_are_used() -> None:
    images = random_images(1, 3, 32, 32)
    plain = encoder(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    expected = F.normalize(plain.clip.visual((images + 1) / 2), dim=1)
    torch.testing.assert_close(plain.encode_image(images), expected)


def test_texts_are_read_by_the_whole_text_tower() -> None:
    clip = encoder()
    before = clip.encode_text(["rain on a roof"])
    for name in ("token_embedding.weight", "transformer.resblocks.0.mlp.c_fc.weight", "text_projection"):
        weight = dict(clip.clip.named_parameters())[name]
        with torch.no_grad():
            weight[::2] *= -1
        after = clip.encode_text(["rain on a roof"])
        assert (after - before).abs().max() > 1e-5, name
        before = after


def test_tokens_made_ahead_give_the_same_embeddings() -> None:
    clip = encoder()
    texts = ["rain on a roof", "a dog"]
    tokens = clip.tokenize(texts)
    assert tokens.shape == (2, 16) and tokens.dtype == torch.int64
    assert torch.equal(clip.encode_tokens(tokens), clip.encode_text(texts))


def test_text_beyond_the_context_is_cut_off() -> None:
    clip = encoder(context_length=6)
    assert clip.context_length == 6
    texts = ["one two three four five six seven", "one two three four nine ten"]
    embeddings = clip.encode_text(texts)
    assert torch.equal(embeddings[0], embeddings[1])  # four words stand between the two ends


def test_logit_scale_is_the_models_own_logarithm() -> None:
    clip = encoder()
    assert clip.logit_scale is clip.clip.logit_scale
    assert clip.logit_scale.exp().item() == pytest.approx(1 / 0.07)


def test_quick_gelu_changes_the_network() -> None:
    images = random_images(1, 3, 32, 32)
    assert (encoder().encode_image(images) - encoder(quick_gelu=True).encode_image(images)).abs().max() > 1e-5


def test_quick_gelu_of_the_architecture_itself_is_kept() -> None:
    images = random_images(1, 3, 32, 32)
    own = encoder(model_config_json=ARCHITECTURE | {"quick_gelu": True})
    assert torch.equal(own.encode_image(images), encoder(quick_gelu=True).encode_image(images))


def test_seed_draws_the_weights() -> None:
    config = OpenClipConfig(model_config_json=ARCHITECTURE)
    images = random_images(1, 3, 32, 32)
    first, second = (OpenClipEncoder(config, seed=seed).eval().encode_image(images) for seed in (0, 1))
    assert (first - second).abs().max() > 1e-3


def test_bfloat16_autocast_stays_near_float32() -> None:
    clip = encoder()
    images = random_images(2, 3, 40, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = clip.encode_image(images)
    assert embeddings.dtype == torch.float32
    assert (embeddings * clip.encode_image(images)).sum(1).min() > 0.999


def test_half_precision_images_are_read_and_float64_networks_stay_precise() -> None:
    images = random_images(2, 3, 32, 32)
    expected = encoder().encode_image(images)
    assert (encoder().encode_image(images.bfloat16()) * expected).sum(1).min() > 0.999
    precise = encoder().double().encode_image(images.double())
    assert precise.dtype == torch.float64
    torch.testing.assert_close(precise.float(), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "embed_dim"), [("ViT-B-32", 512), ("RN50", 1024)])
def test_named_architectures_are_built_with_clips_sizes(name: str, embed_dim: int) -> None:
    clip = OpenClipEncoder(OpenClipConfig(architecture=name)).eval()
    assert (clip.embed_dim, clip.resolution, clip.context_length) == (embed_dim, 224, 77)
    with torch.no_grad():
        assert clip.encode_image(random_images(1, 3, 64, 64)).shape == (1, embed_dim)
        assert clip.encode_text(["rain"]).shape == (1, embed_dim)


@pytest.mark.parametrize("name", ["ViT-B-33", "hf-hub:someone/something", "local-dir:/tmp"])
def test_unknown_architecture_names_the_remedy(name: str) -> None:
    with pytest.raises(InvalidConfig, match=r"no architecture.*list_models"):
        OpenClipEncoder(OpenClipConfig(architecture=name))


def test_architecture_that_needs_a_foreign_tokenizer_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="tokenizer"):
        OpenClipEncoder(OpenClipConfig(architecture="ViT-B-16-SigLIP"))


def test_oblong_pictures_are_refused() -> None:
    vision = ARCHITECTURE["vision_cfg"]
    assert isinstance(vision, dict)
    with pytest.raises(InvalidConfig, match=r"square.*\[32, 48\]"):
        encoder(model_config_json=ARCHITECTURE | {"vision_cfg": vision | {"image_size": [32, 48]}})


def test_architecture_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="widht"):
        encoder(model_config_json=ARCHITECTURE | {"text_cfg": {"widht": 3}})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "neither"),
        ({"architecture": "RN50", "model_config_json": ARCHITECTURE}, "both"),
        ({"model_config_json": {"embed_dim": 3}}, r"lacks \['text_cfg', 'vision_cfg'\]"),
        ({"architecture": "RN50", "std": (1.0, 0.0, 1.0)}, "std must be positive"),
    ],
)
def test_config_that_describes_no_single_network_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OpenClipConfig.model_validate(fields)
