"""The alignment network of Won and Jeon (ECCV 2022), section 3.1: the motion of every frame, coarse to fine.

And what stands in its place where nothing is learned: modules with the same interface and no parameters.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from focal_jax.models.blocks import PLANE, POINT, Conv, ConvNorm, Stack, apply_block
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
  """Features of the reference and of a frame, warped with the motion so far, and the displacement that this is, to a
  correction of the motion.
  """

  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, features: Stack, fov: Float[Array, 'B N'], motion: Float[Array, 'B N 3'], *, size: Size, train: bool
  ) -> Float[Array, 'B N 3']:
    height, width, channels = features.shape[2:]
    # Coordinates and weights of the warp are float32, whatever the features are.
    warped = warp(features, fov, motion, size).astype(features.dtype)
    field = displacement_field(fov, motion, height, width, size).astype(features.dtype)
    reference = jnp.broadcast_to(warped[:, -1:], warped.shape)
    x = jnp.concatenate([reference, warped, field], axis=-1)
    for i in range(1, 4):
      x = nn.relu(ConvNorm(2 * channels, PLANE, axis_name=self.axis_name, name=f'conv{i}')(x, train=train))
    # bfloat16 would round a shift of 10 px to steps of 1/16 px.
    x = Conv(3, PLANE, use_bias=True, name='motion')(x.astype(jnp.float32))
    # The mean is over the image, not over what pads it.
    inside = (jnp.arange(x.shape[2]) < size[0])[:, None, None] & (jnp.arange(x.shape[3]) < size[1])[:, None]
    return jnp.mean(x, axis=(2, 3), where=inside) * jnp.array([ALPHA_SCALE, 1.0, 1.0])


class AlignmentNetwork(nn.Module):
  """Motion (alpha, beta, gamma) of every frame, beta and gamma in full-resolution pixels; see `warp`.

  Any number of frames and stacks. The last frame is the reference; like the others it gets a motion of its own and is
  warped by it. Features at 1/4, 1/2 and 1 of the resolution are warped in turn with the motion found so far, and each
  head adds its correction. As published, beta and gamma are not rescaled between the levels.

  Features are in the type of the images, the motion is float32. `remat`: see `apply_block`.
  """

  axis_name: str | None = None
  remat: bool = False

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
    run = partial(apply_block, train=train, remat=self.remat)
    levels = []
    x = images
    for level, features in enumerate((8, 16, 32)):
      stride = 1 if level == 0 else 2
      x = run(Residual(features, stride, self.axis_name, name=f'features{level}a'), x)
      x = run(Residual(features, 1, self.axis_name, name=f'features{level}b'), x)
      levels.append(x)

    motion = jnp.zeros((*fov.shape, 3), fov.dtype)
    for level in (2, 1, 0):
      level_size = (size[0] / 2**level, size[1] / 2**level)
      head = MotionHead(self.axis_name, name=f'head{level}')
      motion = motion + run(head, levels[level], fov, motion, size=level_size)
    return motion


class MetadataAlignment(nn.Module):
  """No motion beside the field-of-view crop that the metadata asks for."""

  axis_name: str | None = None
  remat: bool = False

  def __call__(
    self, images: Float[Array, 'B N H W 3'], fov: Float[Array, 'B N'], *, size: Size | None = None, train: bool
  ) -> Float[Array, 'B N 3']:
    return jnp.zeros((*fov.shape, 3), fov.dtype)


class NoAlignment(nn.Module):
  """The motion whose warp leaves every frame as it is: a zoom that takes the field-of-view crop back."""

  axis_name: str | None = None
  remat: bool = False

  def __call__(
    self, images: Float[Array, 'B N H W 3'], fov: Float[Array, 'B N'], *, size: Size | None = None, train: bool
  ) -> Float[Array, 'B N 3']:
    # fov + (1 - fov) is exactly 1 in floating point.
    return jnp.stack([1.0 - fov, jnp.zeros_like(fov), jnp.zeros_like(fov)], axis=-1)
