"""What focus changes, made explicit: how sharp each frame is around a pixel next to the other frames, without a scale."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from focal_jax import classical

NOISE = 0.003  # standard deviation in luminance 0 .. 1, whose response counts as texture-less
FLATTEST = 0.01  # of a curve's rms over the frames: below it nothing is told
MEASURES = 4


def luminance(images: Float[Array, 'B N H W 3']) -> Float[Array, 'B N H W']:
  """0 .. 1, float32, of images -1 .. 1."""
  return (images.astype(jnp.float32) + 1.0) @ jnp.asarray(classical.LUMA, jnp.float32) / 2.0


def halve(x: Float[Array, 'B N H W']) -> Float[Array, 'B N h w']:
  """Means of 2 x 2 pixels; height and width even."""
  b, n, h, w = x.shape
  return x.reshape(b, n, h // 2, 2, w // 2, 2).mean((3, 5))


def focus_curves(luma: Float[Array, 'B N H W'], octave: int = 0):
  """Curves over the frames, and how high they are.

  Of each measure (four at the full resolution, two of reduced frames) the logarithm over the frames, its mean taken
  off: c. A factor or an offset of the stack's brightness changes it little.

  Returns:
    curves: c over its rms over the frames, of every measure; then tanh c. [B, N, H, W] each.
    contrast: ln(rms), of every measure, about -1 .. 1. [B, H, W] each.
  """
  b, n, h, w = luma.shape
  flat = luma.reshape(b * n, h, w)
  noise = max(NOISE / 2**octave, 0.001)
  rings = (1.0, 2.0, 3.0), (2.0, 3.0, 5.0)
  curves, limited, contrast = [], [], []

  def take(energy, window_px, floor):
    log = jnp.log(classical.gaussian_window(energy, window_px) + floor).reshape(b, n, h, w)
    log = log - log.mean(1, keepdims=True)
    rms = jnp.sqrt(jnp.mean(log**2, 1, keepdims=True) + 1e-8)
    curves.append(log / (rms + FLATTEST))
    limited.append(jnp.tanh(log))
    contrast.append(0.5 * jnp.log(rms[:, 0] + FLATTEST) + 1.0)

  laplacian = classical.noise_response('laplacian', noise)
  take(classical.modified_laplacian(flat, 1), 1.5, laplacian)
  if not octave:
    take(classical.modified_laplacian(flat, 2), 1.5, laplacian)
  take(classical.ring_difference(flat, rings[0]), 2.0, classical.noise_response('ring_difference', noise, rings[0]))
  if not octave:
    take(classical.ring_difference(flat, rings[1]), 4.0, classical.noise_response('ring_difference', noise, rings[1]))
  return (*curves, *limited), tuple(contrast)
