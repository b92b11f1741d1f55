"""A world of random weights, small enough that a test edits in milliseconds."""

from pathlib import Path

from soundguide.audio.frontend import LogMelConfig
from soundguide.config import ManipulatorConfig

RESOLUTION, NUM_WS, W_DIM, SAMPLE_RATE = 16, 6, 8, 8_000


def write_tiny_world(folder: Path, *, resolution: int = RESOLUTION) -> ManipulatorConfig:
    """Save a StyleGAN2 of `resolution`, a small open_clip model and a small Swin in `folder`; return their config."""
    import torch

    from soundguide.models.audio_encoder import SwinAudioConfig, SwinAudioEncoder
    from soundguide.models.checkpoint import save_model
    from soundguide.models.image_text import OpenClipConfig, OpenClipEncoder
    from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config

    channels = (8,) * (resolution.bit_length() - 2)
    generator = StyleGAN2Config(resolution=resolution, z_dim=8, w_dim=W_DIM, mapping_layers=2, channels=channels)
    vision = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    image_text = OpenClipConfig(model_config_json={"embed_dim": 16, "vision_cfg": vision, "text_cfg": text})
    log_mel = LogMelConfig(sample_rate=SAMPLE_RATE, n_fft=256, hop_samples=128, num_mels=16, max_hz=4_000.0)
    audio = SwinAudioConfig(
        log_mel=log_mel, window_seconds=0.5, embed_dim=16, embed_channels=8, depths=(1,), num_heads=(2,), window_size=4
    )
    with torch.random.fork_rng(devices=[]):  # open_clip may draw from the global generator
        torch.manual_seed(0)
        models = {
            "generator": (StyleGAN2(generator), generator, {}),
            "image_text": (OpenClipEncoder(image_text), image_text, {}),
            "audio": (SwinAudioEncoder(audio), audio, {"labels": ["raining", "wind noise", "church bells"]}),
        }
    for role, (module, config, extra) in models.items():
        save_model(folder / role, module, config, half=False, made_by="write_tiny_world", extra=extra)
    return ManipulatorConfig(
        generator=str(folder / "generator"), image_text=str(folder / "image_text"), audio=str(folder / "audio")
    )


def write_tiny_inverter(folder: Path, *, num_ws: int = NUM_WS, w_dim: int = W_DIM) -> Path:
    """Save a small e4e encoder for the generator of `write_tiny_world` in `folder`, and return it."""
    import torch

    from soundguide.models.checkpoint import save_model
    from soundguide.models.inversion_encoder import InversionEncoder, InversionEncoderConfig

    config = InversionEncoderConfig(
        variant="e4e", num_ws=num_ws, w_dim=w_dim, input_size=32, widths=(8, 10, 12, 16), units=(1, 1, 1, 1)
    )
    encoder = InversionEncoder(config)
    encoder.latent_avg.copy_(0.1 * torch.randn(num_ws, w_dim, generator=torch.Generator().manual_seed(5)))
    save_model(folder, encoder, config, half=False, made_by="write_tiny_inverter")
    return folder
