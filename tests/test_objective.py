"""What a slot aims at, on a world of random weights: every term moves the code, and no row feels another."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from host_reads import HostReads
from tiny_world import NUM_WS, RESOLUTION, W_DIM, write_tiny_world
from torch import Tensor

from soundguide.config import EditSettings
from soundguide.faces import Face
from soundguide.objective import EditObjective, Run, margin_of
from soundguide.optimize import Schedule
from soundguide.views import random_views
from soundguide.world import World

Seeded = Callable[[int], torch.Generator]
SILENT = EditSettings(lambda_reg=0, lambda_spread=0, num_views=1, exploration=0)
FAR = -5.0  # a source similarity so low that the hinge rests: guidance of weight 0


class PixelIdentity:
    """A stand-in for a face encoder: random projections of the pixels."""

    resolution, embed_dim = RESOLUTION, 512

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(9)
        self.projection = torch.randn(3 * RESOLUTION * RESOLUTION, self.embed_dim, generator=draw)

    def encode_identity(self, images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(images.flatten(1) @ self.projection, dim=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(write_tiny_world(tmp_path_factory.mktemp("world")))


def unit(seed: int, size: int = 16) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(size, generator=draw), dim=0)


def edit_run(world: World, seed: int, settings: EditSettings, similarity: float = 0.0) -> Run:
    face = Face(unit(seed + 50, 512), torch.eye(2, 3) / (1 + seed)) if settings.lambda_id > 0 else None
    return Run("edit", world.code(seed, None, 1.0), unit(seed), settings, similarity, settings.margin, face=face)


def invert_run(world: World, seed: int) -> Run:
    photo, _ = world.look(world.code(seed + 100, None, 1.0))
    return Run("invert", world.code(seed, None, 1.0), unit(seed), SILENT, photo=photo.clamp(-1, 1))


def test_the_louder_the_sound_the_further_the_goal() -> None:
    goals = [margin_of(EditSettings(), level) for level in (-70, -40, -30, -20, -15, -9)]
    assert goals == sorted(goals) and 0 < goals[0] < goals[-1]
    assert margin_of(EditSettings(loudness_margin=0.5), -15) == pytest.approx(0.5)
    assert margin_of(EditSettings(loudness_margin=0.5, margin=0.2), -15) == 0.2
    assert margin_of(EditSettings(loudness_margin=0, margin=0.7), -40) == 0.7
    assert margin_of(EditSettings(margin=0.7), float("nan")) == 0.7  # a text


def aim(world: World, runs: dict[int, Run], num_slots: int = 8) -> EditObjective:
    objective = EditObjective(
        world.generator, world.image_text, PixelIdentity(), num_slots=num_slots, step_scale=world.step_scale
    )
    for slot, run in runs.items():
        objective.admit(slot, run)
    return objective


def gradients(objective: EditObjective, ws: Tensor, theta: Tensor, slots: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    ws, theta = ws.clone().requires_grad_(), theta.clone().requires_grad_()
    loss, _ = objective(ws, theta, torch.tensor(slots))
    assert loss.shape == (len(slots),)
    return loss.detach(), *torch.autograd.grad(loss.sum(), (ws, theta))


def moved(world: World, runs: list[Run], generator: Seeded) -> tuple[Tensor, Tensor]:
    """Codes ``[B, L, D]`` somewhat away from the starts of runs, and gate parameters ``[B, L]``."""
    starts = torch.stack([run.start for run in runs])
    steps = 0.3 * torch.randn(len(runs), NUM_WS, W_DIM, generator=generator(3))
    return starts + steps, 0.3 * torch.randn(len(runs), NUM_WS, generator=generator(4))


@pytest.fixture(scope="module")
def company(world: World) -> list[Run]:
    """Six runs that differ in everything: editing and inverting, views, weights, forms and gates."""
    return [
        edit_run(world, 0, EditSettings(num_views=1)),
        invert_run(world, 1),
        edit_run(
            world, 2, EditSettings(num_views=4, view_seed=7, lambda_reg=0.05, lambda_id=0.1, layer_gates="adaptive")
        ),
        edit_run(world, 3, EditSettings(num_views=2, regulariser="paper", lambda_spread=0.1, margin=0.5)),
        invert_run(world, 4),
        edit_run(world, 5, EditSettings(num_views=3, view_seed=7, lambda_id=0.2)),
    ]


@pytest.mark.parametrize(
    ("settings", "similarity"),
    [
        (SILENT, 0.0),
        (SILENT.override({"num_views": 3}), 0.0),
        (SILENT.override({"lambda_reg": 0.1}), FAR),
        (SILENT.override({"lambda_reg": 0.1, "layer_gates": "adaptive"}), FAR),
        (SILENT.override({"lambda_reg": 0.1, "regulariser": "paper"}), FAR),
        (SILENT.override({"lambda_spread": 0.1}), FAR),
        (SILENT.override({"lambda_id": 0.1}), FAR),
    ],
    ids=["guidance", "guidance by views", "squared", "gated", "paper", "spread", "identity"],
)
def test_each_term_alone_moves_the_code(
    world: World, generator: Seeded, settings: EditSettings, similarity: float
) -> None:
    run = edit_run(world, 0, settings, similarity)
    loss, grad, _ = gradients(aim(world, {0: run}), *moved(world, [run], generator), [0])
    assert loss.item() > 0
    assert grad.abs().max() > 1e-6


def test_terms_of_weight_zero_move_nothing(world: World, generator: Seeded) -> None:
    run = edit_run(world, 0, SILENT, FAR)
    loss, grad, gate_grad = gradients(aim(world, {0: run}), *moved(world, [run], generator), [0])
    assert loss.item() == 0
    assert not grad.any()
    assert not gate_grad.any()


def test_inversion_is_drawn_to_pixels_and_to_features(world: World, generator: Seeded) -> None:
    run = invert_run(world, 0)
    objective = aim(world, {0: run})
    ws = moved(world, [run], generator)[0].requires_grad_()
    _, terms = objective(ws, torch.zeros(1, NUM_WS), torch.tensor([0]))
    for name in ("pixel", "feature", "reg"):
        (grad,) = torch.autograd.grad(terms[name].sum(), ws, retain_graph=True)
        assert grad.abs().max() > 1e-6, name


def test_gates_learn_only_where_they_are_adaptive(world: World, generator: Seeded) -> None:
    settings = SILENT.override({"lambda_reg": 0.1})
    runs = [edit_run(world, 0, settings), edit_run(world, 1, settings.override({"layer_gates": "adaptive"}))]
    objective = aim(world, dict(enumerate(runs)))
    ws, theta = moved(world, runs, generator)
    _, _, gate_grad = gradients(objective, ws, theta, [0, 1])
    assert not gate_grad[0].any()
    assert gate_grad[1].abs().max() > 1e-6
    gates = objective.gates(theta, torch.tensor([0, 1]))
    assert torch.equal(gates[0], torch.ones(NUM_WS))
    torch.testing.assert_close(gates.sum(1), torch.full((2,), float(NUM_WS)))


def test_gradients_of_a_batch_are_those_of_singles(world: World, company: list[Run], generator: Seeded) -> None:
    ws, theta = moved(world, company, generator)
    slots = [1, 2, 4, 5, 6, 7]  # not the rows' own numbers
    objective = aim(world, dict(zip(slots, company, strict=True)))
    losses, grads, gate_grads = gradients(objective, ws, theta, slots)
    for row, run in enumerate(company):
        single = gradients(aim(world, {0: run}), ws[row : row + 1], theta[row : row + 1], [0])
        for together, alone in zip((losses, grads, gate_grads), single, strict=True):
            scale = float(alone.abs().max())
            torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-5 * scale)


def test_permuting_slots_permutes_losses(world: World, company: list[Run], generator: Seeded) -> None:
    ws, theta = moved(world, company, generator)
    order = [4, 2, 0, 5, 1, 3]
    straight, _, _ = gradients(aim(world, dict(enumerate(company))), ws, theta, list(range(6)))
    placed = aim(world, {slot: company[row] for slot, row in enumerate(order)})
    permuted, _, _ = gradients(placed, ws[order], theta[order], list(range(6)))
    torch.testing.assert_close(permuted, straight[order], rtol=1e-5, atol=1e-6)


def test_guidance_averages_each_rows_own_views(world: World, generator: Seeded) -> None:
    runs = [edit_run(world, row, SILENT.override({"num_views": row + 1, "view_seed": 11 * row})) for row in range(4)]
    ws, theta = moved(world, runs, generator)
    objective = aim(world, dict(enumerate(runs)))
    for step in range(2):  # views are drawn anew at every step
        loss, _ = objective(ws, theta, torch.arange(4))
        for row, run in enumerate(runs):
            views = random_views(
                world.generator.synthesize(ws[row : row + 1]),
                num_views=row + 1,
                seeds=torch.tensor([11 * row]),
                steps=torch.tensor([step]),
                size=world.image_text.resolution,
            )
            closeness = (world.image_text.encode_image(views) @ run.target).mean()
            torch.testing.assert_close(loss[row], 1 - closeness, rtol=1e-4, atol=1e-5)


def test_refilled_slot_draws_the_views_of_a_new_edit(world: World, generator: Seeded) -> None:
    run = edit_run(world, 0, SILENT.override({"num_views": 4}))
    objective = aim(world, {0: run})
    ws, theta = moved(world, [run], generator)
    first, second = (objective(ws, theta, torch.tensor([0]))[0] for _ in range(2))
    assert not torch.equal(first, second)
    objective.release(0)
    objective.admit(0, run)
    assert torch.equal(objective(ws, theta, torch.tensor([0]))[0], first)


def test_exploration_fades_out_within_its_share_of_the_steps(world: World, generator: Seeded) -> None:
    exploring, quiet = (edit_run(world, 0, SILENT.override({"num_steps": 10, "exploration": x})) for x in (1.0, 0.0))
    ws, theta = moved(world, [quiet], generator)
    objective, still = aim(world, {0: exploring}), aim(world, {0: quiet})
    away = [
        abs(float(objective(ws, theta, torch.tensor([0]))[0] - still(ws, theta, torch.tensor([0]))[0]))
        for _ in range(9)
    ]
    assert all(gap > 0 for gap in away[:6])
    assert max(away[6:]) == 0


def test_exploration_moves_all_layers_alike_by_standard_deviations(world: World) -> None:
    runs = {slot: edit_run(world, slot, SILENT.override({"exploration": 2.0, "view_seed": slot})) for slot in range(8)}
    noise = aim(world, runs)._noise(torch.arange(8))
    assert noise.shape == (8, 1, W_DIM)
    assert float((noise / world.step_scale).std()) == pytest.approx(2.0, rel=0.3)
    assert not torch.isclose(noise[0], noise[1]).any()


def test_inverting_and_editing_rows_do_not_feel_each_other(world: World, generator: Seeded) -> None:
    edit, invert = edit_run(world, 0, EditSettings()), invert_run(world, 1)
    other_edit = edit_run(world, 7, EditSettings(num_views=4, lambda_reg=3.0))
    other_invert = replace(invert_run(world, 8), target=unit(77))
    ws, theta = moved(world, [edit, invert], generator)
    both, _, _ = gradients(aim(world, {0: edit, 1: invert}), ws, theta, [0, 1])
    beside_another_photo, _, _ = gradients(aim(world, {0: edit, 1: other_invert}), ws, theta, [0, 1])
    beside_another_edit, _, _ = gradients(aim(world, {0: other_edit, 1: invert}), ws, theta, [0, 1])
    torch.testing.assert_close(both[0], beside_another_photo[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(both[1], beside_another_edit[1], rtol=1e-5, atol=1e-6)
    assert not torch.isclose(both[1], beside_another_photo[1])
    assert not torch.isclose(both[0], beside_another_edit[0])


def test_no_weight_gets_a_gradient(world: World, company: list[Run], generator: Seeded) -> None:
    ws, theta = (part.requires_grad_() for part in moved(world, company, generator))
    loss, _ = aim(world, dict(enumerate(company)))(ws, theta, torch.arange(6))
    loss.sum().backward()
    for network in (world.generator, world.image_text, world.audio):
        assert isinstance(network, torch.nn.Module)
        assert not network.training
        for parameter in network.parameters():
            assert not parameter.requires_grad
            assert parameter.grad is None


def test_objective_and_its_gradient_read_nothing_back(world: World, company: list[Run], generator: Seeded) -> None:
    objective = aim(world, dict(enumerate(company)))
    ws, theta = moved(world, company, generator)
    slots = torch.arange(6)
    with HostReads() as host:
        loss, _ = objective(ws.requires_grad_(), theta.requires_grad_(), slots)
        torch.autograd.grad(loss.sum(), (ws, theta))
    assert host.names == []


def test_run_of_an_inversion_moves_every_layer_and_takes_all_its_steps(world: World) -> None:
    settings = EditSettings(latent_space="w", plateau_steps=3, inversion_steps=33, layer_gates="adaptive")
    schedule = replace(invert_run(world, 0), settings=settings).schedule
    assert schedule == Schedule(33, settings.learning_rate, settings.rampup, settings.rampdown)


def test_run_of_an_edit_follows_its_settings(world: World) -> None:
    settings = EditSettings(num_steps=9, latent_space="w", layer_gates="adaptive", gate_learning_rate=0.3)
    schedule = edit_run(world, 0, settings).schedule
    assert (schedule.num_steps, schedule.tied, schedule.gate_learning_rate) == (9, True, 0.3)
    free = edit_run(world, 0, EditSettings(latent_space="w+", layer_gates="uniform")).schedule
    assert (free.tied, free.gate_learning_rate) == (False, 0.0)
