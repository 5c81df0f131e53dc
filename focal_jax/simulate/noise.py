"""Noise of a sensor: shot and read noise, white or shared by neighbours. Plain JAX; light is linear, white is 1."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, PRNGKeyArray

from focal_jax.simulate.filters import gaussian_blur, gaussian_weights


def add_noise(
  key: PRNGKeyArray,
  light: Float[Array, '*S'],
  shot: Float[Array, ''],
  read: Float[Array, ''],
  spread: Callable[[Array], Array] = lambda noise: noise,
) -> Float[Array, '*S']:
  """Light with noise of variance shot^2 light + read^2, not yet clipped.

  Args:
    spread: correlates random numbers of variance 1 without changing it, see `correlate_noise`.
  """
  variance = shot**2 * jnp.maximum(light, 0.0) + read**2  # resampled light may ring below 0
  # The epsilon keeps the root's gradient finite in the dark, and is too small to be seen there.
  return light + jnp.sqrt(variance + 1e-14) * spread(nearly_normal(key, light.shape))


def correlate_noise(
  noise: Float[Array, 'N H W 3'], luminance_px: Float[Array, ''], chroma_px: Float[Array, '']
) -> Float[Array, 'N H W 3']:
  """White noise of variance 1 filtered by Gaussians: grey (the mean of the colours) by one, chroma by a wider one.

  Grey and chroma are independent and keep their shares, 1/3 and 2/3, of the variance, so each colour's stays 1.
  """

  def filtered(planes, sigma_px, radius_px):
    # Along each of two axes a filter multiplies the variance of white noise by the sum of its squared weights.
    # Periodic, so that this holds at the edges, too.
    left = (gaussian_weights(sigma_px, radius_px) ** 2).sum()
    return gaussian_blur(planes, sigma_px, radius_px, (-2, -1), mode='wrap') / left

  grey = noise.mean(-1)
  red, blue = filtered(jnp.stack([noise[..., 0] - grey, noise[..., 2] - grey]), chroma_px, 7)
  grey = filtered(grey, luminance_px, 4)
  return jnp.stack([grey + red, grey - red - blue, grey + blue], axis=-1)


def nearly_normal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, '*S']:
  """Random numbers of mean 0, variance 1, kurtosis 2.7 (a normal's is 3), within +-3.5.

  Each is the sum of the four bytes of a random word. Words are expensive to draw, so one is drawn for the whole last
  axis (the colours of a pixel), and a hash makes the others from it: lowbias32 (Wellons, "Prospecting for Hash
  Functions", 2018).
  """
  words = random.bits(key, shape[:-1])[..., None] + jnp.arange(shape[-1], dtype=jnp.uint32) * np.uint32(0x9E3779B9)
  words = (words ^ (words >> 16)) * np.uint32(0x7FEB352D)
  words = (words ^ (words >> 15)) * np.uint32(0x846CA68B)
  words = words ^ (words >> 16)
  pairs = (words & 0x00FF00FF) + ((words >> 8) & 0x00FF00FF)
  total = (pairs & 0xFFFF) + (pairs >> 16)
  # A byte has mean 255 / 2 and variance (256^2 - 1) / 12.
  return (total.astype(jnp.float32) - 510.0) * np.float32((4 * (256**2 - 1) / 12) ** -0.5)
