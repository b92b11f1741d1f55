"""What one worker of a pretraining does with a batch, and the state that a later worker goes on from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from soundguide.audio.frontend import spec_augment
from soundguide.audio.surroundings import other_surroundings
from soundguide.contrastive import clamp_logit_scale
from soundguide.distributed import mean_over_workers
from soundguide.errors import InvalidProgram
from soundguide.models.audio_encoder import SwinAudioEncoder
from soundguide.pretraining.batches import ClipBatch
from soundguide.pretraining.optimizers import adam_and_muon
from soundguide.pretraining.schedule import rate_share
from soundguide.pretraining.settings import AugmentSettings, OptimizerSettings, PretrainingSettings
from soundguide.pretraining.sound_branch import TERMS, SoundBranch, contrastive_terms, embed_views, total_loss

Wrap = Callable[[nn.Module], nn.Module]
"""Puts a module onto its device and, with several workers, into `DistributedDataParallel`."""


class Pretrainer:
    """The sound encoder under training on one worker.

    ``num_steps``: length of the whole schedule. ``teacher_log_scale``: logarithm of CLIP's own scale. ``precise``
    False runs the encoder in bfloat16; losses are always in float32. ``compile``: through torch.compile.
    """

    def __init__(
        self,
        encoder: SwinAudioEncoder,
        settings: PretrainingSettings,
        *,
        num_steps: int,
        teacher_log_scale: float,
        device: torch.device,
        precise: bool = True,
        compile: bool = False,
        wrap: Wrap | None = None,
    ) -> None:
        self.settings, self.num_steps, self.device, self.precise = settings, num_steps, device, precise
        self.branch = SoundBranch(encoder).to(device)
        module = cast(nn.Module, torch.compile(self.branch)) if compile else self.branch
        self.module = wrap(module) if wrap else module
        self.averaged = copy.deepcopy(encoder).to(device).requires_grad_(False) if settings.average_steps else None
        self.teacher_log_scale = torch.tensor(teacher_log_scale, device=device)
        self.step = 0
        self.samples_seen = 0
        self._optimizers = _optimizers(self.branch, settings.optimizer)

    @property
    def best_encoder(self) -> SwinAudioEncoder:
        """The encoder to validate and to keep: the averaged one where there is one."""
        return self.branch.encoder if self.averaged is None else self.averaged

    def train_step(self, batch: ClipBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Take one step down the loss of all workers' batches; return what there is to report, as scalar tensors.

        ``generator``: a CPU generator, this worker's and this step's own. Raises `InvalidProgram` where the gradient
        leaves the finite numbers.
        """
        optimizer = self.settings.optimizer
        share = rate_share(
            self.step, num_steps=self.num_steps, num_cycles=optimizer.num_cycles, warmup_steps=optimizer.warmup_steps
        )
        for each, highest in self._optimizers:
            for group in each.param_groups:
                group["lr"] = highest * share
        self.module.train()
        views = two_views(self.branch.encoder, batch.waveforms, self.settings.augment, generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=not self.precise):
            audio, augmented, log_scales = self.module(*views)
        terms = self._terms(audio, augmented, log_scales, batch)
        loss = total_loss(terms, self.settings.loss)
        self.module.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.branch.parameters(), optimizer.max_gradient_norm)
        if not bool(norm.isfinite()):
            raise InvalidProgram(
                f"the gradient of step {self.step} is not finite (loss {float(loss.detach()):g}). Lower "
                "training.optimizer.learning_rate, or look for broken sounds among the clips"
            )
        for each, _ in self._optimizers:
            each.step()
        clamp_logit_scale(self.branch.log_scales)
        self._follow()
        self.step += 1
        scales = self.branch.log_scales.detach().exp()
        return {
            "loss": loss.detach(),
            **{f"loss_{name}": term.detach() for name, term in terms.items()},
            **{f"scale_{name}": scale for name, scale in zip(TERMS, scales, strict=True)},
            "gradient_norm": norm.detach(),
            "learning_rate": torch.tensor(optimizer.learning_rate * share),
        }

    @torch.no_grad()
    def validate(self, batches: Iterable[ClipBatch], label_embeddings: Tensor) -> dict[str, float]:
        """Return loss and zero-shot accuracy, 0..1, over the validation clips of all workers; 0 clips give nothing.

        ``label_embeddings`` ``[L, E]``: the names of all labels as CLIP reads them. A clip counts as right where the
        nearest is one of its labels. Every worker must call it with equally many batches of equal sizes.
        """
        encoder = self.best_encoder.eval()
        generator = torch.Generator().manual_seed(self.settings.seed)
        augment = self.settings.augment.model_copy(update={"surroundings": False})
        sums = torch.zeros(3, device=self.device)
        for batch in batches:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=not self.precise):
                views = two_views(encoder, batch.waveforms, augment, generator)
                audio, augmented = embed_views(encoder, *views)
            loss = total_loss(self._terms(audio, augmented, self.branch.log_scales, batch), self.settings.loss)
            heard = (audio @ label_embeddings.T).argmax(1)
            right = batch.labels.gather(1, heard[:, None]).sum()
            sums += torch.stack([loss * len(batch), right, right.new_tensor(len(batch))])
        loss, accuracy, share = mean_over_workers(sums).tolist()
        return {"validation_loss": loss / share, "validation_accuracy": accuracy / share} if share else {}

    def state(self) -> dict[str, Any]:
        """Return all that `load_state` needs, besides the settings."""
        return {
            "branch": self.branch.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizers": [each.state_dict() for each, _ in self._optimizers],
            "step": self.step,
            "samples_seen": self.samples_seen,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a `state`, of a run with the same settings and perhaps another number of workers."""
        self.branch.load_state_dict(state["branch"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        for (each, _), saved in zip(self._optimizers, state["optimizers"], strict=True):
            each.load_state_dict(saved)
        self.step, self.samples_seen = int(state["step"]), int(state["samples_seen"])

    def _terms(self, audio: Tensor, augmented: Tensor, log_scales: Tensor, batch: ClipBatch) -> dict[str, Tensor]:
        return contrastive_terms(
            audio,
            augmented,
            log_scales,
            batch,
            teacher_log_scale=self.teacher_log_scale,
            settings=self.settings.loss,
        )

    def _follow(self) -> None:
        if self.averaged is None:
            return
        keep = min(1 - 1 / self.settings.average_steps, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            current = [p.detach() for p in self.branch.encoder.parameters()]
            torch._foreach_lerp_(list(self.averaged.parameters()), current, 1 - keep)


def two_views(
    encoder: SwinAudioEncoder, waveforms: Tensor, settings: AugmentSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the log-mels ``[N, M, F]`` of N sounds, and those of their augmented selves (Sec. 3.1.2)."""
    with torch.no_grad():
        plain = encoder.log_mel(waveforms)
        other = plain
        if settings.surroundings:
            front = encoder.config.log_mel
            plain, other = other_surroundings(plain, front, generator), other_surroundings(plain, front, generator)
        masked = spec_augment(
            other,
            frequency_ratio=settings.frequency_ratio,
            time_ratio=settings.time_ratio,
            generator=generator,
            fill=encoder.config.silence,
        )
    return plain, masked


def _optimizers(branch: SoundBranch, settings: OptimizerSettings) -> list[tuple[torch.optim.Optimizer, float]]:
    """Return Adam and, if it is to learn the inner matrices, Muon, each with its highest rate."""
    matrices = hidden_matrices(branch.encoder) if settings.matrix_rate else []
    apart = {id(parameter) for parameter in matrices}
    return adam_and_muon(
        [parameter for parameter in branch.parameters() if id(parameter) not in apart],
        matrices,
        learning_rate=settings.learning_rate,
        matrix_rate=settings.matrix_rate,
        weight_decay=settings.weight_decay,
        betas=(settings.beta1, settings.beta2),
    )


def hidden_matrices(encoder: SwinAudioEncoder) -> list[nn.Parameter]:
    """Return the matrices of all attention and feed-forward layers."""
    return [
        parameter
        for name, parameter in encoder.swin.layers.named_parameters()
        if parameter.dim() == 2 and name.endswith(".weight")
    ]
