"""What blur changes, made explicit: how sharp each frame is around a pixel, compared with the others."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from focal_jax.focus import classical

NOISE = 0.01  # standard deviation in luminance 0 .. 1, whose response counts as texture-less


def relative_sharpness(images: Float[Array, 'B N H W 3']) -> Float[Array, 'B N H W 4']:
  """Logarithms of focus measures, their means over the frames taken off: 0 where all frames are equally sharp.

  Measures go from neighbouring pixels (a blur below a pixel) to ten pixels (a strong one, and noise). Computed in
  float32; a factor or an offset of the whole stack's brightness changes them little.

  Args:
    images: aligned, -1 .. 1.
  """
  b, n, h, w, _ = images.shape
  luma = (images.astype(jnp.float32) + 1.0).reshape(b * n, h, w, 3) @ jnp.asarray(classical.LUMA, jnp.float32) / 2.0

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
