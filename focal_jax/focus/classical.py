"""Depth from focus without learning: the baseline for networks, and the method that needs no weights.

1. A focus measure: how much fine detail each frame shows around each pixel (`focus_measure`, one of `MEASURES`).
2. The frame where it peaks, with sub-frame precision from a Gaussian through three frames (`gaussian_peak`).
3. Pixels without texture have no peak: they take the depth of textured neighbours at the finest scale that has any
   (`fill`).
4. Edge-aware smoothing, weighted by confidence and guided by the all-in-focus image (`guided_filter`).

Step 2 is Nayar and Nakagawa, "Shape from focus", PAMI 1994; step 3 is the pull-push of Gortler et al., "The lumigraph",
SIGGRAPH 1996, section 3.4; step 4 is He, Sun and Tang, "Guided image filtering", ECCV 2010, with weights. The frames
must be aligned: a pixel is compared with itself in the other frames.
"""

import functools
import math
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Int, Shaped

from focal_jax.errors import InputError
from focal_jax.focus.fill import fill

LUMA = (0.299, 0.587, 0.114)  # of R, G, B; ITU-R BT.601
MEASURES = ('laplacian', 'ring_difference', 'tenengrad')
# Defaults of `depth_from_focus`, chosen on the training crops of DDFF-12.
STEP_PX, RING_PX, WINDOW_PX, MARGIN_PX = 2, (1.0, 2.0, 3.0), 1.5, 5
NOISE, SMOOTHNESS, GUIDE_RADIUS_PX, GUIDE_CONTRAST = 0.04, 2.0, 16, 0.05
SLOPE_RIDGE = 1e-3  # ridge of the guided filter's coordinates, whose variance is 1 / 3
SOBEL = np.outer((1, 2, 1), (-1, 0, 1))  # along x
LAPLACIAN = np.array(((0, 1, 0), (1, -4, 1), (0, 1, 0)))


@functools.partial(
  jax.jit, static_argnames=('measure', 'step_px', 'ring_px', 'window_px', 'margin_px', 'guide_radius_px')
)
def depth_from_focus(
  images: Float[Array, 'N H W 3'],
  focus: Float[Array, ' N'] | None,
  measure: str = 'ring_difference',
  step_px: int = STEP_PX,
  ring_px: tuple[float, float, float] = RING_PX,
  window_px: float = WINDOW_PX,
  margin_px: int = MARGIN_PX,
  noise: float = NOISE,
  smoothness: float = SMOOTHNESS,
  guide_radius_px: int = GUIDE_RADIUS_PX,
  guide_contrast: float = GUIDE_CONTRAST,
) -> tuple[Float[Array, 'H W'], Float[Array, 'H W']]:
  """Depth and confidence of one aligned stack; use `jax.vmap` for batches. `focus.frame_by_frame` does the same in less
  memory.

  Args:
    images: RGB, 0 .. 1. Any number of frames, even one.
    focus: focus coordinate of each frame, in any unit and spacing, ascending or descending. None: the frames' index.
    measure: one of `MEASURES`.
    step_px: for 'laplacian', see `modified_laplacian`; larger is less sensitive to noise.
    ring_px: for 'ring_difference', see `ring_difference`.
    window_px: standard deviation of the Gaussian window that sums the measure.
    margin_px: width of a border that is ignored, because alignment or refocusing extrapolates there, and replaced by
      repeating the pixels inside. At least the centre of a small image is kept.
    noise: standard deviation of white noise, in luminance 0 .. 1. Responses up to that of this noise count as no
      texture; a larger value trusts weak texture less.
    smoothness: weight of the next coarser scale for a pixel with the mean weight of the stack, relative to its own.
    guide_radius_px: half the window width of the edge-aware smoothing; 0 for none.
    guide_contrast: standard deviation of the all-in-focus luminance, 0 .. 1, above which a window counts as an edge.

  Returns:
    depth: in the unit of `focus` and within its range.
    confidence: prominence of the peak, 0 .. 1: 1 - lowest / highest focus measure over the frames, with noise added to
      both. 0 without texture or for one frame.

  Raises:
    InputError: unknown measure.
  """
  response = focus_measure(images, step_px, window_px, margin_px, measure, ring_px)
  index, lowest, highest = gaussian_peak(response), jnp.min(response, axis=0), jnp.max(response, axis=0)
  frames = images.shape[0]
  texture_less = noise_response(measure, noise, ring_px)
  index, confidence, weight = filled_index(index, lowest, highest, frames, texture_less, smoothness)
  if guide_radius_px:
    luma = guide_luma(luminance(images), margin_px)
    index = guided_filter(index, all_in_focus(luma, index), weight, guide_radius_px, guide_contrast)
  return in_unit(index, focus, frames), confidence


def filled_index(
  index: Float[Array, 'H W'],
  lowest: Float[Array, 'H W'],
  highest: Float[Array, 'H W'],
  frames: Any,
  texture_less: Float[Array, ''] | float,
  smoothness: Float[Array, ''] | float,
) -> tuple[Float[Array, 'H W'], Float[Array, 'H W'], Float[Array, 'H W']]:
  """The index of the peak with its holes filled, the confidence in it, and its weight for what follows.

  Args:
    lowest, highest: focus measure over the frames.
    frames: how many there are; an integer of the host or the device, or, of an export, any.
    texture_less: that of noise alone.
    smoothness: as of `depth_from_focus`.
  """
  # Added to both ends of the ratio, the response to noise keeps faint texture from looking certain.
  confidence = 1.0 - (lowest + texture_less) / (highest + texture_less)
  # The standard deviation of a peak's position is inversely proportional to its contrast, so its inverse variance is
  # proportional to the square.
  weight = confidence**2
  # Without any texture at all the result is the middle frame. The floor avoids 0 / 0.
  mean_weight = jnp.maximum(jnp.mean(weight), 1e-20)
  index = fill(index, weight, smoothness * mean_weight, jnp.asarray(frames - 1, index.dtype) / 2)
  # Measured pixels weigh 1 on average. Every pixel weighs 1 more, because filled-in depth counts, too.
  return index, confidence, 1 + weight / mean_weight


def guide_luma(luma: Float[Array, 'N H W'], margin_px: int) -> Float[Array, 'N H W']:
  """Luminance from which the guide of the edge-aware smoothing is made."""
  luma = _repeat_margin(luma, margin_px)
  # Frames may differ in brightness: without this, edges of the index would show up as edges of the guide.
  return luma - jnp.mean(luma, axis=(1, 2), keepdims=True)


def in_unit(
  index: Float[Array, 'H W'], focus: Float[Array | np.ndarray, ' N'] | None, frames: Any
) -> Float[Array, 'H W']:
  """Converts an index to a focus coordinate: linear between neighbouring frames, which need not be evenly spaced."""
  return index if focus is None else jnp.interp(index, jnp.arange(frames, dtype=index.dtype), focus)


def luminance(images: Float[Array, '*S 3']) -> Float[Array, '*S']:
  """Luminance of RGB images, in their own range; linear, so it also applies to linear combinations."""
  # 'highest': focus measures use differences of neighbours, which the bfloat16 of TPUs would round away.
  return jnp.matmul(images, jnp.asarray(LUMA, images.dtype), precision=lax.Precision.HIGHEST)


def luminance_on_host(images: Shaped[np.ndarray, '*S 3']) -> Float32[np.ndarray, '*S']:
  """`luminance` of NumPy arrays of any type, in their own range."""
  return np.asarray(images, np.float32) @ np.array(LUMA, np.float32)


def focus_measure(
  images: Float[Array, 'N H W 3'],
  step_px: int,
  window_px: float,
  margin_px: int = 0,
  measure: str = 'laplacian',
  ring_px: tuple[float, float, float] = RING_PX,
) -> Float[Array, 'N H W']:
  """One of `MEASURES` of the luminance, Gaussian-averaged, without a border of `margin_px` (`depth_from_focus`).

  Edges are repeated. Unaffected by a constant added to a frame.

  Raises:
    InputError: unknown measure.
  """
  return focus_measure_of_luma(luminance(images), step_px, window_px, margin_px, measure, ring_px)


def focus_measure_of_luma(
  luma: Float[Array, 'N H W'],
  step_px: int = STEP_PX,
  window_px: float = WINDOW_PX,
  margin_px: int = MARGIN_PX,
  measure: str = 'ring_difference',
  ring_px: tuple[float, float, float] = RING_PX,
) -> Float[Array, 'N H W']:
  """`focus_measure` of luminance."""
  _check_measure(measure)
  if measure == 'laplacian':
    energy = modified_laplacian(luma, step_px)
  else:
    energy = ring_difference(luma, ring_px) if measure == 'ring_difference' else tenengrad(luma)
  return gaussian_window(_repeat_margin(energy, margin_px), window_px)


def noise_response(
  measure: str, noise: Float[Array, ''] | float, ring_px: tuple[float, float, float] = RING_PX
) -> Float[Array, ''] | float:
  """Expected focus measure of white Gaussian noise with standard deviation `noise` in luminance.

  A kernel k maps such noise to a Gaussian of variance noise^2 sum k^2, whose mean absolute value is sqrt(2 / pi) times
  its standard deviation. Two second differences with sum k^2 = 6; one ring difference; the squares of two Sobel
  gradients with sum k^2 = 12.

  Raises:
    InputError: there is no such measure.
  """
  _check_measure(measure)
  if measure == 'tenengrad':
    return 24 * noise**2
  if measure == 'laplacian':
    return 2 * math.sqrt(2 / math.pi * 6) * noise
  return math.sqrt(2 / math.pi * float(np.sum(_ring_kernel(ring_px) ** 2))) * noise


def _check_measure(measure: str) -> None:
  if measure not in MEASURES:
    raise InputError(f"focus measure is '{measure}', expected one of {', '.join(MEASURES)}")


def modified_laplacian(luma: Float[Array, 'N H W'], step_px: int) -> Float[Array, 'N H W']:
  """|2 I - I(x - s) - I(x + s)| + |2 I - I(y - s) - I(y + s)|, 0 .. 4 for luminance 0 .. 1.

  Absolute values are taken per axis, since the two second derivatives would cancel at a saddle (Nayar and Nakagawa,
  equation 2).
  """
  kernel = np.zeros((1, 2 * step_px + 1))
  kernel[0, [0, step_px, -1]] = -1, 2, -1
  return jnp.abs(correlate(luma, kernel)) + jnp.abs(correlate(luma, kernel.T))


def ring_difference(luma: Float[Array, 'N H W'], ring_px: tuple[float, float, float]) -> Float[Array, 'N H W']:
  """|mean over a disc - mean over a ring around it|, 0 .. 1 for luminance 0 .. 1.

  Surh et al., "Noise robust depth from focus using a ring difference filter", CVPR 2017. Means over several
  pixels suppress noise; the gap leaves out pixels where detail blurs from the disc into the ring.

  Args:
    luma: luminance.
    ring_px: radius of the disc, inner and outer radius of the ring; pixels whose centres lie on a circle belong to it.
  """
  return jnp.abs(correlate(luma, _ring_kernel(ring_px)))


def _ring_kernel(ring_px: tuple[float, float, float]) -> np.ndarray:
  disc, inner, outer = ring_px
  reach = math.floor(outer)
  y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
  distance = np.hypot(x, y)
  in_disc, in_ring = distance <= disc, (inner <= distance) & (distance <= outer)
  return in_disc / np.sum(in_disc) - in_ring / np.sum(in_ring)


def tenengrad(luma: Float[Array, 'N H W']) -> Float[Array, 'N H W']:
  """Squared magnitude of the Sobel gradient, 0 .. 20 for luminance 0 .. 1.

  Krotkov, "Focusing", IJCV 1987; TENG of Pertuz et al., "Analysis of focus measure operators for shape-from-focus",
  Pattern Recognition 2013.
  """
  return correlate(luma, SOBEL) ** 2 + correlate(luma, SOBEL.T) ** 2


def correlate(x: Float[Array, 'N H W'], kernel: np.ndarray) -> Float[Array, 'N H W']:
  """Correlation with a small kernel of odd size, edges repeated.

  A sum of shifted images: on CPUs faster than a convolution of one channel (twice as fast for 13 taps).
  """
  _, height, width = x.shape
  rows, columns = kernel.shape
  pad = ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2))
  padded = jnp.pad(x, pad, mode='edge')
  return sum(
    float(kernel[i, j]) * padded[:, i : i + height, j : j + width] for i, j in np.argwhere(kernel != 0).tolist()
  )


def _repeat_margin(x: Float[Array, 'N H W'], margin_px: int) -> Float[Array, 'N H W']:
  """Replaces the outermost pixels by the nearest ones inside; at most all but the centre."""
  _, height, width = x.shape
  is_symbolic = jax.export.is_symbolic_dim(height)  # of an export, at least 32 px
  margin = margin_px if is_symbolic else min(margin_px, (min(height, width) - 1) // 2)
  inner = x[:, margin : height - margin, margin : width - margin]
  return jnp.pad(inner, ((0, 0), (margin, margin), (margin, margin)), mode='edge')


def gaussian_window(x: Float[Array, 'N H W'], sigma_px: float) -> Float[Array, 'N H W']:
  """Separable Gaussian average, cut at 3 sigma, edges repeated."""
  radius = max(1, round(3 * sigma_px))  # at least the two neighbours
  taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_px) ** 2)
  by_shifts, by_matrices = (
    functools.partial(function, taps=taps / np.sum(taps)) for function in (separable_by_shifts, separable_by_matrices)
  )
  height, width = x.shape[1:]
  if jax.export.is_symbolic_dim(height) or max(height, width) > _LARGEST_MATRIX:
    return by_shifts(x)
  # Shifts move values between a TPU's lanes: for ten frames of 224 px its compiler estimates 0.27 Mcycles for a sigma
  # of 1.5 px and 0.73 for 4 px, but 0.03 for matrices, although most of their entries are zero (v5e, compiled, not
  # run).
  return lax.platform_dependent(x, tpu=by_matrices, default=by_shifts)


_LARGEST_MATRIX = 1024  # px, about where products take a TPU as long as shifts


def separable_by_shifts(x: Float[Array, 'N H W'], taps: np.ndarray) -> Float[Array, 'N H W']:
  """Correlation with an odd number of taps along y and along x, edges repeated."""
  return correlate(correlate(x, taps[:, None]), taps[None])


def separable_by_matrices(x: Float[Array, 'N H W'], taps: np.ndarray) -> Float[Array, 'N H W']:
  """`separable_by_shifts` as two matrix products."""
  # XLA would compute the shifts of a focus measure inside the first product, for which a TPU's memory does not suffice.
  x = lax.optimization_barrier(x)
  along_y, along_x = (_taps_matrix(taps, length).astype(x.dtype) for length in x.shape[1:])
  rows = jnp.einsum('yj,nji->nyi', along_y, x, precision=lax.Precision.HIGHEST)
  return jnp.einsum('xi,nyi->nyx', along_x, rows, precision=lax.Precision.HIGHEST)


def _taps_matrix(taps: np.ndarray, length: int) -> np.ndarray:
  """[length, length]: each row has the taps around its own position; those beyond an end are added to the end."""
  reach = len(taps) // 2
  matrix, place = np.zeros((length, length)), np.arange(length)
  for offset, weight in zip(range(-reach, reach + 1), taps, strict=True):
    np.add.at(matrix, (place, np.clip(place + offset, 0, length - 1)), weight)
  return matrix


def gaussian_peak(measure: Float[Array, 'N H W']) -> Float[Array, 'H W']:
  """Frame index 0 .. N - 1 of the measure's peak, between frames by a Gaussian through three.

  With L = ln(measure) and the largest one at i: i + (L[i+1] - L[i-1]) / (2 (2 L[i] - L[i-1] - L[i+1])), exact if the
  measure is a Gaussian of the index. At most half a frame from i, because L[i] is the largest. A peak at the first
  or last frame has one neighbour only and stays there.
  """
  n = measure.shape[0]
  peak = jnp.argmax(measure, axis=0)

  def at(k):
    return jnp.take_along_axis(measure, jnp.clip(k, 0, n - 1)[None], axis=0)[0]

  return between_frames(peak, n, at(peak - 1), at(peak), at(peak + 1))


def between_frames(
  peak: Int[Array, 'H W'],
  n: Int[Array, ''] | int,
  before: Float[Array, 'H W'],
  top: Float[Array, 'H W'],
  after: Float[Array, 'H W'],
) -> Float[Array, 'H W']:
  """`gaussian_peak` from the index of the largest measure of n frames, that measure, and its neighbours'."""
  # Not ln(0): a difference of infinities would be NaN.
  before, top, after = (jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny)) for x in (before, top, after))
  curvature = 2 * top - before - after
  bracketed = (peak > 0) & (peak < n - 1) & (curvature > 0)
  return peak + jnp.where(bracketed, (after - before) / (2 * jnp.where(bracketed, curvature, 1.0)), 0.0)


def all_in_focus(luma: Float[Array, 'N H W'], index: Float[Array, 'H W']) -> Float[Array, 'H W']:
  """Each pixel from the frame where it is sharpest, linear between two frames for an index between them."""
  last = luma.shape[0] - 1
  low = jnp.clip(jnp.floor(index).astype(int), 0, last)
  before, after = (jnp.take_along_axis(luma, k[None], axis=0)[0] for k in (low, jnp.minimum(low + 1, last)))
  return before + (after - before) * (index - low)


def guided_filter(
  value: Float[Array, 'H W'],
  guide: Float[Array, 'H W'],
  weight: Float[Array, 'H W'],
  radius_px: int,
  contrast: Float[Array, ''] | float,
) -> Float[Array, 'H W']:
  """Edge-aware smoothing: each window fits the value by a guide + b x + c y + d, each pixel averages its windows' fits.

  He, Sun and Tang, ECCV 2010, equations 5 to 8, with the coordinates as two more guides, so that slopes are kept up to
  the border, with weighted means, and with windows weighted by their total weight. Time grows only with the logarithm
  of the window.

  Args:
    value: what to smooth.
    guide: its edges are kept if they exceed `contrast`.
    weight: of each pixel's value, >= 0.
    radius_px: windows are squares of 2 radius + 1 pixels, cut off at the border; at least 1.
    contrast: square root of the paper's epsilon, in the unit of the guide, > 0. Epsilon for coordinates is
      `SLOPE_RIDGE` radius^2 (their variance in a window is a third of radius^2).

  Returns:
    The smoothed value; the value itself where all weights within 2 radius are 0.
  """
  total = jnp.sum(weight)  # 0 in an image without any weight
  share = weight / jnp.where(total > 0, total, 1.0)
  # Centred, because mean(x y) - mean(x) mean(y) would otherwise cancel in float32.
  centre = jnp.sum(share * value)
  p = value - centre
  y, x = ((jnp.arange(n, dtype=p.dtype) - (n - 1) / 2) / radius_px for n in p.shape)
  guides = [guide - jnp.sum(share * guide), *jnp.broadcast_arrays(x[None], y[:, None])]
  ridges = (contrast**2, SLOPE_RIDGE, SLOPE_RIDGE)
  pairs = [(i, j) for i in range(3) for j in range(i, 3)]

  moments = [jnp.ones_like(p), p, *guides, *(g * p for g in guides), *(guides[i] * guides[j] for i, j in pairs)]
  sums = _window_sum(weight * jnp.stack(moments), radius_px)
  weights = sums[0]
  means = sums[1:] / jnp.where(weights > 0, weights, 1.0)
  mean_p, mean_g = means[0], means[1:4]
  target = means[4:7] - mean_g * mean_p
  rows = [[jnp.zeros_like(p)] * 3 for _ in range(3)]
  for k, (i, j) in enumerate(pairs):
    rows[i][j] = rows[j][i] = means[7 + k] - mean_g[i] * mean_g[j] + (ridges[i] if i == j else 0.0)
  r0, r1, r2 = (jnp.stack(row) for row in rows)
  # Cramer's rule: of a symmetric matrix, the rows' cross products are the rows of its adjugate.
  adjugate = [jnp.cross(*two, axis=0) for two in ((r1, r2), (r2, r0), (r0, r1))]
  determinant = jnp.sum(r0 * adjugate[0], axis=0)
  slopes = jnp.stack([jnp.sum(row * target, axis=0) for row in adjugate]) / determinant

  # A pixel lies in many windows: average their fits, by the windows' weights (He et al., equation 8).
  fits = _window_sum(
    weights * jnp.stack([jnp.ones_like(p), mean_p - jnp.sum(slopes * mean_g, axis=0), *slopes]), radius_px
  )
  known = fits[0] > 0
  smooth = fits[1] + sum(slope * g for slope, g in zip(fits[2:], guides, strict=True))
  return jnp.where(known, centre + smooth / jnp.where(known, fits[0], 1.0), value)


def _window_sum(x: Float[Array, 'K H W'], radius: int) -> Float[Array, 'K H W']:
  """Sum over squares of 2 radius + 1 pixels, 0 beyond the border; from sums of 1, 2, 4, ... pixels, for each axis."""
  x = jnp.pad(x, ((0, 0), (radius, radius), (radius, radius)))
  size = 2 * radius + 1
  for axis in (1, 2):
    length = x.shape[axis] - size + 1
    power, begin, total = 1, 0, 0.0  # x holds sums of `power` pixels
    while True:
      if size & power:
        total += jax.lax.slice_in_dim(x, begin, begin + length, axis=axis)
        begin += power
      if 2 * power > size:
        break
      before, after = (jax.lax.slice_in_dim(x, k, x.shape[axis] - power + k, axis=axis) for k in (0, power))
      x, power = before + after, 2 * power
    x = total
  return x
