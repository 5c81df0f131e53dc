"""What focus changes, made explicit: how sharp each frame is around a pixel next to the other frames, without a scale.

The logarithm of a focus measure over the frames, its mean taken off, is a curve that peaks where the pixel is in focus.
How high it is says how strong the blur, the texture and the noise are, which differ between cameras by orders of
magnitude; where it peaks does not depend on that. So curves are divided by their own height, which is handed out beside
them.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from focal_jax.focus import classical

NOISE = 0.003  # standard deviation in luminance 0 .. 1, whose response counts as texture-less
LEAST_NOISE = 0.001  # of reduced frames, whose noise is less: that of eight bits
LOWEST = 0.01  # added to a curve's height, which is 0 where frames are all alike
RINGS = (1.0, 2.0, 3.0), (2.0, 3.0, 5.0)

# (measure, step or radii, standard deviation of the window), px: from a blur below a pixel to a strong one, and noise.
FINE = (
  ('laplacian', 1, 1.5),
  ('laplacian', 2, 1.5),
  ('ring_difference', RINGS[0], 2.0),
  ('ring_difference', RINGS[1], 4.0),
)
COARSE = (FINE[0], FINE[2])  # of frames reduced by 2, 4 and so on, where they see a blur wider by as much


def luminance(images: Float[Array, 'B N H W 3']) -> Float[Array, 'B N H W']:
  """0 .. 1, float32, of RGB images -1 .. 1."""
  return (images.astype(jnp.float32) + 1.0) @ jnp.asarray(classical.LUMA, jnp.float32) / 2.0


def halve(x: Float[Array, 'B N H W']) -> Float[Array, 'B N h w']:
  """Means of 2 x 2 pixels; height and width even."""
  b, n, h, w = x.shape
  return x.reshape(b, n, h // 2, 2, w // 2, 2).mean((3, 5))


def focus_curves(
  luma: Float[Array, 'B N H W'], octave: int = 0
) -> tuple[list[Float[Array, 'B N H W']], list[Float[Array, 'B N H W']], list[Float[Array, 'B H W']]]:
  """Curves over the frames, for each of the measures `FINE`, or `COARSE` where the octave is above 0.

  A factor or an offset of the stack's brightness changes them little. Computed in float32.

  Args:
    luma: luminance 0 .. 1.
    octave: how often it has been halved.

  Returns:
    curves: of mean 0 and standard deviation 1 over the frames; 0 where all frames are equally sharp.
    limited: tanh of the curves with their height.
    heights: half the logarithm of the curves' standard deviation before, plus 1: about -1 .. 1.
  """
  b, n, h, w = luma.shape
  flat = luma.reshape(b * n, h, w)
  noise = max(NOISE / 2**octave, LEAST_NOISE)
  curves, limited, heights = [], [], []
  for measure, size, window_px in COARSE if octave else FINE:
    of = {'laplacian': classical.modified_laplacian, 'ring_difference': classical.ring_difference}[measure]
    floor = classical.noise_response(measure, noise, size if measure == 'ring_difference' else RINGS[0])
    log = jnp.log(classical.gaussian_window(of(flat, size), window_px) + floor).reshape(b, n, h, w)
    log -= log.mean(1, keepdims=True)
    height = jnp.sqrt(jnp.mean(log**2, 1) + 1e-8)
    curves.append(log / (height[:, None] + LOWEST))
    limited.append(jnp.tanh(log))
    heights.append(0.5 * jnp.log(height + LOWEST) + 1.0)
  return curves, limited, heights
