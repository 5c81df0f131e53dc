"""Error measures of depth maps, per image.

Definitions are those of the published evaluation code of DDFF-12 (Hazirbas et al., ACCV 2018). In this module

  p  prediction,   t  target,   w  weight of a pixel: `valid` where the target is finite, else 0,   n = sum of w.

With the usual mask of zeros and ones the weighted means below are means over the valid pixels; with a confidence as
weight (Smartphone) they are its weighted means. Units are those of the target. Every measure is a pair of sums over an
image's pixels, sum w e and n (`pixel_sums`), then a value of the image (`from_sums`); a data set's is the plain mean of
its images' values.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from focal_jax.stack import spread

# The benchmark's valid range, disparity px. Its rounded constants, not the exact B f / 7 m = 0.020177 and
# B f / 0.5 m = 0.282475 of `optics`: a point at exactly 7 m is left out, one at exactly 0.5 m is in.
DDFF_LOW_PX, DDFF_HIGH_PX = 0.0202, 0.2825

# Thresholds of the published evaluation code.
BAD_PIXEL_PX = 0.07
BUMPINESS_CAP = 0.05
DELTA_RATIO = 1.25

NAMES = (
  'mse', 'rms', 'log_rms', 'abs_rel', 'sqr_rel', 'delta_1', 'delta_2', 'delta_3', 'badpix', 'bumpiness', 'mae',
)  # fmt: skip
_RATIOS = ('log_rms', 'abs_rel', 'sqr_rel', 'delta_1', 'delta_2', 'delta_3')  # undefined for signed targets
_PERCENT = ('delta_1', 'delta_2', 'delta_3', 'badpix', 'bumpiness')

SPARSIFICATION_STEPS = 20  # 0, 5, .. 95 percent of the pixels are removed
DEPTH_BINS = 20  # of the focus range


def restrict(
  target: Float[Array, '*S'], valid: Float[Array, '*S'], low: float, high: float
) -> tuple[Float[Array, '*S'], Float[Array, '*S']]:
  """Target and weights where the target lies in [low, high], both ends included; 0 and 0 elsewhere, for NaN too."""
  inside = (target >= low) & (target <= high)
  return jnp.where(inside, target, 0.0), jnp.where(inside, valid, 0.0)


def is_counted(target: Float[Array | np.ndarray, '*S'], valid: Float[Array | np.ndarray, '*S']) -> Bool[Array, '*S']:
  """Whether a pixel is measured: its weight is above 0 and its target finite."""
  return (valid > 0) & jnp.isfinite(target)


def per_image(
  prediction: Float[Array, '*B H W'], target: Float[Array, '*B H W'], valid: Float[Array, '*B H W']
) -> dict[str, Float[Array, '*B']]:
  """Every error measure of every image.

  | name       | formula                                          | unit           | range  |
  | ---------- | ------------------------------------------------ | -------------- | ------ |
  | mse        | sum w (p - t)^2 / n                              | target's, ^2   | >= 0   |
  | rms        | sqrt(mse)                                        | target's       | >= 0   |
  | log_rms    | sqrt(sum w (ln p - ln t)^2 / n)                  | 1              | >= 0   |
  | abs_rel    | sum w abs(p - t) / t / n                         | 1              | >= 0   |
  | sqr_rel    | sum w (p - t)^2 / t / n                          | target's       | >= 0   |
  | delta_k    | 100 sum w [max(p / t, t / p) < 1.25^k] / n       | percent        | 0..100 |
  | badpix     | 100 sum w [abs(p - t) > 0.07] / n                | percent        | 0..100 |
  | bumpiness  | 100 sum w min(Hessian norm of (p - t), 0.05) / n | target's, x100 | 0..5   |
  | mae        | sum w abs(p - t) / n                             | target's       | >= 0   |

  Pixels with p <= 0 are left out of the sum of log_rms but not of its n, as in the published code, and fail every
  delta. NaN or infinity in the prediction fails every delta and is a bad pixel; NaN makes the other measures NaN,
  infinity makes them infinite and bumpiness NaN. The thresholds of badpix and bumpiness are absolute, in disparity px
  of DDFF-12. `mae` is not part of the benchmark.

  Args:
    prediction: any values; invalid pixels only affect bumpiness, next to a valid pixel.
    target: any values where `valid` is 0; taken as 0 there.
    valid: weight of each pixel, 0 .. 1.

  Returns:
    One value per image and name of `NAMES`. All are NaN if no pixel is valid. Logarithms and ratios (log_rms, abs_rel,
      sqr_rel, delta) are also NaN for images with targets <= 0 (signed disparities), where they are undefined.
  """
  return from_sums(pixel_sums(prediction, target, valid))


def pixel_sums(
  prediction: Float[Array, '*B H W'], target: Float[Array, '*B H W'], valid: Float[Array, '*B H W']
) -> dict[str, Float[Array, '*B']]:
  """The sums over an image's pixels from which `per_image` is computed; sums over parts of an image may be added.

  Returns:
    Sums of w e for each name of `NAMES` but 'rms' (of squares for 'log_rms', not yet in percent), and 'count', n.
    Undefined measures are NaN.
  """
  counted = is_counted(target, valid)
  weight = jnp.where(counted, valid, 0.0)
  t = jnp.where(counted, target, 0.0)
  p = prediction
  error = p - t
  ratio = p / t
  log_error = jnp.where(p <= 0, 0.0, jnp.log(jnp.where(p <= 0, 1.0, p)) - jnp.log(t))
  values = {
    'mse': error**2,
    'log_rms': log_error**2,
    'abs_rel': jnp.abs(error) / t,
    'sqr_rel': error**2 / t,
    # An explicit sign test: for p < 0 both p / t and t / p are negative and would pass.
    **{f'delta_{k}': (p > 0) & (jnp.maximum(ratio, 1 / ratio) < DELTA_RATIO**k) for k in (1, 2, 3)},
    'badpix': ~(jnp.abs(error) <= BAD_PIXEL_PX),  # not `>`, so that NaN is bad
    'bumpiness': jnp.minimum(hessian_norm(error), BUMPINESS_CAP),
    'mae': jnp.abs(error),
    'count': jnp.ones_like(t),
  }
  # `where` and not only a product: pixels that are not counted may be infinite or NaN.
  totals = _sum_pixels(jnp.stack([jnp.where(counted, weight * value, 0.0) for value in values.values()]))
  sums = dict(zip(values, totals, strict=True))
  positive = jnp.all((t > 0) | ~counted, axis=(-2, -1))
  return sums | {name: jnp.where(positive, sums[name], jnp.nan) for name in _RATIOS}


def from_sums(sums: Mapping[str, Float[Array, '*B']]) -> dict[str, Float[Array, '*B']]:
  """The measures of `per_image` from the sums over an image's pixels."""
  values = {name: total / sums['count'] for name, total in sums.items() if name != 'count'}
  values['rms'] = jnp.sqrt(values['mse'])
  values['log_rms'] = jnp.sqrt(values['log_rms'])
  return {name: 100 * values[name] if name in _PERCENT else values[name] for name in NAMES}


def _sum_pixels(x: Float[Array, '*B H W']) -> Float[Array, '*B']:
  """Pairwise sum over the last two axes, whose rounding error grows only with the logarithm of the number of pixels.

  On a CPU XLA adds hundreds of thousands of pixels one by one, which loses three of float32's seven digits.
  """
  x = x.reshape(*x.shape[:-2], -1)
  while x.shape[-1] > 1:
    half = x.shape[-1] // 2
    odd = x[..., 2 * half :]  # one, or none
    x = jnp.concatenate([x[..., :half] + x[..., half : 2 * half], odd], axis=-1)
  return x[..., 0]


def average_uncertainty(weights: Float[Array, '*B N H W'], focus: Float[Array, '*B N']) -> Float[Array, '*B']:
  """avgUnc: mean over all pixels of the standard deviation of the focus distribution, in the unit of `focus`.

  sqrt(sum_n w_n (focus_n - depth)^2) with depth = sum_n w_n focus_n (Yang, Huang and Zhou, CVPR 2022).
  """
  deviation = spread(weights, focus)
  return _sum_pixels(deviation) / (deviation.shape[-2] * deviation.shape[-1])


def sparsification(
  error: Float[Array, 'H W'], confidence: Float[Array, 'H W'], weight: Float[Array, 'H W']
) -> tuple[Float[Array, ' K'], Float[Array, ' K']]:
  """Mean absolute error of the pixels that remain when the least confident ones are removed, share by share.

  A confidence that orders pixels by their errors gives the second curve, the oracle's; an uninformative one gives a
  flat curve (Ilg et al., "Uncertainty estimates and multi-hypotheses networks for optical flow", ECCV 2018, section 5).

  Args:
    error: of each pixel; its sign does not matter. Ignored where `weight` is 0.
    confidence: any numbers, larger for more confident pixels.
    weight: of each pixel, 0 where not measured.

  Returns:
    The curve and the oracle's, with K = `SPARSIFICATION_STEPS` shares of the weight removed: 0, 1 / K, .. (K - 1) / K.
    NaN for an image without weight.
  """
  error = jnp.where(weight > 0, jnp.abs(error), 0.0).ravel()
  weight = weight.ravel()
  # In steps of pixels, the cumulative error of the most certain ones; linear within a pixel's weight.
  left = 1 - jnp.arange(SPARSIFICATION_STEPS) / SPARSIFICATION_STEPS

  def curve(order):
    w = jnp.concatenate([jnp.zeros(1), jnp.cumsum(weight[order])])
    e = jnp.concatenate([jnp.zeros(1), jnp.cumsum(weight[order] * error[order])])
    at = left * w[-1]
    return jnp.interp(at, w, e) / at

  return curve(jnp.argsort(-confidence.ravel())), curve(jnp.argsort(error))


def sparsification_area(curve: Float[np.ndarray, '*B K'], oracle: Float[np.ndarray, '*B K']) -> Float[np.ndarray, '*B']:
  """AUSE: area between curve and oracle, both divided by the error of the whole image; 0 is best.

  By the trapezoidal rule up to the last share of `sparsification`. NaN where the error is 0 or undefined.
  """
  whole = np.where(curve[..., :1] > 0, curve[..., :1], np.nan)
  between = (curve - oracle) / whole
  return np.asarray((between[..., 1:] + between[..., :-1]).sum(-1) / 2 / SPARSIFICATION_STEPS)


def error_by_depth(
  error: Float[Array, 'H W'], place: Float[Array, 'H W'], weight: Float[Array, 'H W']
) -> Float[Array, '3 K']:
  """Sums of w, w |error| and w error over the pixels in each of K = `DEPTH_BINS` equal parts of the focus range.

  Args:
    error: p - t. Ignored where `weight` is 0.
    place: of the target in the focus range, 0 for the farthest frame, 1 for the nearest; beyond it, the last bins.
    weight: of each pixel.
  """
  bins = jnp.clip(jnp.nan_to_num(place * DEPTH_BINS), 0, DEPTH_BINS - 1).astype(jnp.int32).ravel()
  error = jnp.where(weight > 0, error, 0.0)
  values = jnp.stack([weight, weight * jnp.abs(error), weight * error]).reshape(3, -1)
  return jnp.zeros((3, DEPTH_BINS)).at[:, bins].add(values)


def hessian_norm(d: Float[Array, '*B H W']) -> Float[Array, '*B H W']:
  """Frobenius norm of the Hessian of a map in the benchmark's scale: Scharr's derivative applied twice, edges repeated.

  One derivative is a convolution with [[3, 10, 3], [0, 0, 0], [-3, -10, -3]] / 16 or its transpose: a difference over
  two pixels, twice the slope, so that the result is four times the norm of the true Hessian. The two mixed
  derivatives differ at the border, where repeating the edge and differentiating do not commute, so both are computed.
  """
  first = [_scharr(d, axis) for axis in (-2, -1)]
  return jnp.sqrt(sum(_scharr(derivative, axis) ** 2 for derivative in first for axis in (-2, -1)))


def _scharr(d: Float[Array, '*B H W'], axis: int) -> Float[Array, '*B H W']:
  """d[i + 1] - d[i - 1] along `axis`, smoothed across it by (3, 10, 3) / 16, edges repeated."""

  def neighbours(x, axis):
    pad = [(0, 0)] * x.ndim
    pad[axis] = (1, 1)
    padded = jnp.pad(x, pad, mode='edge')
    size = x.shape[axis]
    return [jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in range(3)]

  before, _, after = neighbours(d, axis)
  before, centre, after = neighbours(after - before, -3 - axis)  # -1 <-> -2
  return (3 * (before + after) + 10 * centre) / 16
