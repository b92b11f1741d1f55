"""Decoding of photographs of every kind, limits, and deterministic PNG files."""

import io
import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from soundguide.errors import InvalidImage
from soundguide.images import ImageLimits, decode_image, encode_png, to_float, to_uint8


def saved(image: Image.Image, container: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, container, **options)
    return buffer.getvalue()


def quadrants(width: int = 64, height: int = 64) -> Image.Image:
    """Red, green / blue, white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = 255
    return Image.fromarray(pixels)


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    quarter = pixels.shape[0] // 4
    return [tuple(pixels[y, x].tolist()) for y in (quarter, -quarter) for x in (quarter, -quarter)]


RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.mark.parametrize("container", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP"])
def test_lossless_formats_give_the_same_pixels(container: str) -> None:
    data = saved(quadrants(), container, **({"lossless": True} if container == "WEBP" else {}))
    decoded = decode_image(data, resolution=64)
    assert decoded.dtype == np.uint8 and decoded.flags.writeable
    np.testing.assert_array_equal(decoded, np.asarray(quadrants()))


def test_jpeg_is_close() -> None:
    decoded = decode_image(saved(quadrants(), "JPEG", quality=95), resolution=64)
    assert np.abs(decoded.astype(int) - np.asarray(quadrants()).astype(int)).mean() < 3


@pytest.mark.parametrize(("width", "height"), [(64, 160), (161, 64), (64, 64)])
@pytest.mark.parametrize("resolution", [16, 64, 100])
def test_the_centre_square_is_resized_to_the_resolution(width: int, height: int, resolution: int) -> None:
    decoded = decode_image(saved(quadrants(width, height)), resolution=resolution)
    assert decoded.shape == (resolution, resolution, 3)
    assert corners(decoded) == [RED, GREEN, BLUE, WHITE]


def test_shrinking_averages_all_pixels() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3)).astype(np.uint8)
    small = decode_image(encode_png(noise), resolution=16)
    assert small.std() < 8  # picking single pixels would keep the noise's 74
    assert small.mean() == pytest.approx(noise.mean(), abs=1)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(1, [RED, GREEN, BLUE, WHITE]), (3, [WHITE, BLUE, GREEN, RED]), (6, [BLUE, RED, WHITE, GREEN])],
)
def test_exif_orientation_is_applied(orientation: int, expected: list[tuple[int, ...]]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert corners(decode_image(saved(quadrants(), exif=exif), resolution=64)) == expected


def test_transparency_is_laid_over_white() -> None:
    rgba = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    rgba.paste((255, 0, 0, 128), (0, 0, 32, 16))
    decoded = decode_image(saved(rgba), resolution=32)
    assert decoded[-1, 0].tolist() == [255, 255, 255]
    np.testing.assert_allclose(decoded[0, 0], [255, 127, 127], atol=1)
    palette = quadrants().quantize(4)
    decoded = decode_image(saved(palette, transparency=palette.getpixel((0, 0))), resolution=64)
    assert corners(decoded) == [WHITE, GREEN, BLUE, WHITE]
    grey_alpha = Image.new("LA", (32, 32), (0, 0))
    assert (decode_image(saved(grey_alpha), resolution=32) == 255).all()


def test_grey_palette_bilevel_and_cmyk_become_rgb() -> None:
    assert (decode_image(saved(Image.new("L", (32, 32), 77)), resolution=32) == 77).all()
    assert (decode_image(saved(Image.new("1", (32, 32), 1)), resolution=32) == 255).all()
    assert corners(decode_image(saved(quadrants().quantize(4)), resolution=64)) == [RED, GREEN, BLUE, WHITE]
    cmyk = decode_image(saved(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "TIFF"), resolution=32)
    np.testing.assert_allclose(cmyk[0, 0], RED, atol=2)


def test_sixteen_bits_keep_their_range() -> None:
    grey = np.linspace(0, 65_535, 64).astype(np.uint16)[None].repeat(64, axis=0)
    expected = np.rint(np.linspace(0, 255, 64))
    for container in ("PNG", "TIFF"):
        decoded = decode_image(saved(Image.fromarray(grey), container), resolution=64)
        np.testing.assert_allclose(decoded[0, :, 1], expected, atol=1)


def test_grey_floats_outside_zero_to_one_are_refused() -> None:
    greys = np.linspace(0, 300, 1024, dtype=np.float32).reshape(32, 32)
    with pytest.raises(InvalidImage, match="grey values run from 0 to 300"):
        decode_image(saved(Image.fromarray(greys), "TIFF"), resolution=32)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    for container in ("GIF", "PNG"):
        data = saved(frames[0], container, save_all=True, append_images=frames[1:])
        assert (decode_image(data, resolution=32) == RED).all()


def empty_png(width: int, height: int) -> bytes:
    """A few bytes whose header promises width x height pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_100, 10_000, 50_000])  # below, between and above Pillow's own two limits
def test_too_many_pixels_are_refused_before_any_is_decoded(side: int) -> None:
    data = empty_png(side, side)
    tracemalloc.start()
    with pytest.raises(InvalidImage, match="at most 64000000"):
        decode_image(data, resolution=64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_higher_limit_is_honoured_without_a_warning() -> None:
    with pytest.raises(InvalidImage, match="damaged"):
        decode_image(empty_png(10_000, 9_000), resolution=64, limits=ImageLimits(max_pixels=10**8))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "no picture"),
        (b"hello " * 100, "no picture"),
        (saved(quadrants(8, 64)), "8 x 64"),
        (saved(Image.effect_noise((64, 64), 90))[:1_000], "damaged"),
        (saved(Image.effect_noise((64, 64), 90), "JPEG")[:900], "damaged"),
    ],
)
def test_bad_pictures_are_refused_with_the_reason(data: bytes, words: str) -> None:
    with pytest.raises(InvalidImage, match=words):
        decode_image(data, resolution=64)


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(InvalidImage, match="at most 50 are allowed"):
        decode_image(saved(quadrants()), resolution=64, limits=ImageLimits(max_bytes=50))


@pytest.mark.filterwarnings("ignore")  # Pillow may warn about damaged metadata
@pytest.mark.parametrize("container", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
def test_damaged_bytes_are_decoded_or_refused_but_never_crash(container: str) -> None:
    good = saved(quadrants(32, 32), container)
    draws = random.Random(0)
    for _ in range(100):
        damaged = bytearray(good)
        for _ in range(6):
            damaged[draws.randrange(len(damaged))] = draws.randrange(256)
        try:
            decoded = decode_image(bytes(damaged), resolution=16, limits=ImageLimits(max_pixels=10**6))
        except InvalidImage:
            continue
        assert decoded.shape == (16, 16, 3)


def test_png_keeps_pixels_and_metadata() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    reopened = Image.open(io.BytesIO(encode_png(pixels, metadata={"seed": "7", "text": "höhle 雨"})))
    assert reopened.text == {"seed": "7", "text": "höhle 雨"}  # type: ignore[attr-defined]
    np.testing.assert_array_equal(np.asarray(reopened), pixels)


def test_png_bytes_depend_only_on_the_content() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    first = encode_png(pixels, metadata={"a": "1", "b": "2"})
    assert first == encode_png(pixels.copy(), metadata={"b": "2", "a": "1"})
    assert first != encode_png(pixels, metadata={"a": "1", "b": "3"})


def test_bytes_to_floats_and_back_is_exact() -> None:
    levels = np.arange(256, dtype=np.uint8)
    floats = to_float(levels)
    assert floats.dtype == np.float32 and floats[0] == -1.0 and floats[255] == 1.0
    np.testing.assert_array_equal(to_uint8(floats), levels)
    np.testing.assert_array_equal(to_uint8(np.array([-3.0, 3.0])), [0, 255])
