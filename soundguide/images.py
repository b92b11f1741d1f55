"""Photographs in, PNG files out, and the step between bytes and floats."""

import io
import struct
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, PngImagePlugin

from soundguide.errors import InvalidImage

Pixels = npt.NDArray[np.uint8]

# A closed list: Pillow's other readers start programs (EPS) or parse formats that nobody photographs in.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# What Pillow raises on damaged files, by experience with its readers.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, KeyError, TypeError, OverflowError)
_WARNINGS_LOCK = threading.Lock()  # catch_warnings changes global state and is not thread-safe by itself


@dataclass(frozen=True)
class ImageLimits:
    """What a picture may cost: bytes of the file, pixels at most, and pixels of the shorter side at least."""

    max_bytes: int = 64 * 2**20
    max_pixels: int = 64_000_000  # Pillow itself refuses more than 178 million
    min_side: int = 16


_DEFAULT_LIMITS = ImageLimits()


def decode_image(data: bytes, *, resolution: int, limits: ImageLimits = _DEFAULT_LIMITS) -> Pixels:
    """Decode a picture to ``[resolution, resolution, 3]`` uint8 RGB, as `decode_to_size` does: the centre square."""
    return decode_to_size(data, height=resolution, width=resolution, limits=limits)


def decode_to_size(data: bytes, *, height: int, width: int, limits: ImageLimits = _DEFAULT_LIMITS) -> Pixels:
    """Decode a picture to ``[height, width, 3]`` uint8 RGB: upright, the largest part of that shape in the middle.

    Resized by Lanczos. Reads PNG, JPEG, WebP, BMP, GIF (first frame), TIFF and PPM. EXIF orientation is applied,
    transparency is laid over white. Size limits are checked on the header, before any pixel is decoded.

    Raises:
        InvalidImage: the bytes are empty, no picture, damaged, or outside `limits`.
    """
    return fit(open_upright(data, limits), height=height, width=width)


def open_upright(data: bytes, limits: ImageLimits = _DEFAULT_LIMITS) -> Image.Image:
    """Decode a picture as 8-bit RGB of its own size, upright; reads, refuses and raises as `decode_to_size` does."""
    image = _open_header(data, limits)
    try:
        return _to_rgb(ImageOps.exif_transpose(image))
    except InvalidImage:
        raise
    except (*_DAMAGE, Image.DecompressionBombError) as exc:
        raise InvalidImage(f"the {image.format} picture is damaged or cut short ({exc}); export it again") from exc


def fit(rgb: Image.Image, *, height: int, width: int) -> Pixels:
    """Return the largest part of the shape ``[height, width, 3]`` in the middle of a picture, resized by Lanczos."""
    # whole pixels, at least one, of the shape that is asked for
    across = max(1, min(rgb.width, round(rgb.height * width / height)))
    down = max(1, min(rgb.height, round(rgb.width * height / width)))
    left, top = (rgb.width - across) // 2, (rgb.height - down) // 2
    middle = rgb.crop((left, top, left + across, top + down))
    return np.array(middle.resize((width, height), Image.Resampling.LANCZOS), dtype=np.uint8)


def encode_png(image: Pixels, *, metadata: Mapping[str, str] | None = None) -> bytes:
    """Encode `image` ``[H, W, 3]`` uint8 as PNG with `metadata` as text chunks. Equal input gives equal bytes."""
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, f"{image.dtype} {image.shape}"
    info = PngImagePlugin.PngInfo()
    for key, text in sorted((metadata or {}).items()):
        info.add_text(key, text)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", pnginfo=info, compress_level=6)
    return buffer.getvalue()


def to_uint8(images: npt.NDArray[np.floating]) -> Pixels:
    """Convert finite floats in [-1, 1], any shape, to the nearest of 0..255; values outside are clipped."""
    assert np.isfinite(images).all(), "pixels are not finite"
    levels: Pixels = np.rint((np.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
    return levels


def to_float(images: Pixels) -> npt.NDArray[np.float32]:
    """Convert 0..255, any shape, to float32 in [-1, 1]; `to_uint8` gives the same bytes back."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def _open_header(data: bytes, limits: ImageLimits) -> Image.Image:
    """Read the header only and check it against `limits`."""
    if not data:
        raise InvalidImage("the picture file is empty (0 bytes); export or upload it again")
    if len(data) > limits.max_bytes:
        raise InvalidImage(f"the picture has {len(data)} bytes; at most {limits.max_bytes} are allowed. Compress it")
    try:
        # Pillow warns by a limit of its own; ours is checked right below.
        with _WARNINGS_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as exc:
        raise InvalidImage(f"the picture is too large ({exc}); at most {limits.max_pixels} pixels fit") from exc
    except _DAMAGE as exc:
        raise InvalidImage(
            f"the {len(data)} bytes are no picture that can be read; use one of {', '.join(_FORMATS)}"
        ) from exc
    width, height = image.size
    if width * height > limits.max_pixels:
        raise InvalidImage(
            f"the picture has {width} x {height} pixels; at most {limits.max_pixels} are allowed. Scale it down"
        )
    if min(width, height) < limits.min_side:
        raise InvalidImage(
            f"the picture has {width} x {height} pixels; each side needs at least {limits.min_side}. Give a larger one"
        )
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return `image` as 8-bit RGB; 16-bit and float grey keep their full range, alpha is laid over white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_scale_grey(np.asarray(image))).convert("RGB")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _scale_grey(grey: npt.NDArray[np.generic]) -> Pixels:
    """Map integers 0..65535, or floats 0..1, to 0..255 (Pillow's own conversion clips them at 255)."""
    values = grey.astype(np.float64)
    top = 1.0 if np.issubdtype(grey.dtype, np.floating) else 65535.0
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > top:
        raise InvalidImage(
            f"the grey values run from {values.min():g} to {values.max():g}; expected 0 to {top:g}. "
            "Export the picture as 8-bit PNG"
        )
    return np.rint(values * (255.0 / top)).astype(np.uint8)
