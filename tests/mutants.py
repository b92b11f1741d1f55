"""Small honest files, and what becomes of them when bytes are flipped, cut, spliced or swapped."""

from __future__ import annotations

import argparse
import io
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import rosinality_oracle
import torch
from foreign_files import EasyDict, Persistent, lively, module_state, nvidia_generator, nvidia_names, saved
from safetensors.torch import save
from torch import nn

from soundguide.models.stylegan2 import StyleGAN2Config

OPCODES = b"".join(opcode.code.encode("latin-1") for opcode in pickletools.opcodes)
LENGTHS = (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x00", b"\x00\x00\x00\x80", b"\x01\x00\x00\x00")


def honest_files() -> dict[str, bytes]:
    """Return files of each layout, as small as they can be, by their names."""
    flat = {
        "a": torch.arange(6.0).reshape(2, 3).t(),
        "b": torch.ones(2, dtype=torch.float16),
        "c": nn.Parameter(torch.ones(1)),
    }
    tree = {
        "state_dict": flat,
        "args": argparse.Namespace(size=8, lr=0.5),
        "more": [np.float32(2), {1, "x"}, (None, 1.5)],
    }
    small = Persistent(
        "Generator",
        module_state({"w_avg": torch.ones(2)}, {}, _init_kwargs=EasyDict(z_dim=4, c=np.int64(1))),
    )
    generator = lively(StyleGAN2Config(resolution=8, z_dim=2, w_dim=2, mapping_layers=1, channels=(2, 1)))
    weights = rosinality_oracle.made_weights([2, 1], style_dim=2, n_mlp=1)
    with nvidia_names():
        return {
            "small.pkl": pickle.dumps({"G_ema": small}),
            "small2.pkl": pickle.dumps({"G_ema": small, "x": b"bytes"}, protocol=2),
            "network.pkl": pickle.dumps({"G_ema": nvidia_generator(generator)}),
            "module.pt": saved(small),
            "new.pt": saved(tree),
            "old.pt": saved(tree, zipped=False),
            "rosinality.pt": saved({"g_ema": weights, "latent_avg": torch.ones(2)}),
            "weights.safetensors": save({"a": torch.ones(2, 3), "b": torch.ones(1)}),
        }


def mutants(files: dict[str, bytes], number: int, *, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of so many mutated files, each drawn from the seed and its number."""
    names = sorted(files)
    for index in range(number):
        random = Random(f"{seed} {index}")
        name = random.choice(names)
        data = files[name]
        if data.startswith(b"PK") and random.random() < 0.8:
            yield name, _mutated_within(data, random, files)
        else:
            yield name, _mutated(data, random, files)


def _mutated(data: bytes, random: Random, files: dict[str, bytes]) -> bytes:
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        place = random.randrange(len(data) + 1)
        match random.randrange(8):
            case 0:
                data = _put(data, place, bytes([random.randrange(256)]))
            case 1:
                data = _put(data, place, bytes([byte ^ 1 << random.randrange(8) for byte in data[place : place + 1]]))
            case 2 | 3:
                data = _put(data, place, bytes([random.choice(OPCODES)]))
            case 4:
                data = _put(data, place, random.choice(LENGTHS))
            case 5:
                data = data[:place]
            case 6:
                end = place + random.randrange(60)
                data = data[:place] + random.choice((b"", data[place:end] * 2, random.randbytes(8))) + data[end:]
            case _:
                other = files[random.choice(sorted(files))]
                start = random.randrange(len(other))
                data = data[:place] + other[start : start + random.randrange(200)] + data[place:]
    return data


def _put(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def _mutated_within(data: bytes, random: Random, files: dict[str, bytes]) -> bytes:
    """Return the archive with one of its files mutated, and right checksums: what lies behind them is reached so."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        names = old.namelist()
        chosen = random.choice([*names, *[name for name in names if name.endswith("data.pkl")] * len(names)])
        for info in old.infolist():
            content = old.read(info)
            if info.filename == chosen:
                content = _mutated(content, random, files)
            new.writestr(zipfile.ZipInfo(info.filename), content)
    return file.getvalue()


def write_honest_files(folder: Path) -> dict[str, bytes]:
    files = honest_files()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return files
