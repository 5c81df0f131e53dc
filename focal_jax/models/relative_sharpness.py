"""How sharp each frame is around a pixel, compared with the other frames."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from focal_jax.focus import classical
from focal_jax.models.focus_curves import luminance

NOISE = 0.01  # standard deviation in luminance 0 .. 1; its response counts as no texture


def relative_sharpness(images: Float[Array, 'B N H W 3']) -> Float[Array, 'B N H W 4']:
  """Logarithms of focus measures minus their means over the frames: 0 where all frames are equally sharp.

  The measures span neighbouring pixels (for blur below a pixel) up to ten pixels (for strong blur and noise). Computed
  in float32; nearly invariant to a factor or an offset of the whole stack's brightness.

  Args:
    images: aligned, -1 .. 1.
  """
  b, n, h, w, _ = images.shape
  luma = luminance(images).reshape(b * n, h, w)

  def near(step_px: int) -> Callable:
    return lambda x: classical.modified_laplacian(x, step_px)

  def ring(*radii: float) -> Callable:
    return lambda x: classical.ring_difference(x, radii)

  rings = (1.0, 2.0, 3.0), (2.0, 3.0, 5.0)
  measures = (
    (near(1), 1.5, classical.noise_response('laplacian', NOISE)),
    (near(2), 1.5, classical.noise_response('laplacian', NOISE)),
    (ring(*rings[0]), 2.0, classical.noise_response('ring_difference', NOISE, rings[0])),
    (ring(*rings[1]), 4.0, classical.noise_response('ring_difference', NOISE, rings[1])),
  )
  logs = jnp.stack([jnp.log(classical.gaussian_window(f(luma), window) + noise) for f, window, noise in measures], -1)
  logs = logs.reshape(b, n, h, w, len(measures))
  return (logs - logs.mean(1, keepdims=True)).astype(images.dtype)
