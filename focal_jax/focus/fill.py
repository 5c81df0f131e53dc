"""Fills unknown values from known ones at the finest scale that has any: push-pull.

Gortler, Grzeszczuk, Szeliski and Cohen, "The lumigraph", SIGGRAPH 1996, section 3.4. Classical depth, the refinement
network and the simulator's scenes all fill with this function.
"""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from focal_jax.warp import double, shift

SYMBOLIC_LEVELS = 13  # for images of symbolic size: up to 8192 px


def fill(
  values: Float[Array, '*B H W'],
  weight: Float[Array, '*#B H W'],
  prior: Float[Array, '*#B'] | float,
  default: Float[Array, ''] | float = 0.0,
  *,
  smooth: bool = False,
  levels: int | None = None,
) -> Float[Array, '*B H W']:
  """Normalised convolution over all scales: (weight value + prior coarser) / (weight + prior).

  `coarser` is the same at half the resolution, from weighted means over 2 x 2 pixels, and so on down to one pixel.
  Where the weight is well above the prior a pixel keeps its value; where it is 0 it takes that of its surroundings.

  Args:
    values: finite everywhere; ignored where the weight is 0.
    weight: at least 0. Gradients divide by the square of its sum, so it needs a positive minimum if differentiated.
    prior: above 0.
    default: the result if the weight is 0 everywhere.
    smooth: coarse filled-in values become the mean of their neighbours before they are enlarged, so that a large hole
      takes approximately the surface of a soap film across it, without visible blocks.
    levels: how many times to halve the resolution; None: down to one pixel.
  """
  height, width = values.shape[-2:]
  if levels == 0 or (levels is None and height == width == 1):
    return jnp.where(weight > 0, values, default)
  if levels is None and jax.export.is_symbolic_dim(height):
    levels = SYMBOLIC_LEVELS  # a single pixel stays as it is at all levels that are too many
  pooled = _halve(weight)
  # 1 where nothing is known: 0 / 0 would be NaN in the result or, even inside a `where`, in its gradient.
  coarse = _halve(weight * values) / jnp.where(pooled > 0, pooled, 1.0)
  coarse = fill(coarse, pooled, prior, default, smooth=smooth, levels=None if levels is None else levels - 1)
  if smooth:
    neighbours = sum(shift(coarse, step, axis) for axis in (-2, -1) for step in (1, -1)) / 4
    coarse = jnp.where(pooled > 0, coarse, neighbours)
  return (weight * values + prior * _double(coarse, height, width)) / (weight + prior)


def _halve(x: Float[Array, '*B H W']) -> Float[Array, '*B h w']:
  """Means of 2 x 2 blocks; an odd side is padded with zeros."""
  height, width = x.shape[-2:]
  halves = (height + 1) // 2, (width + 1) // 2
  x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, 2 * halves[0] - height), (0, 2 * halves[1] - width)])
  rows = x[..., ::2, :] + x[..., 1::2, :]
  return (rows[..., ::2] + rows[..., 1::2]) / 4


def _double(x: Float[Array, '*B h w'], height: int, width: int) -> Float[Array, '*B H W']:
  """Undoes the size change of `_halve` by linear interpolation; edges are repeated."""
  half_height, half_width = x.shape[-2:]
  if jax.export.is_symbolic_dim(half_height):
    shape = *x.shape[:-2], 2 * half_height, 2 * half_width
    return jax.image.resize(x, shape, 'linear')[..., :height, :width]
  # Along x by a matrix, because XLA interleaves single values slowly; it interleaves whole rows several times as fast.
  at = np.clip((np.arange(width) - 0.5) / 2, 0, half_width - 1)
  columns = np.maximum(1 - np.abs(at[:, None] - np.arange(half_width)), 0).astype(x.dtype)
  x = jnp.einsum('...hw,xw->...hx', x, columns, precision=lax.Precision.HIGHEST)
  return double(x, -2)[..., :height, :]
