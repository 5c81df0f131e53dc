"""The alignment network of Won and Jeon (ECCV 2022), section 3.1: the motion of every frame, coarse to fine.

Also alternatives with the same interface: a network that fits the motion to local displacements, and modules without
parameters.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from focal_jax.models import conv
from focal_jax.models.blocks import PLANE, POINT, Conv, ConvNorm, Stack, apply_block, batch_norm, kernel_init
from focal_jax.warp import Size, compose_motion, coverage, displacement, displacement_field, warp

# The heads' outputs are of order 1, but a zoom is about a thousand times smaller than a shift in pixels.
ALPHA_SCALE = 0.001

Others = Float[Array, 'B _ _ _ _']  # frames to compare with: one for each frame, or one for all


class Residual(nn.Module):
  """R(i, o, s): a 2-D residual block for every frame, with a 1 x 1 convolution as its shortcut."""

  features: int
  stride: int = 1
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Stack, *, train: bool) -> Stack:
    y = ConvNorm(self.features, PLANE, self.stride, axis_name=self.axis_name, name='conv1')(x, train=train)
    y = ConvNorm(self.features, PLANE, axis_name=self.axis_name, name='conv2')(nn.relu(y), train=train)
    return nn.relu(y + Conv(self.features, POINT, self.stride, name='shortcut')(x))


class Kernel(nn.Module):
  """The parameter of a convolution whose result is computed without convolving."""

  features: int
  inputs: int

  @nn.compact
  def __call__(self) -> Float[Array, '1 3 3 I O']:
    return self.param('kernel', kernel_init, (*PLANE, self.inputs, self.features))


class PairNorm(nn.Module):
  """Convolution and batch normalisation of [features of the reference, of the frame, their displacement (dx, dy)].

  Same result and parameters as `ConvNorm` of the three concatenated, with less than half of the work: the reference is
  the same for all frames, dx for all rows, and dy for all columns.
  """

  features: int
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, warped: Stack, dx: Float[Array, 'B N W'], dy: Float[Array, 'B N H'], *, train: bool
  ) -> Float[Array, 'B N H W C']:
    c = warped.shape[-1]
    kernel = Kernel(self.features, 2 * c + 2, name='conv')().astype(warped.dtype)
    of_reference, of_frame, of_dx, of_dy = jnp.split(kernel, (c, 2 * c, 2 * c + 1), axis=3)
    x = conv.conv(warped, of_frame) + conv.conv(warped[:, -1:], of_reference)
    dx, dy = dx.astype(x.dtype), dy.astype(x.dtype)
    x += _convolve_repeated(dx, of_dx[0, :, :, 0].swapaxes(0, 1), x.shape[2])
    x += _convolve_repeated(dy, of_dy[0, :, :, 0], x.shape[3]).swapaxes(2, 3)
    return batch_norm(x, self.axis_name, train)


def _convolve_repeated(
  values: Float[Array, 'B N L'], kernel: Float[Array, '3 3 C'], repeats: int
) -> Float[Array, 'B N R L C']:
  """Convolution of an array [R, L] that holds `values` in each of its R = `repeats` rows, zeros around it.

  Args:
    kernel: first axis along the values, second across the rows.
  """
  before, after = (jnp.pad(values, ((0, 0), (0, 0), pad)) for pad in ((1, 0), (0, 1)))
  taps = jnp.stack([before[..., :-1], values, after[..., 1:]], axis=-1)
  rows = jnp.einsum('bnlk,krc->bnrlc', taps, kernel, precision=lax.Precision.HIGHEST)
  row = jnp.arange(repeats)[:, None, None]
  # Every row sums all three rows of the kernel, except the first and the last, which have zeros on one side.
  total = jnp.sum(rows, axis=2, keepdims=True)
  return total - jnp.where(row == 0, rows[:, :, :1], 0) - jnp.where(row == repeats - 1, rows[:, :, 2:], 0)


class MeanConv(nn.Module):
  """Mean over the image of a 3 x 3 convolution with bias, computed without convolving: the kernel times the sums of the
  shifted array.
  """

  features: int

  @nn.compact
  def __call__(self, x: Stack, size: Size) -> Float[Array, 'B N O']:
    """`size`: height and width of the image, at the top left of the array; the rest is padding."""
    kernel = self.param('kernel', kernel_init, (*PLANE, x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))

    def inside(length, end):  # [tap, pixel]: whether the tap takes the pixel to a place in the image
      place = jnp.arange(length) - jnp.arange(-1, 2)[:, None]
      return ((place >= 0) & (place < end)).astype(x.dtype)

    rows, columns = inside(x.shape[2], size[0]), inside(x.shape[3], size[1])
    sums = jnp.einsum('ky,bnyxc->bnkxc', rows, x, precision=lax.Precision.HIGHEST)
    sums = jnp.einsum('lx,bnkxc->bnklc', columns, sums, precision=lax.Precision.HIGHEST)
    count = rows[1].sum() * columns[1].sum()
    return jnp.einsum('bnklc,klco->bno', sums / count, kernel[0], precision=lax.Precision.HIGHEST) + bias


class MotionHead(nn.Module):
  """Estimates a correction of the motion from the features of the reference, those of a frame warped with the motion so
  far, and the displacement of that motion.
  """

  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, features: Stack, fov: Float[Array, 'B N'], motion: Float[Array, 'B N 3'], *, size: Size, train: bool
  ) -> Float[Array, 'B N 3']:
    height, width, channels = features.shape[2:]
    # Coordinates and weights of the warp are float32, whatever the type of the features.
    warped = warp(features, fov, motion, size).astype(features.dtype)
    dx = displacement(fov, motion[..., 0], motion[..., 1], width, size[1])
    dy = displacement(fov, motion[..., 0], motion[..., 2], height, size[0])
    x = nn.relu(PairNorm(2 * channels, self.axis_name, name='conv1')(warped, dx, dy, train=train))
    for i in (2, 3):
      x = nn.relu(ConvNorm(2 * channels, PLANE, axis_name=self.axis_name, name=f'conv{i}')(x, train=train))
    # bfloat16 would round a shift of 10 px to steps of 1/16 px.
    return MeanConv(3, name='motion')(x.astype(jnp.float32), size) * jnp.array([ALPHA_SCALE, 1.0, 1.0])


class AlignmentNetwork(nn.Module):
  """Motion (alpha, beta, gamma) of every frame, beta and gamma in full-resolution pixels; see `warp`.

  Accepts any number of frames and stacks. The last frame is the reference; like the others it gets a motion and is
  warped by it. Features at 1/4, 1/2 and full resolution are warped in turn with the motion found so far, and each head
  adds its correction. As published, beta and gamma are not rescaled between the levels.

  Features have the type of the images, the motion is float32. `remat`: see `apply_block`.
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
      train: batch statistics instead of running averages.
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

    # Shifts are added without rescaling between levels, as published: the heads learn the units.
    motion = jnp.zeros((*fov.shape, 3), fov.dtype)
    for level in (2, 1, 0):
      level_size = (size[0] / 2**level, size[1] / 2**level)
      head = MotionHead(self.axis_name, name=f'head{level}')
      motion = motion + run(head, levels[level], fov, motion, size=level_size)
    return motion


class Fit(nn.Module):
  """Fits zoom and shift to local displacements. These, and two weights for each pixel, are estimated from the
  similarity of two frames under displacements of up to `radius` px.
  """

  features: int
  radius: int
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, frame: Stack, other: Others, mask: Float[Array, 'B N H W'], *, size: Size, train: bool
  ) -> Float[Array, 'B N 3']:
    """Motion (zoom, x, y) of each frame relative to the other, shift in px of these arrays.

    Args:
      frame: features of unit length.
      other: features of unit length to compare with, one for each frame, or one for all.
      mask: weight of each pixel, 0 .. 1.
      size: height and width of the image within the array, px.
      train: batch statistics instead of running averages.
    """
    x = local_correlation(frame, other, self.radius)
    for i in (1, 2):
      x = nn.relu(ConvNorm(self.features, PLANE, axis_name=self.axis_name, name=f'conv{i}')(x, train=train))
    found = Conv(4, PLANE, use_bias=True, name='local')(x).astype(jnp.float32)
    # The fit sums thousands of pixels: too many for the eight bits of bfloat16.
    return fit_motion(found[..., :2], nn.softplus(found[..., 2:]) * mask[..., None], size)


def local_correlation(frame: Stack, other: Others, radius: int) -> Float[Array, 'B N H W K']:
  """Dot products of the features of `other` at each pixel with those of `frame` at the (2 radius + 1)^2 pixels around
  it.
  """
  height, width = frame.shape[2:4]
  around = jnp.pad(frame, ((0, 0), (0, 0), (radius, radius), (radius, radius), (0, 0)))
  steps = range(2 * radius + 1)
  return jnp.stack(
    [jnp.sum(other * around[:, :, y : y + height, x : x + width], axis=-1) for y in steps for x in steps], axis=-1
  )


def fit_motion(
  moved_px: Float[Array, 'B N H W 2'], weights: Float[Array, 'B N H W 2'], size: Size
) -> Float[Array, 'B N 3']:
  """The (zoom, x, y) whose `displacement` is closest to `moved_px`, (x, y) at every pixel: weighted least squares in
  closed form.

  The two directions have separate weights, because displacement along an edge cannot be seen.
  """
  height, width = moved_px.shape[2:4]
  # Displacement for a zoom of 1: a field of view of 2 without motion.
  place = displacement_field(jnp.full(1, 2.0), jnp.zeros((1, 3)), height, width, size)[0]
  # A prior of no motion with the weight of a thousandth of the pixels, so that frames without weight do not move.
  few = 1e-3 * size[0] * size[1]
  total = jnp.sum(weights, (2, 3)) + few
  mean_place, mean_moved = (jnp.sum(weights * x, (2, 3)) / total for x in (place, moved_px))
  from_mean = place - mean_place[:, :, None, None]
  slope = jnp.sum(weights * from_mean * (moved_px - mean_moved[:, :, None, None]), (2, 3, 4))
  spread = jnp.sum(weights * from_mean**2, (2, 3, 4)) + few * (size[0] ** 2 + size[1] ** 2) / 12
  zoom = slope / spread
  return jnp.concatenate([zoom[..., None], mean_moved - zoom[..., None] * mean_place], axis=-1)


class FittedAlignment(nn.Module):
  """Motion of every frame, fitted to displacements and weights that a network estimates at each pixel.

  The heads of `AlignmentNetwork` average the output of convolutions, which are the same everywhere, over the image. The
  only input that tells them where in the image something moved is the displacement so far, which is 0 if the metadata
  has no field of view. So that network cannot see a zoom and guesses a typical one. This one can.

  Coarse to fine, like `AlignmentNetwork`. At the coarsest level each frame is compared with the next, which is most
  similar in blur and scale, and the motions are accumulated; at the finer levels with the last, so that errors do not
  accumulate. The last frame has no motion.

  `passes`: how many times to go through all levels, each time starting from the motion so far. Every pass warps the
  features, not the frames: borders of warped frames would look like static content.
  """

  passes: int = 1
  axis_name: str | None = None
  remat: bool = False

  @nn.compact
  def __call__(
    self, images: Float[Array, 'B N H W 3'], fov: Float[Array, 'B N'], *, size: Size | None = None, train: bool
  ) -> Float[Array, 'B N 3']:
    """See `AlignmentNetwork.__call__`."""
    size = size or images.shape[2:4]
    run = partial(apply_block, train=train, remat=self.remat)
    levels = []
    x = images
    for level, features in enumerate((8, 16, 32)):
      stride = 1 if level == 0 else 2
      x = run(Residual(features, stride, self.axis_name, name=f'features{level}a'), x)
      x = run(Residual(features, 1, self.axis_name, name=f'features{level}b'), x)
      levels.append(run(ConvNorm(features, POINT, axis_name=self.axis_name, name=f'compared{level}'), x))

    motion = jnp.zeros((*fov.shape, 3), jnp.float32)
    form = ((2, 32, 3), (1, 24, 2), (0, 16, 1))  # level, features, radius
    heads = {level: Fit(features, radius, self.axis_name, name=f'fit{level}') for level, features, radius in form}
    for level in list(heads) * self.passes:
      scale = jnp.array([1.0, 2.0**-level, 2.0**-level])
      level_size = tuple(length / 2**level for length in size)
      warped = warp(levels[level], fov, motion * scale, level_size)
      # Normalised after the warp, because interpolation shortens features; 1e-6 is for the zeros outside the frame.
      warped = warped / jnp.sqrt(jnp.sum(warped**2, -1, keepdims=True) + 1e-6)
      warped = warped.astype(images.dtype)
      seen = coverage(fov, motion * scale, *warped.shape[2:4], level_size)

      def other(x, level=level):
        return jnp.concatenate([x[:, 1:], x[:, -1:]], axis=1) if level == 2 else x[:, -1:]

      found = run(heads[level], warped, other(warped), seen * other(seen), size=level_size)
      found = found - found[:, -1:]  # the last frame, compared with itself, must have no motion
      if level == 2:
        # From motion relative to the next frame to motion relative to the last.
        found = jnp.cumsum(found[:, ::-1], axis=1)[:, ::-1]
      motion = compose_motion(fov, motion, found / scale, size)
    return motion


class MetadataAlignment(nn.Module):
  """No motion beyond the field-of-view crop that the metadata asks for."""

  axis_name: str | None = None
  remat: bool = False

  def __call__(
    self, images: Float[Array, 'B N H W 3'], fov: Float[Array, 'B N'], *, size: Size | None = None, train: bool
  ) -> Float[Array, 'B N 3']:
    return jnp.zeros((*fov.shape, 3), fov.dtype)


class NoAlignment(nn.Module):
  """Returns the motion whose warp leaves every frame unchanged: a zoom that undoes the field-of-view crop."""

  axis_name: str | None = None
  remat: bool = False

  def __call__(
    self, images: Float[Array, 'B N H W 3'], fov: Float[Array, 'B N'], *, size: Size | None = None, train: bool
  ) -> Float[Array, 'B N 3']:
    # fov + (1 - fov) is exactly 1 in floating point.
    return jnp.stack([1.0 - fov, jnp.zeros_like(fov), jnp.zeros_like(fov)], axis=-1)
