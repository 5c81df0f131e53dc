"""Separable Gaussian filters with a traced (random) width and a static radius. Plain JAX."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def gaussian_weights(sigma_px: Float[Array, ''], radius_px: int) -> Float[Array, ' K']:
  """[2 radius + 1] samples of a Gaussian that sum to 1; for sigma 0 only the middle one is not 0."""
  weights = jnp.exp(-0.5 * (jnp.arange(-radius_px, radius_px + 1) / jnp.maximum(sigma_px, 1e-3)) ** 2)
  return weights / weights.sum()


def gaussian_blur(
  images: Float[Array, '*S'], sigma_px: Float[Array, ''], radius_px: int, axes: Sequence[int], mode: str = 'edge'
) -> Float[Array, '*S']:
  """Gaussian blur along each of the axes; `mode` is that of `jnp.pad` ('edge' or 'wrap')."""
  options = {'axes': axes, 'mode': mode}
  # As in `classical.gaussian_window`. For the simulator of `configs/simulated.py`, four stacks, XLA estimates 79
  # Mcycles; with shifts, 104 for its parts (v5e, level O0, compiled, not run).
  return lax.platform_dependent(
    images,
    gaussian_weights(sigma_px, radius_px),
    tpu=partial(blur_by_matrices, **options),
    default=partial(blur_by_shifts, **options),
  )


def blur_by_shifts(
  images: Float[Array, '*S'], weights: Float[Array, ' K'], axes: Sequence[int], mode: str
) -> Float[Array, '*S']:
  """Symmetric filter along each of the axes, as a sum of shifted images."""
  radius_px = len(weights) // 2
  for axis in axes:
    length = images.shape[axis]
    pads = [(radius_px, radius_px) if a == axis % images.ndim else (0, 0) for a in range(images.ndim)]
    padded = jnp.pad(images, pads, mode=mode)
    taps = [lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(2 * radius_px + 1)]
    images = sum(weights[i] * (taps[i] + taps[-1 - i]) for i in range(radius_px)) + weights[radius_px] * images
  return images


def blur_by_matrices(
  images: Float[Array, '*S'], weights: Float[Array, ' K'], axes: Sequence[int], mode: str
) -> Float[Array, '*S']:
  """`blur_by_shifts` as one matrix product for each axis."""
  images = lax.optimization_barrier(images)
  for axis in axes:
    matrix = blur_by_shifts(jnp.eye(images.shape[axis], dtype=images.dtype), weights, (0,), mode)
    blurred = jnp.tensordot(matrix, images, (1, axis), precision=lax.Precision.HIGHEST)
    images = jnp.moveaxis(blurred, 0, axis)
  return images


def round_straight_through(x: Float[Array, '*S']) -> Float[Array, '*S']:
  """Rounds, with the gradient of the identity."""
  return x + lax.stop_gradient(jnp.round(x) - x)
