"""AiFDepthNet (Wang et al., "Bridging unsupervised and supervised depth from focus via all-in-focus supervision", ICCV
2021): an Inception-v1 U-Net over space and frames. Its scores weight the frames' focus coordinates to give depth, and
the frames themselves to give an all-in-focus image.
"""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from focal_jax.models import conv
from focal_jax.models.blocks import CUBE, POINT, Conv, ConvNorm, ConvTranspose, Stack, apply_block, expected_focus
from focal_jax.models.depth_maps import DepthMaps

# Channels (p; q -> r; s -> t; u) of the mixed blocks at 1/8, 1/16 and 1/32 of the resolution.
MIXED = {
  '3b': (64, 96, 128, 16, 32, 32),
  '3c': (128, 128, 192, 32, 96, 64),
  '4b': (192, 96, 208, 16, 48, 64),
  '4c': (160, 112, 224, 24, 64, 64),
  '4d': (128, 128, 256, 24, 64, 64),
  '4e': (112, 144, 288, 32, 64, 64),
  '4f': (256, 160, 320, 32, 128, 128),
  '5b': (256, 160, 320, 32, 128, 128),
  '5c': (384, 192, 384, 48, 128, 128),
}
UP_KERNEL = (3, 4, 4)
# Decoder from 1/16 to 1/2: channels of the transposed convolution, of the convolution after it, and of the skip.
DECODER = ((64, 64, 64), (64, 64, 64), (32, 32, 32), (32, 16, 16))

PUBLISHED = {'channels': 'RGB', 'padding': 'black', 'depth': {'name': 'aifdepthnet'}}


class Mixed(nn.Module):
  """An Inception block over space and frames: four branches side by side."""

  features: tuple[int, int, int, int, int, int]
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    p, q, r, s, t, u = self.features

    def cell(x, features, kernel_size, name):
      return Cell(features, kernel_size, axis_name=self.axis_name, name=name)(x, train=train)

    pooled = conv.max_pool3(x, frames=True, stride=1)
    branches = (
      cell(x, p, POINT, 'branch0'),
      cell(cell(x, q, POINT, 'branch1a'), r, CUBE, 'branch1b'),
      cell(cell(x, s, POINT, 'branch2a'), t, CUBE, 'branch2b'),
      cell(pooled, u, POINT, 'branch3'),
    )
    return jnp.concatenate(branches, axis=-1)


class Cell(nn.Module):
  """Convolution with bias, batch normalisation, ReLU."""

  features: int
  kernel_size: tuple[int, int, int] = CUBE
  stride: int = 1
  transpose: bool = False
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    cell = ConvNorm(
      self.features,
      self.kernel_size,
      self.stride,
      transpose=self.transpose,
      axis_name=self.axis_name,
      use_bias=True,
      name='cell',
    )
    return nn.relu(cell(x, train=train))


class Join(nn.Module):
  """Features from the coarser level at twice their size, concatenated with the skip connection."""

  features: tuple[int, int, int]
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, skip: Stack, *, train: bool) -> Stack:
    up, after, aside = self.features
    cell = partial(Cell, axis_name=self.axis_name)
    x = cell(up, UP_KERNEL, transpose=True, name='up')(x, train=train)
    x = cell(after, name='after')(x, train=train)
    return jnp.concatenate([x, cell(aside, POINT, name='skip')(skip, train=train)], axis=-1)


class AiFDepthNet(nn.Module):
  """Estimates depth in the unit of `focus` and an all-in-focus image from aligned frames, -1 .. 1, far to near; see
  `EndToEnd`.

  Accepts any number of frames. `axis_name`: devices over which batch normalisation averages in training. `remat`: see
  `apply_block`.
  """

  # Normalisation of scores to the focus distribution. With one score channel the image always uses softmax.
  normalisation: Literal['softplus', 'softmax'] = 'softplus'
  score_channels: Literal[1, 2] = 1  # 1: depth and image share the scores; 2: each has its own, depth first
  frame_channel: bool = False  # a fourth input channel with the frame number, nearest first: (n + 1) / N
  channel_divisor: Literal[1, 2, 4, 8] = 1  # divisor of the published widths
  axis_name: str | None = None
  remat: bool = False

  @nn.compact
  def __call__(self, images: Float[Array, 'B N H W 3'], focus: Float[Array, 'B N'], *, train: bool) -> DepthMaps:
    """Returns one depth map, its focus distribution, and the all-in-focus image."""
    run = partial(apply_block, train=train, remat=self.remat)
    cell = partial(Cell, axis_name=self.axis_name)

    def wide(*channels):
      return tuple(one // self.channel_divisor for one in channels)

    def mixed(x, name):
      return run(Mixed(wide(*MIXED[name]), self.axis_name, name=f'mixed{name}'), x)

    pictures = images / 2 + 0.5
    x = pictures[:, ::-1]  # near to far, the order that the published weights expect
    if self.frame_channel:
      frames = x.shape[1]
      number = jnp.arange(1, frames + 1, dtype=x.dtype)[:, None, None, None] / frames
      x = jnp.concatenate([x, jnp.broadcast_to(number, (*x.shape[:-1], 1))], axis=-1)
    c1 = run(cell(*wide(64), (7, 7, 7), 2, name='stem1'), x)
    x = run(cell(*wide(64), POINT, name='stem2'), conv.max_pool3(c1, frames=False, stride=2))
    c2 = run(cell(*wide(192), name='stem3'), x)
    x = conv.max_pool3(c2, frames=False, stride=2)
    m3 = mixed(mixed(x, '3b'), '3c')
    x = conv.max_pool3(m3, frames=False, stride=2)
    for name in ('4b', '4c', '4d', '4e', '4f'):
      x = mixed(x, name)
    m4 = x
    x = mixed(mixed(conv.max_pool(m4), '5b'), '5c')

    for index, (features, skip) in enumerate(zip(DECODER, (m4, m3, c2, c1), strict=True)):
      x = run(Join(wide(*features), self.axis_name, name=f'join{index}'), x, skip)
    x = ConvTranspose(*wide(32), UP_KERNEL, use_bias=True, name='up')(x)
    # Scores are far to near again.
    scores = Conv(self.score_channels, use_bias=True, name='score')(x).astype(jnp.float32)[:, ::-1]

    def distribution(scores, normalisation):
      if normalisation == 'softmax':
        return jax.nn.softmax(scores, axis=1)
      # softplus(s) / sum softplus(s), in logarithms: as published, without an epsilon, it is 0 / 0 where all scores are
      # low. There softplus(s) is exp(s) to float32; the inner `where` keeps the branch that is not taken finite.
      low = scores < -20.0
      log_weights = jnp.where(low, scores, jnp.log(nn.softplus(jnp.where(low, 0.0, scores))))
      return jax.nn.softmax(log_weights, axis=1)

    weights = distribution(scores[..., 0], self.normalisation)
    sharp = distribution(scores[..., -1], self.normalisation if self.score_channels == 2 else 'softmax')
    image = jnp.sum(sharp[..., None] * pictures.astype(jnp.float32), axis=1)
    return DepthMaps((expected_focus(weights, focus),), weights, all_in_focus=image)

  @staticmethod
  def draw(
    rng: np.random.Generator, path: tuple[str, ...], shape: tuple[int, ...], kernel: tuple[int, ...] | None
  ) -> np.ndarray:
    """Initial values as published: PyTorch's default, of weights and biases; see `end_to_end.draw_variable`."""
    if path[-1] not in ('kernel', 'bias') or kernel is None:
      return np.full(shape, float(path[-1] in ('scale', 'var')))
    # For a transposed convolution PyTorch counts the output channels as fan-in.
    fan_in = np.prod(kernel[:3]) * (kernel[-1] if is_transposed('.'.join(path[:-1])) else kernel[-2])
    return rng.uniform(-(fan_in**-0.5), fan_in**-0.5, shape)


def is_transposed(module: str) -> bool:
  """Whether our module is a transposed convolution."""
  return module == 'up' or module.endswith('.up.cell.conv')


def published_modules() -> dict[str, str]:
  """Our module path -> the module's name in the published state dict."""
  modules = {}

  def cell(ours, theirs):
    modules[f'{ours}.cell.conv'], modules[f'{ours}.cell.norm'] = f'{theirs}.0', f'{theirs}.1'

  for index, name in enumerate(('1a', '2b', '2c'), start=1):
    cell(f'stem{index}', f'conv3d_{name}.conv3d')
  for name in MIXED:
    for ours, theirs in (
      *(('0', '0'), ('1a', '1_0'), ('1b', '1_1')),
      *(('2a', '2_0'), ('2b', '2_1'), ('3', '3_1')),
    ):
      cell(f'mixed{name}.branch{ours}', f'Mixed_{name}.branch{theirs}.conv3d')
  joined = '5c'
  for index, skip in enumerate(('4f', '3c', '2c', '1a')):
    cell(f'join{index}.up', f'up_{joined}.trans3d')
    cell(f'join{index}.after', f'up_{joined}.trans3d.3.conv3d')
    cell(f'join{index}.skip', f'up_{skip}.conv3d')
    joined += skip
  return modules | {'up': 'final_up', 'score': 'out'}
