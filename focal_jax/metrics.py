"""The DDFF-12 benchmark's error measures, per image, and their exact mean over images.

Definitions are those of the published evaluation code of DDFF-12 (Hazirbas et al., ACCV 2018). In this module

  p  prediction,   t  target,   w  weight of a pixel: `valid` where the target is not 0, else 0,   n = sum of w.

A target of 0 means "unknown" in every data set that we read, so `restrict` and the files need no second mask. With the
usual mask of zeros and ones the weighted means below are means over the valid pixels. Units are those of the target.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# The benchmark's valid range, disparity px. These are its rounded constants, not optics' exact B f / 7 m = 0.020177 and
# B f / 0.5 m = 0.282475: a point at exactly 7 m is left out, one at exactly 0.5 m is in.
DDFF_LOW_PX, DDFF_HIGH_PX = 0.0202, 0.2825

BAD_PIXEL_PX = 0.07
BUMPINESS_CAP = 0.05
DELTA_RATIO = 1.25

NAMES = (
  'mse', 'rms', 'log_rms', 'abs_rel', 'sqr_rel', 'delta_1', 'delta_2', 'delta_3', 'badpix', 'bumpiness', 'mae',
)  # fmt: skip


def restrict(target: Float[Array, '*S'], low: float, high: float) -> Float[Array, '*S']:
  """The target where it lies in [low, high], both ends included, and 0 (unknown) elsewhere, NaN included."""
  return jnp.where((target >= low) & (target <= high), target, 0.0)


def has_target(
  target: Float[Array | np.ndarray, '*B H W'], valid: Float[Array | np.ndarray, '*B H W']
) -> Bool[Array, '*B']:
  """Whether an image has any pixel to measure: only then are its `per_image` values defined."""
  return jnp.any((valid > 0) & (target != 0), axis=(-2, -1))


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

  Pixels with p <= 0 leave the sum of log_rms, not its n, as in the published code, and fail every delta. A NaN or an
  infinity in the prediction is a failed delta and a bad pixel; NaN makes the other measures NaN, infinity makes them
  infinite and bumpiness NaN. The thresholds of badpix and bumpiness are absolute, for disparity px of DDFF-12. `mae` is
  not among the benchmark's.

  Args:
    prediction: any values; what lies under invalid pixels counts in bumpiness only, where it touches a valid one.
    target: 0 where unknown.
    valid: weight of each pixel, 0 .. 1.

  Returns:
    One value per image and name of `NAMES`. All are NaN where `has_target` is false. Logarithms and ratios (log_rms,
    abs_rel, sqr_rel, delta) are NaN too for an image with negative targets (signed disparities), without meaning there.
  """
  counted = (valid > 0) & (target != 0)
  weight = jnp.where(counted, valid, 0.0)
  n = jnp.sum(weight, axis=(-2, -1))

  def mean(value):  # `where` and not only a product: what is not counted may be infinite or NaN
    return jnp.sum(jnp.where(counted, weight * value, 0.0), axis=(-2, -1)) / n

  t = jnp.where(counted, target, 0.0)
  p = prediction
  error = p - t
  ratio = p / t
  log_error = jnp.where(p <= 0, 0.0, jnp.log(jnp.where(p <= 0, 1.0, p)) - jnp.log(t))
  mse = mean(error**2)

  # An explicit sign test: for p < 0 both p / t and t / p are negative and would pass.
  deltas = {f'delta_{k}': 100 * mean((p > 0) & (jnp.maximum(ratio, 1 / ratio) < DELTA_RATIO**k)) for k in (1, 2, 3)}
  relative = {
    'log_rms': jnp.sqrt(mean(log_error**2)),
    'abs_rel': mean(jnp.abs(error) / t),
    'sqr_rel': mean(error**2 / t),
    **deltas,
  }
  positive = jnp.all(t >= 0, axis=(-2, -1))
  values = {
    'mse': mse,
    'rms': jnp.sqrt(mse),
    **{name: jnp.where(positive, value, jnp.nan) for name, value in relative.items()},
    'badpix': 100 * mean(~(jnp.abs(error) <= BAD_PIXEL_PX)),  # so written, NaN is bad
    'bumpiness': 100 * mean(jnp.minimum(hessian_norm(error), BUMPINESS_CAP)),
    'mae': mean(jnp.abs(error)),
  }
  return {name: values[name] for name in NAMES}


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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MetricSums:
  """Sums over images and the number of images, so that means over ragged batches and devices are exact.

  A ragged last batch is padded with images without valid pixels: they, and real images without any, leave the mean.
  Sums of several devices are added leaf by leaf (`jax.lax.psum(sums, axis)`, or `jax.tree.map` with a sum).

  Attributes:
    totals: sum over the counted images, for each name.
    count: number of counted images.
  """

  totals: dict[str, Float[Array | np.ndarray, '*D']]
  count: Int[Array | np.ndarray, '*D']

  @classmethod
  def zero(cls, names: Iterable[str] = NAMES) -> 'MetricSums':
    """No images yet."""
    return cls({name: jnp.zeros(()) for name in names}, jnp.zeros((), jnp.int32))

  def add(self, values: Mapping[str, Float[Array, '*B']], counted: Bool[Array, '*B']) -> 'MetricSums':
    """Adds a batch of images.

    Args:
      values: what `per_image` returns, or more or fewer names, but those of `zero`.
      counted: which images enter, as a rule `has_target`; values of the others may be NaN.

    Raises:
      KeyError: the names are not those of this sum.
    """
    if set(values) != set(self.totals):
      raise KeyError(f'metrics {sorted(values)}, expected {sorted(self.totals)}')
    totals = {name: total + jnp.sum(jnp.where(counted, values[name], 0.0)) for name, total in self.totals.items()}
    return MetricSums(totals, self.count + jnp.sum(counted, dtype=jnp.int32))

  def mean(self) -> dict[str, Float[Array, '*D']]:
    """Mean over the counted images; NaN if there are none."""
    return {name: total / self.count for name, total in self.totals.items()}
