"""The output folder of a bulk run: whose it is, what is in it, and whether every row of the manifest has its result."""

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from soundguide import __version__
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.contact_sheet import choose_rows, write_contact_sheet
from soundguide.errors import OutputConflict
from soundguide.manifest import missing_rows, write_manifest
from soundguide.model_facts import ModelFacts
from soundguide.run_lock import only_run
from soundguide.stages import SourceLimits
from soundguide.storage import Storage, join_uri
from soundguide.tables import RESULT_SCHEMA, with_schema

_PACKAGES = ("soundguide", "torch", "ray", "pyarrow", "numpy", "open_clip_torch", "timm", "av")
_REMEDY = "Give another output folder, or empty this one"
# How the manipulator runs, but not what it makes: a run may go on with other values, on another machine.
_HOW = {"device", "num_slots", "num_threads", "cache_mb"}
# Models are known by their digests, wherever they lie.
_WHERE = {"generator", "image_text", "audio", "identity", "inverter"}
_NUM_SHOWN = 8
_NUM_READERS = 8  # an object store answers slowly, but many at once
_NUM_AHEAD = 4 * _NUM_READERS
_OVERVIEW = ("id", "status", "error", "error_kind", "similarity_before", "similarity_after", "version")
MAX_SHOWN = 200  # rows in index.html

Facts = dict[str, Any]
"""What a run says about itself, as JSON holds it."""

Keep = Callable[[pa.Table], pa.ChunkedArray]
"""From a table of ``id`` and ``status`` to whether each row is wanted."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder `uri`: ``run.json``, ``results/*.parquet``, the pictures, and in ``_run`` what resuming needs.

    ``schema``: of its results; ``manifest_name``: of the file that keeps its manifest.
    """

    uri: str
    storage: Storage = Storage()
    schema: pa.Schema = RESULT_SCHEMA
    manifest_name: str = "manifest.parquet"

    @property
    def results_uri(self) -> str:
        """Folder of the result rows."""
        return join_uri(self.uri, "results")

    @property
    def manifest_uri(self) -> str:
        """The manifest as it was normalised, Parquet."""
        return join_uri(self.uri, "_run", self.manifest_name)

    @property
    def attempts_uri(self) -> str:
        """Folder of the marks of what is being worked on."""
        return join_uri(self.uri, "_run", "attempts")

    def checkpoint_uri(self, config_hash: str) -> str:
        """Folder where Ray Data keeps the ids that are done."""
        return join_uri(self.uri, "_run", "checkpoint", config_hash)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other run out of the folder meanwhile.

        Raises:
            OutputConflict: another run is at work in it, or nothing can be written in it.
        """
        self.storage.require_folder(self.uri)
        with only_run(join_uri(self.uri, "_run", "lock.json"), self.storage):
            yield

    def read_record(self) -> Facts | None:
        """Return ``run.json``, or None if there is none. Raises OutputConflict if it is damaged."""
        uri = join_uri(self.uri, "run.json")
        if not self.storage.exists(uri):
            return None
        try:
            record: Facts = json.loads(self.storage.read_bytes(uri))
            return record if isinstance(record["identity"], dict) else None
        except (ValueError, KeyError, TypeError) as exc:
            raise OutputConflict(f"{uri} is no record of a run ({exc!r}). {_REMEDY}") from exc

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write ``run.json``, atomically."""
        text = json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n"
        self.storage.write_bytes(join_uri(self.uri, "run.json"), text.encode())

    def require_same(self, record: Facts, identity: Mapping[str, Any]) -> None:
        """Raise OutputConflict, naming what differs, unless `record` is of a run with the same `identity`."""
        changes = _changes(record["identity"], dict(identity))
        if changes:
            raise OutputConflict(
                f"{self.uri} belongs to a run with another configuration: {'; '.join(changes[:_NUM_SHOWN])}. "
                "Give another output folder for the new configuration, or the old one to go on"
            )

    def claim(self, identity: Mapping[str, Any], manifest: pa.Table) -> bool:
        """Check that the folder is free, or that of a run with the same `identity` and rows; keep the manifest in it.

        `identity`: all that decides what a row becomes. New rows may join a manifest. Returns whether an earlier run
        finished exactly this manifest.

        Raises:
            OutputConflict: it belongs to another configuration, its rows have changed, or its record is lost.
        """
        record = self.read_record()
        if record is None:
            if self.storage.list(self.results_uri):
                raise OutputConflict(f"{self.uri} holds results of a run, but not its run.json. {_REMEDY}")
            write_manifest(manifest, self.manifest_uri, self.storage)
            return False
        self.require_same(record, identity)
        self._finish_forgetting()
        earlier = self.read_manifest()
        same = earlier is not None and earlier.equals(manifest)  # or rows are compared, which takes memory
        gone = [] if same or earlier is None else missing_rows(earlier, manifest)
        if gone:
            shown = ", ".join(map(repr, gone[:_NUM_SHOWN])) + (" and others" if len(gone) > _NUM_SHOWN else "")
            raise OutputConflict(
                f"{self.uri} belongs to a manifest in which the rows {shown} were different, or are not in this one. "
                "Put them back, give changed rows new ids, or give another output folder"
            )
        if not same:
            write_manifest(manifest, self.manifest_uri, self.storage)
        same_rows = earlier is not None and earlier.num_rows == manifest.num_rows
        return bool(record.get("status") == "complete" and same_rows)

    def read_results(self, columns: list[str] | None = None, *, ids: list[str] | None = None) -> pa.Table:
        """Return the results so far, or those of `ids`, in no particular order."""
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        wanted = None if ids is None else pa.array(ids, pa.string())
        keep: Keep | None = None if wanted is None else lambda rows: pc.is_in(rows["id"], value_set=wanted)
        return pa.concat_tables([schema.empty_table(), *self.scan_results(schema, keep)]).combine_chunks()

    def scan_results(self, schema: pa.Schema, keep: Keep | None = None) -> Iterator[pa.Table]:
        """Yield the columns of `schema` of the results so far, file by file, only of rows that `keep` chooses.

        ``keep`` sees ``id`` and ``status``. Memory holds a few files.
        """
        filesystem, _ = self.storage.arrow_filesystem(self.results_uri)
        paths = self._parquet_paths(self.results_uri)
        read = partial(_read_rows, filesystem, schema=schema, keep=keep)
        with ThreadPoolExecutor(_NUM_READERS) as pool:
            for first in range(0, len(paths), _NUM_AHEAD):  # or all files would be read before the first is used
                yield from pool.map(read, paths[first : first + _NUM_AHEAD])

    def reconcile(self, manifest: pa.Table, columns: tuple[str, ...] = _OVERVIEW) -> pa.Table:
        """Return a few columns of every row's result, in the manifest's order.

        Raises:
            OutputConflict: a row has no result, or two, or one is of no row.
        """
        results = self.read_results(list(columns))
        missing = pc.invert(pc.is_in(manifest["id"], value_set=results["id"].combine_chunks()))
        if results.num_rows != manifest.num_rows or pc.any(missing).as_py():
            raise OutputConflict(
                f"{self.results_uri} has {results.num_rows} rows for the {manifest.num_rows} of the manifest, of which "
                f"{pc.sum(missing).as_py()} are missing: its files were changed, or two runs wrote at once. {_REMEDY}"
            )
        return results.take(pc.index_in(manifest["id"], value_set=results["id"].combine_chunks()))

    def forget_failed(self, config_hash: str) -> int:
        """Take out the rows that failed or were quarantined, so that they are computed again; return how many.

        Their ids are kept until both the results and the finished ids are without them: whatever stops this in the
        middle, `claim` goes on with it.
        """
        found = self.scan_results(pa.schema([self.schema.field("id")]), lambda rows: pc.not_equal(rows["status"], "ok"))
        failed = [id for table in found for id in table["id"].to_pylist()]
        if failed:
            journal = {"config_hash": config_hash, "ids": failed}
            self.storage.write_bytes(self._forgetting_uri, json.dumps(journal).encode())
            self._finish_forgetting()
        return len(failed)

    def _finish_forgetting(self) -> None:
        """Take out the rows of a `forget_failed` that was begun, if any."""
        if not self.storage.exists(self._forgetting_uri):
            return
        journal = json.loads(self.storage.read_bytes(self._forgetting_uri))
        ids = pa.array(journal["ids"], pa.string())
        for folder in (self.results_uri, self.checkpoint_uri(journal["config_hash"])):
            for uri in self.storage.list(folder):
                if uri.endswith(".parquet"):
                    self._rewrite_without(uri, ids)
        self.storage.remove(self._forgetting_uri)

    def _rewrite_without(self, uri: str, ids: pa.Array) -> None:
        rows = pq.read_table(pa.BufferReader(self.storage.read_bytes(uri)))
        kept = rows.filter(pc.invert(pc.is_in(rows["id"], value_set=ids)))
        if kept.num_rows < rows.num_rows:
            buffer = pa.BufferOutputStream()
            pq.write_table(kept, buffer)
            self.storage.write_bytes(uri, buffer.getvalue().to_pybytes())

    def count_done(self, config_hash: str) -> int:
        """Return how many rows earlier runs have finished, without what a killed run left half written."""
        paths = self._parquet_paths(self.checkpoint_uri(config_hash))
        done = [path for path in paths if not path.endswith(".pending.parquet")]
        if not done:
            return 0
        filesystem, _ = self.storage.arrow_filesystem(self.uri)
        return int(ds.dataset(done, format="parquet", filesystem=filesystem).count_rows())

    def write_sheet(self, rows: pa.Table, manifest: pa.Table, summary: Mapping[str, Any]) -> str:
        """Write ``index.html`` from what `reconcile` returned; only the rows that it shows are read in full."""
        shown = rows["id"].take(choose_rows(rows, MAX_SHOWN)).to_pylist()
        results = self.read_results(ids=shown)
        table = results.take(pc.index_in(rows["id"], value_set=results["id"].combine_chunks()))
        for name in rows.column_names:
            table = table.set_column(table.column_names.index(name), name, rows[name])
        if "note" in manifest.column_names:
            table = table.append_column("note", manifest["note"])
        return write_contact_sheet(
            output=self.uri, results=table, storage=self.storage, summary=summary, max_rows=MAX_SHOWN
        )

    @property
    def _forgetting_uri(self) -> str:
        return join_uri(self.uri, "_run", "forgetting.json")

    def _parquet_paths(self, folder: str) -> list[str]:
        """Return the Parquet files under the folder with this URI, as Arrow's filesystem takes them."""
        uris = [uri for uri in self.storage.list(folder) if uri.endswith(".parquet")]
        return [self.storage.arrow_filesystem(uri)[1] for uri in uris]

    def read_manifest(self) -> pa.Table | None:
        """Return the manifest of an earlier start, None where there is none."""
        if not self.storage.exists(self.manifest_uri):
            return None
        return pq.read_table(pa.BufferReader(self.storage.read_bytes(self.manifest_uri)))


def _read_rows(filesystem: Any, path: str, *, schema: pa.Schema, keep: Keep | None) -> pa.Table:
    """Return the rows of a file; one by one, since a dataset of Arrow keeps what it knows of each file to its end."""
    with filesystem.open_input_file(path) as source, pq.ParquetFile(source) as file:
        found = None if keep is None else keep(file.read(["id", "status"], use_threads=False))
        if found is not None and not pc.any(found).as_py():
            return schema.empty_table()
        rows = with_schema(file.read(schema.names, use_threads=False), schema)
        return rows if found is None else rows.filter(found)


def identify(edit: EditSettings, limits: SourceLimits, manipulator: ManipulatorConfig, models: ModelFacts) -> Facts:
    """Return all that decides what a row becomes: an output folder belongs to one such identity."""
    crop = models.domain.crop
    return {
        "edit": edit.model_dump(mode="json"),
        "limits": limits.model_dump(mode="json"),
        "manipulator": manipulator.model_dump(mode="json", exclude=_HOW | _WHERE),
        "models": dict(models.digests),
        "version": __version__,
        **({"crop": list(crop)} if crop else {}),
        **({"alignment": models.domain.alignment} if models.aligns_photos else {}),
    }


def describe_run(identity: Facts, config: Facts, digests: Iterable[tuple[str, str]]) -> Facts:
    """Return what ``run.json`` says of a run from its start: `identity`, its hash, `config`, models and versions."""
    return {
        "identity": identity,
        "config": config,
        "config_hash": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16],
        "models": dict(digests),
        "version": __version__,
        "versions": _package_versions(),
    }


def _package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide what comes out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return what differs, as 'edit.num_steps was 80, is 100'."""
    found: list[str] = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _changes(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append(f"{prefix}{name} was {before!r:.60}, is {after!r:.60}")
    return found
