"""The trained side of Eq. 13: the sound encoder with its learnable scales, and the four terms over all workers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from soundguide.contrastive import INITIAL_LOG_SCALE, info_nce, weak_pair_kl
from soundguide.distributed import gather_rows
from soundguide.models.audio_encoder import SwinAudioEncoder
from soundguide.pretraining.batches import ClipBatch
from soundguide.pretraining.settings import LossSettings

TERMS = ("text", "image", "self_supervised", "weak_pairs")


class SoundBranch(nn.Module):
    """All that pretraining learns: the encoder, and the logarithm of each term's scale, ``[4]``, in `TERMS`' order."""

    def __init__(self, encoder: SwinAudioEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.log_scales = nn.Parameter(torch.full((len(TERMS),), INITIAL_LOG_SCALE))

    def forward(self, log_mels: Tensor, augmented: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embed two views ``[N, M, F]`` of N sounds in one pass, as two ``[N, E]``; return the scales too."""
        return *embed_views(self.encoder, log_mels, augmented), self.log_scales


def embed_views(encoder: SwinAudioEncoder, log_mels: Tensor, augmented: Tensor) -> tuple[Tensor, Tensor]:
    """Embed two views ``[N, M, F]`` of N sounds in one pass, as two ``[N, E]``."""
    audio, other = encoder.encode_log_mel(torch.cat([log_mels, augmented])).chunk(2)
    return audio, other


def contrastive_terms(
    audio: Tensor,
    augmented: Tensor,
    log_scales: Tensor,
    batch: ClipBatch,
    *,
    teacher_log_scale: Tensor,
    settings: LossSettings,
) -> dict[str, Tensor]:
    """Return the four terms of Eq. 13, unweighted, over the rows of all workers: the same on each of them.

    ``audio``, ``augmented``: ``[N, E]``, this worker's embeddings of two views of ``batch``. A term that no clip of
    the batch can have (no frames, no partners) is 0. Every worker must call it.
    """
    audio, augmented, text, image, partner, has_image, has_partner, labels = gather_rows(
        audio,
        augmented,
        batch.text,
        batch.image,
        batch.partner,
        batch.has_image.byte(),  # gloo carries no bool
        batch.has_partner.byte(),
        batch.labels.byte(),
    )
    shown, paired = has_image.bool(), has_partner.bool()
    same = labels.float() @ labels.float().T > 0 if settings.mask_same_labels else None
    nothing = 0 * (audio.sum() + augmented.sum() + log_scales.sum())  # so that every parameter always has a gradient
    terms = {
        "text": info_nce(audio, text, logit_scale=log_scales[0], same=same),
        "image": info_nce(audio[shown], image[shown], logit_scale=log_scales[1]) if shown.any() else nothing,
        "self_supervised": info_nce(audio, augmented, logit_scale=log_scales[2]),
        "weak_pairs": weak_pair_kl(
            audio[paired],
            partner[paired],
            text[paired],
            audio_logit_scale=log_scales[3],
            teacher_logit_scale=teacher_log_scale,
            form=settings.kl_form,
        )
        if paired.any()
        else nothing,
    }
    return {name: term + nothing for name, term in terms.items()}


def total_loss(terms: dict[str, Tensor], settings: LossSettings) -> Tensor:
    """Return the weighted sum of the terms (Eq. 13)."""
    weights = settings.weights()
    return torch.stack([weights[name] * terms[name] for name in TERMS]).sum()
