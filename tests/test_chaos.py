"""The bulk job while things break: after each, every row has one result, and the edits are those of a calm run."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bulk_runs import flags, results, write_manifest
from PIL import Image

import bulk_manipulate
from soundguide.config import ManipulatorConfig
from soundguide.stages import EditPreparer
from soundguide.storage import Storage

pytestmark = pytest.mark.chaos

POISON = "row-5"


class PoisonedManipulator:
    """A manipulator in whose process one row is deadly, some time after others began."""

    def __init__(self, config: ManipulatorConfig, storage: Storage) -> None:
        from soundguide.manipulator import Manipulator

        self.manipulator = Manipulator(config, storage)

    async def __call__(self, batch: pa.Table) -> pa.Table:
        if POISON in batch["id"].to_pylist():
            await asyncio.sleep(0.3)
            os._exit(1)
        return await self.manipulator(batch)


class PoisonedPreparer:
    """A preparer that dies at one row, as a decoder does that follows a wild pointer."""

    def __init__(self, *arguments: object) -> None:
        self.preparer = EditPreparer(*arguments)  # type: ignore[arg-type]

    def prepare_table(self, batch: pa.Table) -> Iterator[pa.Table]:
        for part in self.preparer.prepare_table(batch):
            if part["id"][0].as_py() == POISON:
                os._exit(1)
            yield part

    def refuse(self, batch: pa.Table, error: Exception) -> pa.Table:
        return self.preparer.refuse(batch, error)  # type: ignore[arg-type]


@pytest.fixture
def sent_along() -> None:
    """Let what this module defines travel to Ray's workers, which cannot import it."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])


def many_rows(folder: Path, num: int, name: str) -> str:
    return write_manifest(folder / name, {f"row-{i}": {"audio": "rain.wav", "seed": str(i)} for i in range(num)})


def pictures(output: Path) -> dict[str, np.ndarray]:
    """The edits of all rows that are ok, by id."""
    found = {id: row for id, row in results(output).items() if row["status"] == "ok"}
    return {id: np.asarray(Image.open(output / str(row["edited_image"]))) for id, row in found.items()}


def require_alike(some: dict[str, np.ndarray], calm: dict[str, np.ndarray]) -> None:
    """Fail where an edit differs from the calm run's by more than 45 dB of PSNR allow."""
    for id, picture in some.items():
        error = np.square(picture.astype(float) - calm[id]).mean()
        assert error <= 255**2 / 10**4.5, id


@pytest.fixture(scope="module")
def calm(
    local_ray: None, tiny_models: ManipulatorConfig, bulk_sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    """The edits of twelve rows in a run that nothing disturbs."""
    output = tmp_path_factory.mktemp("calm") / "out"
    assert bulk_manipulate.main(flags(tiny_models, many_rows(bulk_sources, 12, "calm.csv"), output)) == 0
    return pictures(output)


@pytest.mark.parametrize("stage", ["prepare", "manipulate"])
def test_exactly_the_row_that_kills_its_process_is_quarantined_and_can_be_tried_again(
    stage: str,
    calm: dict[str, np.ndarray],
    sent_along: None,
    tiny_models: ManipulatorConfig,
    bulk_sources: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out"
    manifest = many_rows(bulk_sources, 12, "poison.csv")
    arguments = [*flags(tiny_models, manifest, output), "--pool.rows_per_block", "4"]
    with monkeypatch.context() as patched:
        if stage == "prepare":
            patched.setattr(bulk_manipulate, "EditPreparer", PoisonedPreparer)
        else:
            patched.setattr("soundguide.manipulator.Manipulator", PoisonedManipulator)
        assert bulk_manipulate.main(arguments) == 0
        found = results(output)
        assert {id for id, row in found.items() if row["status"] == "quarantined"} == {POISON}
        assert len(found) == 12 and "died 2 times" in str(found[POISON]["error"])
        require_alike(pictures(output), calm)
        assert not list((output / "_run" / "attempts").glob("*"))
    before = {id: row for id, row in found.items() if id != POISON}
    assert bulk_manipulate.main([*arguments, "--retry-failed"]) == 0
    again = results(output)
    assert again[POISON]["status"] == "ok"
    assert repr({id: again[id] for id in before}) == repr(before)  # NaN is not equal to itself
    require_alike(pictures(output), calm)
