"""Separable Gaussian filters with a traced (random) width and a static radius. Plain JAX."""

from collections.abc import Sequence

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
  weights = gaussian_weights(sigma_px, radius_px)
  for axis in axes:
    length = images.shape[axis]
    pads = [(radius_px, radius_px) if a == axis % images.ndim else (0, 0) for a in range(images.ndim)]
    padded = jnp.pad(images, pads, mode=mode)
    taps = [lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(2 * radius_px + 1)]
    images = sum(weights[i] * (taps[i] + taps[-1 - i]) for i in range(radius_px)) + weights[radius_px] * images
  return images


def round_straight_through(x: Float[Array, '*S']) -> Float[Array, '*S']:
  """Rounds, with the gradient of the identity."""
  return x + lax.stop_gradient(jnp.round(x) - x)
