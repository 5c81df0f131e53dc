"""Losses, as plain functions of arrays.

Those of depth are sums over pixels and, apart from them, what the sums are divided by. A count depends on the data
alone, so that it can be added up over the parts and devices of a batch before the first prediction.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from focal_jax.errors import InputError
from focal_jax.stack import FocalStack

PENALTIES = ('squared', 'absolute', 'huber', 'charbonnier')


@dataclasses.dataclass(frozen=True)
class LossSettings:
  """What is minimised; the defaults are the published loss (Won and Jeon, section 3.3), but for the motion.

  Attributes:
    pyramid_weights: of the losses of D1 .. D4.
    penalty: of a pixel's error, one of PENALTIES; see `penalty`.
    penalty_scale: where huber and charbonnier turn from squared to absolute, in the unit of the depth.
    gradient_weight: of the mean of `gradient_sum`; 0: it is not computed.
    gradient_scales: of `gradient_sum`.
    motion_weight: of the mean of `motion_error`, where the motion is known.
  """

  pyramid_weights: tuple[float, ...] = (0.3, 0.5, 0.7, 1.0)
  penalty: str = 'squared'
  penalty_scale: float = 0.05
  gradient_weight: float = 0.0
  gradient_scales: int = 4
  motion_weight: float = 0.05


def loss_settings(config: Any) -> LossSettings:
  """The settings that a config's `loss` section describes: a mapping with the names of the fields of `LossSettings`.

  Raises:
    InputError: naming the field, for a value that makes no sense.
  """
  values = {field.name: config.get(field.name, field.default) for field in dataclasses.fields(LossSettings)}

  def check(field: str, good: bool, expected: str) -> None:
    if not good:
      raise InputError(f'loss.{field} is {values[field]!r}, expected {expected}')

  def is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf

  weights = values['pyramid_weights']
  good = isinstance(weights, list | tuple) and len(weights) == 4 and all(map(is_weight, weights)) and any(weights)
  check('pyramid_weights', good, 'four numbers of at least 0, not all of them 0')
  check('penalty', values['penalty'] in PENALTIES, f'one of {", ".join(PENALTIES)}')
  check('penalty_scale', is_weight(values['penalty_scale']) and values['penalty_scale'] > 0, 'a number above 0')
  scales = values['gradient_scales']
  check('gradient_scales', isinstance(scales, int) and scales >= 1, 'a whole number of at least 1')
  for field in ('gradient_weight', 'motion_weight'):
    check(field, is_weight(values[field]), 'a number of at least 0')
  floats = {field: float(values[field]) for field in ('penalty_scale', 'gradient_weight', 'motion_weight')}
  return LossSettings(**values | floats | {'pyramid_weights': tuple(map(float, weights))})


def unit_focus(stack: FocalStack) -> FocalStack:
  """The same stack with focus coordinates and target mapped to 0 .. 1 by its own range, as training wants them.

  A network's output is a mixture of the focus coordinates it is given, so this only scales the loss, alike for every
  unit.
  """
  low = jnp.min(stack.focus, axis=-1, keepdims=True)
  extent = jnp.max(stack.focus, axis=-1, keepdims=True) - low
  extent = jnp.where(extent > 0, extent, 1.0)  # all frames at one focus
  target = None if stack.target is None else (stack.target - low[..., None]) / extent[..., None]
  return stack.replace(focus=(stack.focus - low) / extent, target=target)


def depth_counts(stack: FocalStack, settings: LossSettings) -> dict[str, Float[Array, '']]:
  """What the sums of `depth_sums` are divided by, from the stacks' `valid` alone.

  Counts and sums of the parts of a batch add up to those of the batch. The loss is
  sum('depth') / count('depth') + gradient_weight sum('gradient') / count('gradient').

  Returns:
    'depth': sum of `valid`; 'gradient', if its weight is above 0: as of `gradient_sum`. 0 where nothing is known.
  """
  valid = jnp.asarray(stack.valid)
  counts = {'depth': jnp.sum(valid)}
  if settings.gradient_weight > 0:
    counts['gradient'] = sum(jnp.sum(a * b) for a, b in _pairs(valid, settings.gradient_scales))
  return counts


def depth_sums(
  pyramid: Sequence[Float[Array, '*B H W']], stack: FocalStack, settings: LossSettings
) -> dict[str, Float[Array, '']]:
  """The numerators of the loss, with the keys of `depth_counts`; where `valid` is 0, any target will do.

  Args:
    pyramid: D1 .. D4.
    stack: with target and valid, in the unit of `pyramid` and of the settings' `penalty_scale`: as of `unit_focus`.

  Returns:
    'depth': sum of valid times penalty, weighted over D1 .. D4; 'gradient', if its weight is above 0: that of D4.
  """
  errors = [_error(depth, stack.target, stack.valid) for depth in pyramid]
  penalties = [penalty(error, settings.penalty, settings.penalty_scale) for error in errors]
  sums = {'depth': sum(w * jnp.sum(stack.valid * p) for w, p in zip(settings.pyramid_weights, penalties, strict=True))}
  if settings.gradient_weight > 0:
    sums['gradient'] = gradient_sum(errors[-1], jnp.asarray(stack.valid), settings.gradient_scales)
  return sums


def penalty(error: Float[Array, '*S'], name: str, scale: float = 1.0) -> Float[Array, '*S']:
  """Of each error e: e^2 (squared); |e| (absolute); or one of two that are e^2 near 0 and straight far from it,

    huber:       e^2 where |e| <= scale, else scale (2 |e| - scale)
    charbonnier: 2 scale (sqrt(e^2 + scale^2) - scale)

  so that the scale only says where the tail begins. All slopes at 0 are 0.

  Raises:
    ValueError: there is no such penalty.
  """
  match name:
    case 'squared':
      return error**2
    case 'absolute':
      return _absolute(error)
    case 'huber':
      near = jnp.clip(error, -scale, scale)
      return near * (2 * error - near)
    case 'charbonnier':  # not as above, where small errors would be lost in the difference
      return 2 * scale * error**2 / (jnp.sqrt(error**2 + scale**2) + scale)
  raise ValueError(f"penalty is '{name}', expected one of {', '.join(PENALTIES)}")


def _absolute(x: Float[Array, '*S']) -> Float[Array, '*S']:
  """With a slope of 0 at 0, where that of `jnp.abs` is 1."""
  return x * jnp.sign(x)


def gradient_sum(error: Float[Array, '*B H W'], valid: Float[Array, '*B H W'], scales: int) -> Float[Array, '']:
  """How much the error changes between pixels 1, 2, 4, .. 2^(scales - 1) apart along x and along y: sum of |difference|
  over all pairs, each weighted by the product of its pixels' `valid`.

  A constant error costs nothing, a wrong slope and a blurred or displaced edge do. The multi-scale gradient matching of
  Li and Snavely, "MegaDepth", CVPR 2018, section 4, with all pairs at each scale instead of those of reduced maps, and
  for depth instead of its logarithm, which our units do not always have.
  """
  weights = _pairs(valid, scales)
  return sum(jnp.sum(v * w * _absolute(b - a)) for (a, b), (v, w) in zip(_pairs(error, scales), weights, strict=True))


def _pairs(x: Float[Array, '*B H W'], scales: int) -> list[tuple[Float[Array, '...'], Float[Array, '...']]]:
  """Each pixel and its neighbour, for each scale along x and along y; empty where the map is too small for a scale."""
  pairs = []
  for step in (2**scale for scale in range(scales)):
    pairs += [(x[..., :-step], x[..., step:]), (x[..., :-step, :], x[..., step:, :])]
  return pairs


def _error(
  prediction: Float[Array, '*B H W'], target: Float[Array, '*B H W'], valid: Float[Array, '*B H W']
) -> Float[Array, '*B H W']:
  """0 where the target is not known, whatever it is there."""
  return jnp.where(valid > 0, prediction - target, 0.0)


def masked_squared_error(
  prediction: Float[Array, '*B H W'], target: Float[Array, '*B H W'], valid: Float[Array, '*B H W']
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """(sum, count): sum of valid (p - t)^2 and sum of valid, over everything."""
  return jnp.sum(valid * _error(prediction, target, valid) ** 2), jnp.sum(valid)


def motion_error(
  estimate: Float[Array, '*B N 3'], truth: Float[Array, '*B N 3'], height: int, width: int
) -> Float[Array, '*B N']:
  """Root mean square over the image of the displacement error of `warp`, px.

  In closed form: the squares of the centred coordinates u and v average (n + 1) / (n - 1) / 3 over n pixels.
  """
  error = estimate - truth
  spread = ((width // 2) ** 2 * (width + 1) / (width - 1) + (height // 2) ** 2 * (height + 1) / (height - 1)) / 3
  square = spread * error[..., 0] ** 2 + error[..., 1] ** 2 + error[..., 2] ** 2
  return jnp.sqrt(square + 1e-12)  # the root has no finite slope at 0
