"""A camera's fixed pattern, the same in all its frames: that of its pixels or, in light fields, of its lenslets.

In the frames of a sweep the pattern is static and equally sharp. Frames computed from a light field are means of
shifted views, which blurs the pattern like a surface in the plane of zero disparity. Where a scene has no texture of
its own, such a pattern looks like content in focus, and a network must learn to ignore it.
"""

import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray

from focal_jax.simulate import defocus
from focal_jax.simulate.draws import Draws
from focal_jax.simulate.filters import gaussian_blur
from focal_jax.simulate.focus_sweep import Sweep
from focal_jax.simulate.noise import approximate_normal

GRAIN_PX = (0.1, 0.8)  # uniform: sigma of the Gaussian by which demosaicing blurs the pattern
ZERO_DISPARITY = (-0.4, 0.6)  # uniform: position of the zero-disparity plane between the first (0) and last (1) focus


def with_pattern(
  key: PRNGKeyArray,
  light: Float[Array, 'N H W 3'],
  sweep: Sweep | None,
  amount: tuple[float, float],
  share: float,
  view_steps_px: tuple[float, ...] | None,
) -> Float[Array, 'N H W 3']:
  """Linear light, multiplied by 1 + pattern for a share of the stacks.

  Args:
    key: determines whether there is a pattern, and the pattern.
    light: as it falls on the sensor, before exposure and noise.
    sweep: the sweep of the frames; only needed for cameras with views.
    amount: ends of the log-uniform distribution of the pattern's standard deviation, relative to the light.
    share: share of the stacks with a pattern, 0 .. 1.
    view_steps_px: distances between views at which surfaces are blurred; None if no camera has views.
  """
  draw = Draws(key, 6)
  has_one = draw.uniform() < share
  amount, grain_px, zero = draw.log_uniform(*amount), draw.uniform(*GRAIN_PX), draw.uniform(*ZERO_DISPARITY)

  def add(light):
    _, height, width, _ = light.shape
    noise = approximate_normal(random.fold_in(key, 1), (height, width, 4))
    pattern = 0.8 * noise[..., :1] + 0.6 * noise[..., 1:]  # mostly grey
    pattern = gaussian_blur(pattern, grain_px, 3, (0, 1), 'wrap')
    pattern *= amount / jnp.std(pattern)
    still = jnp.broadcast_to(pattern, light.shape)
    if view_steps_px is not None:
      first, extent = sweep.focus_dpt[0], sweep.focus_dpt[-1] - sweep.focus_dpt[0]
      steps = sweep.blur_px_per_dpt * jnp.abs(first + zero * extent - sweep.focus_dpt)
      surface = jnp.concatenate([pattern.swapaxes(1, 2), jnp.zeros((height, 1, width))], axis=1)[None]
      steps = jnp.broadcast_to(steps[:, None, None, None], (len(steps), 1, height, width))
      still = lax.cond(
        sweep.views > 0,
        lambda _: defocus.render(surface, steps, view_steps_px, through_views=True).swapaxes(2, 3),
        lambda still: still,
        still,
      )
    return light * (1.0 + still)

  return lax.cond(has_one, add, lambda light: light, light)
