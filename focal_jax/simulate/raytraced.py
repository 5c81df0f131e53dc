"""Focal stacks from ray-traced scenes (`data.raytraced`), recorded by the simulator's sensor."""

import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float, PRNGKeyArray

from focal_jax.errors import InputError
from focal_jax.simulate.draws import Draws
from focal_jax.simulate.focus_sweep import draw_gains
from focal_jax.simulate.pattern import with_pattern
from focal_jax.simulate.sensor import record
from focal_jax.simulate.stacks import SimulatorSettings
from focal_jax.stack import FocalStack

MIN_EXTENT = 0.6  # shortest stack, as a share of the planes; shorter ones show too little blur to tell depth
TINT = 0.15  # standard deviation of the logarithm of the gain of each colour


def record_planes(
  key: PRNGKeyArray,
  light: Float[Array, 'P H W 3'],
  focus: Float[Array, ' P'],
  inverse_depth: Float[Array, 'H W'],
  settings: SimulatorSettings,
) -> FocalStack:
  """A stack of `settings.num_frames` of the planes, nearly evenly spaced over at least `MIN_EXTENT` of them.

  Colours are exchanged and tinted at random. Lens, blur and motion are the scene's own; pattern, sensor, exposure and
  the reach of the truth beyond the sweep are as `settings` say.

  Args:
    key: determines the choice and the sensor.
    light: linear light of the planes, 1 is about white.
    focus: inverse distance of each plane, rising.
    inverse_depth: in the unit of `focus`; 0 where unknown.
    settings: the simulator's settings.

  Returns:
    Images float 0 .. 1 in steps of 1/255; focus and target are inverse distances; motion and all-in-focus image are
      unknown.

  Raises:
    InputError: there are fewer planes than frames.
  """
  planes, frames = len(focus), settings.num_frames
  if planes < frames:
    raise InputError(f'simulator.num_frames is {frames}, expected at most the {planes} planes of the ray-traced scenes')
  colour_key, pattern_key, gain_key, sensor_key = random.split(key, 4)
  draw = Draws(random.fold_in(key, 1), 4)
  shortest = max(frames - 1, int(MIN_EXTENT * planes))
  extent = jnp.floor(draw.uniform(shortest, planes))  # planes from the first frame to the last
  first = jnp.floor(draw.uniform(0.0, planes - extent))
  chosen = jnp.round(first + extent * jnp.arange(frames) / (frames - 1)).astype(int)
  light, focus = light[chosen].astype(jnp.float32), focus[chosen]
  light = light[..., random.permutation(colour_key, 3)]
  light *= jnp.exp(TINT * random.normal(random.fold_in(colour_key, 1), (3,)))
  if settings.patterned:
    light = with_pattern(pattern_key, light, None, settings.pattern, settings.patterned, None)

  exposure, white_balance = draw_gains(draw, random.normal(gain_key, (frames, 3)), settings.sweep)
  reach = settings.truth_beyond * (focus[-1] - focus[0])
  valid = inverse_depth > 0
  if not settings.ends_valid:
    valid &= (inverse_depth >= focus[0] - reach) & (inverse_depth <= focus[-1] + reach)
  return FocalStack(
    images=record(sensor_key, light, exposure, white_balance, settings.sensor),
    focus=focus,
    fov=jnp.ones(frames),
    target=jnp.clip(inverse_depth, focus[0] - reach, focus[-1] + reach),
    valid=valid.astype(jnp.float32),
  )
