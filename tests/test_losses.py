"""Every term against a plain formula, and the traps that the terms of an edit are known for."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from soundguide.losses import (
    feature_distance,
    gated_distance,
    gated_distance_of_paper,
    guidance_hinge,
    identity_distance,
    layer_gates,
    layer_spread,
    pixel_distance,
)

Seeded = Callable[[int], torch.Generator]


@pytest.fixture
def codes(generator: Seeded) -> tuple[Tensor, Tensor, Tensor]:
    """Edited and source codes ``[3, 4, 5]`` and gates ``[3, 4]`` that sum to 4."""
    draw = generator(0)
    ws, source = torch.randn(2, 3, 4, 5, generator=draw, dtype=torch.float64)
    return ws, source, 4 * torch.softmax(torch.randn(3, 4, generator=draw, dtype=torch.float64), 1)


def unit_rows(*shape: int, draw: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=draw, dtype=torch.float64), dim=-1)


def test_hinge_is_the_similarity_still_to_gain() -> None:
    loss = guidance_hinge(torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.2, 0.2, 0.2]), torch.tensor([1.0, 0.3, 0.5]))
    torch.testing.assert_close(loss, torch.tensor([1.1, 0.0, 0.0]))


def test_hinge_falls_as_the_picture_comes_closer() -> None:
    similarity = torch.tensor([0.1], requires_grad=True)
    guidance_hinge(similarity, torch.tensor([0.2]), torch.tensor([1.0])).sum().backward()
    assert similarity.grad is not None
    assert similarity.grad.item() == -1.0


def test_hinge_rests_once_the_margin_is_gained() -> None:
    similarity = torch.tensor([0.8], requires_grad=True)
    guidance_hinge(similarity, torch.tensor([0.2]), torch.tensor([0.5])).sum().backward()
    assert similarity.grad is not None
    assert similarity.grad.item() == 0.0


def test_gated_distance_is_a_sum_over_layers_and_dimensions(codes: tuple[Tensor, Tensor, Tensor]) -> None:
    ws, source, gates = codes
    expected = [
        sum(float(gates[b, i]) * sum(float(ws[b, i, d] - source[b, i, d]) ** 2 for d in range(5)) for i in range(4))
        for b in range(3)
    ]
    np.testing.assert_allclose(gated_distance(ws, source, gates), expected, rtol=1e-12)


def test_equal_gates_give_the_plain_squared_distance(codes: tuple[Tensor, Tensor, Tensor]) -> None:
    ws, source, gates = codes
    plain = ((ws - source) ** 2).flatten(1).sum(1)
    torch.testing.assert_close(gated_distance(ws, source, torch.ones_like(gates)), plain)


def test_paper_form_is_the_mean_of_softmax_gates_times_norms(codes: tuple[Tensor, Tensor, Tensor]) -> None:
    ws, source, _ = codes
    theta = torch.tensor([[0.1, 0.2, -0.3, 0.4]], dtype=torch.float64).expand(3, 4)
    softmax = np.exp(theta.numpy()) / np.exp(theta.numpy()).sum(1, keepdims=True)
    norms = np.sqrt(((ws - source).numpy() ** 2).sum(2))
    gates = layer_gates(theta, torch.zeros(3, dtype=torch.float64))
    np.testing.assert_allclose(gated_distance_of_paper(ws, source, gates), (softmax * norms).sum(1) / 4, rtol=1e-12)


def test_paper_form_has_a_finite_gradient_at_the_source(codes: tuple[Tensor, Tensor, Tensor]) -> None:
    ws = codes[1].clone().requires_grad_()
    gated_distance_of_paper(ws, codes[1], codes[2]).sum().backward()
    assert ws.grad is not None
    assert torch.isfinite(ws.grad).all()


def test_layer_spread_is_the_squared_distance_of_moves_from_their_mean(codes: tuple[Tensor, Tensor, Tensor]) -> None:
    move = (codes[0] - codes[1]).numpy()
    expected = [4 * move[b].var(0).sum() for b in range(3)]  # a variance is a mean over the 4 layers
    np.testing.assert_allclose(layer_spread(codes[0], codes[1]), expected, rtol=1e-12)


def test_layer_spread_of_one_move_for_all_layers_is_zero(codes: tuple[Tensor, Tensor, Tensor]) -> None:
    source = codes[1]
    moved = source + torch.linspace(-1, 1, 5, dtype=torch.float64)
    torch.testing.assert_close(layer_spread(moved, source), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_identity_distance_moves_the_edited_picture_and_not_the_source(generator: Seeded) -> None:
    source, edited = (part.clone().requires_grad_() for part in unit_rows(2, 3, 6, draw=generator(1)))
    distance = identity_distance(source=source, edited=edited)
    pairs = zip(source.detach().numpy(), edited.detach().numpy(), strict=True)
    np.testing.assert_allclose(distance.detach(), [1 - np.dot(a, b) for a, b in pairs])
    distance.sum().backward()
    assert source.grad is None
    assert edited.grad is not None
    torch.testing.assert_close(edited.grad, -source.detach())


def test_pixel_distance_is_that_of_numpy(generator: Seeded) -> None:
    images, photos = torch.rand(2, 3, 3, 6, 7, generator=generator(2), dtype=torch.float64)
    error = (images - photos).numpy()
    expected = [
        np.abs(e).mean() + 0.5 * (np.abs(e[:, 1:] - e[:, :-1]).mean() + np.abs(e[:, :, 1:] - e[:, :, :-1]).mean())
        for e in error
    ]
    np.testing.assert_allclose(pixel_distance(images, photos), expected, rtol=1e-12)


def test_feature_distance_is_one_minus_the_cosine(generator: Seeded) -> None:
    a, b = torch.randn(2, 3, 6, generator=generator(3), dtype=torch.float64)
    expected = [1 - float(x @ y) / math.sqrt(float(x @ x) * float(y @ y)) for x, y in zip(a, b, strict=True)]
    unit = torch.nn.functional.normalize
    np.testing.assert_allclose(feature_distance(unit(a), unit(b)), expected, rtol=1e-12)


@pytest.mark.parametrize("floor", [0.0, 0.5, 0.9, 1.0])
def test_gates_keep_their_sum_and_the_entropy_floor(floor: float) -> None:
    theta = torch.tensor(
        [[0.0] * 5, [3.0, 0, 0, 0, 0], [50.0, 0, 0, 0, 0], [1.0, -1.0, 2.0, 0.3, 0.0]], dtype=torch.float64
    )
    gates = layer_gates(theta, torch.full((4,), floor, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(gates.sum(1), 5.0)
    weights = gates / 5
    logs = np.log(weights, where=weights > 0, out=np.zeros_like(weights))
    entropy = -(weights * logs).sum(1) / math.log(5)
    assert (entropy >= floor - 1e-6).all()


def test_gates_are_softmax_where_the_entropy_is_above_the_floor() -> None:
    theta = torch.tensor([[0.2, 0.0, -0.1, 0.05]], dtype=torch.float64)
    expected = 4 * np.exp(theta.numpy()) / np.exp(theta.numpy()).sum()
    np.testing.assert_allclose(layer_gates(theta, torch.tensor([0.9], dtype=torch.float64)), expected)


def test_gates_are_equal_at_theta_zero_and_can_move_from_there() -> None:
    theta = torch.zeros(2, 6, requires_grad=True)
    gates = layer_gates(theta, torch.tensor([0.0, 0.9]))
    torch.testing.assert_close(gates, torch.ones(2, 6))
    (gates * torch.arange(6.0)).sum().backward()
    assert theta.grad is not None
    assert torch.isfinite(theta.grad).all()
    assert (theta.grad.abs().sum(1) > 0).all()


def test_each_sample_of_a_batch_has_its_own_gradient(codes: tuple[Tensor, Tensor, Tensor], generator: Seeded) -> None:
    images = torch.rand(3, 3, 4, 4, generator=generator(4), dtype=torch.float64, requires_grad=True)
    embeddings = unit_rows(3, 6, draw=generator(5)).requires_grad_()
    ws = codes[0].clone().requires_grad_()
    others = unit_rows(3, 6, draw=generator(6))
    cases = {
        "gated": (gated_distance(ws, codes[1], codes[2]), ws),
        "paper": (gated_distance_of_paper(ws, codes[1], codes[2]), ws),
        "spread": (layer_spread(ws, codes[1]), ws),
        "identity": (identity_distance(source=others, edited=embeddings), embeddings),
        "feature": (feature_distance(embeddings, others), embeddings),
        "pixel": (pixel_distance(images, torch.zeros_like(images)), images),
        "guidance": (guidance_hinge((embeddings * others).sum(1), torch.zeros(3), torch.ones(3)), embeddings),
    }
    for name, (loss, leaf) in cases.items():
        assert loss.shape == (3,), name
        for sample in range(3):
            (grad,) = torch.autograd.grad(loss[sample], leaf, retain_graph=True)
            reached = [bool(grad[other].abs().sum() > 0) for other in range(3)]
            assert reached == [other == sample for other in range(3)], name
