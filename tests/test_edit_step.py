"""The two sides of benchmarks/edit_step.py: they must compute the same, or their times say nothing."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from soundguide.models.image_text import OpenClipConfig
from soundguide.models.lee_audio import LeeAudioConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from peer_loop import PeerLoop  # noqa: E402
from step_sides import Plan, Side, World, make_step, our_optimizer, settings  # noqa: E402

PLAN = Plan(resolution=32, channel_base=512, device="cpu", threads=1)  # 16 channels at 32 pixels


@pytest.fixture
def world() -> World:
    vision = {"image_size": 224, "patch_size": 32, "width": 32, "layers": 2, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    half = (0.5, 0.5, 0.5)
    image_text = OpenClipConfig(
        model_config_json={"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}, mean=half, std=half
    )
    made = World(PLAN, image_text, LeeAudioConfig(embed_dim=16, channels=(4, 4, 8, 8)))
    random = torch.Generator().manual_seed(6)
    for name, value in made.generator.named_parameters():
        if name.endswith(("bias", "noise_strength")):  # which are 0 or 1 in a new network
            value.data += 0.3 * torch.randn(value.shape, generator=random)
    return made


def peers(world: World, *, depthwise: bool = False) -> PeerLoop:
    reg = settings(10, 1).lambda_reg
    start = world.codes[:1]
    return PeerLoop(
        world.generator,
        world.image_text,
        world.audio,
        ws=start,
        log_mel=world.log_mel,
        learning_rate=0.1,
        lambda_reg=reg,
        depthwise=depthwise,
    )


def moved(world: World) -> Tensor:
    """Return a code beside the source, so that the distance to it counts."""
    noise = torch.randn(world.codes[:1].shape, generator=torch.Generator().manual_seed(7))
    return world.codes[:1] + 0.3 * noise


def test_loss_and_gradient_of_both_sides_agree(world: World) -> None:
    ours, ws = our_optimizer(world, Side("ours"), 10), moved(world).requires_grad_()
    loss, _ = ours.objective(ws, torch.zeros(1, world.generator.num_ws), torch.tensor([0]))
    (gradient,) = torch.autograd.grad(loss.sum(), ws)
    loop = peers(world)
    loop.ws.data.copy_(moved(world))
    expected = loop.loss()
    expected.backward()
    assert loop.ws.grad is not None
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert (gradient - loop.ws.grad).norm() < 1e-4 * gradient.norm()
    regulariser = 2 * settings(10, 1).lambda_reg * (moved(world) - world.codes[:1])
    assert (gradient - regulariser).norm() > 1e-3 * gradient.norm()  # the sound has its share in what agrees


@pytest.mark.parametrize("depthwise", [False, True])
def test_peers_draw_the_same_picture(world: World, depthwise: bool) -> None:
    ws = moved(world)
    with torch.no_grad():
        images, expected = peers(world, depthwise=depthwise).generator(ws), world.generator.synthesize(ws)
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-4)


def test_only_the_peers_learn_weights(world: World) -> None:
    step, codes = make_step(Side("ours"), 10, world)
    before = codes().clone()
    step()
    networks = (world.generator.synthesis, world.image_text.clip.visual, world.audio.feature_extractor)
    assert all(weight.grad is None for network in networks for weight in network.parameters())
    assert not torch.equal(codes(), before)
    loop = peers(world)
    loop.step()
    assert all(weight.grad is not None for network in networks for weight in network.parameters())
    assert not torch.equal(loop.ws, loop.source)
    once = world.audio.conv.weight.grad.clone()
    loop.step()
    assert not torch.equal(world.audio.conv.weight.grad, once)  # never cleared


def test_a_forced_format_is_used(world: World) -> None:
    outcomes = {}
    for dtype in ("fp32", "bf16 forced"):
        step, codes = make_step(Side("ours", dtype), 10, world)
        for _ in range(3):
            step()
        outcomes[dtype] = codes().clone()
        assert codes().dtype == torch.float32
    difference = (outcomes["fp32"] - outcomes["bf16 forced"]).norm()
    assert 0 < difference < 0.2 * (outcomes["fp32"] - world.codes[:1]).norm()
