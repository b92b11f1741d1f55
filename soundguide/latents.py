"""Files of W+ codes: safetensors with the key ``ws``, or NumPy's .npy."""

import io
from tokenize import TokenError

import numpy as np
from numpy.typing import NDArray

from soundguide.errors import InvalidLatent

MAX_LATENT_MIB = 16  # of a file; the codes of the largest generators take 40 KiB

_KEY = "ws"
_REMEDY = f"Give the key {_KEY!r} of a .safetensors file, or a .npy file, as an earlier edit wrote it"


def encode_latent(ws: NDArray[np.float32], *, metadata: dict[str, str] | None = None) -> bytes:
    """Encode a code ``[L, D]`` as safetensors with `metadata`. Equal input gives equal bytes."""
    from safetensors.numpy import save

    return save({_KEY: np.ascontiguousarray(ws, dtype=np.float32)}, metadata=metadata)


def decode_latent(data: bytes, *, num_ws: int, w_dim: int) -> NDArray[np.float32]:
    """Decode a code to ``[num_ws, w_dim]`` float32 from ``[L, D]``, ``[1, L, D]``, or ``[D]`` for all layers alike.

    Raises:
        InvalidLatent: the bytes are no latent file, of another shape, or not finite.
    """
    try:
        ws = _read_npy(data, num_ws * w_dim) if data.startswith(b"\x93NUMPY") else _read_safetensors(data)
    except InvalidLatent:
        raise
    except (ValueError, TypeError, EOFError, SyntaxError, TokenError, OverflowError, MemoryError) as exc:
        raise InvalidLatent(f"the latent file cannot be read ({exc}). {_REMEDY}") from exc
    shape = ws.shape[1:] if ws.ndim == 3 and len(ws) == 1 else ws.shape
    if shape not in ((num_ws, w_dim), (w_dim,)) or ws.dtype.kind != "f":
        raise InvalidLatent(
            f"the latent is {ws.dtype} of shape {list(ws.shape)}; this generator takes floats of [{num_ws}, {w_dim}], "
            f"[1, {num_ws}, {w_dim}] or [{w_dim}]. Use a code of this generator"
        )
    with np.errstate(over="ignore"):  # what overflows is caught as not finite below
        code = np.broadcast_to(ws.astype(np.float32).reshape(shape), (num_ws, w_dim))
    if not np.isfinite(code).all():
        raise InvalidLatent("the latent holds NaN or infinite numbers; write it again from a finished edit")
    return np.ascontiguousarray(code)


def _read_safetensors(data: bytes) -> NDArray[np.generic]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
    except (SafetensorError, KeyError) as exc:  # KeyError: a type that NumPy lacks
        raise InvalidLatent(f"the latent file cannot be read as safetensors ({exc}). {_REMEDY}") from exc
    if _KEY not in tensors:
        raise InvalidLatent(f"the latent file holds {sorted(tensors)!r:.200}, not {_KEY!r}. {_REMEDY}")
    return tensors[_KEY]


def _read_npy(data: bytes, num_values: int) -> NDArray[np.generic]:
    """Read .npy; its header is checked first, for it may promise any size."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject or np.prod([float(size) for size in shape]) > num_values:
        raise InvalidLatent(f"the latent file holds {dtype} of shape {list(shape)}, more than a code. {_REMEDY}")
    file.seek(0)
    array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
    return array
