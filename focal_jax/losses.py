"""Losses, as plain functions of arrays.

Losses of depth are given as sums over pixels and, separately, the counts that divide them. A count depends only on the
data, so it can be added up over the parts and devices of a batch before the first prediction.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from focal_jax import optics
from focal_jax.errors import InputError
from focal_jax.stack import FocalStack, Prediction

UNITS = ('focus_range', 'given')
PENALTIES = ('squared', 'absolute', 'huber', 'charbonnier')


@dataclasses.dataclass(frozen=True)
class LossSettings:
  """The training loss. The defaults are the published loss (Won and Jeon, section 3.3) plus a loss on the motion."""

  # Weights of the losses of a network's depth maps, coarse to fine; for Won and Jeon's network D1 .. D4.
  pyramid_weights: tuple[float, ...] = (0.3, 0.5, 0.7, 1.0)
  # Penalty on the depth error of a pixel: squared, absolute, huber or charbonnier (`penalty`).
  penalty: str = 'squared'
  penalty_scale: float = 0.05  # where huber and charbonnier change from squared to absolute, in the unit of depth
  gradient_weight: float = 0.0  # weight of the error of the depth slopes (`gradient_sum`); not published
  gradient_scales: int = 4  # number of scales of the slopes: between pixels 1, 2, 4, 8 px apart
  motion_weight: float = 0.05  # weight of the mean displacement error in px, if motion is known; not published
  # Unit of focus and depth in training. focus_range: 0 .. 1 over each stack's focus range (`unit_focus`); given: the
  # unit of the data, for networks or losses that need a certain unit.
  unit: str = 'focus_range'
  within_focus: bool = False  # whether only pixels with a depth within the stack's focus range count
  # If above 0, each stack is weighted by 1 / (its mean squared error + balance), so that relative improvements count
  # alike on hard and easy stacks. In the squared unit of depth.
  balance: float = 0.0
  defocus_weight: float = 0.0  # weight of the mean squared error of each frame's defocus (`defocus_target`; DefocusNet)
  all_in_focus_weight: float = 0.0  # weight of the mean absolute error of the all-in-focus image (AiFDepthNet)
  smoothness_weight: float = 0.0  # weight of depth changes where the all-in-focus image is smooth (`smoothness`)

  @property
  def weights(self) -> dict[str, float]:
    """Weight of each part of `prediction_sums`."""
    given = {part: getattr(self, f'{part}_weight') for part in _PARTS}
    return {'depth': 1.0} | {part: weight for part, weight in given.items() if weight > 0}


_PARTS = ('gradient', 'defocus', 'all_in_focus', 'smoothness')  # parts of the loss on predictions, besides depth
_WEIGHTS = tuple(f'{part}_weight' for part in (*_PARTS, 'motion'))


def loss_settings(config: Any) -> LossSettings:
  """The settings in a config's `loss` section: a mapping with the names of the fields of `LossSettings`.

  Raises:
    InputError: naming the field, for an invalid value.
  """
  values = {field.name: config.get(field.name, field.default) for field in dataclasses.fields(LossSettings)}

  def check(field: str, good: bool, expected: str) -> None:
    if not good:
      raise InputError(f'loss.{field} is {values[field]!r}, expected {expected}')

  def is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf

  weights = values['pyramid_weights']
  good = isinstance(weights, list | tuple) and len(weights) > 0 and all(map(is_weight, weights))
  good = good and (any(weights) or any(is_weight(values[field]) and values[field] for field in _WEIGHTS))
  check('pyramid_weights', good, 'numbers of at least 0, not all of them 0 unless another part of the loss counts')
  check('unit', values['unit'] in UNITS, f'one of {", ".join(UNITS)}')
  check('within_focus', isinstance(values['within_focus'], bool), 'True or False')
  check('penalty', values['penalty'] in PENALTIES, f'one of {", ".join(PENALTIES)}')
  check('penalty_scale', is_weight(values['penalty_scale']) and values['penalty_scale'] > 0, 'a number above 0')
  scales = values['gradient_scales']
  check('gradient_scales', isinstance(scales, int) and scales >= 1, 'a whole number of at least 1')
  check('balance', is_weight(values['balance']), 'a number of at least 0')
  for field in _WEIGHTS:
    check(field, is_weight(values[field]), 'a number of at least 0')
  floats = {field: float(values[field]) for field in ('penalty_scale', 'balance', *_WEIGHTS)}
  return LossSettings(**values | floats | {'pyramid_weights': tuple(map(float, weights))})


def focus_extent(stack: FocalStack) -> tuple[Float[Array, '*B 1'], Float[Array, '*B 1']]:
  """The smallest focus coordinate of each stack, and the extent of its focus range; 1 if all frames have the same
  focus.
  """
  low = jnp.min(stack.focus, axis=-1, keepdims=True)
  extent = jnp.max(stack.focus, axis=-1, keepdims=True) - low
  return low, jnp.where(extent > 0, extent, 1.0)


def in_focus_range(depth: Float[Array, '*B H W'], stack: FocalStack) -> Float[Array, '*B H W']:
  """Depth in the unit of the stack's focus, mapped so that the range of the focus is 0 .. 1."""
  low, extent = focus_extent(stack)
  return (depth - low[..., None]) / extent[..., None]


def unit_focus(stack: FocalStack) -> FocalStack:
  """The same stack with focus coordinates and target mapped to 0 .. 1 by its own range, for training.

  The output of most networks is a mixture of the given focus coordinates, so this only scales the loss, equally for
  every unit.
  """
  low, extent = focus_extent(stack)
  target = None if stack.target is None else in_focus_range(stack.target, stack)
  return stack.replace(focus=(stack.focus - low) / extent, target=target)


def training_stack(stack: FocalStack, settings: LossSettings) -> FocalStack:
  """The stack in the unit of the loss, with only the pixels that count."""
  if settings.unit == 'focus_range':
    stack = unit_focus(stack)
  if settings.within_focus:
    low, extent = focus_extent(stack)
    offset = stack.target - low[..., None]
    stack = stack.replace(valid=jnp.where((offset >= 0) & (offset <= extent[..., None]), stack.valid, 0.0))
  return stack


def prediction_counts(stack: FocalStack, settings: LossSettings) -> dict[str, Float[Array, '']]:
  """The denominators of `prediction_sums`, from the stacks alone; see `depth_counts`."""
  counts, stacks = depth_counts(stack, settings), math.prod(stack.focus.shape[:-1])
  if settings.defocus_weight > 0:
    counts['defocus'] = counts['depth'] * stack.focus.shape[-1]
  if settings.all_in_focus_weight > 0:
    counts['all_in_focus'] = jnp.float32(stacks * math.prod(stack.images.shape[-3:]))
  if settings.smoothness_weight > 0:
    counts['smoothness'] = jnp.float32(stacks)
  return counts


def prediction_sums(prediction: Prediction, stack: FocalStack, settings: LossSettings) -> dict[str, Float[Array, '']]:
  """The numerators of all parts of the loss (`LossSettings.weights`) except the motion's.

  Raises:
    InputError: naming the weight of a part that the network does not predict or the data does not have.
  """
  check_parts(prediction, stack, settings)
  sums = depth_sums(prediction.pyramid, stack, settings)
  if settings.defocus_weight > 0:
    valid = stack.valid[..., None, :, :]
    # `where`, because targets of invalid pixels may be anything, NaN included, and 0 * NaN is NaN.
    error = jnp.where(valid > 0, prediction.defocus - defocus_target(stack, settings.unit), 0.0)
    sums['defocus'] = jnp.sum(valid * error**2)
  if settings.all_in_focus_weight > 0:
    sums['all_in_focus'] = jnp.sum(_absolute(prediction.all_in_focus - stack.all_in_focus))
  if settings.smoothness_weight > 0:
    sums['smoothness'] = jnp.sum(smoothness(prediction.depth, stack.all_in_focus))
  return sums


def check_parts(prediction: Prediction, stack: FocalStack, settings: LossSettings) -> None:
  """Raises InputError unless prediction and stack have everything that the settings' weights need; arrays may be shapes
  only.
  """
  if len(prediction.pyramid) != len(settings.pyramid_weights):
    raise InputError(
      f'loss.pyramid_weights is {settings.pyramid_weights}, expected {len(prediction.pyramid)}: one for each depth map '
      'of the model'
    )
  sharp = ('data with all-in-focus images, as simulated stacks, hci4d and flyingthings_fs are', stack.all_in_focus)
  needed = {
    'defocus_weight': (('a model that predicts the defocus of frames', prediction.defocus),),
    'all_in_focus_weight': (('a model that predicts the all-in-focus image', prediction.all_in_focus), sharp),
    'smoothness_weight': (sharp,),
  }
  for field, parts in needed.items():
    for expected, part in parts:
      if getattr(settings, field) > 0 and part is None:
        raise InputError(f'loss.{field} is {getattr(settings, field)}, expected 0, or {expected}')


def defocus_target(stack: FocalStack, unit: str) -> Float[Array, '*B N H W']:
  """Defocus of each frame at each pixel of known depth, 0 .. 1.

  'given', for metres: the diameter of the circle of confusion for f = 2.9 mm and f-number 1, over 0.1 mm (Maximov et
  al., CVPR 2020, as released). 'focus_range': |d - s| for depth d and focus s, which in dioptres is the same except for
  its scale.
  """
  depth, focus = stack.target[..., None, :, :], stack.focus[..., None, None]
  if unit == 'focus_range':
    return jnp.clip(jnp.abs(depth - focus), 0.0, 1.0)
  depth = jnp.where(stack.valid[..., None, :, :] > 0, depth, 1.0)  # any depth except 0 will do where it is unknown
  diameter_m = optics.circle_of_confusion(FOCAL_LENGTH_M, F_NUMBER, focus, depth)
  return jnp.clip(diameter_m / LARGEST_BLUR_M, 0.0, 1.0)


FOCAL_LENGTH_M, F_NUMBER, LARGEST_BLUR_M = 2.9e-3, 1.0, 1e-4  # the camera of DefocusNet's data


def smoothness(depth: Float[Array, '*B H W'], image: Float[Array, '*B H W 3']) -> Float[Array, '*B']:
  """Half the sum over both axes of the mean of exp(-mean over channels of (150 g)^2) sqrt(e^2 + 1e-6), where g and e
  are differences between neighbouring pixels of the image and of the depth: depth should change only where the image
  does (Wang et al., ICCV 2021, with the released constants).
  """
  total = 0.0
  for axis in (-1, -2):
    g, e = jnp.diff(image, axis=axis - 1), jnp.diff(depth, axis=axis)
    edge = jnp.exp(-jnp.mean((150 * g) ** 2, axis=-1))
    total += jnp.mean(edge * jnp.sqrt(e**2 + 1e-6), axis=(-1, -2)) / 2
  return total


def depth_counts(stack: FocalStack, settings: LossSettings) -> dict[str, Float[Array, '']]:
  """The denominators of `depth_sums`, from the stacks' `valid` alone.

  Counts and sums of the parts of a batch add up to those of the batch. The loss is sum('depth') / count('depth') +
  gradient_weight sum('gradient') / count('gradient').

  Returns:
    'depth': sum of `valid`; 'gradient', if its weight is above 0: count for `gradient_sum`. 0 where nothing is known.
  """
  valid = jnp.asarray(stack.valid)
  counts = {'depth': jnp.sum(valid)}
  if settings.gradient_weight > 0:
    counts['gradient'] = sum(jnp.sum(a * b) for a, b in _pairs(valid, settings.gradient_scales))
  return counts


def depth_sums(
  pyramid: Sequence[Float[Array, '*B H W']], stack: FocalStack, settings: LossSettings
) -> dict[str, Float[Array, '']]:
  """The numerators of the depth loss, with the keys of `depth_counts`; where `valid` is 0, targets may have any value.

  Args:
    pyramid: depth maps, coarse to fine.
    stack: with target and valid, in the unit of `pyramid` and of `penalty_scale`: the result of `training_stack`.
    settings: the loss.

  Returns:
    'depth': sum of valid times penalty, weighted over the maps; 'gradient', if its weight is above 0: that of the
      finest map.
  """
  errors = [_error(depth, stack.target, stack.valid) for depth in pyramid]
  penalties = [penalty(error, settings.penalty, settings.penalty_scale) for error in errors]
  counted = stack.valid
  if settings.balance:
    # No gradient through the factor: it balances stacks, and must not reward larger errors.
    count = jnp.maximum(jnp.sum(stack.valid, (-2, -1), keepdims=True), 1e-6)
    square = jnp.sum(stack.valid * errors[-1] ** 2, (-2, -1), keepdims=True) / count
    counted = counted * jax.lax.stop_gradient(1.0 / (square + settings.balance))
  sums = {'depth': sum(w * jnp.sum(counted * p) for w, p in zip(settings.pyramid_weights, penalties, strict=True))}
  if settings.gradient_weight > 0:
    sums['gradient'] = gradient_sum(errors[-1], jnp.asarray(stack.valid), settings.gradient_scales)
  return sums


def penalty(error: Float[Array, '*S'], name: str, scale: float = 1.0) -> Float[Array, '*S']:
  """Penalty of each error e: e^2 (squared); |e| (absolute); or one of two that are e^2 near 0 and linear far from it,

    huber:       e^2 where |e| <= scale, else scale (2 |e| - scale)
    charbonnier: 2 scale (sqrt(e^2 + scale^2) - scale)

  so that the scale only determines where the tail begins. All slopes at 0 are 0.

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
    case 'charbonnier':  # 2 s (sqrt(e^2 + s^2) - s), in a form that does not cancel for small errors
      return 2 * scale * error**2 / (jnp.sqrt(error**2 + scale**2) + scale)
  raise ValueError(f"penalty is '{name}', expected one of {', '.join(PENALTIES)}")


def _absolute(x: Float[Array, '*S']) -> Float[Array, '*S']:
  """|x| with a slope of 0 at 0, where `jnp.abs` has 1."""
  return x * jnp.sign(x)


def gradient_sum(error: Float[Array, '*B H W'], valid: Float[Array, '*B H W'], scales: int) -> Float[Array, '']:
  """Change of the error between pixels 1, 2, 4, .. 2^(scales - 1) apart along x and y: the sum of |difference| over all
  pairs, each weighted by the product of its pixels' `valid`.

  A constant error costs nothing; a wrong slope and a blurred or displaced edge do. This is the multi-scale gradient
  matching of Li and Snavely, "MegaDepth", CVPR 2018, section 4, but with all pairs at each scale instead of pairs in
  reduced maps, and for depth instead of its logarithm, because disparities may be negative.
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
  """Prediction minus target; 0 where the target is unknown, whatever its value."""
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
