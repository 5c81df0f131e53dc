"""A depth network for small training budgets: a U-Net over space and frames whose input is focus measures, which are
used once more at the output.

The published network (`depth`) has to learn a measure of sharpness from images. This one takes focus measures as input
(`relative_sharpness`), works at half the resolution and below, and learns where to trust them and how to fill in where
there is no texture. A softmax turns the frames' scores into a distribution that is peaked wherever the measures are.
There is no batch normalisation, so stacks with different numbers of frames may follow each other.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from focal_jax.models.blocks import (
  CUBE,
  PLANE,
  POINT,
  Conv,
  Stack,
  apply_block,
  double_nearest,
  expected_focus,
  upsample,
)
from focal_jax.models.depth_maps import DepthMaps
from focal_jax.models.relative_sharpness import relative_sharpness

FEATURES = (16, 24, 32, 48, 64)  # at 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution
SCORE_GAIN = 2.5  # initial gain of each measure in the score, which then peaks where classical depth from focus does
HE_GAIN = 6**0.5  # kernels are drawn with a variance of 1 / (3 fan_in); rectified inputs want 2 / fan_in (He et al.)


class ScaledConv(nn.Module):
  """Convolution with bias, scaled so that initially it preserves the variance of its rectified input."""

  features: int
  kernel_size: tuple[int, int, int] = CUBE
  stride: int = 1

  @nn.compact
  def __call__(self, x: Stack) -> Stack:
    y = HE_GAIN * Conv(self.features, self.kernel_size, self.stride, name='conv')(x)
    return y + self.param('bias', nn.initializers.zeros, (self.features,)).astype(y.dtype)


class Residual(nn.Module):
  """x + gain * two convolutions of it, with an initial gain of 0 by default, instead of normalisation (SkipInit; De and
  Smith, NeurIPS 2020).
  """

  kernel_size: tuple[int, int, int] = CUBE
  initial_gain: float = 0.0

  @nn.compact
  def __call__(self, x: Stack) -> Stack:
    cell = partial(ScaledConv, x.shape[-1], self.kernel_size)
    y = cell(name='conv2')(nn.relu(cell(name='conv1')(nn.relu(x))))
    return x + self.param('gain', nn.initializers.constant(self.initial_gain), ()).astype(x.dtype) * y


class CurveNetwork(nn.Module):
  """Estimates depth in the unit of `focus` from aligned frames normalised to -1 .. 1; same interface as
  `depth.DepthNetwork`.

  Accepts any number of frames; height and width must be multiples of 32. `remat`: see `apply_block`.
  """

  remat: bool = False

  @nn.compact
  def __call__(self, images: Float[Array, 'B N H W 3'], focus: Float[Array, 'B N'], *, train: bool) -> DepthMaps:
    """Returns the depth maps D1 .. D4, coarse to fine, and the focus distribution of D4."""
    height, width = images.shape[2:4]
    run = partial(apply_block, remat=self.remat)
    measures = relative_sharpness(images)
    x = ScaledConv(FEATURES[0], PLANE, name='stem')(space_to_depth(jnp.concatenate([images, measures], axis=-1)))
    skips = []
    for level, features in enumerate(FEATURES):
      if level:
        x = ScaledConv(features, PLANE, stride=2, name=f'down{level}')(nn.relu(x))
      x = run(Residual(PLANE if level == 0 else CUBE, name=f'encoder{level}'), x)
      skips.append(x)
    x = run(Residual(name='bottom'), x)

    pyramid = []
    for level in range(len(FEATURES) - 2, -1, -1):
      x = skips[level] + double_nearest(ScaledConv(FEATURES[level], POINT, name=f'up{level}')(nn.relu(x)))
      x = run(Residual(PLANE if level == 0 else CUBE, name=f'decoder{level}'), x)
      outputs = ScaledConv(1 if level else 1 + measures.shape[-1], PLANE, name=f'score{level}')(nn.relu(x))
      scores = upsample_channels(outputs, height, width)
      if level == 0:
        # Gains of the measures are learned as deviations from a constant, so that untrained scores follow the measures.
        gains = SCORE_GAIN * (1.0 + scores[..., 1:])
        scores = scores[..., :1] + jnp.sum(gains * measures.astype(jnp.float32), axis=-1, keepdims=True)
      distribution = jax.nn.softmax(scores[..., 0], axis=1)
      pyramid.append(expected_focus(distribution, focus))
    return DepthMaps(tuple(pyramid), distribution)


def space_to_depth(x: Stack) -> Stack:
  """Blocks of 2 x 2 pixels as channels, at half height and width."""
  b, n, h, w, c = x.shape
  x = x.reshape(b, n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 2, 4, 3, 5, 6)
  return x.reshape(b, n, h // 2, w // 2, 4 * c)


def upsample_channels(x: Stack, height: int, width: int) -> Stack:
  """`upsample` of each channel."""
  b, n, h, w, c = x.shape
  planes = jnp.moveaxis(x, -1, 2).reshape(b, n * c, h, w)
  return jnp.moveaxis(upsample(planes, height, width).reshape(b, n, c, height, width), 2, -1)
