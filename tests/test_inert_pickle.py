"""Pickles and torch files read as data: what was saved comes back, bit for bit, and classes stay names."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_files import named_as, saved
from torch import Tensor, nn

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.bounds import Bounds
from soundguide.foreign.inert_pickle import Global, Record, read_pickle
from soundguide.foreign.torch_file import read_torch_file

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
DTYPES += [torch.int8, torch.uint8, torch.bool]


def read(data: bytes, folder: Path, **bounds: int) -> Any:
    path = folder / "file.pt"
    path.write_bytes(data)
    return read_torch_file(path, bounds=Bounds(**bounds))


def same(got: Any, wanted: Tensor) -> bool:
    return bool(got.dtype == wanted.dtype and got.shape == wanted.shape and torch.equal(got, wanted))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_comes_back(protocol: int) -> None:
    shared = [1, 2]
    tree = {
        "numbers": (0, 255, 256, 65536, -1, 2**40, -(2**40), 1.5, float("inf"), True, False, None),
        "texts": ["", "ä", "x" * 300, "\u20ac" * 70],
        "bytes": (b"", b"\x00\xff", b"y" * 300),
        "nested": {1: {"a": [[], {}, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]}, b"key": shared, None: shared},
        "set": {"a", 3},
        "many": list(range(3000)),
    }
    got = read_pickle(pickle.dumps(tree, protocol=protocol), source="here")
    assert got == tree
    assert isinstance(got, dict) and got["nested"][b"key"] is got["nested"][None]


def test_what_contains_itself_is_read_and_left_as_it_is() -> None:
    tree: list[Any] = [1]
    tree.append(tree)
    got = read_pickle(pickle.dumps(tree), source="here")
    assert isinstance(got, list) and got[1] is got


def test_objects_of_unknown_classes_become_records() -> None:
    class Layer:
        def __init__(self) -> None:
            self.width = 3

    with named_as({"their.models.Layer": Layer}):
        data = pickle.dumps({"layer": Layer(), "class": Layer})
    got = read_pickle(data, source="here")
    assert isinstance(got, dict)
    assert isinstance(got["layer"], Record) and got["layer"].name == "their.models.Layer"
    assert got["layer"].state == {"width": 3}
    assert isinstance(got["class"], Global) and got["class"].name == "their.models.Layer"


def test_a_module_saved_whole_becomes_records_with_its_weights(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    for zipped in (True, False):
        got = read(saved(module, zipped=zipped), tmp_path)
        assert got.name == "torch.nn.modules.container.Sequential"
        linear, norm = got.state["_modules"]["0"], got.state["_modules"]["1"]
        assert same(linear.state["_parameters"]["weight"], module[0].weight.detach())
        assert same(norm.state["_buffers"]["running_var"], torch.ones(3))


def test_arguments_of_a_training_run_become_a_record(tmp_path: Path) -> None:
    got = read(saved({"args": argparse.Namespace(size=256, lr=0.002), "n": 1}), tmp_path)
    assert got["args"].name == "argparse.Namespace" and got["args"].state == {"size": 256, "lr": 0.002}


@pytest.mark.parametrize("protocol", [2, 4])
def test_numbers_of_numpy_become_numbers_and_arrays_records(protocol: int) -> None:
    numbers = [np.float64(1.25), np.float32(0.5), np.int64(-7), np.uint8(200), np.bool_(True), np.float16(2.0)]
    got = read_pickle(pickle.dumps([*numbers, np.arange(3)], protocol=protocol), source="here")
    assert isinstance(got, list)
    assert got[:-1] == [1.25, 0.5, -7, 200, True, 2.0]
    assert isinstance(got[-1], Record) and got[-1].name == "numpy.ndarray"


def test_numbers_of_numpy_2_have_the_same_names() -> None:
    data = pickle.dumps(np.float64(3.5), protocol=4)
    old, new = b"\x8c\x15numpy.core.multiarray", b"\x8c\x16numpy._core.multiarray"
    assert new in data
    start = data.index(b"\x95")  # the frame's length is not the length of what is read
    assert read_pickle(data[:start] + data[start + 9 :].replace(new, old), source="here") == 3.5


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_come_back_bit_for_bit(dtype: torch.dtype, zipped: bool, tmp_path: Path) -> None:
    value = (torch.randn(4, 5, generator=torch.Generator().manual_seed(0)) * 50).to(dtype)
    tree = {"value": value, "scalar": value[0, 0].clone(), "empty": value.new_empty(0, 3), "more": [value + value]}
    got = read(saved(tree, zipped=zipped), tmp_path)
    assert same(got["value"], value) and same(got["scalar"], value[0, 0]) and same(got["more"][0], value + value)
    assert same(got["empty"], value.new_empty(0, 3))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_views_and_parameters_come_back(zipped: bool, tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    views = [base, base.transpose(0, 2), base[1], base[:, 1:, ::2], nn.Parameter(base[:, 0])]
    got = read(saved(views, zipped=zipped), tmp_path)
    assert all(same(mine, view.detach()) for mine, view in zip(got, views, strict=True))


def test_tensors_in_a_plain_pickle_come_back() -> None:
    tree = {"half": torch.tensor([1.5, -2.0], dtype=torch.float16), "weight": nn.Parameter(torch.randn(3, 2))}
    got = read_pickle(pickle.dumps(tree), source="here")
    assert isinstance(got, dict)
    assert same(got["half"], tree["half"]) and same(got["weight"], tree["weight"].detach())


def test_weights_of_a_module_come_with_what_torch_attaches(tmp_path: Path) -> None:
    module = nn.BatchNorm1d(3)
    got = read(saved(module.state_dict(), zipped=False), tmp_path)  # an OrderedDict that has attributes
    assert got.keys() == module.state_dict().keys()


def test_sizes_and_devices_become_tuples_and_texts(tmp_path: Path) -> None:
    tree = {
        "size": torch.Size([3, 4]),
        "devices": [torch.device("cpu"), torch.device("cuda", 1)],
        "o": OrderedDict(a=1),
    }
    assert read(saved(tree), tmp_path) == {"size": (3, 4), "devices": ["cpu", "cuda:1"], "o": {"a": 1}}


def test_a_tensor_outlives_its_file(tmp_path: Path) -> None:
    got = read(saved(torch.arange(9.0)), tmp_path)
    (tmp_path / "file.pt").unlink()
    got += 1
    assert got.tolist() == [*range(1, 10)]


BOUNDS = [
    ({"opcodes": 20}, "opcodes"),
    ({"text_bytes": 20}, "bytes of text"),
    ({"tensors": 1}, "tensors"),
    ({"key_chars": 3}, "key"),
    ({"file_bytes": 100}, "more than the 100"),
    ({"pickle_bytes": 10}, "data.pkl"),
]


@pytest.mark.parametrize(("bound", "named"), BOUNDS, ids=[name for _, name in BOUNDS])
def test_each_bound_is_kept(bound: dict[str, int], named: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match=named):
        read(saved({"first": torch.zeros(3), "second": torch.zeros(4)}), tmp_path, **bound)


NOT_CHECKPOINTS = {
    "empty": (b"", "empty"),
    "web page": (b"<!DOCTYPE html><html>", "web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "text": (b"hello there", "hello"),
}


@pytest.mark.parametrize("name", NOT_CHECKPOINTS)
def test_what_is_no_checkpoint_is_named(name: str, tmp_path: Path) -> None:
    data, told = NOT_CHECKPOINTS[name]
    with pytest.raises(InvalidCheckpoint, match=told):
        read(data, tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"none\.pt.*no such file"):
        read_torch_file(tmp_path / "none.pt")


def test_torchscript_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own format is deprecated
        torch.jit.script(nn.Linear(2, 2)).save(str(path))
    with pytest.raises(InvalidCheckpoint, match=r"TorchScript.*safetensors.*open_clip.*quickgelu"):
        read_torch_file(path)
