"""The shards of a prepared set: reading them back, and whether every request has its row."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from soundguide.clips.tables import clip_schema
from soundguide.errors import OutputConflict
from soundguide.run_folder import RunFolder
from soundguide.storage import join_uri

_OVERVIEW = ("id", "split", "status", "error", "error_kind", "has_frame")


def open_shards(folder: RunFolder, *, embed_dim: int) -> ds.Dataset:
    """Return the `ClipPair` rows of a prepared set, good and bad, as a dataset to be streamed from."""
    filesystem, path = folder.storage.arrow_filesystem(folder.results_uri)
    return ds.dataset(path, schema=clip_schema(embed_dim), format="parquet", filesystem=filesystem)


def weak_partners_uri(folder: RunFolder) -> str:
    """Return the folder in which each split has its table of weak partners."""
    return join_uri(folder.uri, "weak_partners")


def reconcile_clips(folder: RunFolder, requests: pa.Table, *, embed_dim: int) -> pa.Table:
    """Return id, split, status, error, error_kind and has_frame of every request, in their order.

    Raises:
        OutputConflict: a request has no row, or two, or a row is of no request.
    """
    rows = open_shards(folder, embed_dim=embed_dim).to_table(columns=list(_OVERVIEW))
    ids = rows["id"].combine_chunks()
    missing = pc.invert(pc.is_in(requests["id"], value_set=ids))
    if rows.num_rows != requests.num_rows or pc.any(missing).as_py():
        raise OutputConflict(
            f"{folder.results_uri} has {rows.num_rows} rows for {requests.num_rows} clips, of which "
            f"{pc.sum(missing).as_py()} are missing: its files were changed, or two runs wrote at once. Give another "
            "output folder, or empty this one"
        )
    return rows.take(pc.index_in(requests["id"], value_set=ids))
