"""Linear interpolation along one axis at equally spaced positions, with derivatives, in the form that is fastest on the
target platform.

Interpolation is a product with a matrix that has two nonzero entries per row. Its transpose adds each value to two
pixels, which is slow as a scatter. With equally spaced positions, however, the values that contribute to a pixel are
neighbours, two or three for a step of about a pixel, so the transpose can gather too. CPUs gather; other platforms
multiply by the matrices, which suits their matrix units.

Implemented as a JAX primitive (`jax.extend`). It is linear in the frames. Its derivative with respect to the positions
is the same primitive with the slope of the weights instead of the weights, so this one primitive gives derivatives of
any order, in forward and reverse mode.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad, batching
from jaxtyping import Array, Float, Int

from focal_jax.primitives import primitive

Images = Float[Array, '*B H W C']
Positions = Float[Array, '*B L']
Length = float | int | Float[Array, ''] | Int[Array, '']

# The transpose gathers this many values at a time: all that contribute to a pixel if positions are more than 2 / 3 px
# apart.
TAPS = 3


def interpolate(images: Images, positions: Positions, size: Length, axis: int) -> Images:
  """Samples images linearly along one axis.

  Args:
    images: [..., H, W, C] float32.
    positions: [..., L] sampling positions in px, equally spaced, one for each of the L pixels of the axis. Where they
      lie on pixels, the derivative is the central difference.
    size: length of the image within the array, px; pixels at or beyond it, and before the first, count as zero.
    axis: -3 samples along y, -2 along x.

  Returns:
    The sampled images, in the shape of `images`.
  """
  size = jnp.broadcast_to(jnp.asarray(size, jnp.float32), (1,) * positions.ndim)
  return _interpolate_p.bind(images, positions, size, axis=axis, slope=False, transposed=False)


def hat(distance: Float[Array, '*S']) -> Float[Array, '*S']:
  """Linear interpolation weight max(0, 1 - |d|), written as a second difference of max(0, .).

  Automatic differentiation of |d| gives +-1 at d = 0, and so a wrong gradient exactly at the identity motion. Here the
  ties of `maximum` split the gradient evenly, which gives the central difference, as in `hat_slope`.
  """
  distance = jnp.clip(distance, -2.0, 2.0)  # beyond this, the terms would not cancel in float32
  return jnp.maximum(distance + 1.0, 0.0) - 2.0 * jnp.maximum(distance, 0.0) + jnp.maximum(distance - 1.0, 0.0)


def hat_slope(distance: Float[Array, '*S']) -> Float[Array, '*S']:
  """Derivative of `hat`. At its kinks, the mean of both sides: 0 at d = 0, -+1/2 at d = +-1."""
  return 0.5 * (jnp.sign(distance + 1.0) - 2.0 * jnp.sign(distance) + jnp.sign(distance - 1.0))


def _weights(distance, pixels, size, length, slope):
  inside = (pixels >= 0) & (pixels < jnp.minimum(size, length))
  return jnp.where(inside, (hat_slope if slope else hat)(distance), 0.0)


def _by_matrix(images, positions, size, *, axis, slope, transposed):
  pixels = jnp.arange(images.shape[axis])
  matrix = _weights(positions[..., None] - pixels, pixels, size[..., None], images.shape[axis], slope)
  equation = f'...{"ji" if transposed else "ij"},' + {-3: '...jwc->...iwc', -2: '...hjc->...hic'}[axis]
  # 'highest': TPUs and recent GPUs would otherwise round weights and pixels to bfloat16 or TF32.
  return jnp.einsum(equation, matrix, images, precision=lax.Precision.HIGHEST)


def _by_gathers(images, positions, size, *, axis, slope, transposed):
  return (_gather_transposed if transposed else _gather)(images, positions, size, axis=axis, slope=slope)


def _gather(images, positions, size, *, axis, slope):
  """Gathers the pixels on either side of each position; the slope at a pixel also needs the previous pixel."""
  length = images.shape[axis]
  positions = jnp.clip(positions, -2.0, length + 1.0)  # positions far outside would overflow an integer
  first = jnp.floor(positions)
  taps = []
  for k in (-1, 0, 1) if slope else (0, 1):
    index = first.astype(jnp.int32) + k
    taps.append((jnp.clip(index, 0, length - 1), _weights(positions - first - k, index, size, length, slope)))
  return _sum_taps(images, taps, axis)


def _gather_transposed(images, positions, size, *, axis, slope):
  """For each pixel, gathers the values whose positions are at most one pixel away: `count` neighbours from `start` on.

  The loop usually runs once. It is there because XLA does not fuse across it: otherwise the operations before it would
  be recomputed for each gathered value.
  """
  length = images.shape[axis]
  pixels = jnp.arange(length)
  step = (positions[..., -1:] - positions[..., :1]) / max(length - 1, 1)
  width = 2.0 / jnp.abs(step)
  everywhere = ~(width < length)  # step 0, or not finite
  start = jnp.ceil((pixels - positions[..., :1]) / step - width / 2 - 1e-3)  # minus a margin for rounding
  start = jnp.where(everywhere, 0, jnp.clip(start, -length, length)).astype(jnp.int32)
  count = jnp.max(jnp.where(everywhere, length, jnp.floor(width + 1e-3) + 1)).astype(jnp.int32)

  def add(number, total):
    taps = []
    for k in range(TAPS):
      wanted = start + number * TAPS + k
      index = jnp.clip(wanted, 0, length - 1)
      weights = _weights(jnp.take_along_axis(positions, index, -1) - pixels, pixels, size, length, slope)
      taps.append((index, jnp.where(index == wanted, weights, 0.0)))
    return total + _sum_taps(images, taps, axis)

  return lax.fori_loop(0, (count + TAPS - 1) // TAPS, add, jnp.zeros_like(images))


def _sum_taps(images: Images, taps: list[tuple[Int[Array, '*B L'], Float[Array, '*B L']]], axis: int) -> Images:
  def of_one(image, *taps):
    parts = (
      image[index] * weights[:, None, None] if axis == -3 else image[:, index] * weights[:, None]
      for index, weights in taps
    )
    return functools.reduce(jnp.add, parts)

  for _ in images.shape[:-3]:
    of_one = jax.vmap(of_one)
  return of_one(images, *taps)


_interpolate_p = primitive('interpolate', _by_matrix, cpu=_by_gathers)


def _jvp(primals, tangents, *, axis, slope, transposed):
  images, positions, size = primals
  bind = functools.partial(_interpolate_p.bind, axis=axis, transposed=transposed)
  out, parts = bind(images, positions, size, slope=slope), []
  of_images, of_positions, _ = tangents
  if not isinstance(of_images, ad.Zero):
    parts.append(bind(of_images, positions, size, slope=slope))
  if not (slope or isinstance(of_positions, ad.Zero)):  # the slope of the weights is constant between its steps
    moved = of_positions[..., :, None, None] if axis == -3 else of_positions[..., None, :, None]
    if transposed:
      parts.append(bind(images * moved, positions, size, slope=True))
    else:
      parts.append(bind(images, positions, size, slope=True) * moved)
  return out, functools.reduce(jnp.add, parts) if parts else jnp.zeros_like(out)


def _transpose(cotangent, images, positions, size, *, transposed, **options):
  del images
  return _interpolate_p.bind(cotangent, positions, size, transposed=not transposed, **options), None, None


def _batched(arrays, axes, **options: Any):
  count = next(x.shape[axis] for x, axis in zip(arrays, axes, strict=True) if axis is not None)
  images, positions, size = (
    x[None] if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(arrays, axes, strict=True)
  )
  images, positions = (jnp.broadcast_to(x, (count, *x.shape[1:])) for x in (images, positions))
  return _interpolate_p.bind(images, positions, size, **options), 0


ad.primitive_jvps[_interpolate_p] = _jvp
ad.primitive_transposes[_interpolate_p] = _transpose
batching.primitive_batchers[_interpolate_p] = _batched
