"""Differential focus volumes (Yang, Huang and Zhou, "Deep depth from focus with differential focus volume", CVPR 2022).

A ResNet-18 and a feature pyramid extract features of every frame at four scales. Each scale has a focus volume, made
from the features or from their differences between neighbouring frames. 3-D decoders go from coarse to fine; each gives
a depth map.
"""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from focal_jax.models import conv
from focal_jax.models.blocks import (
  CUBE,
  PLANE,
  POINT,
  Conv,
  ConvNorm,
  Stack,
  apply_block,
  double_linear,
  double_nearest,
  expected_focus,
  upsample,
)
from focal_jax.models.depth_maps import DepthMaps
from focal_jax.models.end_to_end import draw_variable

FEATURES = (64, 128, 256, 512)  # of the encoder and the pyramid, at 1/4, 1/8, 1/16 and 1/32 of the resolution
VOLUMES = (16, 32, 64, 128)  # channels of the focus volumes there
DECODERS = (32, 32, 64, 128)  # channels of the decoders; the coarsest has those of its volume
POOLED = (False, False, True, True)  # whether the decoder has pyramid pooling
NUM_POOLS = 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB

PUBLISHED = {'channels': 'RGB', 'padding': 'reflect', 'depth': {'name': 'dfv'}}

Volume = Float[Array, 'B _ _ _ C']  # anonymous axes: frames, too, are resampled


class Layer(nn.Module):
  """b(k): convolution in every frame, batch normalisation, leaky ReLU."""

  features: int
  kernel_size: tuple[int, int, int] = PLANE
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    cell = ConvNorm(self.features, self.kernel_size, axis_name=self.axis_name, name='cell')
    return nn.leaky_relu(cell(x, train=train), 0.1)


class Residual(nn.Module):
  """Two convolutions and a shortcut, which is a 1 x 1 convolution where channels or size change. The ResNet-18 has
  kernels of one frame, the decoders kernels of three.
  """

  features: int
  kernel_size: tuple[int, int, int] = CUBE
  stride: int = 1
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    cell = partial(ConvNorm, self.features, axis_name=self.axis_name)
    y = nn.relu(cell(self.kernel_size, self.stride, name='conv1')(x, train=train))
    y = cell(self.kernel_size, name='conv2')(y, train=train)
    if self.stride > 1 or x.shape[-1] != self.features:
      x = cell(POINT, self.stride, name='shortcut')(x, train=train)
    return nn.relu(y + x)


class PlanePooling(nn.Module):
  """Pyramid pooling of each frame's features; the first path has the most cells."""

  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    height, width = x.shape[2:4]
    total = 0.0
    for path, count in enumerate(reversed(pool_counts(height, width))):
      pooled = average_cells(x, (1, height // count, width // count))
      y = Layer(x.shape[-1], POINT, self.axis_name, name=f'path{path}')(pooled, train=train)
      total += resize(y, x.shape[1:4])
    return nn.relu((x + total / NUM_POOLS) / 2)


class VolumePooling(nn.Module):
  """Pyramid pooling of a volume over frames, height and width; the first path has the fewest cells."""

  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    size, total = x.shape[1:4], 0.0
    for path, count in enumerate(pool_counts(*size)):
      pooled = average_cells(x, tuple(length // count for length in size))
      y = ConvNorm(x.shape[-1], POINT, axis_name=self.axis_name, name=f'path{path}')(pooled, train=train)
      total += resize(y, size)
    return nn.relu((x + total / NUM_POOLS) / 2)


class Decoder(nn.Module):
  """D(i, o): scores [B, N, h, w] from a volume and, unless it is the finest, half the channels for the next decoder."""

  features: int
  pooling: bool
  finest: bool
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> tuple[Stack, Stack | None]:
    cell = partial(ConvNorm, axis_name=self.axis_name)
    for index in (1, 2):
      x = Residual(self.features, axis_name=self.axis_name, name=f'residual{index}')(x, train=train)
    if self.pooling:
      x = VolumePooling(self.axis_name, name='pooling')(x, train=train)
    y = nn.relu(cell(self.features, name='head')(x, train=train))
    scores = Conv(1, use_bias=True, name='score')(y)
    if self.finest:
      return scores, None
    return scores, nn.relu(cell(self.features // 2, name='up')(double_linear(x), train=train))


class DFV(nn.Module):
  """Estimates depth in the unit of `focus` from aligned frames, -1 .. 1, far to near; see `EndToEnd`.

  Accepts any number of frames. The published network needs frames of at least 64 px; for smaller frames, the pyramid
  pooling here uses a single cell. `axis_name`: devices over which batch normalisation averages in training. `remat`:
  see `apply_block`.
  """

  differential: bool = True  # volumes of differences between each frame and the next farther one (DFV), or plain (FV)
  level: Literal[1, 2, 3, 4] = 4  # number of decoded scales, 4 as published; fewer omit the coarsest
  channel_divisor: Literal[1, 2, 4, 8] = 1  # divisor of the published widths
  axis_name: str | None = None
  remat: bool = False

  @nn.compact
  def __call__(self, images: Float[Array, 'B N H W 3'], focus: Float[Array, 'B N'], *, train: bool) -> DepthMaps:
    """Returns `level` depth maps, coarse to fine, and the focus distribution of the finest."""
    height, width = images.shape[2:4]
    run = partial(apply_block, train=train, remat=self.remat)
    layer = partial(Layer, axis_name=self.axis_name)

    def wide(channels):
      return tuple(one // self.channel_divisor for one in channels)

    # The published encoder was pretrained on ImageNet and expects its normalisation.
    mean, std = (jnp.asarray(values, images.dtype) for values in (MEAN, STD))
    x = ((images / 2 + 0.5) - mean) / std
    x = x[:, ::-1]  # near to far, the order of the published differences
    x = nn.relu(run(ConvNorm(wide(FEATURES)[0], (1, 7, 7), 2, axis_name=self.axis_name, name='stem'), x))
    x, features = conv.max_pool3(x, frames=False, stride=2), []
    for stage, channels in enumerate(wide(FEATURES), start=1):
      for block in 'ab':
        stride = 2 if stage > 1 and block == 'a' else 1
        x = run(Residual(channels, PLANE, stride, self.axis_name, name=f'stage{stage}{block}'), x)
      features.append(x)

    features[-1] = run(PlanePooling(self.axis_name, name='pooling'), features[-1])
    for scale in (2, 1, 0):
      channels = wide(FEATURES)[scale]
      above = run(layer(channels, name=f'up{scale}'), double_nearest(features[scale + 1]))
      features[scale] = run(layer(channels, name=f'merge{scale}'), jnp.concatenate([features[scale], above], axis=-1))

    scores, above = [], None
    for scale in range(self.level - 1, -1, -1):
      volume = run(layer(wide(VOLUMES)[scale], POINT, name=f'volume{scale}'), features[scale])
      if self.differential:
        # The last frame has no farther neighbour and keeps its features.
        volume = jnp.concatenate([volume[:, :-1] - volume[:, 1:], volume[:, -1:]], axis=1)
      channels = wide(VOLUMES if above is None else DECODERS)[scale]
      volume = volume if above is None else jnp.concatenate([above, volume], axis=-1)
      decoder = Decoder(channels, POOLED[scale], scale == 0, self.axis_name, name=f'decoder{scale}')
      score, above = run(decoder, volume)
      scores.append(score[:, ::-1, ..., 0])  # far to near again

    def regress(score):
      weights = jax.nn.softmax(upsample(score, height, width), axis=1)
      return expected_focus(weights, focus), weights

    # Full-resolution distributions, one per map, would be among the largest arrays stored for the backward pass.
    regress = jax.checkpoint(regress) if self.remat else regress
    depths, distributions = zip(*map(regress, scores), strict=True)
    return DepthMaps(depths, distributions[-1])

  @staticmethod
  def draw(
    rng: np.random.Generator, path: tuple[str, ...], shape: tuple[int, ...], kernel: tuple[int, ...] | None
  ) -> np.ndarray:
    """Initial values as published, except for the encoder, which was pretrained on ImageNet; see
    `end_to_end.draw_variable`.

    He et al.'s normal distribution by fan-out in encoder and decoders, PyTorch's default between them.
    """
    if path[-1] == 'kernel' and path[0].startswith(('stem', 'stage', 'decoder')):
      return rng.normal(0.0, np.sqrt(2 / (np.prod(shape[:-2]) * shape[-1])), shape)
    return draw_variable(rng, path, shape, kernel)


def pool_counts(*lengths: int) -> list[int]:
  """Approximate number of cells along each axis for each path of a pyramid pooling, fewest first."""
  return [max(int(count), 1) for count in np.linspace(1, min(lengths) // 2, NUM_POOLS)]


def average_cells(x: Volume, cell: tuple[int, int, int]) -> Volume:
  """Means over cells of (frames, rows, columns); incomplete cells at the ends are dropped."""
  cell = tuple(max(length, 1) for length in cell)
  b, *size, c = x.shape
  counts = [length // one for length, one in zip(size, cell, strict=True)]
  x = x[:, : counts[0] * cell[0], : counts[1] * cell[1], : counts[2] * cell[2]]
  split = [part for pair in zip(counts, cell, strict=True) for part in pair]
  return x.reshape(b, *split, c).mean((2, 4, 6))


def resize(x: Volume, size: tuple[int, int, int]) -> Volume:
  """Resizes to (frames, height, width), no smaller than before: linear along each axis, half-pixel centres."""
  return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), 'linear')


def published_modules() -> dict[str, str]:
  """Our module path -> the module's name in the published state dict."""
  modules = {}

  def cell(ours, theirs, conv='0', norm='1'):
    modules[f'{ours}.conv'], modules[f'{ours}.norm'] = f'{theirs}{conv}', f'{theirs}{norm}'

  extraction = 'feature_extraction.'
  cell('stem', f'{extraction}encoder.', 'conv1', 'bn1')
  for stage in (1, 2, 3, 4):
    for block, letter in enumerate('ab'):
      theirs = f'{extraction}encoder.layer{stage}.{block}.'
      for index in (1, 2):
        cell(f'stage{stage}{letter}.conv{index}', theirs, f'conv{index}', f'bn{index}')
      if stage > 1 and block == 0:
        cell(f'stage{stage}{letter}.shortcut', f'{theirs}downsample.')
  for path in range(NUM_POOLS):
    cell(f'pooling.path{path}.cell', f'{extraction}pyramid_pooling.path_module_list.{path}.cbr_unit.')
  for scale in range(3):
    cell(f'up{scale}.cell', f'{extraction}upconv{scale + 4}.1.cbr_unit.')
    cell(f'merge{scale}.cell', f'{extraction}iconv{scale + 3}.cbr_unit.')
  for scale in range(4):
    cell(f'volume{scale}.cell', f'{extraction}proj{scale + 3}.cbr_unit.')
    ours, theirs = f'decoder{scale}', f'decoder{scale + 3}.'
    for index in (1, 2):
      for part in (1, 2):
        cell(f'{ours}.residual{index}.conv{part}', f'{theirs}convs.{index - 1}.conv{part}.')
    if scale in (1, 2):
      cell(f'{ours}.residual1.shortcut', f'{theirs}convs.0.downsample.', 'conv1', 'bn')
    if POOLED[scale]:
      for path in range(NUM_POOLS):
        cell(f'{ours}.pooling.path{path}', f'{theirs}pool_convs.{path}.')
    cell(f'{ours}.head', f'{theirs}classify.0.')
    modules[f'{ours}.score'] = f'{theirs}classify.2.0'
    if scale:
      cell(f'{ours}.up', f'{theirs}up.1.')
  return modules
