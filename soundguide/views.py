"""How the judges of an edit look at it: exact-area resizing, and random views that each row draws for itself."""

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_CROP = 0.75  # side of a crop, as a share of the picture
GAIN = 0.1  # light of each channel: 0.9 to 1.1
OFFSET = 0.06  # brightness of the picture, in the units of [-1, 1]
CONTRAST = 0.15  # 0.85 to 1.15, around the picture's own mean

_NUM_STREAMS = 8  # random numbers of one view: side, left, top, contrast, offset, three gains


def area_resize(images: Tensor, size: int, boxes: Tensor | None = None) -> Tensor:
    """Resample one crop of each picture so that every pixel is the mean of exactly the area that it covers.

    ``images``: ``[B, C, H, W]``. ``boxes``: ``[B, 4]``, left, right, top and bottom in [0, 1]; None for whole pictures.
    Returns ``[B, C, size, size]``, in float32 at least, stretched where a crop is not square; ``images`` itself where
    nothing is to do. Differentiable in ``images``. Where pixels grow, each covers a share of one pixel or of two
    neighbours.
    """
    height, width = images.shape[2:]
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    if boxes is None:
        if height == width == size:
            return images
        # float64: two matrices serve the whole batch, so that the last digits cost nothing
        boxes = torch.tensor([[0.0, 1.0, 0.0, 1.0]], dtype=torch.float64, device=images.device)
    across = _area_matrix(boxes[:, 0], boxes[:, 1], width, size).to(images.dtype)
    down = _area_matrix(boxes[:, 2], boxes[:, 3], height, size).to(images.dtype)
    with torch.autocast(images.device.type, enabled=False):
        x = images.flatten(1, 2) @ across.mT  # [B, C * H, size]
        x = x.reshape(*images.shape[:3], size).mT.flatten(1, 2) @ down.mT  # [B, C * size, size], columns before rows
    return x.reshape(*images.shape[:2], size, size).mT


def resample(images: Tensor, size: int) -> Tensor:
    """Bring pictures ``[B, C, H, W]`` to ``[B, C, size, size]``: by exact areas where they shrink, else bilinear.

    In float32 at least, differentiable.
    """
    if max(images.shape[2:]) >= size:
        return area_resize(images, size)
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def _area_matrix(start: Tensor, end: Tensor, num_pixels: int, size: int) -> Tensor:
    """Return ``[B, size, num_pixels]``: the share of each pixel in each of ``size`` cells of [start, end]."""
    cells = torch.arange(size + 1, dtype=start.dtype, device=start.device)
    pixels = torch.arange(num_pixels, dtype=start.dtype, device=start.device)
    length = (end - start)[:, None] * num_pixels / size  # of one cell, in pixels
    edges = start[:, None] * num_pixels + length * cells
    passed = (edges[:, :, None] - pixels).clamp(0, 1)  # how much of each pixel lies before each edge
    overlap = passed.diff(dim=1)
    # the sum is the cell's length, but with the same rounding: a flat picture stays flat
    return overlap / overlap.sum(2, keepdim=True)


def random_views(images: Tensor, *, num_views: int, seeds: Tensor, steps: Tensor, size: int) -> Tensor:
    """Show each picture to its judges as it is, and as ``num_views - 1`` random crops with a light colour jitter.

    ``images``: ``[B, 3, H, W]`` in [-1, 1]. ``seeds``, ``steps``: ``[B]``, int64, on the same device; with the number
    of the view they alone decide what a row draws, so that its views do not depend on its neighbours or its place in
    the batch. Returns ``[B * num_views, 3, size, size]``, the views of a row side by side, not clamped.

    View 0 is always the whole picture, its colours unchanged: an edit that pleases in crops and in false colours, but
    not as it will be seen, must not pass.
    """
    plain = area_resize(images, size)
    if num_views == 1:
        return plain
    batch, num_random = len(images), num_views - 1
    views = torch.arange(1, num_views, device=images.device)[None, :, None]
    streams = torch.arange(_NUM_STREAMS, device=images.device)
    draws = hash_uniform(seeds[:, None, None], steps[:, None, None], views, streams)  # [B, V - 1, streams]
    draws = draws.flatten(0, 1)
    copies = images[:, None].expand(-1, num_random, -1, -1, -1).flatten(0, 1)
    crops = _jitter(area_resize(copies, size, _random_boxes(draws[:, :3])), draws[:, 3:])
    return torch.cat([plain[:, None], crops.reshape(batch, num_random, *crops.shape[1:])], 1).flatten(0, 1)


def _random_boxes(draws: Tensor) -> Tensor:
    """Turn three uniform numbers per row into the boxes ``[B, 4]`` of square crops inside the picture."""
    side = SMALLEST_CROP + (1 - SMALLEST_CROP) * draws[:, 0]
    left, top = (1 - side) * draws[:, 1], (1 - side) * draws[:, 2]
    return torch.stack([left, left + side, top, top + side], 1)


def _jitter(images: Tensor, draws: Tensor) -> Tensor:
    """Vary contrast, the light of each channel and brightness by five uniform numbers per row."""
    signed = (2 * draws - 1)[:, :, None, None, None]
    contrast, offset, gain = 1 + CONTRAST * signed[:, 0], OFFSET * signed[:, 1], 1 + GAIN * signed[:, 2:, 0]
    mean = images.mean((1, 2, 3), keepdim=True)
    contrasted = mean + contrast * (images - mean)
    return (contrasted + 1) * gain - 1 + offset  # light is counted from black, which is -1


def hash_uniform(*fields: Tensor) -> Tensor:
    """Draw uniform numbers that are a function of ``fields`` alone.

    ``fields``: int64 tensors that broadcast together, such as seed, step, view and stream. Returns float32 in [0, 1),
    of the broadcast shape, the same on every device. Integer arithmetic only: no generator, no state, no sync.
    """
    state = torch.zeros((), dtype=torch.int64, device=fields[0].device)
    for field in fields:
        state = _mix(state + (field + 1) * _GOLDEN)
    return _shift_right(state, 40).float() * 2.0**-24  # 24 bits are what float32 holds exactly


def hash_normal(*fields: Tensor) -> Tensor:
    """Draw standard normal numbers that are a function of ``fields`` alone; see `hash_uniform`."""
    middle = hash_uniform(*fields) + 2.0**-25  # the middle of each of the 2^24 steps: neither 0 nor 1
    normal: Tensor = torch.special.ndtri(middle)
    return normal


def _signed(constant: int) -> int:
    return constant - 2**64 if constant >= 2**63 else constant


# SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"), Stafford's variant 13.
_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # int64 shifts copy the sign, a hash must not


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _FIRST
    x = (x ^ _shift_right(x, 27)) * _SECOND
    return x ^ _shift_right(x, 31)
