"""Embeddings of all workers in one batch, with gradient, for data-parallel contrastive training.

The convention, with W workers of n rows each and `torch.nn.parallel.DistributedDataParallel` (DDP) around all that is
trained, logit scales included:

- the forward pass lays the workers' rows one under another, in the order of their ranks;
- the backward pass gives each worker the *sum* over the workers of the gradients of its rows; DDP then divides the
  gradients of the parameters by W.

The two cancel. Parameters get the gradient of one worker with all W * n rows, without a factor, where every worker
computes the whole loss of the gathered rows (what `soundguide.contrastive` does), and likewise where each computes the
mean over its own rows against all. A loss that is a sum over rows would need division by n, not by W * n.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from soundguide.errors import InvalidProgram


def gather_rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return each of ``tensors`` with the rows of all workers, worker 0's first.

    ``tensors``: ``[n, ...]``, such as unit embeddings ``[n, E]``, labels or ids ``[n]``, with n, trailing shapes, types
    and order alike on all workers. Each becomes ``[W * n, ...]``, on its own device and of its own type; gradients flow
    back through those that require any, on all workers or on none. Without a process group, or in a group of one, they
    are returned as they are. Every worker must call it, equally often: pass all that a step gathers in one call, since
    each call begins with one small exchange of row counts, which on a GPU waits for what was queued before.

    Raises `InvalidProgram`, on every worker, where one of them brings another number of rows.
    """
    num_workers = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    _require_even(_counts_of_all(tensors, num_workers))
    if num_workers == 1:
        return tensors
    return tuple(_GatherRows.apply(rows) if rows.requires_grad else _all_rows(rows) for rows in tensors)


def mean_over_workers(values: Tensor) -> Tensor:
    """Return the mean of every worker's ``values``, of one shape, without gradient. Every worker must call it."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


class _GatherRows(torch.autograd.Function):
    """Gather forward, sum of the workers' gradients backward."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor) -> Tensor:
        return _all_rows(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        # An all-reduce and a slice, not a reduce-scatter: gloo and nccl have it in every release of torch under one
        # name, and embeddings are small beside the gradients of the encoder.
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def _all_rows(rows: Tensor) -> Tensor:
    num_workers = dist.get_world_size()
    gathered = rows.new_empty((num_workers * len(rows), *rows.shape[1:]))
    # The parts are views, so the rows need no second copy. `all_gather_into_tensor` would do the same; torch 2.14
    # renamed it.
    dist.all_gather(list(gathered.chunk(num_workers)), rows.detach().contiguous())
    return gathered


def _counts_of_all(tensors: tuple[Tensor, ...], num_workers: int) -> list[list[int]]:
    """Return how many rows each tensor has, by worker."""
    counts = [len(rows) for rows in tensors]
    if num_workers == 1 or not tensors:
        return [counts]
    own = torch.tensor(counts, device=tensors[0].device)
    everyone = [torch.empty_like(own) for _ in range(num_workers)]
    dist.all_gather(everyone, own)
    return torch.stack(everyone).tolist()


def _require_even(counts: list[list[int]]) -> None:
    # Rows that do not match would hang the other workers until their timeout, or mix up rows without a word.
    if len({count for worker in counts for count in worker}) > 1:
        got = "; ".join(f"worker {rank}: {', '.join(map(str, worker))}" for rank, worker in enumerate(counts))
        raise InvalidProgram(
            f"cannot gather embeddings: the numbers of rows differ; got {got}. Give each worker batches of one size: "
            "drop the last, smaller batch of an epoch (drop_last=True) and split the data evenly."
        )
