"""Face encoders and detectors of random or constant weights, and their ONNX files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from soundguide.foreign.face_files import read_arcface_onnx
from soundguide.foreign.onnx_export import write_arcface_onnx
from soundguide.models.arcface import AlignmentConfig, ArcFaceConfig, ArcFaceEncoder
from soundguide.models.checkpoint import save_model
from soundguide.views import resample

TINY = ArcFaceConfig(layers=(1, 2, 1, 1), widths=(4, 6, 8, 8), input_size=32, embed_dim=10)
ANCHORS = 2  # of SCRFD at each place of a scale
STRIDES = (8, 16, 32)


def tiny_encoder(seed: int = 3, **changes: object) -> ArcFaceEncoder:
    """Return an encoder in evaluation mode in which every weight and statistic matters."""
    encoder = ArcFaceEncoder(ArcFaceConfig.model_validate(TINY.model_dump() | changes))
    draw = torch.Generator().manual_seed(seed)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=draw))
            module.weight.data += 1
            module.running_var.abs_().add_(0.5)
        elif isinstance(module, nn.PReLU):
            module.weight.data += 0.2 * torch.randn(module.weight.shape, generator=draw)
    return encoder.eval().requires_grad_(False)


def export(encoder: ArcFaceEncoder, path: Path, *, folded: bool, batch: str | None = "N") -> Path:
    """Write the trunk with torch's own exporter, as arcface_torch does, normalisations folded or not."""
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the exporter that wrote the files in use is an old one
        torch.onnx.export(
            encoder.trunk,
            (torch.zeros(1, 3, encoder.resolution, encoder.resolution),),
            str(path),
            dynamo=False,
            training=mode,
            do_constant_folding=folded,
            input_names=["input.1"],
            dynamic_axes={"input.1": {0: batch}} if batch else None,
        )
    return path


def write_identity(folder: Path, *, seen: Tensor | None = None, **alignment: Any) -> Path:
    """Save the folder of a small face encoder that came by way of ONNX; return it.

    ``seen``: pictures ``[N, 3, H, W]`` whose embeddings lie all around zero, so that it tells them apart.
    """
    encoder = tiny_encoder()
    if seen is not None:
        features = encoder.trunk.get_submodule("features")
        assert isinstance(features, nn.BatchNorm1d)
        features.bias.zero_()
        features.running_mean.zero_()
        around = encoder.trunk(resample(seen, encoder.resolution)).mean(0)
        features.running_mean.copy_(around / features.weight * (features.running_var + features.eps).sqrt())
    write_arcface_onnx(encoder, folder.with_suffix(".onnx"))
    found = read_arcface_onnx(folder.with_suffix(".onnx"))
    config = found.config.model_copy(update={"alignment": AlignmentConfig(**alignment)})
    save_model(folder, found.module, config, half=False, made_by="write_identity", extra=found.extra)
    return folder


def write_detector(
    path: Path,
    landmarks: NDArray[np.float32] | None,
    *,
    second: NDArray[np.float32] | None = None,
    size: int = 128,
    in_bright_ones: bool = False,
) -> Path:
    """Write a network with SCRFD's inputs and outputs for ``size`` px that sees one face, always, or none.

    ``landmarks`` ``[5, 2]`` in pixels of ``size``; ``second``: those of another face, seen beside the first.
    ``in_bright_ones``: none where the picture is dark.
    """
    faces = [points for points in (landmarks, second) if points is not None]
    nodes, tensors, outputs = [], [], []
    for width, what in ((1, "score"), (4, "box"), (10, "points")):
        for stride in STRIDES:
            values = np.zeros((ANCHORS * (size // stride) ** 2, width), np.float32)
            # at the first place, which is the corner: distances from there, in strides
            for anchor, points in enumerate(faces if stride == STRIDES[0] else []):
                left, top, right, bottom = *points.min(0), *points.max(0)
                values[anchor] = {
                    "score": [0.9],
                    "box": np.array([-left, -top, right, bottom]) / stride,
                    "points": points.reshape(-1) / stride,
                }[what]
            name = f"{what}_{stride}"
            tensors.append(numpy_helper.from_array(values, f"{name}_values"))
            offset = "offset" if what == "score" else "nothing"
            nodes.append(helper.make_node("Add", [f"{name}_values", offset], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape))
    # the picture must count for something, or the runtime drops it
    light = helper.make_node("ReduceMean", ["picture"], ["light"], keepdims=0)
    least = "dark" if in_bright_ones else "zero"
    bright = helper.make_node("Clip", ["light", least, "zero"], ["offset"])
    none = helper.make_node("Clip", ["light", "zero", "zero"], ["nothing"])
    tensors += [numpy_helper.from_array(np.float32(value), name) for name, value in (("zero", 0), ("dark", -1))]
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, size, size])
    graph = helper.make_graph([light, bright, none, *nodes], "scrfd", [picture], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)
    return path
