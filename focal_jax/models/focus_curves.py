"""Focus curves: how sharp each frame is around a pixel, relative to the other frames and independent of scale.

A focus curve is the logarithm of a focus measure over the frames, minus its mean; it peaks at the frame in which the
pixel is in focus. Its height depends on the strength of blur, texture and noise, which differ between cameras by orders
of magnitude; the position of its peak does not. So curves are divided by their height, which is returned separately.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from focal_jax.focus import classical
from focal_jax.models.conv import average_pool

NOISE = 0.003  # standard deviation in luminance 0 .. 1; its response counts as no texture
MIN_NOISE = 0.001  # minimum for reduced frames, where averaging leaves only the rounding to eight bits
LOWEST = 0.01  # added to the height of a curve, which is 0 where all frames are equal
RINGS = (1.0, 2.0, 3.0), (2.0, 3.0, 5.0)

# (measure, step or radii, standard deviation of the window), px: for blur below a pixel up to strong blur and noise.
FINE = (
  ('laplacian', 1, 1.5),
  ('laplacian', 2, 1.5),
  ('ring_difference', RINGS[0], 2.0),
  ('ring_difference', RINGS[1], 4.0),
)
COARSE = (FINE[0], FINE[2])  # for frames reduced by 2, 4 and so on, where these respond to wider blur


def luminance(images: Float[Array, 'B N H W 3']) -> Float[Array, 'B N H W']:
  """Luminance 0 .. 1, float32, of RGB images -1 .. 1."""
  return classical.luminance(images.astype(jnp.float32) + 1.0) / 2.0


def halve(x: Float[Array, 'B N H W']) -> Float[Array, 'B N h w']:
  """Means of 2 x 2 pixels; height and width must be even."""
  return average_pool(x[..., None], 2)[..., 0]


def focus_curves(
  luma: Float[Array, 'B N H W'], octave: int = 0
) -> tuple[list[Float[Array, 'B N H W']], list[Float[Array, 'B N H W']], list[Float[Array, 'B H W']]]:
  """Curves over the frames for each of the measures in `FINE`, or in `COARSE` if the octave is above 0.

  Nearly invariant to a factor or an offset of the stack's brightness. Computed in float32.

  Args:
    luma: luminance 0 .. 1.
    octave: how many times `luma` was halved.

  Returns:
    curves: mean 0 and standard deviation 1 over the frames; 0 where all frames are equally sharp.
    limited: tanh of the curves before they are divided by their height.
    heights: half the logarithm of that height plus 1: about -1 .. 1.
  """
  b, n, h, w = luma.shape
  flat = luma.reshape(b * n, h, w)
  noise = max(NOISE / 2**octave, MIN_NOISE)
  curves, limited, heights = [], [], []
  for measure, size, window_px in COARSE if octave else FINE:
    of = {'laplacian': classical.modified_laplacian, 'ring_difference': classical.ring_difference}[measure]
    floor = classical.noise_response(measure, noise, size if measure == 'ring_difference' else RINGS[0])
    log = jnp.log(classical.gaussian_window(of(flat, size), window_px) + floor).reshape(b, n, h, w)
    # Brightness and texture scale a measure by the same factor in all frames, which the mean of the logarithm removes.
    log -= log.mean(1, keepdims=True)
    height = jnp.sqrt(jnp.mean(log**2, 1) + 1e-8)
    curves.append(log / (height[:, None] + LOWEST))
    limited.append(jnp.tanh(log))
    heights.append(0.5 * jnp.log(height + LOWEST) + 1.0)
  return curves, limited, heights
