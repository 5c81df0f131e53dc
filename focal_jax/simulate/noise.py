"""Sensor noise: shot and read noise, white or correlated between neighbours. Plain JAX; light is linear, white is 1."""

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
  """Adds noise of variance shot^2 light + read^2; the result is not clipped.

  Args:
    key: determines the noise.
    light: linear light, 1 is white.
    shot: standard deviation of shot noise at white.
    read: standard deviation of read noise.
    spread: correlates random numbers of variance 1 without changing their variance, see `correlate_noise`.
  """
  variance = shot**2 * jnp.maximum(light, 0.0) + read**2  # resampled light may ring below 0
  # The epsilon keeps the gradient of the square root finite in the dark, and is too small to be visible.
  return light + jnp.sqrt(variance + 1e-14) * spread(approximate_normal(key, light.shape))


def correlate_noise(
  noise: Float[Array, 'N H W 3'], luminance_px: Float[Array, ''], chroma_px: Float[Array, '']
) -> Float[Array, 'N H W 3']:
  """Filters white noise of variance 1 by Gaussians: grey (the mean of the colours) by one, chroma by a wider one.

  Grey and chroma are independent and keep their shares of the variance, 1/3 and 2/3, so the variance of each colour
  stays 1.

  Args:
    noise: white noise of variance 1.
    luminance_px, chroma_px: standard deviations of the Gaussians.
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


def approximate_normal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, '*S']:
  """Random numbers of mean 0, variance 1 and kurtosis 2.7 (3 for a normal distribution), within +-3.5.

  Each is the sum of the four bytes of a random word. Random words are expensive, so one is drawn for the whole last
  axis (the colours of a pixel), and a hash derives the others from it: lowbias32 (Wellons, "Prospecting for Hash
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
