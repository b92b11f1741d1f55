"""Faces of five coloured dots: how to draw them, a detector that finds them, and where they are in a picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

# each in three of the corners of the colours' cube, all far from grey and black
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255))
SIDE = 128  # pixels that the detector looks at
ANCHORS, STRIDES = 2, (8, 16, 32)

# Eyes, nose and corners of the mouth as shares of a picture's side, right for FFHQ: by hand, for its square has four
# times the distance of the eyes (a quarter), and its middle a tenth below them on the way to the mouth (a quarter)
IN_FFHQ = np.array([[0.375, 0.475], [0.625, 0.475], [0.5, 0.6], [0.4, 0.725], [0.6, 0.725]])

Points = NDArray[np.float64]


def similarity(*, degrees: float, side: float, middle: tuple[float, float]) -> NDArray[np.float64]:
    """Return ``[2, 3]``: from shares of an aligned picture to pixels of a photo in which it lies, turned clockwise."""
    angle = np.deg2rad(degrees)
    turn = side * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.concatenate([turn, (np.array(middle) - turn @ [0.5, 0.5])[:, None]], 1)


def apply(matrix: NDArray[np.float64], points: Points) -> Points:
    return points @ matrix[:, :2].T + matrix[:, 2]


def dotted_photo(points: Points, *, width: int, height: int, radius: float) -> Image.Image:
    """Draw dots at ``points`` ``[5, 2]``, in pixels from the corner, on a soft grey ground."""
    ground = np.random.default_rng(0).integers(100, 156, (6, 6, 3), np.uint8)
    image = Image.fromarray(ground).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for (x, y), colour in zip(points, COLOURS, strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image


def png(image: Image.Image | NDArray[np.uint8], **options: object) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, "PNG", **options)
    return buffer.getvalue()


def dots_in(pixels: NDArray[np.uint8]) -> Points:
    """Return the centres ``[5, 2]`` of the dots of a picture, in pixels from the corner."""
    signs = np.sign(np.array(COLOURS) - 127.5)
    likeness = np.maximum((pixels / 127.5 - 1) @ signs.T - 1.5, 0)
    rows, columns = np.indices(pixels.shape[:2]) + 0.5
    return np.stack([[(a * columns).sum() / a.sum(), (a * rows).sum() / a.sum()] for a in np.moveaxis(likeness, 2, 0)])


def write_dot_detector(path: Path) -> Path:
    """Write a network with SCRFD's inputs and outputs that finds the dots as `dots_in` does: a face where all are."""
    constants = {
        "signs": np.sign(np.array(COLOURS) - 127.5)[:, :, None, None],
        "bias": np.full(len(COLOURS), -1.5),
        "places": np.stack(np.indices((SIDE, SIDE))[::-1], 2).reshape(-1, 2),
        "stride": np.array(STRIDES[0]),
        "little": np.array(1e-6),
        "much": np.array(100.0),
        "zero": np.array(0.0),
        "sure": np.array(0.9),
        "minus": np.array(-1.0),
    }
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    shapes = {"flat": [len(COLOURS), SIDE * SIDE], "row": [1, 2 * len(COLOURS)], "one": [1, 1]}
    tensors += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in shapes.items()]
    tensors.append(numpy_helper.from_array(np.array([1], np.int64), "along"))
    steps = [
        ("Conv", ["picture", "signs", "bias"], "alike", {}),
        ("Relu", ["alike"], "seen", {}),
        ("Reshape", ["seen", "flat"], "masks", {}),
        ("ReduceSum", ["masks", "along"], "mass", {"keepdims": 1}),
        ("MatMul", ["masks", "places"], "moments", {}),
        ("Add", ["mass", "little"], "safe", {}),
        ("Div", ["moments", "safe"], "pixels", {}),
        ("Div", ["pixels", "stride"], "units", {}),
        ("Reshape", ["units", "row"], "points", {}),
        ("ReduceMin", ["units"], "least", {"axes": [0], "keepdims": 1}),
        ("ReduceMax", ["units"], "most", {"axes": [0], "keepdims": 1}),
        ("Mul", ["least", "minus"], "before", {}),
        ("Concat", ["before", "most"], "box", {"axis": 1}),
        ("Mul", ["mass", "much"], "plenty", {}),
        ("Clip", ["plenty", "zero", "sure"], "there", {}),
        ("ReduceMin", ["there"], "all", {"axes": [0, 1], "keepdims": 0}),
        ("Reshape", ["all", "one"], "score", {}),
    ]
    outputs = []
    for what, width in (("score", 1), ("box", 4), ("points", 10)):
        for stride in STRIDES:
            name, num = f"{what}_{stride}", ANCHORS * (SIDE // stride) ** 2
            # the face is that of the first place, which is the corner: distances from there, in strides
            blank = np.zeros((num - (stride == STRIDES[0]), width), np.float32)
            tensors.append(numpy_helper.from_array(blank, f"{name}_blank"))
            parts = [*([what] if stride == STRIDES[0] else []), f"{name}_blank"]
            steps.append(("Concat", parts, name, {"axis": 0}))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [num, width]))
    nodes = [helper.make_node(kind, inputs, [name], **options) for kind, inputs, name, options in steps]
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    graph = helper.make_graph(nodes, "dots", [picture], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)
    return path
