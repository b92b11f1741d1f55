"""What one worker of a pretraining computes: batches from shards, the four terms, steps, states."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from prepared_clips import LONELY, PITCHES, write_prepared

from soundguide.clips.weak_partners import WeakPartners
from soundguide.config import ManipulatorConfig
from soundguide.contrastive import info_nce, weak_pair_kl
from soundguide.errors import InvalidConfig, InvalidManifest, InvalidProgram
from soundguide.models.audio_encoder import SwinAudioConfig, SwinAudioEncoder
from soundguide.models.checkpoint import load_model
from soundguide.pretraining.batches import BatchReader, ClipBatch
from soundguide.pretraining.prepared_set import read_prepared_set
from soundguide.pretraining.pretrainer import Pretrainer, two_views
from soundguide.pretraining.schedule import rate_share
from soundguide.pretraining.settings import AugmentSettings, LossSettings, OptimizerSettings, PretrainingSettings
from soundguide.pretraining.sound_branch import TERMS, contrastive_terms, total_loss
from soundguide.run_folder import RunFolder

LABELS = tuple(sorted([*PITCHES, LONELY]))


@pytest.fixture(scope="module")
def prepared(tiny_models: ManipulatorConfig, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_prepared(tmp_path_factory.mktemp("prepared"), tiny_models)


@pytest.fixture(scope="module")
def encoder_config(tiny_models: ManipulatorConfig) -> SwinAudioConfig:
    config = load_model(Path(tiny_models.audio), device="cpu").config
    assert isinstance(config, SwinAudioConfig)
    return config


def good_rows(prepared: RunFolder) -> pa.Table:
    table = pq.read_table(Path(prepared.uri) / "results")
    chosen = [
        s == "ok" and p == "train" for s, p in zip(table["status"].to_pylist(), table["split"].to_pylist(), strict=True)
    ]
    return table.filter(pa.array(chosen))


def reader(prepared: RunFolder, config: SwinAudioConfig, *, text_share: float = 0.5) -> BatchReader:
    return BatchReader(
        LABELS,
        num_samples=config.num_samples,
        sample_rate=config.log_mel.sample_rate,
        partners=WeakPartners(Path(prepared.uri) / "weak_partners" / "train"),
        text_share=text_share,
        seed=0,
    )


def pretrainer(config: SwinAudioConfig, **changes: object) -> Pretrainer:
    settings = PretrainingSettings(
        optimizer=OptimizerSettings(learning_rate=3e-3, warmup_steps=2, num_cycles=1), batch_size=8
    ).model_copy(update=changes)
    return Pretrainer(
        SwinAudioEncoder(config, seed=1), settings, num_steps=60, teacher_log_scale=2.0, device=torch.device("cpu")
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_rate_falls_as_a_cosine_in_each_cycle() -> None:
    shares = [rate_share(step, num_steps=100, num_cycles=2, warmup_steps=0) for step in range(100)]
    assert shares[0] == shares[50] == 1.0
    assert rate_share(130, num_steps=100, num_cycles=2, warmup_steps=0) == shares[99] < 0.002  # never up again
    assert shares[25] == pytest.approx(0.5) and shares[49] < 0.002
    assert all(a > b for a, b in zip(shares[:49], shares[1:50], strict=True))
    warming = [rate_share(step, num_steps=100, num_cycles=2, warmup_steps=9) for step in range(10)]
    assert warming[0] == pytest.approx(0.1) and warming == sorted(warming)


def test_a_set_tells_its_labels_and_clips(prepared: RunFolder) -> None:
    found = read_prepared_set(prepared)
    assert found.labels == LABELS
    assert (found.counts, found.embed_dim) == ({"train": 50, "validation": 16}, 16)


def test_a_set_that_is_not_finished_or_lacks_a_column_is_refused(
    tiny_models: ManipulatorConfig, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfig, match=r"no finished preparation.*prepare_clips"):
        read_prepared_set(RunFolder(str(tmp_path / "none")))
    broken = write_prepared(tmp_path / "broken", tiny_models, per_label=1, validation=0)
    for path in Path(broken.uri, "results").iterdir():
        pq.write_table(pq.read_table(path).drop_columns(["sound"]), path)
    with pytest.raises(InvalidManifest, match="lack the columns sound"):
        read_prepared_set(broken)


def test_what_a_clip_gets_depends_on_itself_and_the_epoch_alone(
    prepared: RunFolder, encoder_config: SwinAudioConfig
) -> None:
    rows = good_rows(prepared)
    whole = reader(prepared, encoder_config).read(rows, epoch=1)
    some = reader(prepared, encoder_config).read(rows.take([7, 3]), epoch=1)
    for name, tensor in some.tensors().items():
        assert tensor.equal(whole.tensors()[name][[7, 3]]), name
    later = reader(prepared, encoder_config).read(rows, epoch=2)
    assert not later.waveforms.equal(whole.waveforms) and not later.text.equal(whole.text)
    assert later.image.equal(whole.image)


def test_a_lonely_clip_falls_back_to_its_own_frame_and_one_without_frame_still_has_a_partner(
    prepared: RunFolder, encoder_config: SwinAudioConfig
) -> None:
    rows = good_rows(prepared)
    ids = rows["id"].to_pylist()
    batch = reader(prepared, encoder_config).read(rows, epoch=0)
    lonely, unseen = ids.index("lonely"), ids.index("unseen")
    assert batch.fell_back.nonzero().flatten().tolist() == [lonely]
    assert batch.partner[lonely].equal(batch.image[lonely])
    assert not batch.has_image[unseen] and batch.has_partner[unseen] and batch.partner[unseen].norm() > 0.9
    same = batch.labels[:, [LABELS.index("rain")]].flatten()
    images = batch.image[same]
    assert all(bool((images == row).all(1).any()) for row in batch.partner[same])  # a partner is of the same label


def test_a_text_is_the_clips_own_or_one_of_its_variants(prepared: RunFolder, encoder_config: SwinAudioConfig) -> None:
    rows = good_rows(prepared)
    own = torch.tensor(np.stack(rows["text_embedding"].to_pylist()), dtype=torch.float32)
    assert reader(prepared, encoder_config, text_share=0).read(rows, epoch=0).text.equal(own)
    variants = reader(prepared, encoder_config, text_share=1).read(rows, epoch=0).text
    for row, found in enumerate(variants):
        known = torch.tensor(rows["augmented_text_embeddings"][row].as_py())
        assert bool((known == found).all(1).any())


def test_a_short_sound_is_repeated_and_an_unreadable_one_is_named(
    prepared: RunFolder, encoder_config: SwinAudioConfig
) -> None:
    longer = encoder_config.model_copy(update={"window_seconds": 2.0})
    batch = reader(prepared, longer).read(good_rows(prepared), epoch=0)
    assert (
        batch.waveforms.shape[1] == longer.num_samples and batch.waveforms[:, -4000:].abs().max(1).values.min() > 0.01
    )
    rows = good_rows(prepared).slice(0, 2)
    place = rows.schema.get_field_index("sound")
    noise = rows.set_column(place, "sound", pa.array([b"no sound"] * 2, pa.large_binary()))
    with pytest.raises(InvalidManifest, match=r"'rain-0' has a sound that cannot be read.*Prepare"):
        reader(prepared, encoder_config).read(noise, epoch=0)


def random_batch(num: int, *, frames: int, partners: int) -> ClipBatch:
    rows = torch.nn.functional.normalize(torch.randn(3, num, 16, generator=generator(3)), dim=2)
    has_image, has_partner = torch.arange(num) < frames, torch.arange(num) >= num - partners
    labels = torch.zeros(num, 3, dtype=torch.bool)
    labels[torch.arange(num), torch.arange(num) % 3] = True
    return ClipBatch(
        waveforms=torch.randn(num, 4000, generator=generator(4)) * 0.1,
        text=rows[0],
        image=rows[1] * has_image[:, None],
        partner=rows[2] * has_partner[:, None],
        has_image=has_image,
        has_partner=has_partner,
        fell_back=torch.zeros(num, dtype=torch.bool),
        labels=labels,
    )


def test_the_terms_are_those_of_the_paper_over_the_clips_that_have_them() -> None:
    batch = random_batch(9, frames=6, partners=5)
    audio, augmented = torch.nn.functional.normalize(torch.randn(2, 9, 16, generator=generator(5)), dim=2)
    scales, teacher = torch.tensor([1.0, 1.5, 2.0, 2.5]), torch.tensor(2.2)
    for settings in (LossSettings(), LossSettings(mask_same_labels=False, kl_form="diagonal", text=0.5, image=2)):
        terms = contrastive_terms(audio, augmented, scales, batch, teacher_log_scale=teacher, settings=settings)
        groups = torch.arange(9) % 3
        same = groups[:, None] == groups[None] if settings.mask_same_labels else None
        expected = {
            "text": info_nce(audio, batch.text, logit_scale=scales[0], same=same),
            "image": info_nce(audio[:6], batch.image[:6], logit_scale=scales[1]),
            "self_supervised": info_nce(audio, augmented, logit_scale=scales[2]),
            "weak_pairs": weak_pair_kl(
                audio[4:],
                batch.partner[4:],
                batch.text[4:],
                audio_logit_scale=scales[3],
                teacher_logit_scale=teacher,
                form=settings.kl_form,
            ),
        }
        torch.testing.assert_close(terms, expected)
        weighted = sum(settings.weights()[name] * float(terms[name]) for name in TERMS)
        assert float(total_loss(terms, settings)) == pytest.approx(weighted, rel=1e-5)


def test_a_batch_without_frames_teaches_by_text_and_by_itself(encoder_config: SwinAudioConfig) -> None:
    made = pretrainer(encoder_config)
    found = made.train_step(random_batch(6, frames=0, partners=0), generator())
    assert found["loss_image"] == found["loss_weak_pairs"] == 0 and found["loss_text"] > 0
    assert all(p.grad is not None for p in made.branch.parameters())  # or DDP would wait for ever


def test_two_views_differ_by_masks_alone_or_by_their_surroundings_too(encoder_config: SwinAudioConfig) -> None:
    encoder = SwinAudioEncoder(encoder_config)
    waveforms = torch.randn(5, encoder.num_samples, generator=generator()) * 0.1
    plain, masked = two_views(encoder, waveforms, AugmentSettings(), generator())
    assert plain.equal(encoder.log_mel(waveforms))
    changed = masked != plain
    assert 0 < changed.float().mean() < 0.5
    torch.testing.assert_close(masked[changed], torch.full_like(masked[changed], encoder_config.silence))
    moved, other = two_views(encoder, waveforms, AugmentSettings(surroundings=True), generator())
    assert not moved.equal(plain) and (moved != other).float().mean() > 0.9


@pytest.mark.parametrize(("matrix_rate", "precise"), [(0.0, True), (0.01, True), (0.0, False)])
def test_eight_clips_are_learnt_by_heart(
    prepared: RunFolder, encoder_config: SwinAudioConfig, matrix_rate: float, precise: bool
) -> None:
    optimizer = OptimizerSettings(learning_rate=5e-3, warmup_steps=2, num_cycles=1, matrix_rate=matrix_rate)
    still = encoder_config.model_copy(update={"drop_path": 0.0})
    made = pretrainer(still, optimizer=optimizer, augment=AugmentSettings(frequency_ratio=0, time_ratio=0))
    made.precise = precise
    rows = good_rows(prepared)
    batch = reader(prepared, encoder_config).read(rows.take(list(range(0, 48, 6))), epoch=0)
    batch = dataclasses.replace(batch, text=random_batch(8, frames=0, partners=0).text)  # texts that lie apart
    losses = [float(made.train_step(batch, generator())["loss_text"]) for _ in range(60)]
    assert losses[-1] < 0.35 * losses[0], losses[::10]
    names = torch.nn.functional.one_hot(torch.arange(5), 16).float()
    heard = made.validate([batch], names)
    assert heard.keys() == {"validation_loss", "validation_accuracy"}


def test_accuracy_counts_the_clips_whose_nearest_name_is_theirs(encoder_config: SwinAudioConfig) -> None:
    made = pretrainer(encoder_config)
    batch = random_batch(6, frames=6, partners=6)
    encoder = made.best_encoder.eval()
    with torch.no_grad():
        audio = encoder.encode_audio(batch.waveforms)
    one = audio[0]
    names = torch.stack([one, -one, -one])  # every sound is heard as the first label or as one of the others
    expected = ((audio @ names.T).argmax(1)[:, None] == torch.arange(3)).logical_and(batch.labels).any(1).float().mean()
    assert made.validate([batch], names)["validation_accuracy"] == pytest.approx(float(expected))
    assert made.validate([], names) == {}


def test_a_state_goes_on_exactly_where_it_was_taken(encoder_config: SwinAudioConfig) -> None:
    batch = random_batch(6, frames=6, partners=6)
    straight = pretrainer(encoder_config, average_steps=5)
    for step in range(4):
        if step == 2:
            state = copy.deepcopy(straight.state())
        torch.manual_seed(step)  # drop path
        straight.train_step(batch, generator(step))
    resumed = pretrainer(encoder_config, average_steps=5)
    resumed.load_state(state)
    for step in (2, 3):
        torch.manual_seed(step)
        resumed.train_step(batch, generator(step))
    assert resumed.step == straight.step == 4
    for mine, theirs in zip(resumed.best_encoder.parameters(), straight.best_encoder.parameters(), strict=True):
        assert mine.equal(theirs)


def test_a_gradient_that_is_not_finite_stops_with_the_remedy(encoder_config: SwinAudioConfig) -> None:
    batch = random_batch(4, frames=4, partners=4)
    broken = dataclasses.replace(batch, text=torch.full_like(batch.text, math.nan))
    made = pretrainer(encoder_config)
    before = [p.clone() for p in made.branch.parameters()]
    with pytest.raises(InvalidProgram, match=r"gradient of step 0 is not finite.*Lower"):
        made.train_step(broken, generator())
    assert all(a.equal(b) for a, b in zip(before, made.branch.parameters(), strict=True))


def test_a_loss_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing would be learnt"):
        LossSettings(text=0, image=0, self_supervised=0, weak_pairs=0)
