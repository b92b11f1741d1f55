"""Foreign checkpoints are recognised by what is in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from foreign_files import saved
from safetensors.torch import save_file

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.recognise import read_foreign, recognise
from soundguide.foreign.record import Record

TREES: dict[str, object] = {
    "nvidia": {"G_ema": Record("Generator")},
    "rosinality": {"g_ema": {}, "latent_avg": 0},
    "inversion": {"state_dict": {}, "opts": {}, "latent_avg": 0},
    "ir_se50": dict.fromkeys(["input_layer.0.weight", "body.0.res_layer.1.weight", "output_layer.3.weight"]),
    "lee": dict.fromkeys(["module.conv.weight", "module.feature_extractor.conv1.weight"]),
    "wav2clip": dict.fromkeys(["audio_encoder.conv1.weight", "audio_transform.sequential.0.weight"]),
    "audioclip": dict.fromkeys(["audio.fbsp.m", "visual.conv1.weight", "logit_scale"]),
    "clip": dict.fromkeys(["visual.conv1.weight", "logit_scale"]),
    "clap": {"state_dict": dict.fromkeys(["module.audio_branch.bn0.weight", "module.logit_scale_a"])},
    "imagebind": dict.fromkeys(["modality_trunks.audio.blocks.0.attn.in_proj_weight"]),
    "tensorflow": (Record("dnnlib.tflib.network.Network"),) * 3,
    "unknown": {"weight": 0},
}


@pytest.mark.parametrize("kind", TREES)
def test_each_kind_is_recognised(kind: str) -> None:
    assert recognise(TREES[kind]) == kind


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({"state_dict": {"audio_branch.x": torch.ones(1)}}, "LAION-CLAP.*Wav2CLIP"),
        ({"modality_trunks.x": torch.ones(1)}, "ImageBind"),
        ({"strange.weight": torch.ones(1)}, r"Looked for G_ema.*got the names \['strange\.weight'\]"),
        ([1], "got list"),
    ],
    ids=["clap", "imagebind", "unknown", "list"],
)
def test_what_is_not_read_says_why(tree: object, told: str, tmp_path: Path) -> None:
    (tmp_path / "file.pt").write_bytes(saved(tree))
    with pytest.raises(InvalidCheckpoint, match=told):
        read_foreign(tmp_path / "file.pt")


def test_safetensors_are_told_by_suffix_and_content(tmp_path: Path) -> None:
    save_file({"strange.weight": torch.ones(1)}, tmp_path / "file.safetensors")
    with pytest.raises(InvalidCheckpoint, match=r"got the names \['strange\.weight'\]"):
        read_foreign(tmp_path / "file.safetensors")
    (tmp_path / "file.safetensors").rename(tmp_path / "file.pt")
    with pytest.raises(InvalidCheckpoint, match="neither a torch file nor a pickle"):
        read_foreign(tmp_path / "file.pt")
