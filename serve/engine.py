"""What the service asks of the models: edits, embeddings, labels, pictures of seeds. One per process that edits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from numpy.typing import NDArray

from soundguide.config import ManipulatorConfig
from soundguide.images import Pixels
from soundguide.manipulator import Manipulator
from soundguide.records import ManipulatedEdit, PreparedEdit, Progress

_NEWS_EVERY = 10  # steps between news without a picture


class Engine:
    """A `Manipulator` and what it is doing; ``on_change`` hears after each change and piece of news."""

    def __init__(self, config: ManipulatorConfig, on_change: Callable[[Engine], None] | None = None) -> None:
        self.manipulator = Manipulator(config)
        self.num_edits = 0
        self._on_change = on_change or (lambda _: None)

    async def run(self, edit: PreparedEdit, preview_every: int) -> AsyncGenerator[Progress | ManipulatedEdit, None]:
        """Do one edit, yielding its news (`serve.live_edits.RunEdit`); closing it frees the slot within a step."""
        self._count(1)
        news = self.manipulator.stream(edit, preview_every=preview_every or _NEWS_EVERY, previews=bool(preview_every))
        try:
            async with aclosing(news):
                async for item in news:
                    self._on_change(self)
                    yield item
        finally:
            self._count(-1)

    async def ping(self) -> None:
        """Return once this process answers: its models are loaded."""

    async def embed(self, sound: bytes, text: str, photo: Pixels | None) -> NDArray:
        """Return the embedding ``[E]`` of whichever is given."""
        return await self.manipulator.embed(sound=sound, text=text, photo=photo)

    async def listen(self, sound: bytes, num: int) -> tuple[tuple[str, float], ...]:
        """Return the likeliest labels of a sound."""
        return await self.manipulator.listen(sound, num)

    async def draw(self, seed: int, truncation_psi: float) -> Pixels:
        """Return the picture of a seed."""
        return await self.manipulator.draw(seed, truncation_psi)

    def _count(self, change: int) -> None:
        self.num_edits += change
        self._on_change(self)
