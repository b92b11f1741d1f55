"""Two real processes on gloo against one: gathered rows, their gradient, and the refusal of uneven batches."""

from __future__ import annotations

import datetime
import math
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from soundguide.contrastive import INITIAL_LOG_SCALE, info_nce, weak_pair_kl
from soundguide.distributed import gather_rows
from soundguide.errors import InvalidProgram

NUM_WORKERS = 2
NUM_CLIPS = 8
LABELS = torch.tensor([0, 1, 2, 0, 1, 3, 3, 0])  # the same labels in both halves
Batch = dict[str, Tensor]
Gradients = dict[str, Tensor]


class Answers(TypedDict):
    """What one worker found: gradients of both kinds of loss, gathered rows, a refusal, and a gather after it."""

    all_rows: Gradients
    own_rows: Gradients
    gathered: tuple[Tensor, ...]
    refused: str
    after: Tensor


class SoundBranch(nn.Module):
    """A linear sound encoder and the learnable scales of the three contrastive terms."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.encoder = nn.Linear(5, 6, dtype=torch.float64)
        with torch.no_grad():
            self.encoder.weight.copy_(torch.randn(6, 5, generator=generator, dtype=torch.float64))
            self.encoder.bias.copy_(torch.randn(6, generator=generator, dtype=torch.float64))
        scales = INITIAL_LOG_SCALE - torch.tensor([0.0, 0.4, 0.8], dtype=torch.float64)
        self.log_scales = nn.Parameter(scales)  # audio-text, audio-image, audio-audio

    def forward(self, sound: Tensor) -> tuple[Tensor, Tensor]:
        return F.normalize(self.encoder(sound), dim=1), self.log_scales


def clips() -> Batch:
    generator = torch.Generator().manual_seed(1)
    names = {"sound": 5, "augmented": 5, "text": 6, "image": 6, "partner": 6}
    batch = {
        name: torch.randn(NUM_CLIPS, width, generator=generator, dtype=torch.float64) for name, width in names.items()
    }
    units = {name: F.normalize(batch[name], dim=1) for name in ("text", "image", "partner")}
    return batch | units | {"label": LABELS}


def own_part(batch: Batch, rank: int) -> Batch:
    return {name: rows.chunk(NUM_WORKERS)[rank] for name, rows in batch.items()}


def encode(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    # Both views in one pass: DDP follows one forward pass a step.
    embeddings, log_scales = model(torch.cat([batch["sound"], batch["augmented"]]))
    audio, augmented = embeddings.chunk(2)
    return audio, augmented, log_scales


def loss_over_all(model: nn.Module, batch: Batch) -> Tensor:
    """Return the sum of all four terms, over the rows of all workers (Eq. 13)."""
    audio, augmented, log_scales = encode(model, batch)
    audio, augmented, text, image, partner, label = gather_rows(
        audio, augmented, batch["text"], batch["image"], batch["partner"], batch["label"]
    )
    return (
        info_nce(audio, text, logit_scale=log_scales[0], same=label[:, None] == label)
        + info_nce(audio, image, logit_scale=log_scales[1])
        + info_nce(audio, augmented, logit_scale=log_scales[2])
        + weak_pair_kl(
            audio,
            partner,
            text,
            audio_logit_scale=log_scales[1],
            teacher_logit_scale=torch.tensor(math.log(20), dtype=torch.float64),
        )
    )


def loss_over_own_rows(model: nn.Module, batch: Batch) -> Tensor:
    """Return the audio-audio term as a mean over this worker's rows against the rows of all workers."""
    audio, augmented, log_scales = encode(model, batch)
    all_audio, all_augmented = gather_rows(audio, augmented)
    first = dist.get_rank() * len(audio) if dist.is_initialized() else 0
    pairs = first + torch.arange(len(audio))
    scale = log_scales[2].exp()
    return F.cross_entropy(scale * audio @ all_augmented.mT, pairs) + F.cross_entropy(
        scale * augmented @ all_audio.mT, pairs
    )


def gradients(model: nn.Module, batch: Batch, loss: Callable[[nn.Module, Batch], Tensor]) -> Gradients:
    model.zero_grad()
    loss(model, batch).backward()
    grads = {name.removeprefix("module."): parameter.grad for name, parameter in model.named_parameters()}
    return {name: grad.clone() for name, grad in grads.items() if grad is not None}


def refusal_of(num_rows: int) -> str:
    try:
        gather_rows(torch.zeros(num_rows, 3))
    except InvalidProgram as error:
        return str(error)
    return ""


def worker(rank: int, folder: str) -> None:
    """Answer everything that the tests ask of two processes, into one file for each."""
    warnings.simplefilter("error")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=NUM_WORKERS,
        timeout=datetime.timedelta(seconds=180),
    )
    batch = own_part(clips(), rank)
    model = DistributedDataParallel(SoundBranch())
    own = 10 * rank + torch.arange(3)
    kinds = (own, own.float(), own.double()[:, None], own % 2 == 0, torch.arange(6).view(2, 3).mT + rank)
    answers = Answers(
        all_rows=gradients(model, batch, loss_over_all),
        own_rows=gradients(model, batch, loss_over_own_rows),
        gathered=gather_rows(*kinds),
        refused=refusal_of(4 - rank),
        after=gather_rows(own)[0],
    )
    torch.save(answers, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[Answers]:
    folder = tmp_path_factory.mktemp("workers")
    multiprocessing.spawn(worker, (str(folder),), nprocs=NUM_WORKERS)  # type: ignore[attr-defined, no-untyped-call]
    return [torch.load(Path(folder, f"{rank}.pt"), weights_only=True) for rank in range(NUM_WORKERS)]


def largest_difference(one: Gradients, other: Gradients) -> float:
    assert one.keys() == other.keys() == {"encoder.weight", "encoder.bias", "log_scales"}
    return max((one[name] - other[name]).abs().max().item() for name in one)


def test_two_workers_give_the_gradient_of_one(answers: list[Answers]) -> None:
    one = gradients(SoundBranch(), clips(), loss_over_all)
    assert all(grad.abs().min() > 1e-6 for grad in one.values())  # each scale and weight has a gradient to compare
    for of_worker in answers:
        assert largest_difference(of_worker["all_rows"], one) < 1e-9


def test_a_mean_over_own_rows_needs_no_factor_either(answers: list[Answers]) -> None:
    one = gradients(SoundBranch(), clips(), loss_over_own_rows)
    for of_worker in answers:
        assert largest_difference(of_worker["own_rows"], one) < 1e-9


def test_half_the_batch_alone_has_another_gradient() -> None:
    one, half = (gradients(SoundBranch(), batch, loss_over_all) for batch in (clips(), own_part(clips(), 0)))
    assert largest_difference(half, one) > 1e-3


def test_rows_come_in_the_order_of_ranks_in_their_own_type(answers: list[Answers]) -> None:
    rows = [0, 1, 2, 10, 11, 12]
    for of_worker in answers:
        integers, singles, doubles, booleans, transposed = of_worker["gathered"]
        assert integers.dtype == torch.int64 and integers.tolist() == rows
        assert singles.dtype == torch.float32 and singles.tolist() == rows
        assert doubles.dtype == torch.float64 and doubles.tolist() == [[row] for row in rows]
        assert booleans.dtype == torch.bool and booleans.tolist() == [row % 2 == 0 for row in rows]
        assert transposed.tolist() == [[0, 3], [1, 4], [2, 5], [1, 4], [2, 5], [3, 6]]


def test_uneven_batches_are_refused_on_every_worker(answers: list[Answers]) -> None:
    for of_worker in answers:
        message = of_worker["refused"]
        assert "worker 0: 4; worker 1: 3" in message and "drop_last=True" in message


def test_a_refused_gather_leaves_the_workers_in_step(answers: list[Answers]) -> None:
    for of_worker in answers:
        assert of_worker["after"].tolist() == [0, 1, 2, 10, 11, 12]


def test_without_a_process_group_the_rows_are_returned_as_they_are() -> None:
    rows, labels = torch.ones(3, 2, requires_grad=True), torch.arange(3)
    gathered = gather_rows(rows, labels)
    assert gathered[0] is rows and gathered[1] is labels


def test_tensors_of_different_lengths_are_refused_without_a_process_group_too() -> None:
    with pytest.raises(InvalidProgram, match="worker 0: 3, 2"):
        gather_rows(torch.ones(3, 2), torch.arange(2))
