"""Making one row's picture again from what its run wrote down about it."""

import asyncio
import difflib
import logging
from dataclasses import replace

from soundguide import __version__
from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidCheckpoint, InvalidConfig, InvalidEdit, SourceNotFound
from soundguide.model_facts import ModelFacts, read_model_facts
from soundguide.records import EditRequest, EditResult, ManipulatedEdit, PreparedEdit, Row
from soundguide.run_folder import Facts, RunFolder
from soundguide.songs import music_run
from soundguide.stages import EditPreparer, SourceLimits
from soundguide.storage import Storage, StorageConfig
from soundguide.tables import RESULT_SCHEMA, result_from_row

logger = logging.getLogger(__name__)


def replay(run: str, id: str, *, storage: Storage = Storage(), device: str = "") -> ManipulatedEdit:  # noqa: B008 - frozen
    """Edit one row of a finished bulk run again, with its settings, sources and models.

    `run`: the output folder, or its run.json. `storage` reaches that folder; the row's sources are reached as the run
    did. `device`: another than the run's. On the same processor and torch, with as many threads as the run had, which
    this takes care of, the picture is the same to the bit; otherwise it differs.

    Raises:
        InvalidConfig: there is no run.
        InvalidCheckpoint: the models are missing, or not those of the run.
        InvalidEdit: there is no such row, it had an error, or its files have changed since.
    """
    folder = RunFolder(run.removesuffix("run.json").rstrip("/") or ".", storage)
    record = folder.read_record()
    if record is None:
        raise InvalidConfig(f"{folder.uri} holds no run.json. Name the output folder of a bulk run")
    is_music = music_run.is_music(record)
    if is_music:
        folder = music_run.as_music(folder)
    row = _read_row(folder, id)
    result = result_from_row({name: row[name] for name in RESULT_SCHEMA.names})
    models = ManipulatorConfig.model_validate(record["config"]["manipulator"])
    facts = _as_aligned(read_model_facts(models), record, models)
    _check_models(result, facts, models)
    if result.version != __version__:
        logger.warning(
            "%s was made by version %s, this is %s: expect small differences", id, result.version, __version__
        )
    preparer = EditPreparer(
        facts,
        storage=Storage(StorageConfig.model_validate(record["config"]["storage"])),
        limits=SourceLimits.model_validate(record["config"]["limits"]),
    )
    if is_music:
        edit = music_run.prepare_again(folder, record, row, preparer)
    else:
        edit = _prepare_again(result, preparer)
    _check_same(result, edit)

    from soundguide.manipulator import Manipulator  # loads torch: not before the checks

    # kernels share the work among threads in ways that show in the last bit
    changes = {"num_slots": 1, "num_threads": result.threads} | ({"device": device} if device else {})
    manipulator = Manipulator(models.model_copy(update=changes))
    return asyncio.run(manipulator.edit(edit))


def _read_row(folder: RunFolder, id: str) -> Row:
    rows = folder.read_results(ids=[id]).to_pylist()
    if not rows:
        near = difflib.get_close_matches(id, folder.read_results(["id"])["id"].to_pylist()[:100_000], n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}" if near else "look into results/*.parquet for the ids"
        raise InvalidEdit(f"{folder.uri} has no row {id!r}; {hint}")
    row: Row = rows[0]
    if row["status"] != "ok":
        raise InvalidEdit(f"the row {id!r} has no picture to make again, its error was: {row['error']}")
    return row


def _check_models(result: EditResult, facts: ModelFacts, models: ManipulatorConfig) -> None:
    found = dict(facts.digests)
    changed = [role for role, digest in result.models.items() if found.get(role) != digest]
    if changed:
        where = {**models.model_dump(), "detector": models.identity}
        named = "; ".join(
            f"{role} {where[role]!r} is {found.get(role, '')[:12]}, the run had {result.models[role][:12]}"
            for role in changed
        )
        raise InvalidCheckpoint(
            f"the models are not those of the run: {named}. Put the run's models back in their place"
        )


def _as_aligned(facts: ModelFacts, record: Facts, models: ManipulatorConfig) -> ModelFacts:
    """Return the facts with the alignment of the run, which lies in the generator's config and in none of its weights.

    Raises `InvalidCheckpoint` where the run aligned photos and this generator does not ask for it.
    """
    if "alignment" not in record["identity"]:
        return replace(facts, domain=facts.domain.model_copy(update={"alignment": "none"}))
    if facts.domain.alignment != record["identity"]["alignment"]:
        raise InvalidCheckpoint(
            f"the run aligned photos as {record['identity']['alignment']!r}, but the domain of {models.generator} says "
            f"{facts.domain.alignment!r} now. Put the run's config.json back in its place"
        )
    return facts


def _prepare_again(result: EditResult, preparer: EditPreparer) -> PreparedEdit:
    assert result.settings is not None, "a row that went well has settings"
    names = ("id", "audio", "image", "seed", "latent", "settings")
    return preparer.fetch(EditRequest(**{name: getattr(result, name) for name in names}))


def _check_same(result: EditResult, edit: PreparedEdit) -> None:
    for uri, before, now in (
        (result.audio, result.sound_sha256, edit.sound_sha256),
        (result.image or result.latent, result.source_sha256, edit.source_sha256),
    ):
        if before != now:
            raise SourceNotFound(
                f"{uri} is not the file of the run any more: its SHA-256 is {now[:12]}, it was {before[:12]}. "
                "Put the run's file back in its place"
            )
