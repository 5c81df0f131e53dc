"""The depth-from-focus network of Won and Jeon (ECCV 2022), section 3.2: from an aligned stack to four depth maps."""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from focal_jax.models import conv
from focal_jax.models.blocks import (
  POINT,
  AttentionDetection,
  Conv,
  ConvNorm,
  EffectiveDownsampling,
  NoDetection,
  PlaneDetection,
  PooledDownsampling,
  SharpRegionDetection,
  Stack,
  StridedDownsampling,
  apply_block,
  expected_focus,
  focus_distribution,
  upsample,
)
from focal_jax.models.depth_maps import DepthMaps
from focal_jax.models.relative_sharpness import relative_sharpness

MULTIPLE = 32  # height and width are multiples of this, px: the aggregation works down to 1/32

# Modules made with (features, axis_name) that map [B, N, H, W, C] to `features` channels, at the same size and at half
# of it.
_DETECTION = {
  'both': SharpRegionDetection,
  'plane': PlaneDetection,
  'attention': AttentionDetection,
  'none': NoDetection,
}
_DOWNSAMPLING = {'both': EffectiveDownsampling, 'stride': StridedDownsampling, 'pooling': PooledDownsampling}


class Pyramid(nn.Module):
  """P(i, o): two convolutions, then a residual block without a final activation."""

  features: int
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    cell = partial(ConvNorm, self.features, axis_name=self.axis_name)
    r = nn.relu(cell(name='conv1')(x, train=train))
    r = nn.relu(cell(name='conv2')(r, train=train))
    y = nn.relu(cell(name='residual1')(r, train=train))
    return r + cell(name='residual2')(y, train=train)


class MultiScaleAggregation(nn.Module):
  """Combines context from 1/8, 1/16 and 1/32 of the resolution at 1/8: c channels from c channels at 1/4."""

  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    c = x.shape[-1]
    cell = partial(ConvNorm, axis_name=self.axis_name)
    x8 = Pyramid(c, self.axis_name, name='pyramid8')(conv.average_pool(x, 2), train=train)
    x16 = Pyramid(2 * c, self.axis_name, name='pyramid16')(conv.average_pool(x, 4), train=train)
    x32 = Pyramid(2 * c, self.axis_name, name='pyramid32')(conv.average_pool(x, 8), train=train)

    # Down: each resolution joins the one above it, reduced.
    e1 = jnp.concatenate([Conv(2 * c, stride=2, name='down16')(x8), x16], axis=-1)
    e1 = nn.relu(cell(2 * c, name='combine16')(e1, train=train))
    e1 = nn.relu(cell(2 * c, name='refine16')(e1, train=train))
    e2 = jnp.concatenate([Conv(4 * c, stride=2, name='down32')(e1), x32], axis=-1)
    e2 = nn.relu(cell(4 * c, name='combine32')(e2, train=train))
    e2 = nn.relu(cell(4 * c, name='refine32')(e2, train=train))

    # Up again, with skip connections by 1 x 1 convolutions.
    up16 = cell(2 * c, transpose=True, name='up16')(e2, train=train)
    u1 = nn.relu(up16 + cell(2 * c, POINT, name='skip16')(e1, train=train))
    up8 = cell(c, transpose=True, name='up8')(u1, train=train)
    return nn.relu(up8 + cell(c, POINT, name='skip8')(x8, train=train))


class Hourglass(nn.Module):
  """H(c) on 2c channels: down to a quarter and up again. Returns c channels, and its first layer's output for the next
  hourglass.
  """

  features: int
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, x: Stack, previous_first: Stack | None = None, previous_out: Stack | None = None, *, train: bool
  ) -> tuple[Stack, Stack]:
    c = self.features
    cell = partial(ConvNorm, axis_name=self.axis_name)
    first = nn.relu(cell(c, name='first')(x, train=train))
    half = nn.relu(cell(2 * c, stride=2, name='down2')(first, train=train))
    half = cell(2 * c, name='half')(half, train=train)
    half = nn.relu(half if previous_out is None else half + previous_out)
    quarter = nn.relu(cell(2 * c, stride=2, name='down4')(half, train=train))
    quarter = nn.relu(cell(2 * c, name='quarter')(quarter, train=train))
    up = cell(2 * c, transpose=True, name='up2')(quarter, train=train)
    up = nn.relu(up + (half if previous_first is None else previous_first))
    return cell(c, transpose=True, name='up1')(up, train=train), first


class DepthNetwork(nn.Module):
  """Estimates depth in the unit of `focus` from aligned frames normalised to -1 .. 1.

  Accepts any number of frames; height and width must be multiples of 32. Computes in the type of the images up to the
  scores, and in float32 from there. `axis_name`: devices over which batch normalisation averages in training. `remat`:
  see `apply_block`.
  """

  axis_name: str | None = None
  detection: Literal['both', 'plane', 'attention', 'none'] = 'both'  # sharp region detection; plane: only the 2-D block
  downsampling: Literal['both', 'stride', 'pooling'] = 'both'  # strided convolution, pooling, or both side by side
  remat: bool = False
  # Dilation of the first layer in px: 2 as published; 1 compares neighbours, which shows a blur of one pixel best.
  stem_dilation: Literal[1, 2] = 2
  focus_measures: bool = False  # whether `relative_sharpness` is an additional input of the first layer

  @nn.compact
  def __call__(self, images: Float[Array, 'B N H W 3'], focus: Float[Array, 'B N'], *, train: bool) -> DepthMaps:
    """Returns the depth maps D1 .. D4, coarse to fine, and the focus distribution of D4."""
    height, width = images.shape[2:4]
    cell = partial(ConvNorm, axis_name=self.axis_name)
    detect = partial(_DETECTION[self.detection], axis_name=self.axis_name)
    downsample = partial(_DOWNSAMPLING[self.downsampling], axis_name=self.axis_name)

    run = partial(apply_block, train=train, remat=self.remat)

    if self.focus_measures:
      images = jnp.concatenate([images, relative_sharpness(images)], axis=-1)
    stem = nn.relu(run(cell(8, (1, 9, 9), dilation=self.stem_dilation, name='stem'), images))
    v1 = run(detect(8, name='detect1'), stem)
    v2 = run(detect(16, name='detect2'), run(downsample(16, name='down2'), v1))
    v3 = run(detect(32, name='detect3'), run(downsample(32, name='down3'), v2))

    x = run(MultiScaleAggregation(self.axis_name, name='aggregation'), v3)
    scores = [Conv(1, name='score0')(nn.relu(run(cell(32, name='head0'), x)))]
    x = nn.relu(run(cell(64, name='fuse1'), x))
    x = nn.relu(run(cell(64, name='fuse2'), x))

    first = out = None
    for level, (features, skip) in enumerate(((32, v3), (16, v2), (8, v1)), start=1):
      x = run(cell(features, transpose=True, name=f'up{level}'), x)
      hourglass = Hourglass(features, self.axis_name, name=f'hourglass{level}')
      out, first = run(hourglass, jnp.concatenate([x, skip], axis=-1), first, out)
      x = x + out
      scores.append(Conv(1, POINT, name=f'score{level}')(x))

    def regress(score):
      weights = focus_distribution(upsample(score[..., 0], height, width))
      return expected_focus(weights, focus), weights

    # Full-resolution distributions, one per map, would be among the largest arrays stored for the backward pass.
    regress = jax.checkpoint(regress) if self.remat else regress
    depths, distributions = zip(*map(regress, scores), strict=True)
    return DepthMaps(depths, distributions[-1])
