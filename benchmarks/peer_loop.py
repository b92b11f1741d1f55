"""The step of the peers' optimisation loop, as the code that Lee et al. released takes it, written from its facts.

What differs from ours, and is timed: every network's weights require gradients, which accumulate and are never cleared
nor used; the sound passes its encoder in every step, with autograd; the picture is enlarged seven times before it is
averaged to the size that CLIP reads; the graph is retained; the generator forms a modulated weight for each picture,
stuffs zeros and pads around every filter, and all is float32. What it computes is the same: one picture, one view, 1 -
cosine with the sound and the squared distance to the source, by Adam on the W+ code. Identity is off on both sides.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundguide.models.image_text import OpenClipEncoder
from soundguide.models.lee_audio import LeeAudioEncoder, scramble
from soundguide.models.stylegan2 import StyleGAN2, SynthesisBlock
from soundguide.models.stylegan2_layers import SynthesisLayer, ToRGBLayer

ENLARGE = 7  # and then pooled by resolution / 32, which gives CLIP's 224 pixels


def upfirdn(x: Tensor, kernel: Tensor, *, up: int, before: int, after: int, depthwise: bool) -> Tensor:
    """Stuff ``up - 1`` zeros after every pixel of ``[B, C, H, W]``, pad, and filter each plane with ``[k, k]``.

    Theirs takes each plane for a picture of one channel, which a CPU computes slowly; ``depthwise`` is faster there.
    """
    batch, channels, height, width = x.shape
    x = x.reshape(batch * channels, 1, height, 1, width, 1)
    x = F.pad(x, (0, up - 1, 0, 0, 0, up - 1)).reshape(-1, 1, height * up, width * up)
    x, kernel = F.pad(x, (before, after, before, after)), kernel.flip(0, 1)[None, None]
    if depthwise:
        x = x.reshape(batch, channels, *x.shape[2:])
        return F.conv2d(x, kernel.expand(channels, -1, -1, -1), groups=channels)
    x = F.conv2d(x, kernel)
    return x.reshape(batch, channels, *x.shape[2:])


class PeerGenerator(nn.Module):
    """StyleGAN2 as the peers draw it, with the weights of one of ours: ``[B, L, D]`` to ``[B, 3, H, W]``."""

    def __init__(self, weights: StyleGAN2, *, depthwise: bool = False) -> None:
        super().__init__()
        self.weights, self.depthwise = weights, depthwise

    def forward(self, ws: Tensor) -> Tensor:
        synthesis = self.weights.synthesis
        first, *others = (synthesis.get_submodule(name) for name in synthesis.blocks)
        assert isinstance(first, SynthesisBlock) and first.const is not None
        x = first.const.repeat(len(ws), 1, 1, 1)
        x = self._styled(first.conv1, x, ws[:, 0])
        picture = self._to_rgb(first.torgb, x, ws[:, 1])
        for index, block in enumerate(others):
            assert isinstance(block, SynthesisBlock) and block.conv0 is not None
            x = self._styled(block.conv0, x, ws[:, 2 * index + 1])
            x = self._styled(block.conv1, x, ws[:, 2 * index + 2])
            enlarged = upfirdn(picture, 4 * block.resample_filter, up=2, before=2, after=1, depthwise=self.depthwise)
            picture = enlarged + self._to_rgb(block.torgb, x, ws[:, 2 * index + 3])
        return picture

    def _styled(self, layer: SynthesisLayer, x: Tensor, w: Tensor) -> Tensor:
        x = _modulated(x, layer.weight, layer.affine(w), demodulate=True, upsample=layer.upsample)
        if layer.upsample:
            x = upfirdn(x, 4 * layer.resample_filter, up=1, before=1, after=1, depthwise=self.depthwise)
        x = x + layer.noise_strength * layer.noise_const
        return F.leaky_relu(x + layer.bias[:, None, None], 0.2) * math.sqrt(2)

    def _to_rgb(self, layer: ToRGBLayer, x: Tensor, w: Tensor) -> Tensor:
        x = _modulated(x, layer.weight, layer.affine(w) * layer.weight_gain, demodulate=False, upsample=False)
        return x + layer.bias[:, None, None]


def _modulated(x: Tensor, weight: Tensor, styles: Tensor, *, demodulate: bool, upsample: bool) -> Tensor:
    """Convolve each picture with a weight of its own, as groups of one convolution (Karras et al. 2020, Eq. 1, 3)."""
    batch, inputs, height, width = x.shape
    outputs, _, size, _ = weight.shape
    own = weight * styles[:, None, :, None, None]  # [B, out, in, k, k]
    if demodulate:
        own = own * torch.rsqrt(own.pow(2).sum([2, 3, 4], keepdim=True) + 1e-8)
    x = x.reshape(1, batch * inputs, height, width)
    if upsample:
        own = own.transpose(1, 2).reshape(batch * inputs, outputs, size, size)
        x = F.conv_transpose2d(x, own, stride=2, groups=batch)
    else:
        x = F.conv2d(x, own.reshape(batch * outputs, inputs, size, size), padding=size // 2, groups=batch)
    return x.reshape(batch, outputs, *x.shape[2:])


class PeerLoop:
    """Their loop over one picture; ``step`` takes one step of it.

    ``ws`` ``[1, L, D]``; ``log_mel`` ``[1, 128, F]``: the sound as the encoder's front end gives it, computed once on
    both sides. ``image_text`` must read 224 pixels, which is what pooling leaves of 32 and more; for pictures as theirs
    gets them, in [-1, 1], give it mean and deviation 0.5. ``depthwise``: see `upfirdn`.
    """

    def __init__(
        self,
        generator: StyleGAN2,
        image_text: OpenClipEncoder,
        audio: LeeAudioEncoder,
        *,
        ws: Tensor,
        log_mel: Tensor,
        learning_rate: float,
        lambda_reg: float,
        depthwise: bool = False,
    ) -> None:
        self.generator = PeerGenerator(generator, depthwise=depthwise)
        self.image_text, self.audio = image_text, audio
        for network in (generator, image_text, audio):
            network.eval().requires_grad_(True)
        self.log_mel, self.lambda_reg = log_mel, lambda_reg
        self.pool = generator.resolution // 32
        self.source = ws.clone()
        self.ws = ws.clone().requires_grad_()
        self.optimizer = torch.optim.Adam([self.ws], lr=learning_rate, betas=(0.9, 0.999), eps=1e-8)

    def loss(self) -> Tensor:
        """Return the loss of the code as it is, a scalar."""
        images = self.generator(self.ws)
        enlarged = F.interpolate(images, scale_factor=ENLARGE, mode="nearest")
        seen = self.image_text.encode_image(F.avg_pool2d(enlarged, self.pool))
        heard = F.normalize(self.audio.feature_extractor(self.audio.conv(scramble(self.log_mel))), dim=-1)
        distance = (self.ws - self.source).square().sum()
        return 1 - (seen @ heard.T)[0, 0] + self.lambda_reg * distance

    def step(self) -> None:
        """Take one step; the networks' own gradients pile up."""
        loss = self.loss()
        self.optimizer.zero_grad()
        loss.backward(retain_graph=True)
        self.optimizer.step()
