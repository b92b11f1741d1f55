"""Networks that have no end, would be huge, or are damaged; each with what its refusal must say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rosinality_oracle
import torch
from foreign_files import lively, nvidia_generator, saved, write_nvidia
from hostile_pickles import (
    EMPTY_DICT,
    EMPTY_LIST,
    NONE,
    POP,
    SETITEM,
    blob,
    bytes_of,
    call,
    get,
    integer,
    mapping,
    module,
    persistent,
    program,
    put,
    tensor,
    text,
)
from torch import Tensor

from soundguide.models.stylegan2 import StyleGAN2Config


def endless() -> dict[str, tuple[bytes, str]]:
    """Return pickles of networks in NVIDIA's layout that have no end, or are none."""
    itself = mapping(module(EMPTY_DICT + put(7) + text("again") + persistent(mapping(module(get(7)))) + SETITEM))
    shared = persistent(mapping(module(EMPTY_DICT)))
    for level in range(40):
        both = mapping({"a": get(1000 + level), "b": get(1000 + level)})
        shared = shared + put(1000 + level) + POP + persistent(mapping(module(both)))
    crowd = EMPTY_DICT + b"".join(integer(i) + get(7) + SETITEM for i in range(3000))
    full = EMPTY_DICT + tensor(call("torch.storage._load_from_bytes", bytes_of(blob(1))), 0, [1], [1]) + put(8) + POP
    full += b"".join(integer(i) + get(8) + SETITEM for i in range(1000)) + put(9) + POP
    wide = mapping({f"m{i}": persistent(mapping(module(EMPTY_DICT, _parameters=get(9)))) for i in range(30)})
    big = EMPTY_DICT + put(10) + b"".join(integer(i) + NONE + SETITEM for i in range(100_000)) + POP
    options = get(10)
    for _ in range(2):
        options = mapping({f"o{i}": options for i in range(32)})
    long = persistent(mapping(module(EMPTY_DICT)))
    for _ in range(400):
        crowd = EMPTY_DICT + b"".join(integer(i) + get(7) + SETITEM for i in range(3000))
    full = EMPTY_DICT + tensor(call("torch.storage._load_from_bytes", bytes_of(blob(1))), 0, [1], [1]) + put(8) + POP
    full += b"".join(integer(i) + get(8) + SETITEM for i in range(1000)) + put(9) + POP
    wide = mapping({f"m{i}": persistent(mapping(module(EMPTY_DICT, _parameters=get(9)))) for i in range(30)})
    big = EMPTY_DICT + put(10) + b"".join(integer(i) + NONE + SETITEM for i in range(100_000)) + POP
    options = get(10)
    for _ in range(2):
        options = mapping({f"o{i}": options for i in range(32)})
    long = persistent(mapping(module(mapping({"m" * 500: long}))))
    return {
        "network in itself": (program(mapping({"G_ema": persistent(itself)})), "more than 2000 modules|is no module"),
        "network shared without end": (
            program(mapping({"G_ema": NONE}), text("G_ema"), shared, SETITEM),
            "2000 modules",
        ),
        "network of a crowd": (
            program(
                mapping({"x": persistent(mapping(module(EMPTY_DICT))) + put(7)}),
                POP,
                mapping({"G_ema": persistent(mapping(module(mapping({"m": persistent(mapping(module(crowd)))}))))}),
            ),
            "2000 modules",
        ),
        "network in which each has all": (
            program(
                EMPTY_DICT + put(6) + persistent(mapping(module(get(6)))) + put(7) + POP + POP,
                get(6) + b"".join(integer(i) + get(7) + SETITEM for i in range(1900)) + POP,
                mapping({"G_ema": get(7)}),
            ),
            "2000 modules",
        ),
        "network of many tensors": (
            program(full, mapping({"G_ema": persistent(mapping(module(wide)))})),
            "20000 tensors",
        ),
        "network of endless options": (
            program(big, mapping({"G_ema": persistent(mapping(module(EMPTY_DICT, _init_kwargs=options)))})),
            "neither synthesis",
        ),
        "network of long names": (program(mapping({"G_ema": long})), "is no module"),
        "module of text": (
            program(mapping({"G_ema": persistent(mapping(module(mapping({"m": text("x")}))))})),
            "'m' is no module",
        ),
        "network of lists": (
            program(mapping({"G_ema": persistent(mapping({"_modules": EMPTY_LIST}))})),
            "expected a dict",
        ),
        "network of nothing": (program(mapping({"G_ema": NONE})), "G_ema"),
        "state of text": (
            program(
                call(
                    "torch_utils.persistence._reconstruct_persistent_obj",
                    mapping({"type": text("class"), "version": b"K\x06", "class_name": text("G"), "state": text("x")}),
                )
            ),
            "_reconstruct_persistent_obj",
        ),
    }


def rosinality(**changes: Any) -> bytes:
    weights: dict[str, Any] = rosinality_oracle.made_weights([3, 2], style_dim=4, n_mlp=1)
    return saved({"g_ema": weights | {name.replace("__", "."): value for name, value in changes.items()}})


def thin(num_doublings: int) -> dict[str, Tensor]:
    """Return weights with names of a large generator and hardly any numbers."""
    weights = rosinality_oracle.made_weights([1, 1], style_dim=1, n_mlp=1)
    for index in range(num_doublings):
        weights |= {
            name.replace(old, f"{kind}{number}"): value
            for name, value in weights.items()
            for old, kind, number in (
                ("convs.0", "convs.", 2 * index),
                ("convs.1", "convs.", 2 * index + 1),
                ("to_rgbs.0", "to_rgbs.", index),
                ("noises.noise_1", "noises.noise_", 2 * index + 1),
                ("noises.noise_2", "noises.noise_", 2 * index + 2),
            )
            if name.startswith(f"{old}.") or name == old
        }
    return weights


def misshapen(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Return generators that would be huge, or are damaged; ``folder`` is for files on the way."""
    generator = lively(StyleGAN2Config(resolution=8, z_dim=4, w_dim=3, mapping_layers=1, channels=(3, 2)))

    def nvidia(*, drop: str = "", **changes: Tensor) -> bytes:
        made = nvidia_generator(generator)
        state = made.meta["state"]["_modules"]["mapping"].meta["state"]
        state["_buffers"] |= {name: value for name, value in changes.items() if name == "w_avg"}
        layer = state["_modules"]["fc0"].meta["state"]["_parameters"]
        layer |= {name: value for name, value in changes.items() if name != "w_avg"}
        layer.pop(drop, None)
        return write_nvidia(folder / "made.pkl", made).read_bytes()

    return {
        "NVIDIA with NaN": (nvidia(bias=torch.tensor([1, float("nan"), 2])), "fc0.bias expected finite"),
        "NVIDIA with integers": (nvidia(bias=torch.ones(3, dtype=torch.int32)), r"fc0.bias expected torch.float32"),
        "NVIDIA without a weight": (nvidia(drop="weight"), r"mapping.fc0.weight expected weights"),
        "NVIDIA of another shape": (nvidia(bias=torch.ones(7)), r"fc0.bias: expected \[3\], got \[7\]"),
        "NVIDIA with huge codes": (nvidia(w_avg=torch.ones(300_000)), r"expected \[\d+, 300000\]|expected \[300000"),
        "NVIDIA with a number for a code": (nvidia(w_avg=torch.tensor(1.0)), r"w_avg expected weights"),
        "rosinality of 2048 pixels": (saved({"g_ema": thin(9)}), r"noise_const: expected \[1024, 1024\], got \[8, 8\]"),
        "rosinality of 2^30 pixels": (saved({"g_ema": thin(28)}), "got 28"),
        "rosinality without numbers": (rosinality(input__input=None), r"input.input expected .*got NoneType"),
        "rosinality with infinity": (
            rosinality(conv1__activate__bias=torch.full((3,), float("inf"))),
            "b4.conv1.bias expected finite",
        ),
        "rosinality beyond float32": (
            rosinality(conv1__activate__bias=torch.full((3,), 1e300, dtype=torch.float64)),
            "b4.conv1.bias expected finite",
        ),
        "rosinality of lists": (saved({"g_ema": {"to_rgbs.0.bias": [1], "style.1.weight": {}}}), "expected a tensor"),
        "rosinality of a list": (saved({"g_ema": [1]}), "no checkpoint that is known"),
    }


def hostile_networks(folder: Path) -> dict[str, tuple[bytes, str]]:
    return endless() | misshapen(folder)
