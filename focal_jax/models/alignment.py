"""The alignment network of Won and Jeon (ECCV 2022), section 3.1: the motion of every frame, coarse to fine."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from focal_jax.models.blocks import PLANE, POINT, Conv, ConvNorm, Stack
from focal_jax.warp import Size, displacement_field, warp

# The heads answer in numbers of order 1; a zoom is some thousand times smaller than a shift in pixels.
ALPHA_SCALE = 0.001


class Residual(nn.Module):
  """R(i, o, s): a 2-D residual block in every frame, its shortcut a 1 x 1 convolution."""

  features: int
  stride: int = 1
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    y = ConvNorm(self.features, PLANE, self.stride, axis_name=self.axis_name, name='conv1')(x, train=train)
    y = ConvNorm(self.features, PLANE, axis_name=self.axis_name, name='conv2')(nn.relu(y), train=train)
    return nn.relu(y + Conv(self.features, POINT, self.stride, name='shortcut')(x))


class MotionHead(nn.Module):
  """Features of the reference and of a frame, and its displacement so far, to a correction of its motion."""

  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, features: Stack, field: Float[Array, 'B N H W 2'], size: Size, *, train: bool
  ) -> Float[Array, 'B N 3']:
    channels = features.shape[-1]
    reference = jnp.broadcast_to(features[:, -1:], features.shape)
    x = jnp.concatenate([reference, features, field], axis=-1)
    for i in range(1, 4):
      x = nn.relu(ConvNorm(2 * channels, PLANE, axis_name=self.axis_name, name=f'conv{i}')(x, train=train))
    x = Conv(3, PLANE, use_bias=True, name='motion')(x)
    # The mean is over the image, not over what pads it.
    inside = (jnp.arange(x.shape[2]) < size[0])[:, None, None] & (jnp.arange(x.shape[3]) < size[1])[:, None]
    return jnp.mean(x, axis=(2, 3), where=inside) * jnp.array([ALPHA_SCALE, 1.0, 1.0])


class AlignmentNetwork(nn.Module):
  """Motion (alpha, beta, gamma) of every frame, beta and gamma in full-resolution pixels; see `warp`.

  Any number of frames and stacks. The last frame is the reference; like the others it gets a motion of its own and is
  warped by it. Features at 1/4, 1/2 and 1 of the resolution are warped in turn with the motion found so far, and each
  head adds its correction. As published, beta and gamma are not rescaled between the levels.
  """

  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, images: Float[Array, 'B N H W 3'], fov: Float[Array, 'B N'], *, size: Size | None = None, train: bool
  ) -> Float[Array, 'B N 3']:
    """Motion of every frame.

    Args:
      images: normalised to -1 .. 1, height and width multiples of 4.
      fov: relative field of view of each frame.
      size: (height, width) of the image within a padded array; None: all of it.
      train: batch statistics in place of running averages.
    """
    size = size or images.shape[2:4]
    levels = []
    x = images
    for level, features in enumerate((8, 16, 32)):
      stride = 1 if level == 0 else 2
      x = Residual(features, stride, self.axis_name, name=f'features{level}a')(x, train=train)
      x = Residual(features, 1, self.axis_name, name=f'features{level}b')(x, train=train)
      levels.append(x)

    motion = jnp.zeros((*fov.shape, 3), fov.dtype)
    for level in (2, 1, 0):
      level_size = (size[0] / 2**level, size[1] / 2**level)
      features = warp(levels[level], fov, motion, level_size)
      field = displacement_field(fov, motion, *features.shape[2:4], level_size)
      motion = motion + MotionHead(self.axis_name, name=f'head{level}')(features, field, level_size, train=train)
    return motion
