"""Frames: drawn in batches, handed to the encoder while the next are drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from soundguide.film.motion import Motion
from soundguide.world import World

Frames = NDArray[np.uint8]

_BATCH_PIXELS = 2**18  # drawn at once; 64 px: as many as `_LARGEST_BATCH`
_LARGEST_BATCH = 32


class Screen(Protocol):
    """What takes the frames of a film."""

    def write(self, pictures: Frames) -> None:
        """Take frames ``[B, H, W, 3]``, in order."""
        ...


def batch_size(world: World) -> int:
    """Return how many frames are drawn at once."""
    pixels = world.resolution**2 * (1 if world.device.type == "cpu" else 1 / 8)
    return max(1, min(_LARGEST_BATCH, int(_BATCH_PIXELS // pixels)))


def draw_frames(world: World, motion: Motion, num_frames: int) -> Iterator[Frames]:
    """Yield the frames of a film in batches ``[B, H, W, 3]``, uint8, cropped as the generator's domain says.

    On a CPU as many batches are drawn at once as torch has threads, one thread each: they never wait for each other,
    nor for whatever else takes a core meanwhile. So many batches and one more are held.
    """
    num_threads, size = torch.get_num_threads(), batch_size(world)
    num_drawers = num_threads if world.device.type == "cpu" else 1

    def draw(first: int) -> Frames:
        codes = torch.from_numpy(motion.codes(first, min(first + size, num_frames)))
        with torch.no_grad():
            images = world.generator.synthesize(codes.to(world.device))
            pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
        return pixels.contiguous().cpu().numpy()

    drawn: deque[Future[Frames]] = deque()
    alone = partial(torch.set_num_threads, num_threads // num_drawers)
    drawers = ThreadPoolExecutor(num_drawers, thread_name_prefix="drawer", initializer=alone)
    try:
        for first in range(0, num_frames, size):
            drawn.append(drawers.submit(draw, first))
            if len(drawn) > num_drawers:
                yield drawn.popleft().result()
        while drawn:
            yield drawn.popleft().result()
    finally:
        drawers.shutdown(cancel_futures=True)
        torch.set_num_threads(num_threads)  # it holds for threads that are new, too


def render(
    world: World, motion: Motion, num_frames: int, screen: Screen, on_frames: Callable[[int, Frames], None]
) -> None:
    """Draw all frames of a film onto a screen; ``on_frames`` hears of each batch and the number of its first frame.

    One batch is encoded while the next are drawn.
    """
    done = 0
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder") as encoder:
        written: Future[None] | None = None
        for frames in draw_frames(world, motion, num_frames):
            if written is not None:
                written.result()
            written = encoder.submit(screen.write, frames)
            on_frames(done, frames)
            done += len(frames)
        if written is not None:
            written.result()
