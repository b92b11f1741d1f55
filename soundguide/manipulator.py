"""The manipulator: one plain class that edits pictures with sounds.

It is the same under a bulk job, a service and the command line.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundguide.audio.windows import Heard
from soundguide.cache import ContentCache
from soundguide.config import EditSettings, ManipulatorConfig, parse_mix_layers, require_layers
from soundguide.errors import InvalidEdit, InvalidImage, InvalidSettings
from soundguide.faces import NO_FACE
from soundguide.images import Pixels
from soundguide.kept_memory import keep_freed_memory
from soundguide.objective import Run, margin_of
from soundguide.records import ManipulatedEdit, PreparedEdit, Progress
from soundguide.slots import Load, OnProgress, Outcome, SlotLoop
from soundguide.storage import Storage
from soundguide.tables import failed_row, manipulated_row, manipulated_table
from soundguide.world import World, picture, to_bytes

if TYPE_CHECKING:
    import pyarrow as pa

Result = TypeVar("Result")


class Manipulator:
    """Loads the models of one world and edits, many edits side by side.

    All methods that compute are coroutines and may run concurrently on one event loop; the models run on one thread of
    their own. Edits join the running batch between two steps. Embeddings of sounds and codes of photos are kept by
    content hash.
    """

    def __init__(self, config: ManipulatorConfig, storage: Storage = Storage()) -> None:  # noqa: B008 - immutable
        self.config = config
        if config.num_threads:
            torch.set_num_threads(config.num_threads)
        self.world = World(config, storage)
        if self.world.device.type == "cpu":
            keep_freed_memory()
        # one thread for all models: steps and encodings take turns instead of fighting for cores or for the device
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="manipulator")
        self._slots = SlotLoop(
            self.world,
            self._executor,
            num_slots=config.num_slots,
            check_every=config.check_every,
            group_size=config.group_size,
        )
        bound = config.cache_mb * 2**20
        self._heard: ContentCache[Heard] = ContentCache(max_bytes=bound, size_of=lambda it: _tensor_bytes(it.embedding))
        self._inversions: ContentCache[Tensor] = ContentCache(max_bytes=bound, size_of=_tensor_bytes)

    @property
    def model_digests(self) -> dict[str, str]:
        """SHA-256 of each model's weights, by role."""
        return self.world.digests

    @property
    def num_encoded(self) -> int:
        """How many sounds and texts have been embedded so far; repeats come from the cache."""
        return self._heard.num_computed

    @property
    def num_inverted(self) -> int:
        """How many photos have been inverted so far; repeats come from the cache."""
        return self._inversions.num_computed

    @property
    def load(self) -> Load:
        """How busy the optimiser is."""
        return self._slots.load

    async def embed(self, *, sound: bytes = b"", text: str = "", photo: Pixels | None = None) -> NDArray[np.float32]:
        """Return the unit-norm embedding ``[E]`` of a sound file's bytes, else of a text, else of a photo.

        ``photo``: ``[H, W, 3]`` uint8. Raises `InvalidAudio`.
        """

        def look(pixels: Pixels) -> Tensor:
            with torch.no_grad():
                return self.world.image_text.encode_image(picture(pixels, self.world.device)[None])[0]

        if sound:
            embedding = (await self._hear(sound, hashlib.sha256(sound).hexdigest())).embedding
        elif photo is not None:
            embedding = await self._in_thread(look, photo)
        else:
            embedding = (await self._read(text)).embedding
        found: NDArray[np.float32] = embedding.cpu().numpy()
        return found

    async def listen(self, sound: bytes, num: int = 3) -> tuple[tuple[str, float], ...]:
        """Return the ``num`` likeliest labels of a sound file's bytes, best first. Raises `InvalidAudio`."""
        heard = await self._hear(sound, hashlib.sha256(sound).hexdigest())
        return self.world.listener.top(heard.embedding, num)

    async def draw(self, seed: int, truncation_psi: float = 1.0) -> Pixels:
        """Return the picture ``[H, W, 3]`` from which an edit of this seed starts."""

        def paint() -> Pixels:
            image, _ = self.world.look(self.world.code(seed, None, truncation_psi))
            return to_bytes(image)

        return await self._in_thread(paint)

    async def edit(self, edit: PreparedEdit, *, on_progress: OnProgress | None = None) -> ManipulatedEdit:
        """Do one edit. Raises a child of `InvalidEdit` where this edit, and only this one, cannot be done."""
        started = time.monotonic()
        require_layers(edit.settings.mix_layers, self.world.num_ws)
        targets = await self._targets(edit)
        ws, inversion_error = await self.find_source(edit, on_progress)
        edited = await self._approach(edit.id, ws, targets, edit.settings, start=None, on_progress=on_progress)
        return replace(
            edited,
            inversion_error=inversion_error,
            alignment_note=edit.alignment_note,
            seconds=time.monotonic() - started,
        )

    async def follow(
        self,
        id: str,
        source: Tensor,
        heard: Heard,
        settings: EditSettings,
        *,
        start: Tensor | None = None,
        on_progress: OnProgress | None = None,
    ) -> ManipulatedEdit:
        """Edit the code ``source`` ``[L, D]`` by what was heard (and the settings' text), looking on from ``start``.

        The regularisers hold on to the source wherever the search starts, so that a film's scene stays itself; its next
        key code starts from the one before. None: from the source. Raises a child of `InvalidEdit`.
        """
        require_layers(settings.mix_layers, self.world.num_ws)
        targets = {"sound": heard} | ({"text": await self._read(settings.text)} if settings.text else {})
        return await self._approach(id, source, targets, settings, start=start, on_progress=on_progress)

    async def _approach(
        self,
        id: str,
        ws: Tensor,
        targets: dict[str, Heard],
        settings: EditSettings,
        *,
        start: Tensor | None,
        on_progress: OnProgress | None,
    ) -> ManipulatedEdit:
        """Move the source ``ws`` ``[L, D]`` towards its targets, from ``start`` where it is given."""
        started = time.monotonic()
        mix = _mix_masks(settings, self.world.num_ws)
        source, runs = await self._in_thread(self._aim, ws, targets, settings, start)
        face = runs[0].face
        outcomes = await self._optimise(id, runs, on_progress)

        def finish() -> ManipulatedEdit:
            # lerp gives either end exactly
            edited = torch.lerp(outcomes[0].ws, outcomes[-1].ws, mix.to(ws.device)) if len(runs) > 1 else outcomes[0].ws
            image, embedding = self.world.look(edited)
            return ManipulatedEdit(
                id=id,
                image=to_bytes(image),
                source=to_bytes(source),
                ws=edited.cpu().numpy(),
                similarity_before=runs[0].source_similarity,
                similarity_after=float(embedding @ runs[0].target),
                latent_distance=float((edited - ws).norm()),
                gates=tuple(outcomes[0].gates.tolist()),
                steps=max(outcome.steps for outcome in outcomes),
                seconds=time.monotonic() - started,
                threads=torch.get_num_threads() if self.world.device.type == "cpu" else 0,
                identity_similarity=float("nan") if face is None else self.world.identity_similarity(image, face),
                identity_note=NO_FACE if face is None and self.world.identity is not None else "",
                level_db=targets["sound"].level_db if "sound" in targets else float("nan"),
                labels=self.world.listener.top(targets["sound"].embedding) if "sound" in targets else (),
            )

        return await self._in_thread(finish)

    async def stream(
        self, edit: PreparedEdit, *, preview_every: int = 10, previews: bool = True
    ) -> AsyncGenerator[Progress | ManipulatedEdit, None]:
        """Do one edit, yielding `Progress` every ``preview_every`` steps, at last the `ManipulatedEdit`.

        With ``previews`` each holds a picture. Closing the iterator frees the slot within one step.
        """
        news: asyncio.Queue[Progress | None] = asyncio.Queue()
        task = asyncio.ensure_future(self.edit(edit, on_progress=OnProgress(preview_every, news.put_nowait, previews)))
        task.add_done_callback(lambda _: news.put_nowait(None))
        try:
            while (progress := await news.get()) is not None:
                yield progress
            yield await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Edit the rows of a prepared table (`soundguide.tables`), order kept; a row's failure is its own error."""

        async def one(row: dict[str, object]) -> dict[str, object]:
            if row["error"]:
                return failed_row(row)
            try:
                return manipulated_row(await self.edit(PreparedEdit.from_row(row)), prepared=row)
            except InvalidEdit as error:
                return failed_row(row, error)

        return manipulated_table(await asyncio.gather(*(one(row) for row in batch.to_pylist())))

    async def _optimise(self, id: str, runs: list[Run], on_progress: OnProgress | None) -> list[Outcome]:
        """Do an edit's runs side by side; where one fails, the others end with it. News is of the first alone."""
        listeners = [on_progress, *[None] * (len(runs) - 1)]
        pairs = zip(runs, listeners, strict=True)
        tasks = [asyncio.ensure_future(self._slots.run(id, run, listener)) for run, listener in pairs]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def find_source(self, edit: PreparedEdit, on_progress: OnProgress | None = None) -> tuple[Tensor, float]:
        """Return the source code ``[L, D]`` and the error of its inversion, NaN where nothing was inverted.

        Raises a child of `InvalidEdit`.
        """
        if edit.photo is None:
            ws = await self._in_thread(self.world.code, edit.seed, edit.latent, edit.settings.truncation_psi)
            return ws, float("nan")
        photo = await self._in_thread(picture, edit.photo, self.world.device)
        height, width = self.world.picture_size
        if photo.shape[1:] != (height, width):
            raise InvalidImage(
                f"{edit.id}: the photo is {edit.photo.shape[1]} x {edit.photo.shape[0]} px; expected {width} x "
                f"{height}. Prepare it for this generator."
            )

        async def invert() -> Tensor:
            start, target = await self._in_thread(self.world.start_inversion, photo)
            run = Run("invert", start, target, edit.settings, photo=photo)
            return (await self._slots.run(edit.id, run, on_progress)).ws

        inversion = {"inversion_steps", "inversion_reg", "learning_rate", "rampup", "rampdown", "align"}
        key = f"{edit.source_sha256}/{edit.settings.model_dump_json(include=inversion)}"
        ws = await (self._inversions.get(key, invert) if edit.source_sha256 else invert())
        return ws, await self._in_thread(self.world.reconstruction_error, ws, photo)

    async def _targets(self, edit: PreparedEdit) -> dict[str, Heard]:
        """Return what guides: the sound, the text, or both, the sound first; a text has no level (NaN)."""
        targets = {}
        if edit.embedding is not None:
            embedding = torch.from_numpy(edit.embedding.copy()).to(self.world.device)
            targets["sound"] = Heard(embedding, edit.level_db)
        elif edit.sound:
            targets["sound"] = await self._hear(edit.sound, edit.sound_sha256)
        if edit.settings.text:
            targets["text"] = await self._read(edit.settings.text)
        if not targets:
            raise InvalidSettings(
                f"{edit.id}: neither a sound nor a text. Give `audio`, or the setting `text`, or both."
            )
        return targets

    async def _hear(self, sound: bytes, sha256: str) -> Heard:
        async def hear() -> Heard:
            return await self._in_thread(self.world.listener.hear, sound)

        return await (self._heard.get(sha256, hear) if sha256 else hear())

    async def _read(self, text: str) -> Heard:
        async def read() -> Heard:
            return Heard(await self._in_thread(self.world.embed_text, text), float("nan"))

        return await self._heard.get(f"text/{text}", read)

    def _aim(
        self, ws: Tensor, targets: dict[str, Heard], settings: EditSettings, start: Tensor | None
    ) -> tuple[Tensor, list[Run]]:
        """Return the source's picture and one run for each target; on the models' thread."""
        source, embedding = self.world.look(ws)
        face = self.world.find_face(source, needed=settings.lambda_id > 0)
        runs = [
            Run(
                "edit",
                ws if start is None else start,
                target.embedding,
                settings,
                source_similarity=float(embedding @ target.embedding),
                margin=margin_of(settings, target.level_db),
                face=face,
                source=ws,
            )
            for target in targets.values()
        ]
        return source, runs

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


def _mix_masks(settings: EditSettings, num_ws: int) -> Tensor:
    """Return the share of the text's code in each layer, ``[L, 1]``: Eq. 19, with layer ranges on top (Sec. 4.6)."""
    require_layers(settings.mix_layers, num_ws)
    share = torch.full((num_ws, 1), settings.mix)
    for first, last, source in parse_mix_layers(settings.mix_layers):
        share[first - 1 : last] = float(source == "text")
    return share


def _tensor_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size() + 256
