"""DefocusNet (Maximov, Galim and Leal-Taixe, "Focus on defocus", CVPR 2020), the static architecture of its release.

Two U-Nets for every frame, which exchange features between frames by taking maxima over them. The first estimates the
defocus of each pixel from the frames; the second estimates depth from the defocus maps. The second sees the frames only
through the skip connections of the first.
"""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from focal_jax.models import conv
from focal_jax.models.blocks import PLANE, Conv, Stack, apply_block, double_linear
from focal_jax.models.depth_maps import DepthMaps

FEATURES = (16, 32, 64, 128)  # at 1, 1/2, 1/4 and 1/8 of the resolution; twice the last at 1/16
DEPTH_UNIT_M = 3.0  # unit of the published network's depth output

PUBLISHED = {'channels': 'RGB', 'padding': 'edge', 'depth': {'name': 'defocusnet', 'unit': 'metres'}}


class Layers(nn.Module):
  """3 x 3 convolutions with bias, each followed by a leaky ReLU."""

  features: tuple[int, ...]

  @nn.compact
  def __call__(self, x: Stack) -> Stack:
    for index, features in enumerate(self.features):
      x = nn.leaky_relu(Conv(features, PLANE, use_bias=True, name=f'conv{index}')(x), 0.2)
    return x


class Encoder(nn.Module):
  """Features at all scales, fine to coarse, and the bottleneck at 1/16."""

  features: tuple[int, ...]
  remat: bool = False

  @nn.compact
  def __call__(self, x: Stack) -> tuple[list[Stack], Stack]:
    levels = []
    for level, features in enumerate(self.features):
      x = apply_block(Layers((features, features), name=f'down{level}'), x, remat=self.remat)
      levels.append(x)
      x = with_maximum(conv.max_pool(x))
    return levels, apply_block(Layers((2 * self.features[-1],), name='bridge'), x, remat=self.remat)


class Decoder(nn.Module):
  """Upsamples to full resolution, without the output layer. `over_frames`: adds maxima over frames at every scale."""

  features: tuple[int, ...]
  over_frames: bool
  remat: bool = False

  @nn.compact
  def __call__(self, x: Stack, skips: list[Stack]) -> Float[Array, 'B _ H W']:
    run = partial(apply_block, remat=self.remat)
    for level in range(len(self.features) - 1, -1, -1):
      x = run(Layers((self.features[level],), name=f'up{level}'), double_linear(x))
      if self.over_frames:
        if level == 0:
          x = jnp.max(x, axis=1, keepdims=True)
          break
        x = with_maximum(x)
      x = run(Layers((self.features[level],), name=f'joint{level}'), jnp.concatenate([x, skips[level]], axis=-1))
    x = run(Layers((self.features[0],), name='end'), x)
    return Conv(1, PLANE, use_bias=True, name='out')(x)[..., 0].astype(jnp.float32)


class DefocusNet(nn.Module):
  """Estimates depth and the defocus of each frame from aligned frames, -1 .. 1, far to near; see `EndToEnd`.

  There is no focus distribution: depth is a direct output of the network, not a mixture of the focus coordinates.

  `axis_name` is unused because the network has no normalisation; `remat`: see `apply_block`.
  """

  # Unit of focus and depth in the network. metres, as published: the second U-Net receives each focus divided by that
  # of the farthest frame and returns units of 3 m; defocus is the circle of confusion, 1 for 0.1 mm. focus_range: both
  # are 0 for the farthest frame and 1 for the nearest, in any unit; the target of defocus is their distance.
  unit: Literal['metres', 'focus_range'] = 'focus_range'
  channel_divisor: Literal[1, 2, 4, 8] = 1  # divisor of the published widths
  axis_name: str | None = None
  remat: bool = False

  @nn.compact
  def __call__(self, images: Float[Array, 'B N H W 3'], focus: Float[Array, 'B N'], *, train: bool) -> DepthMaps:
    """Returns one depth map, and the defocus of every frame."""
    features = tuple(one // self.channel_divisor for one in FEATURES)
    levels, bridge = Encoder(features, self.remat, name='defocus_encoder')(images / 2 + 0.5)
    defocus = Decoder(features, False, self.remat, name='defocus_decoder')(bridge, levels)

    far = focus[:, :1]
    if self.unit == 'metres':
      seen, scale, offset = focus / far, DEPTH_UNIT_M, 0.0
    else:
      scale, offset = focus[:, -1:] - far, far
      seen = (focus - far) / jnp.where(scale == 0, 1.0, scale)  # frames that all share one focus
      scale, offset = scale[..., None], offset[..., None]
    maps = jnp.broadcast_to(seen[:, :, None, None], defocus.shape)
    _, bridge = Encoder(features, self.remat, name='depth_encoder')(
      jnp.stack([defocus, maps], axis=-1).astype(images.dtype)
    )
    depth = Decoder(features, True, self.remat, name='depth_decoder')(bridge, levels)
    return DepthMaps((scale * depth[:, 0] + offset,), defocus=defocus)

  @staticmethod
  def draw(
    rng: np.random.Generator, path: tuple[str, ...], shape: tuple[int, ...], kernel: tuple[int, ...] | None
  ) -> np.ndarray:
    """Initial values as published: Xavier's normal distribution, biases 0.01. See `end_to_end.draw_variable`."""
    if path[-1] == 'bias':
      return np.full(shape, 0.01)
    taps = np.prod(shape[:-2])
    return rng.normal(0.0, np.sqrt(2 / (taps * (shape[-2] + shape[-1]))), shape)


def with_maximum(x: Stack) -> Stack:
  """Each frame's features concatenated with their maxima over the frames."""
  return jnp.concatenate([x, jnp.broadcast_to(jnp.max(x, axis=1, keepdims=True), x.shape)], axis=-1)


def published_modules() -> dict[str, str]:
  """Our module path -> the module's name in the published state dict."""
  modules = {}
  for ours, theirs in (('defocus', ''), ('depth', '2')):
    for level in range(len(FEATURES)):
      for index in (0, 1):
        modules[f'{ours}_encoder.down{level}.conv{index}'] = f'conv_down{theirs}_{level}.{2 * index}'
      number = len(FEATURES) - level
      modules[f'{ours}_decoder.up{level}.conv0'] = f'conv_up{theirs}_{number}.1'
      if level or ours == 'defocus':
        modules[f'{ours}_decoder.joint{level}.conv0'] = f'conv_joint{theirs}_{number}.0'
    modules[f'{ours}_encoder.bridge.conv0'] = f'bridge{theirs}.0'
    modules[f'{ours}_decoder.end.conv0'] = f'conv_end{theirs}.0'
    modules[f'{ours}_decoder.out'] = f'conv_out{theirs}.0'
  return modules
