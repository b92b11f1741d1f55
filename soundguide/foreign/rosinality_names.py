"""The tensors of rosinality's StyleGAN2 and of ours, name by name: the same numbers, nothing is flipped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor's two names, and how many axes of length one theirs has before and after those of ours."""

    theirs: str
    ours: str
    before: int = 0
    after: int = 0

    def to_theirs(self, value: Tensor) -> Tensor:
        """Return a copy of our tensor in their shape."""
        return value.reshape([1] * self.before + [*value.shape] + [1] * self.after).clone()

    def to_ours(self, value: Tensor) -> Tensor | None:
        """Return their tensor in our shape; None where it has no such axes."""
        inner = value.shape[self.before : value.ndim - self.after]
        return value.reshape(inner) if value.shape == (1,) * self.before + inner + (1,) * self.after else None


def entries(*, num_doublings: int, mapping_layers: int) -> Iterator[Entry]:
    """Yield all tensors but the mean code and the filters; ``num_doublings``: from 4 pixels to the resolution."""
    for index in range(mapping_layers):
        for part in ("weight", "bias"):
            yield Entry(f"style.{index + 1}.{part}", f"mapping.fc{index}.{part}")
    yield Entry("input.input", "synthesis.b4.const", before=1)
    layers, outputs = [("conv1", "synthesis.b4.conv1")], [("to_rgb1", "synthesis.b4.torgb")]
    for index in range(num_doublings):
        block = f"synthesis.b{8 * 2**index}"
        layers += [(f"convs.{2 * index}", f"{block}.conv0"), (f"convs.{2 * index + 1}", f"{block}.conv1")]
        outputs.append((f"to_rgbs.{index}", f"{block}.torgb"))
    for index, (theirs, ours) in enumerate(layers):
        yield from _modulated(theirs, ours)
        yield Entry(f"{theirs}.noise.weight", f"{ours}.noise_strength", before=1)
        yield Entry(f"{theirs}.activate.bias", f"{ours}.bias")
        yield Entry(f"noises.noise_{index}", f"{ours}.noise_const", before=2)
    for theirs, ours in outputs:
        yield from _modulated(theirs, ours)
        yield Entry(f"{theirs}.bias", f"{ours}.bias", before=1, after=2)


def _modulated(theirs: str, ours: str) -> Iterator[Entry]:
    yield Entry(f"{theirs}.conv.weight", f"{ours}.weight", before=1)
    for part in ("weight", "bias"):
        yield Entry(f"{theirs}.conv.modulation.{part}", f"{ours}.affine.{part}")


def their_filters(num_doublings: int) -> list[str]:
    """Return the names of their filters: each is `resample_filter` times four, one for each zero of a doubling."""
    names = [f"convs.{2 * index}.conv.blur.kernel" for index in range(num_doublings)]
    return names + [f"to_rgbs.{index}.upsample.kernel" for index in range(num_doublings)]


def our_filters(num_doublings: int) -> list[str]:
    """Return the names of our filters: each block has one, and each of its convolutions."""
    sizes = [4 * 2**index for index in range(num_doublings + 1)]
    owners = [f"b{size}{part}" for size in sizes for part in ("", ".conv0", ".conv1")]
    return [f"synthesis.{owner}.resample_filter" for owner in owners if owner != "b4.conv0"]
